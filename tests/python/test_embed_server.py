"""The server of the local model: what OpenAI's client expects, and the same vectors as without it."""

import asyncio
import http.client
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest

from tributary.embed import LocalEmbedder
from tributary.embed.endpoint import EndpointEmbedder
from tributary.embed.endpoint_settings import EndpointSettings
from tributary.embed.server import EmbeddingServer

MODEL = "all-MiniLM-L6-v2"
KEY = "the key of the server"
TEXTS = ["color is red", "color is blue", "doctor", ""]


@pytest.fixture(scope="module")
def local() -> LocalEmbedder:
    return LocalEmbedder(384)


@pytest.fixture(scope="module")
def server(local: LocalEmbedder) -> Iterator[EmbeddingServer]:
    with EmbeddingServer("127.0.0.1", 0, local, api_key=KEY) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def client(server: EmbeddingServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=KEY, base_url=server.url, max_retries=0) as client:
        yield client


def _post(server: EmbeddingServer, body: bytes, **headers: str) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=20)
    headers = {"Authorization": f"Bearer {KEY}", **headers}
    connection.request("POST", "/v1/embeddings", body, headers)
    response = connection.getresponse()
    content = json.loads(response.read())
    connection.close()
    return response.status, content


def test_vectors_of_the_endpoint_are_those_of_the_model(server: EmbeddingServer, local: LocalEmbedder) -> None:
    settings = EndpointSettings(server.url, MODEL, api_key=KEY, max_texts=2)
    full = EndpointEmbedder(384, settings)
    np.testing.assert_allclose(full.embed(TEXTS), local.embed(TEXTS), atol=1e-6)
    projected = EndpointEmbedder(64, settings)
    assert projected.identity["reduction"] == "projected"
    asked = EndpointEmbedder(64, EndpointSettings(server.url, MODEL, api_key=KEY, server_reduces=True))
    expected = LocalEmbedder(64).embed(TEXTS[:2])
    for embedder in (projected, asked):
        np.testing.assert_allclose(embedder.embed(TEXTS[:2]), expected, atol=1e-5)


def test_openai_client_reads_every_form(client: openai.OpenAI, local: LocalEmbedder) -> None:
    expected = local.embed(TEXTS[:2])
    for form in ("float", "base64"):
        answer = client.embeddings.create(model=MODEL, input=TEXTS[:2], encoding_format=form)
        vectors = [
            np.frombuffer(__import__("base64").b64decode(entry.embedding), "<f4")
            if form == "base64"
            else entry.embedding
            for entry in answer.data
        ]
        np.testing.assert_allclose(vectors, expected, atol=1e-6)
        assert [entry.index for entry in answer.data] == [0, 1]
        assert answer.usage.prompt_tokens == answer.usage.total_tokens == 10
    assert len(client.embeddings.create(model=MODEL, input="one text", dimensions=32).data[0].embedding) == 32
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).owned_by == "tributary"


@pytest.mark.parametrize(
    ("request_", "status", "part"),
    [
        ({"model": "other", "input": "a"}, 404, "does not exist"),
        ({"model": MODEL}, 400, "input must be a string"),
        ({"model": MODEL, "input": [1, 2]}, 400, "token ids"),
        ({"model": MODEL, "input": []}, 400, "between 1 and 2,048"),
        ({"model": MODEL, "input": ["a"] * 2049}, 400, "found 2,049"),
        ({"model": MODEL, "input": ["a", ""]}, 400, "input 1 is empty"),
        ({"model": MODEL, "input": "a", "dimensions": 300}, 400, "or 384, found 300"),
        ({"model": MODEL, "input": "a", "dimensions": True}, 400, "dimensions"),
        ({"model": MODEL, "input": "a", "encoding_format": "hex"}, 400, "float or base64"),
        ([], 400, "not an object"),
        (None, 400, "not JSON"),
    ],
)
def test_errors_have_openais_shape(server: EmbeddingServer, request_: Any, status: int, part: str) -> None:
    found, content = _post(server, b"{" if request_ is None else json.dumps(request_).encode())
    assert found == status
    assert content["error"].keys() == {"message", "type", "param", "code"}
    assert content["error"]["type"] == "invalid_request_error"
    assert part in content["error"]["message"]


def test_command_serves_until_interrupted() -> None:
    command = [sys.executable, "-c", "from tributary.cli import main; main()", "embed-serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            found = re.match(r"serving at http://(127.0.0.1:\d+)/v1;", process.stdout.readline())
            assert found is not None
            connection = http.client.HTTPConnection(found[1], timeout=20)
            connection.request("GET", "/v1/models")
            assert json.loads(connection.getresponse().read())["data"][0]["id"] == MODEL
            connection.close()
            taken = subprocess.run(
                [*command[:-1], found[1].split(":")[1]], capture_output=True, text=True, timeout=60, check=False
            )
            assert taken.returncode == 2
            assert taken.stderr.count("\n") == 1
            assert "in use" in taken.stderr
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_keys_sizes_and_roads_are_checked(server: EmbeddingServer) -> None:
    body = json.dumps({"model": MODEL, "input": "a"}).encode()
    assert _post(server, body, Authorization="Bearer wrong")[0] == 401
    assert _post(server, b"", **{"Content-Length": str(1 << 40)})[0] == 413
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=20)
    for path, status in [("/health", 200), ("/v1/models", 401), ("/nothing", 404)]:
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        assert response.status == status
    connection.close()


def test_openai_client_raises_its_own_errors(server: EmbeddingServer, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.embeddings.create(model="other", input="a")
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as broken:
        client.embeddings.create(model=MODEL, input="a", dimensions=300)
    assert (broken.value.param, broken.value.type) == ("dimensions", "invalid_request_error")
    with (
        openai.OpenAI(api_key="wrong", base_url=server.url, max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError) as refused,
    ):
        stranger.embeddings.create(model=MODEL, input="a")
    assert refused.value.code == "invalid_api_key"
    assert KEY not in str(refused.value)


def test_clients_side_by_side_get_their_own_vectors(server: EmbeddingServer, local: LocalEmbedder) -> None:
    batches = [[f"shade is {idx * 10 + place}" for place in range(idx + 1)] for idx in range(8)]

    async def ask() -> list[Any]:
        async with openai.AsyncOpenAI(api_key=KEY, base_url=server.url, max_retries=0) as client:
            return await asyncio.gather(*(client.embeddings.create(model=MODEL, input=batch) for batch in batches))

    for batch, answer in zip(batches, asyncio.run(ask()), strict=True):
        vectors = [entry.embedding for entry in answer.data]
        np.testing.assert_allclose(vectors, local.embed(batch), atol=1e-6)


def test_long_texts_are_cut_at_what_the_model_reads(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model=MODEL, input=["word " * 1000, "word " * 254])
    assert answer.usage.prompt_tokens == 512
    np.testing.assert_allclose(answer.data[0].embedding, answer.data[1].embedding, atol=1e-6)
