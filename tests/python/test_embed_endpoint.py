"""The endpoint's client against servers that fail: nothing lost, nothing paid twice, nothing wrong believed."""

import dataclasses
import itertools
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import faulty_endpoint as faulty
from faulty_endpoint import FAULTS, KEY, WIDTH, FaultyEndpoint, true_vectors
from tributary.embed import EndpointError, endpoint_round, endpoint_traffic, make_embedder, through_cache
from tributary.embed.endpoint import EndpointEmbedder
from tributary.embed.endpoint_requests import estimated_tokens
from tributary.embed.endpoint_settings import EndpointSettings, endpoint_settings
from tributary.embed.endpoint_traffic import Traffic
from tributary.preprocess import Silence, preprocess

TEXTS = [f"color is {idx}" for idx in range(40)]


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIBUTARY_CACHE", os.fspath(tmp_path / "cache"))
    monkeypatch.setattr(endpoint_round, "_FIRST_WAIT", 0.01)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def _client(server: FaultyEndpoint, said: list[str] | None = None, **settings: Any) -> EndpointEmbedder:
    options = EndpointSettings(server.url, "m", api_key=KEY, max_texts=10, timeout_seconds=10)
    announce = (said if said is not None else []).append
    return EndpointEmbedder(WIDTH, dataclasses.replace(options, **settings), announce=announce)


def _assert_right(texts: list[str], vectors: np.ndarray) -> None:
    np.testing.assert_allclose(vectors, true_vectors(texts), atol=1e-6)


@pytest.mark.parametrize("fault", FAULTS)
def test_failures_that_pass_cost_nothing_twice(fault: str) -> None:
    with FaultyEndpoint(FAULTS[fault]) as server:
        client = _client(server, timeout_seconds=1.0 if fault == "slow" else 10.0)
        _assert_right(TEXTS, client.embed(TEXTS))
        assert server.paid_twice == []
        assert set(server.delivered) == set(TEXTS)


def test_all_failures_in_one_run() -> None:
    faults = [fault for name, fault in FAULTS.items() if name != "slow"]
    with FaultyEndpoint(*faults * 2) as server:
        texts = [f"shade is {idx}" for idx in range(300)]
        _assert_right(texts, _client(server).embed(texts))
        assert server.paid_twice == []
        assert set(server.delivered.values()) == {1}


def test_failures_at_random_lose_nothing_and_pay_for_nothing_twice() -> None:
    faults = faulty.AtRandom({name: fault for name, fault in FAULTS.items() if name != "slow"}, 0.5, seed=7)
    texts = [f"shade is {idx}" for idx in range(600)]
    with FaultyEndpoint(always=faults) as server:
        _assert_right(texts, _client(server).embed(texts))
        assert server.paid_twice == []
        assert set(server.delivered.values()) == {1}
        assert server.delivered.keys() == set(texts)
    assert len(faults.counts) > len(FAULTS) // 2


def test_servers_that_take_few_texts_at_once() -> None:
    with FaultyEndpoint(always=faulty.at_most(3)) as server:
        _assert_right(TEXTS, _client(server).embed(TEXTS))
        assert server.paid_twice == []


def test_requests_are_bounded_in_texts_and_tokens() -> None:
    texts = ["word " * 30 + str(idx) for idx in range(20)]
    with FaultyEndpoint() as server:
        _assert_right(texts, _client(server, max_tokens=200).embed(texts))
        for request in server.requests:
            assert request["encoding_format"] == "base64"
            assert "dimensions" not in request
            assert sum(map(estimated_tokens, request["input"])) <= 200


def test_the_refused_text_is_found_and_named() -> None:
    with FaultyEndpoint(always=faulty.refuses("is 17", f"bad input for {KEY}")) as server:
        client = _client(server)
        with pytest.raises(EndpointError, match=r"refuses the text 'color is 17': status 400 \(bad input") as caught:
            client.embed(TEXTS)
        assert KEY not in str(caught.value)
        assert server.paid_twice == []


@pytest.mark.parametrize("code", [400, 413, 500])
def test_texts_that_are_too_long_are_cut_and_reported(code: int) -> None:
    fault = faulty.refuses("long", "maximum context length is 20 tokens", code, longest=100)
    texts = [*TEXTS, "a long story " * 40]
    with FaultyEndpoint(always=fault) as server:
        client = _client(server)
        vectors = client.embed(texts)
    _assert_right(TEXTS, vectors[:-1])
    assert client.cut_texts == texts[-1:]


def test_retry_after_holds_every_request_back() -> None:
    with FaultyEndpoint(faulty.status(429, Retry_After="0.6")) as server:
        _client(server, max_concurrency=1).embed(TEXTS)
        assert server.times[1] - server.times[0] >= 0.55


def test_a_server_that_never_recovers_is_given_up() -> None:
    busy = faulty.status(429, "slow down", Retry_After="3600")
    expected = r"127.0.0.1 \(m\): status 429 \(slow down\); .* did not help"
    with FaultyEndpoint(always=busy) as server, pytest.raises(EndpointError, match=expected):
        _client(server).embed(TEXTS)
    with FaultyEndpoint(always=FAULTS["NaN"]) as server, pytest.raises(EndpointError, match="not finite, 6 times"):
        _client(server).embed(TEXTS[:10])


def test_widths_that_contradict_each_other_are_an_error() -> None:
    with FaultyEndpoint(FAULTS["all of wrong width"]) as server:
        client = _client(server, max_texts=1)
        with pytest.raises(EndpointError, match="answers have vectors of 48 and 49 numbers"):
            client.embed(["a", "b"])


def test_concurrency_grows_with_success() -> None:
    texts = [f"text {idx}" for idx in range(120)]
    with FaultyEndpoint(always=lambda handler, _: time.sleep(0.02) is not None) as server:
        _client(server, max_texts=2, max_concurrency=8).embed(texts)
        assert 5 <= server.most_at_once <= 8


def test_what_was_paid_for_is_kept_when_the_run_fails() -> None:
    poison = faulty.refuses("poison", "forbidden word")
    texts = [*TEXTS, "poison"]
    with FaultyEndpoint(always=poison) as server:
        with pytest.raises(EndpointError), through_cache(_client(server)) as cached:
            cached.embed(texts)
        server.always = None
        with through_cache(_client(server)) as cached:
            _assert_right_f16(texts, cached.embed(texts))
        assert server.paid_twice == []
        assert set(server.delivered) == set(texts)


def test_what_was_paid_for_is_kept_when_the_run_is_killed() -> None:
    texts = [f"text {idx}" for idx in range(60)]
    script = (
        "import sys\n"
        "from tributary.embed import EndpointEmbedder, through_cache\n"
        "from tributary.embed.endpoint_settings import EndpointSettings\n"
        "settings = EndpointSettings(sys.argv[1], 'm', api_key=sys.argv[2], max_texts=2, max_concurrency=2)\n"
        f"with through_cache(EndpointEmbedder({WIDTH}, settings)) as cached:\n"
        "    cached.embed([f'text {idx}' for idx in range(60)])"
    )
    with FaultyEndpoint(always=lambda handler, _: time.sleep(0.1) is not None) as server:
        with subprocess.Popen([sys.executable, "-c", script, server.url, KEY]) as run:
            while len(server.delivered) < 20:
                time.sleep(0.01)
            run.send_signal(signal.SIGKILL)
        before = len(server.delivered)
        server.always = None
        with through_cache(_client(server)) as cached:
            _assert_right_f16(texts, cached.embed(texts))
            assert cached.num_found >= before - 8  # two requests of two texts under way, two answers on the wire
        assert before < 60
        assert len(server.paid_twice) <= 8


def _assert_right_f16(texts: list[str], vectors: np.ndarray) -> None:
    np.testing.assert_allclose(vectors, true_vectors(texts), atol=1e-3)


def test_a_second_run_sends_nothing_and_the_first_says_what_it_sends() -> None:
    said: list[str] = []
    with FaultyEndpoint() as server:
        for _ in range(2):
            with through_cache(_client(server, said)) as cached:
                cached.announce([*TEXTS, *TEXTS])
                cached.embed(TEXTS)
        assert sum(server.asked.values()) == 40
    assert said == [
        "sending 40 distinct texts, about 200 tokens, in about 4 requests to 127.0.0.1 (m)",
        "nothing to send to 127.0.0.1 (m); 40 more are in the cache",
    ]


@pytest.mark.parametrize("code", [401, 403, 404, 429])
def test_the_key_shows_nowhere(code: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    message = f"insufficient_quota: bad key {KEY}"
    with FaultyEndpoint(always=faulty.status(code, message)) as server:
        client = _client(server)
        with pytest.raises(EndpointError) as caught:
            client.embed(TEXTS)
    assert len(server.requests) <= 4
    shown = [str(caught.value), repr(caught.value.__cause__), repr(client._settings), str(client.identity), caplog.text]
    assert not [text for text in shown if KEY in text]


def test_unreachable_servers_are_named() -> None:
    settings = EndpointSettings("http://127.0.0.1:9/v1", "m", deadline_seconds=0.05)
    with pytest.raises(EndpointError, match=r"127.0.0.1 \(m\): the connection failed"):
        EndpointEmbedder(16, settings).embed(["a"])


def test_dimension_is_cut_here_or_asked_of_the_server() -> None:
    with FaultyEndpoint() as server:
        settings = EndpointSettings(server.url, "m", api_key=KEY)
        cut = EndpointEmbedder(16, settings).embed(["a"])
        expected = true_vectors(["a"])[:, :16]
        np.testing.assert_allclose(cut, expected / np.linalg.norm(expected), atol=1e-6)
        with pytest.raises(EndpointError, match="have 48 numbers, fewer than the 64 asked for"):
            EndpointEmbedder(64, settings).embed(["a"])
        asking = dataclasses.replace(settings, server_reduces=True)
        assert EndpointEmbedder(WIDTH, asking).embed(["a"]).shape == (1, WIDTH)
        assert server.requests[-1]["dimensions"] == WIDTH
    identities = [EndpointEmbedder(16, options).identity for options in (settings, asking)]
    assert [identity["reduction"] for identity in identities] == ["truncated", "server"]


def test_settings_come_from_the_environment() -> None:
    own = {"TRIBUTARY_EMBEDDER_URL": "https://e.example/v1", "TRIBUTARY_EMBEDDER_MODEL": "m", "BASETEN_API_KEY": KEY}
    assert endpoint_settings(environment=own).api_key != KEY  # a key goes only where it belongs
    assert not endpoint_settings(environment=own).server_reduces
    assert endpoint_settings(environment={**own, "TRIBUTARY_EMBEDDER_REDUCTION": "server"}).server_reduces
    assert endpoint_settings(environment={**own, "TRIBUTARY_EMBEDDER_API_KEY": "k2"}).api_key == "k2"
    baseten = {"BASETEN_EMBEDDER_URL": "https://model-1.api.baseten.co/v1", "BASETEN_API_KEY": KEY}
    settings = endpoint_settings(model="m", environment=baseten)
    assert (settings.url, settings.api_key) == (baseten["BASETEN_EMBEDDER_URL"], KEY)
    for broken, message in [
        ({}, "no address; set TRIBUTARY_EMBEDDER_URL"),
        ({"TRIBUTARY_EMBEDDER_URL": "localhost:8000"}, "must begin with http"),
        ({"TRIBUTARY_EMBEDDER_URL": f"https://u:{KEY}@e.example/v1"}, "must hold no user, key or query"),
        ({"TRIBUTARY_EMBEDDER_URL": "https://e.example/v1"}, "no model; set TRIBUTARY_EMBEDDER_MODEL"),
    ]:
        with pytest.raises(ValueError, match=message) as caught:
            endpoint_settings(environment=broken)
        assert KEY not in str(caught.value)


@pytest.mark.slow
def test_preprocess_through_an_endpoint(shop, tmp_path: Path, tributary_command) -> None:
    faults = [FAULTS[name] for name in ("429", "500", "half a body", "short", "reordered", "floats")]
    with FaultyEndpoint(*faults) as server:
        variables = {
            "TRIBUTARY_EMBEDDER_URL": server.url,
            "TRIBUTARY_EMBEDDER_API_KEY": KEY,
        }
        done = tributary_command("preprocess", shop.write(), tmp_path / "db", "--embedder", "hash")
        assert done.returncode == 0, done.stderr
        arguments = ("embed", tmp_path / "db", "--embedder", "endpoint", "--dimension", "32", "--embedder-model", "m")
        done = tributary_command(*arguments, **variables)
        assert done.returncode == 0, done.stderr
        assert "distinct texts" in done.stderr
        assert server.paid_twice == []
        again = tributary_command(*arguments, **variables)
        assert " 0 made" in again.stdout
    for path in (tmp_path / "db").rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes()
    with pytest.raises(ValueError, match="embedder `endpoint`: no address"):
        make_embedder("endpoint")
    with pytest.raises(ValueError, match="embedder `hash` has no address or model to choose"):
        make_embedder("hash", model="m")


class _Listener(Silence):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def test_refused_texts_are_named_by_table_column_and_row(shop, tmp_path: Path) -> None:
    shop.tables["products"]["title"][2:] = ["poison ivy", "  poison\tivy", "poison ivy"]
    shop.tables["customers"]["country"][5] = "poison"
    shop.metadata["tables"]["orders"]["columns"]["amount"]["description"] = "dose of poison"
    poison = faulty.refuses("poison", f"unsafe content for {KEY}")
    output = tmp_path / "db"
    with FaultyEndpoint(always=poison) as server:
        with pytest.raises(EndpointError) as caught:
            preprocess(shop.write(), output, embedder=_client(server))
        reason = "status 400 (unsafe content for ***)"
        assert str(caught.value).splitlines() == [
            "127.0.0.1 (m) refuses 3 texts:",
            "  the phrase of a column (its description in metadata.json): 'amount of orders: dose of poison': "
            + reason,
            f"  table `customers`, column `country`, key 6: 'country is poison': {reason}",
            f"  table `products`, column `title`, key 3 and 1 more cells; table `products`, column `title`, key 4:"
            f" 'poison ivy': {reason}",
            "  change them in the data or choose another embedder; the next run sends what is not in the cache",
        ]
        assert not output.exists()
        server.always = None
        preprocess(shop.folder, output, embedder=_client(server))
        assert server.paid_twice == []


def test_texts_that_were_cut_are_named(shop, tmp_path: Path) -> None:
    shop.tables["products"]["title"][4] = "a long story " * 40
    listener = _Listener()
    fault = faulty.refuses("long", "maximum context length is 20 tokens", longest=100)
    with FaultyEndpoint(always=fault) as server:
        preprocess(shop.write(), tmp_path / "db", embedder=_client(server), watcher=listener)
    assert [warning for warning in listener.warnings if "endpoint" in warning] == [
        "a text was longer than the endpoint takes; its beginning was embedded:\n"
        f"  table `products`, column `title`, key 5: {('a long story ' * 40)[:77] + '...'!r}"
    ]


def test_many_refusals_end_a_run_early() -> None:
    with FaultyEndpoint(always=faulty.refuses("color", "wrong model options")) as server:
        with pytest.raises(EndpointError, match="refuses the text"):
            _client(server, max_concurrency=1).embed(TEXTS)
        assert len(server.requests) < 12
    texts = [f"poison {idx}" for idx in range(100)] + TEXTS
    with FaultyEndpoint(always=faulty.refuses("poison", "no")) as server:
        with pytest.raises(EndpointError, match="refuses 20 texts, such as 'poison") as caught:
            _client(server, max_texts=140, max_concurrency=1).embed(texts)
        assert len(caught.value.refusals) == 20


def test_sizes_that_are_refused_are_not_tried_again() -> None:
    texts = [f"text {idx}" for idx in range(1000)]
    with FaultyEndpoint(always=faulty.at_most(32)) as server:
        client = _client(server, max_texts=256, max_concurrency=2)
        _assert_right(texts, client.embed(texts))
        assert server.paid_twice == []
        assert sum(len(request["input"]) > 32 for request in server.requests) <= 20  # of 28 if nothing were learned
        before = len(server.requests)
        client.embed([f"later {idx}" for idx in range(64)])
        assert [len(request["input"]) for request in server.requests[before:]] == [32, 32]


def test_concurrency_is_halved_by_overrun_and_grows_again() -> None:
    """A server that has three places: the client finds out, and what it sends settles around them."""
    limits: list[int] = []

    def crowded(handler: faulty.Handler, texts: list[str]) -> bool:
        if handler.server.at_once > 3:
            return faulty.status(429, Retry_After="0.02")(handler, texts)
        time.sleep(0.02)
        return False

    class Watched(Traffic):
        def succeeded(self) -> None:
            super().succeeded()
            limits.append(self.limit)

        def _overrun(self, seconds: float) -> None:
            super()._overrun(seconds)
            limits.append(self.limit)

    texts = [f"text {idx}" for idx in range(400)]
    with pytest.MonkeyPatch.context() as patch, FaultyEndpoint(always=crowded) as server:
        patch.setattr(endpoint_round, "Traffic", Watched)
        patch.setattr(endpoint_traffic, "_MIN_SECONDS_BETWEEN_CUTS", 0.1)
        _assert_right(texts, _client(server, max_texts=2, max_concurrency=32).embed(texts))
        assert server.paid_twice == []
        assert server.most_at_once > 3
    changes = list(itertools.pairwise(limits))
    assert any(after == max(1, before // 2) < before for before, after in changes)
    assert any(after == before + 1 for before, after in changes)
    assert all(after in (before, before + 1, max(1, before // 2)) for before, after in changes)
    assert max(limits[len(limits) // 2 :]) < 16
