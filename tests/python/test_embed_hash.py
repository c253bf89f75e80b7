"""The hash embedder: unit vectors that depend on the text alone and put like beside like."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tributary.embed import FeatureHashEmbedder, checked_vectors, make_embedder

ODD_TEXTS = [
    "",
    "-",
    "\x00x",
    "a",
    "ab",
    "İstanbul",
    "订单",
    "e\u0301",
    "\u202eabc",
    "x" * 20_000,
    "word " * 5_000,
    "--",
]


def test_every_text_has_a_vector_of_length_one() -> None:
    vectors = FeatureHashEmbedder(256).embed(ODD_TEXTS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    assert len({vector.tobytes() for vector in vectors}) == len(ODD_TEXTS)


@given(st.lists(st.text(max_size=30), max_size=8), st.integers(0, 8))
def test_no_text_influences_another(texts: list[str], cut: int) -> None:
    embedder = FeatureHashEmbedder(32)
    whole = embedder.embed(texts)
    parts = np.concatenate([embedder.embed(texts[:cut]), embedder.embed(texts[cut:])])
    assert whole.tobytes() == parts.tobytes()


def test_chunks_do_not_change_vectors() -> None:
    embedder = FeatureHashEmbedder(16)
    texts = [f"text {i}" for i in range(5000)] + ["y" * 300_000, "z"]
    whole = embedder.embed(texts)
    for idx in (0, 4095, 4096, 4999, 5000, 5001):
        assert whole[idx].tobytes() == embedder.embed([texts[idx]])[0].tobytes()


def test_shared_words_and_spellings_are_near() -> None:
    embedder = FeatureHashEmbedder(256)
    german, germany, red = embedder.embed(["country is german", "country is germany", "shade of red"])
    assert german @ germany > 0.6
    assert abs(german @ red) < 0.3


def test_nothing_to_embed() -> None:
    assert FeatureHashEmbedder(64).embed([]).shape == (0, 64)


def test_vectors_are_those_of_the_named_version() -> None:
    """Processed databases remember the version; when this fails, raise it."""
    embedder = FeatureHashEmbedder(64)
    assert embedder.identity == {"kind": "hash", "model": "tributary-feature-hash-2", "dimension": 64}
    vectors = checked_vectors(embedder, ODD_TEXTS, embedder.embed(ODD_TEXTS))
    assert hashlib.sha256(vectors.tobytes()).hexdigest()[:16] == "aec63d4fc48425cb"


def test_unknown_embedder_is_named_with_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"unknown embedder `hsah`; did you mean `hash`\? \(available: .*hash.*\)"):
        make_embedder("hsah")


@pytest.mark.parametrize("dimension", [0, 7, 100_000])
def test_impossible_dimension(dimension: int) -> None:
    with pytest.raises(ValueError, match=f"found {dimension}"):
        make_embedder("hash", dimension=dimension)


def test_broken_promises_are_caught() -> None:
    embedder = FeatureHashEmbedder(8)
    good = embedder.embed(["a", "b"])
    with pytest.raises(ValueError, match=r"expected vectors of shape \(3, 8\), found \(2, 8\)"):
        checked_vectors(embedder, ["a", "b", "c"], good)
    for damage in (2.0, np.nan):
        bad = good.copy()
        bad[1] *= damage
        with pytest.raises(ValueError, match="the vector of 'b' has length"):
            checked_vectors(embedder, ["a", "b"], bad)
