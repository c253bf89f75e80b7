"""The local model behind OpenAI's `/v1/embeddings`, for a team or for tests.

    GET  /v1/models             the one model there is
    POST /v1/embeddings         model, input, encoding_format (float, base64), dimensions
    GET  /health                200 when it answers

Requests are read side by side and embedded one after the other, each on every core. Errors have the shape that
OpenAI's have. It is meant for a trusted network: it listens on the loopback address unless told otherwise.
"""

import base64
import hmac
import json
import threading
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import numpy.typing as npt

from tributary.embed.local import LocalEmbedder
from tributary.embed.projection import FULL_WIDTH, reduced
from tributary.embed.weights import MODEL

MAX_INPUTS = 2048
MAX_BODY_BYTES = 32 << 20
_READ_SECONDS = 60.0


class RequestError(Exception):
    """A request that is answered with an error.

    Args:
        status: The status of the answer.
        message: What is wrong.
        param: The field it is about.
        code: OpenAI's name for it.
    """

    def __init__(self, status: HTTPStatus, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code

    def body(self) -> dict[str, Any]:
        """The answer."""
        kind = "server_error" if self.status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


class EmbeddingServer(ThreadingHTTPServer):
    """The server; `serve_forever` answers until `shutdown`.

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 for any that is free.
        embedder: The model at full width.
        api_key: Required of every request when it is not empty.
    """

    daemon_threads = True

    def __init__(self, host: str, port: int, embedder: LocalEmbedder, *, api_key: str = "") -> None:
        super().__init__((host, port), _Handler)
        self._embedder = embedder
        self._api_key = api_key
        self._one_at_a_time = threading.Lock()

    @property
    def url(self) -> str:
        """What a client names as base address."""
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}/v1"

    def is_allowed(self, authorization: str | None) -> bool:
        """Whether a request shows the key."""
        shown = (authorization or "").encode("utf-8", "replace")
        return not self._api_key or hmac.compare_digest(shown, f"Bearer {self._api_key}".encode())

    def embeddings(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to one request.

        Args:
            request: Its body.

        Raises:
            RequestError: It asks for something impossible.
        """
        texts = _texts(request)
        is_base64 = _is_base64(request)
        dimension = _dimension(request)
        if request.get("model") != MODEL:
            message = f"the model {request.get('model')!r} does not exist; this server has {MODEL}"
            raise RequestError(HTTPStatus.NOT_FOUND, message, param="model", code="model_not_found")
        with self._one_at_a_time:
            tokens = sum(map(len, self._embedder.token_ids(texts)))
            vectors = self._embedder.embed(texts)
        if dimension != FULL_WIDTH:
            vectors = reduced(vectors, dimension)
        data = [
            {"object": "embedding", "index": idx, "embedding": _encoded(vector, is_base64)}
            for idx, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {"object": "list", "data": data, "model": MODEL, "usage": usage}


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: EmbeddingServer
    protocol_version = "HTTP/1.1"
    timeout = _READ_SECONDS
    server_version = "tributary"
    sys_version = ""
    wbufsize = -1  # head and body of an answer leave together

    def do_GET(self) -> None:
        self._answer({"/health": self._health, "/v1/models": self._models, f"/v1/models/{MODEL}": self._model})

    def do_POST(self) -> None:
        self._answer({"/v1/embeddings": self._embeddings})

    def _answer(self, roads: Mapping[str, Any]) -> None:
        try:
            road = roads.get(self.path.partition("?")[0].rstrip("/"))
            content = self._body()
            if road is None:
                raise RequestError(HTTPStatus.NOT_FOUND, f"there is no {self.command} {self.path}")
            if road != self._health and not self.server.is_allowed(self.headers.get("Authorization")):
                raise RequestError(HTTPStatus.UNAUTHORIZED, "the API key is wrong or missing", code="invalid_api_key")
            self._send(HTTPStatus.OK, road(content))
        except RequestError as error:
            self._send(error.status, error.body())
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        except Exception as error:
            failure = RequestError(HTTPStatus.INTERNAL_SERVER_ERROR, f"the model failed ({type(error).__name__})")
            self._send(failure.status, failure.body())
            raise

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "0")
        if self.headers.get("Transfer-Encoding") or not length.isdigit():
            self.close_connection = True
            raise RequestError(HTTPStatus.LENGTH_REQUIRED, "the request must say its Content-Length")
        if int(length) > MAX_BODY_BYTES:
            self.close_connection = True
            message = f"the request has {int(length):,} bytes, more than {MAX_BODY_BYTES:,}"
            raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)
        return self.rfile.read(int(length))

    def _send(self, status: HTTPStatus, content: Mapping[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def _health(self, _: bytes) -> dict[str, Any]:
        return {"status": "ok"}

    def _models(self, _: bytes) -> dict[str, Any]:
        return {"object": "list", "data": [self._model(b"")]}

    def _model(self, _: bytes) -> dict[str, Any]:
        return {"id": MODEL, "object": "model", "created": 0, "owned_by": "tributary"}

    def _embeddings(self, content: bytes) -> dict[str, Any]:
        try:
            request = json.loads(content)
        except ValueError:
            raise RequestError(HTTPStatus.BAD_REQUEST, "the body is not JSON") from None
        if not isinstance(request, dict):
            raise RequestError(HTTPStatus.BAD_REQUEST, "the body is not an object")
        return self.server.embeddings(request)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Says nothing: requests hold people's data."""


def _texts(request: Mapping[str, Any]) -> list[str]:
    given = request.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        message = "input must be a string or a list of strings; token ids are those of another model"
        raise RequestError(HTTPStatus.BAD_REQUEST, message, param="input")
    if not 1 <= len(texts) <= MAX_INPUTS:
        message = f"input must hold between 1 and {MAX_INPUTS:,} strings, found {len(texts):,}"
        raise RequestError(HTTPStatus.BAD_REQUEST, message, param="input")
    if "" in texts:
        raise RequestError(HTTPStatus.BAD_REQUEST, f"input {texts.index('')} is empty", param="input")
    return texts


def _is_base64(request: Mapping[str, Any]) -> bool:
    form = request.get("encoding_format", "float")
    if form not in ("float", "base64"):
        message = f"encoding_format must be float or base64, found {form!r}"
        raise RequestError(HTTPStatus.BAD_REQUEST, message, param="encoding_format")
    return bool(form == "base64")


def _dimension(request: Mapping[str, Any]) -> int:
    dimension = request.get("dimensions")
    if dimension is None:
        return FULL_WIDTH
    if type(dimension) is not int or not (8 <= dimension <= 256 or dimension == FULL_WIDTH):
        message = f"dimensions must be between 8 and 256, or {FULL_WIDTH}, found {dimension!r}"
        raise RequestError(HTTPStatus.BAD_REQUEST, message, param="dimensions")
    return dimension


def _encoded(vector: npt.NDArray[np.float32], is_base64: bool) -> str | list[float]:
    if is_base64:
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    numbers: list[float] = vector.tolist()
    return numbers
