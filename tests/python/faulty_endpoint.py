"""An embedding endpoint that fails on command and remembers what it was asked and what it delivered."""

import base64
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from tributary.embed import FeatureHashEmbedder

WIDTH = 48
KEY = "sk-very-secret-key"

Fault = Callable[["Handler", list[str]], bool]
"""Answers a request in its own way; True when it has, False to let the request be answered as it should be."""


def true_vectors(texts: list[str]) -> np.ndarray:
    return FeatureHashEmbedder(WIDTH).embed(texts)


class FaultyEndpoint(ThreadingHTTPServer):
    """Takes one fault from `faults` per request; with `always`, that fault for every request."""

    daemon_threads = True

    def __init__(self, *faults: Fault, always: Fault | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults = list(faults)
        self.always = always
        self.requests: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.asked: Counter[str] = Counter()
        self.delivered: Counter[str] = Counter()
        self.paid_twice: list[str] = []
        self.most_at_once = self.at_once = 0
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: FaultyEndpoint
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_POST(self) -> None:
        server = self.server
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.headers["Authorization"] == f"Bearer {KEY}"
        texts = request["input"]
        with server.lock:
            server.requests.append(request)
            server.times.append(time.monotonic())
            server.asked.update(texts)
            server.paid_twice += [text for text in texts if server.delivered[text]]
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
            fault = server.always or (server.faults.pop(0) if server.faults else None)
        try:
            if fault is None or not fault(self, texts):
                self.deliver(texts)
        finally:
            with server.lock:
                server.at_once -= 1

    def deliver(self, texts: list[str]) -> None:
        with self.server.lock:
            self.server.delivered.update(texts)
        self.send(entries(texts))

    def send(self, data: list[dict[str, Any]]) -> None:
        self.respond(200, {"object": "list", "data": data, "model": "m", "usage": {}})

    def respond(self, status: int, content: Any, **headers: str) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def encoded(vector: np.ndarray) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def entries(texts: list[str], form: str = "base64") -> list[dict[str, Any]]:
    return [
        {
            "object": "embedding",
            "index": idx,
            "embedding": encoded(vector) if form == "base64" else [float(number) for number in vector],
        }
        for idx, vector in enumerate(true_vectors(texts))
    ]


def status(code: int, message: str = "no", **headers: str) -> Fault:
    def fault(handler: Handler, texts: list[str]) -> bool:
        handler.respond(code, {"error": {"message": message, "type": "t", "param": None, "code": None}}, **headers)
        return True

    return fault


def slow(seconds: float) -> Fault:
    def fault(handler: Handler, texts: list[str]) -> bool:
        time.sleep(seconds)
        return True  # the client has gone by now

    return fault


def changed(change: Callable[[list[dict[str, Any]]], object], *, delivers: Callable[[int], bool]) -> Fault:
    """An answer changed on the way; `delivers` says which of its places are still right."""

    def fault(handler: Handler, texts: list[str]) -> bool:
        data = entries(texts)
        change(data)
        with handler.server.lock:
            handler.server.delivered.update(text for idx, text in enumerate(texts) if delivers(idx))
        handler.send(data)
        return True

    return fault


def half_a_body(handler: Handler, texts: list[str]) -> bool:
    body = json.dumps({"data": entries(texts)}).encode()
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])
    handler.wfile.flush()
    handler.close_connection = True
    return True


def disconnect(handler: Handler, texts: list[str]) -> bool:
    handler.close_connection = True
    return True


def as_floats(handler: Handler, texts: list[str]) -> bool:
    with handler.server.lock:
        handler.server.delivered.update(texts)
    handler.send(entries(texts, "float"))
    return True


def at_most(num_texts: int, code: int = 422) -> Fault:
    """A server that takes few texts at once."""

    def fault(handler: Handler, texts: list[str]) -> bool:
        return len(texts) > num_texts and status(code, "batch size exceeds the maximum")(handler, texts)

    return fault


def refuses(part: str, message: str, code: int = 400, longest: int = 0) -> Fault:
    """A server that refuses texts with some part in them, unless they are short."""

    def fault(handler: Handler, texts: list[str]) -> bool:
        is_bad = any(part in text and len(text) > longest for text in texts)
        return is_bad and status(code, message)(handler, texts)

    return fault


def _nan(data: list[dict[str, Any]]) -> None:
    data[-1]["embedding"] = encoded(np.full(WIDTH, np.nan))


def _wrong_width(data: list[dict[str, Any]]) -> None:
    data[0]["embedding"] = encoded(np.ones(WIDTH - 1))


def _all_wrong_width(data: list[dict[str, Any]]) -> None:
    for entry in data:
        entry["embedding"] = encoded(np.ones(WIDTH + 1))


def _same_index(data: list[dict[str, Any]]) -> None:
    data[-1]["index"] = 0


def _null(data: list[dict[str, Any]]) -> None:
    data[0]["embedding"] = None


def _zero(data: list[dict[str, Any]]) -> None:
    data[0]["embedding"] = encoded(np.zeros(WIDTH))


def _foreign_index(data: list[dict[str, Any]]) -> None:
    data[0]["index"] = 9999


def _not_json(handler: Handler, texts: list[str]) -> bool:
    handler.respond(200, "oops")
    return True


def _but_first(fault: Callable[[list[dict[str, Any]]], object]) -> Fault:
    return changed(fault, delivers=lambda idx: idx > 0)


def _with_last(change: Callable[[list[dict[str, Any]]], object], *lost: int) -> Fault:
    """An answer in which some places, counted from either end, do not count."""

    def fault(handler: Handler, texts: list[str]) -> bool:
        missing = {place % len(texts) for place in lost} if len(texts) >= len(lost) else set()
        return changed(change, delivers=lambda idx: idx not in missing)(handler, texts)

    return fault


FAULTS: dict[str, Fault] = {
    "429": status(429, Retry_After="0.1"),
    "429 without a time": status(429),
    "429 with a date": status(429, Retry_After=formatdate(usegmt=True)),
    "429 in milliseconds": status(429, Retry_After_ms="50"),
    "500": status(500),
    "503": status(503, Retry_After="0"),
    "slow": slow(1.2),
    "half a body": half_a_body,
    "disconnect": disconnect,
    "not JSON": _not_json,
    "short": changed(lambda data: data.pop(), delivers=lambda idx: False),
    "reordered": changed(lambda data: data.reverse(), delivers=lambda idx: True),
    "foreign index": _but_first(_foreign_index),
    "wrong width": _but_first(_wrong_width),
    "all of wrong width": changed(_all_wrong_width, delivers=lambda idx: False),
    "null": _but_first(_null),
    "zero": _but_first(_zero),
    "floats": as_floats,
    "NaN": _with_last(_nan, -1),
    "duplicate": _with_last(_same_index, 0, -1),
}
"""Failures that pass, by name."""


class AtRandom:
    """A fault that is now this, now that one, and often none.

    Attributes:
        counts: How often each was.
    """

    def __init__(self, faults: dict[str, Fault], share: float, seed: int) -> None:
        self._faults, self._share, self._random = faults, share, random.Random(seed)
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, handler: Handler, texts: list[str]) -> bool:
        with self._lock:
            if self._random.random() >= self._share:
                self.counts["none"] += 1
                return False
            name = self._random.choice(list(self._faults))
            self.counts[name] += 1
        return self._faults[name](handler, texts)
