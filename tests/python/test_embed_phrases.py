"""What is embedded: one way to write a text down, whoever embeds it, and every text of a database once."""

import json
import os
import subprocess
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tributary import _headwater
from tributary.embed import Embedder, FeatureHashEmbedder, Identity, make_embedder, through_cache
from tributary.embed.phrases import EMPTY, normalised
from tributary.preprocess import preprocess, reembed, verify


class Recording:
    """Vectors of feature hashing, with a record of what was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    @property
    def identity(self) -> Identity:
        return Identity(kind="recording", model="r", dimension=16)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        self.asked += texts
        return FeatureHashEmbedder(16).embed(texts)


@given(st.text(max_size=40))
def test_a_written_text_stays_as_it_is(text: str) -> None:
    clean = normalised(text)
    assert normalised(clean) == clean
    assert clean
    assert clean == clean.strip() == " ".join(clean.split())
    assert unicodedata.is_normalized("NFC", clean)
    assert not any(unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") for sign in clean)


ALIKE = [
    ["blue  sky", " blue sky", "blue\tsky\n", "blue\u00a0sky", "blue\x00sky", "blue\u2028sky"],
    ["caf\u00e9", "cafe\u0301"],
    ["\uac00", "\u1100\u1161"],
    ["", " ", "\n\t", EMPTY],
]


@pytest.mark.parametrize("name", ["hash", "local"])
def test_every_embedder_reads_texts_the_same_way(name: str) -> None:
    embedder: Embedder = make_embedder(name, dimension=32)
    for texts in ALIKE:
        vectors = embedder.embed(texts)
        assert {vector.tobytes() for vector in vectors} == {vectors[0].tobytes()}
        assert {normalised(text) for text in texts} == {normalised(texts[0])}


def test_columns_categories_and_texts_become_phrases(shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIBUTARY_CACHE", os.fspath(tmp_path / "cache"))
    columns = shop.metadata["tables"]["products"]["columns"]
    columns["title"]["description"] = "what is on the label"
    shop.tables["products"]["title"] = ["blue  sky", "blue sky", "caf\u00e9", "cafe\u0301", "price of products"]
    embedder = Recording()
    outcome = preprocess(shop.write(), tmp_path / "db", embedder=embedder)
    assert "title of products: what is on the label" in embedder.asked
    assert "country is DE" in embedder.asked
    assert "customer 7" in embedder.asked
    # once each, though a cell says what a column is called, and though others are the same text written otherwise
    clean = [normalised(text) for text in embedder.asked]
    assert len(clean) == len(set(clean))
    assert clean.count("blue sky") == clean.count("caf\u00e9") == clean.count("price of products") == 1
    assert outcome.vectors is not None
    assert outcome.vectors.made == len(clean)
    database = _headwater.Database(tmp_path / "db")
    vectors = database.embeddings("vocab")
    texts = _headwater.vocab_texts(tmp_path / "db")
    np.testing.assert_array_equal(vectors[texts.index("blue  sky")], vectors[texts.index("blue sky")])
    monkeypatch.setenv("TRIBUTARY_CACHE", "off")
    alone = Recording()
    with through_cache(alone) as cached:
        cached.embed(texts + texts)
    assert len(alone.asked) == len({normalised(text) for text in texts})


def test_the_core_writes_phrases_that_need_no_cleaning(shop, tmp_path: Path) -> None:
    """Rust composes phrases, Python cleans texts: what the one makes of clean names, the other leaves alone."""
    preprocess(shop.write(), tmp_path / "db", embedder=FeatureHashEmbedder(16))
    phrases = _headwater.column_phrases(tmp_path / "db")
    for text in [*phrases, *_headwater.vocab_texts(tmp_path / "db")]:
        assert normalised(text) == text


def test_a_killed_reembedding_leaves_the_database_as_it_was(shop, tmp_path: Path) -> None:
    preprocess(shop.write(), tmp_path / "db", embedder=FeatureHashEmbedder(16))
    before = verify(tmp_path / "db")
    modified = {path: path.stat().st_mtime_ns for path in (tmp_path / "db").rglob("*")}
    script = (
        "import os, signal, sys\n"
        "from tributary.embed import FeatureHashEmbedder\n"
        "from tributary.preprocess import reembed\n"
        "class Deadly(FeatureHashEmbedder):\n"
        "    def embed(self, texts):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "reembed(sys.argv[1], Deadly(64))"
    )
    run = subprocess.run([sys.executable, "-c", script, tmp_path / "db"], timeout=60, check=False)
    assert run.returncode < 0
    assert verify(tmp_path / "db") == before
    assert modified == {path: path.stat().st_mtime_ns for path in (tmp_path / "db").rglob("*")}
    done = reembed(tmp_path / "db", FeatureHashEmbedder(64))
    assert done.manifest.embedder == FeatureHashEmbedder(64).identity
    manifest = json.loads(_headwater.Database(tmp_path / "db").manifest)
    for table in manifest["tables"]:  # not encoded again: the very same bytes on disk
        assert modified[tmp_path / "db" / table["file"]] == (tmp_path / "db" / table["file"]).stat().st_mtime_ns
