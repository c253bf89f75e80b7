"""One model, one space of vectors: whoever trains, resumes or predicts with others is told; later texts find theirs."""

from pathlib import Path

import numpy as np
import pytest

from tributary import _headwater
from tributary.config import RunConfig
from tributary.embed import FeatureHashEmbedder, Identity, checked_vectors, make_embedder, matching_embedder
from tributary.prediction.predict import load_run
from tributary.preprocess import open_manifest, preprocess, reembed
from tributary.runs.checkpoint import CheckpointError
from tributary.training.train import train


class _Other(FeatureHashEmbedder):
    """Vectors of the same width under another name."""

    @property
    def identity(self) -> Identity:
        return Identity(kind="hash", model="another", dimension=16)


def _config(folder: Path) -> RunConfig:
    return RunConfig.from_mapping(
        {
            "run": {"dir": str(folder), "name": "run"},
            "data": {"database": str(folder / "db"), "tasks": ["country"], "seq_len": 24},
            "model": {"d_model": 16, "num_layers": 1, "num_heads": 2, "d_ff": 16},
            "train": {"steps": 2, "batch_size": 4, "eval_every": 100, "checkpoint_every": 2, "log_every": 1},
            "optimizer": {"warmup_steps": 1},
        },
        (),
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_vectors_of_another_embedder_are_refused_by_who_trains_and_who_predicts(shop, tmp_path: Path) -> None:
    own = make_embedder("hash", dimension=16)
    preprocess(shop.write(), tmp_path / "db", embedder=own)
    train(_config(tmp_path))
    for other in (make_embedder("hash", dimension=64), _Other(16)):
        reembed(tmp_path / "db", other)
        for act in (
            lambda: train(_config(tmp_path), resume="auto"),
            lambda: load_run(tmp_path / "run", step="last"),
        ):
            with pytest.raises(CheckpointError, match=r"the model reads vectors of .*: tributary embed"):
                act()
    reembed(tmp_path / "db", own)
    assert load_run(tmp_path / "run", step="last").step == 2
    train(_config(tmp_path), resume="auto")


@pytest.mark.parametrize("name", ["hash", "local"])
def test_a_later_text_gets_the_vector_it_would_have_had(shop, tmp_path: Path, name: str) -> None:
    """Its words are those of a known cell: made alone, long after, it has the bits that stand in the database."""
    preprocess(shop.write(), tmp_path / "db", embedder=make_embedder(name, dimension=64))
    database = _headwater.Database(tmp_path / "db")
    stored, texts = database.embeddings("vocab"), _headwater.vocab_texts(tmp_path / "db")
    later = matching_embedder(open_manifest(tmp_path / "db").embedder)
    for text in ("country is DE", "customer 7"):
        vector = checked_vectors(later, [f" {text}\n"], later.embed([f" {text}\n"]))
        np.testing.assert_array_equal(vector[0], stored[texts.index(text)])
    changed = {**open_manifest(tmp_path / "db").embedder, "model": "another"}
    with pytest.raises(ValueError, match="differ in model and must not be mixed"):
        matching_embedder(changed)
