"""The distilled table: means of token vectors, made once, depending on the text alone."""

import os
from pathlib import Path

import numpy as np
import pytest

from tributary.embed import LocalEmbedder, checked_vectors, make_embedder
from tributary.embed import static as static_module

TEXTS = ["color is red", "", "订单", "N14228", "red is color", "a long story " * 200, "\x00"]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Random token vectors instead of those of the model; one entry per time that they were made."""
    monkeypatch.setenv("TRIBUTARY_CACHE", os.fspath(tmp_path / "cache"))
    times: list[int] = []

    def embed_tokens(embedder: LocalEmbedder, tokens: list[list[int]]) -> np.ndarray:
        times.append(len(tokens))
        return np.random.default_rng(1).normal(size=(len(tokens), 384)).astype(np.float32)

    monkeypatch.setattr(LocalEmbedder, "embed_tokens", embed_tokens)
    return times


def test_vectors_have_length_one_and_depend_on_the_text_alone(made: list[int]) -> None:
    embedder = make_embedder("local-static")
    vectors = embedder.embed(TEXTS)
    checked_vectors(embedder, TEXTS, vectors)
    assert embedder.embed(TEXTS[::-1])[::-1].tobytes() == vectors.tobytes()
    assert embedder.embed(TEXTS[3:4]).tobytes() == vectors[3:4].tobytes()
    crowd = embedder.embed([f"color is {idx}" for idx in range(4094)] + TEXTS)
    assert crowd[4094:].tobytes() == vectors.tobytes()
    np.testing.assert_allclose(vectors[0], vectors[4], atol=1e-6)  # order of words is not seen
    assert vectors[1] @ vectors[2] < 0.9
    assert embedder.embed([]).shape == (0, 256)


def test_frequent_words_weigh_less(made: list[int]) -> None:
    the, zebra, both = make_embedder("local-static").embed(["the", "zebra", "the zebra"])
    assert both @ zebra > 0.95 > both @ the


def test_table_is_made_once_and_again_when_damaged(made: list[int], capfd: pytest.CaptureFixture[str]) -> None:
    vectors = make_embedder("local-static").embed(TEXTS)
    assert "making the table of local-static" in capfd.readouterr().err
    assert make_embedder("local-static", dimension=64).embed(TEXTS).shape == (len(TEXTS), 64)
    assert made == [30522]
    (path,) = Path(os.environ["TRIBUTARY_CACHE"]).iterdir()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert make_embedder("local-static").embed(TEXTS).tobytes() == vectors.tobytes()
    assert made == [30522] * 2


def test_identity_names_the_table(made: list[int]) -> None:
    local, static = make_embedder("local").identity, make_embedder("local-static").identity
    assert static == {**local, "kind": "local-static", "model": "all-MiniLM-L6-v2/static-2"}
    assert made == []


@pytest.mark.slow
def test_words_of_like_meaning_are_near(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_module, "cache_folder", lambda: tmp_path)
    doctor, physician, tractor = make_embedder("local-static").embed(["doctor", "physician", "tractor"])
    assert doctor @ physician > 0.6
    assert doctor @ tractor < 0.3
