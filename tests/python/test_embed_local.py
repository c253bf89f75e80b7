"""The local model: the right vectors, from verified files, depending on the text alone."""

import hashlib
import math
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from tributary._headwater import Encoder
from tributary.embed import (
    CachedEmbedder,
    LocalEmbedder,
    VectorCache,
    checked_vectors,
    default_embedder,
    make_embedder,
    matching_embedder,
)
from tributary.embed.kernel import KernelModel
from tributary.embed.phrases import normalised
from tributary.embed.projection import projection, projection_sha, reduced
from tributary.embed.weights import FOLDER_VARIABLE, SHA256, find_weights
from tributary.errors import SchemaError
from tributary.preprocess import open_manifest

TEXTS = [
    "carrier is Delta",
    "",
    "color is red",
    "name of customers: what the customer calls itself",
    "订单",
    "İstanbul e\u0301té \x00 \ud800",
    "N14228",
    "a very long story " * 120,
]

# sha256 of their vectors with 256 dimensions, on every machine; where it changes, `ROUTE` of the kernel must too
BITS = "f34069f6a9f46c48a1ab20aea4534ace1f2ea8b2ced9ba071cfb1489c30cde52"


@pytest.fixture(scope="module")
def full() -> LocalEmbedder:
    return LocalEmbedder(384, device="cpu")


@pytest.fixture(scope="module")
def vectors(full: LocalEmbedder) -> np.ndarray:
    return full.embed(TEXTS)


def _reference(tensors: dict[str, np.ndarray], ids: list[int]) -> np.ndarray:
    """The vector of one text in float64, one head after the other, without padding."""

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return x * tensors[f"{name}.LayerNorm.weight"] + tensors[f"{name}.LayerNorm.bias"]

    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return x @ tensors[f"{name}.weight"].T.astype(np.float64) + tensors[f"{name}.bias"]

    embeddings = [tensors[f"embeddings.{kind}_embeddings.weight"] for kind in ("word", "position", "token_type")]
    x = embeddings[0][ids].astype(np.float64) + embeddings[1][: len(ids)] + embeddings[2][0]
    x = norm(x, "embeddings")
    erf = np.vectorize(math.erf)
    for idx in range(6):
        layer = f"encoder.layer.{idx}"
        q, k, v = (dense(x, f"{layer}.attention.self.{part}") for part in ("query", "key", "value"))
        heads = []
        for start in range(0, 384, 32):
            part = slice(start, start + 32)
            weights = np.exp(q[:, part] @ k[:, part].T / math.sqrt(32))
            heads.append(weights / weights.sum(-1, keepdims=True) @ v[:, part])
        x = norm(x + dense(np.concatenate(heads, -1), f"{layer}.attention.output.dense"), f"{layer}.attention.output")
        hidden = dense(x, f"{layer}.intermediate.dense")
        hidden = hidden * 0.5 * (1 + erf(hidden / math.sqrt(2)))
        x = norm(x + dense(hidden, f"{layer}.output.dense"), f"{layer}.output")
    pooled = x.mean(0)
    return pooled / np.linalg.norm(pooled)


def test_vectors_are_those_of_the_model(full: LocalEmbedder, vectors: np.ndarray) -> None:
    tensors = load_file(find_weights() / "model.safetensors")
    tokens = full.token_ids(TEXTS)
    assert tokens[0] == [101, 6839, 2003, 7160, 102]
    assert len(tokens[-1]) == 256
    for ids, vector in zip(tokens[:4], vectors, strict=False):
        np.testing.assert_allclose(vector, _reference(tensors, ids), atol=2e-6)


def test_vectors_have_length_one_and_tell_texts_apart(full: LocalEmbedder, vectors: np.ndarray) -> None:
    checked_vectors(full, TEXTS, vectors)
    assert len({vector.tobytes() for vector in vectors}) == len(TEXTS)
    assert full.embed([]).shape == (0, 384)


def test_no_text_influences_another(full: LocalEmbedder, vectors: np.ndarray) -> None:
    backwards = full.embed(TEXTS[::-1])
    assert backwards[::-1].tobytes() == vectors.tobytes()
    crowd = [f"color is {idx}" for idx in range(500)] + TEXTS
    assert full.embed(crowd)[500:].tobytes() == vectors.tobytes()
    assert full.embed(TEXTS[:1]).tobytes() == vectors[:1].tobytes()


def test_number_of_threads_and_cores_does_not_matter(full: LocalEmbedder) -> None:
    script = (
        "import os, sys; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from tributary.embed import LocalEmbedder\n"
        "texts = [f'color is {idx}' for idx in range(300)]\n"
        "sys.stdout.buffer.write(LocalEmbedder(384, threads=3).embed(texts).tobytes())"
    )
    elsewhere = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=100).stdout
    assert elsewhere == full.embed([f"color is {idx}" for idx in range(300)]).tobytes()


def test_bits_are_the_same_with_other_instructions(full: LocalEmbedder) -> None:
    tokens = full.token_ids(TEXTS)

    def made(instructions: str | None, number: int) -> bytes:
        model = KernelModel(find_weights(), projection(256), 2, instructions=instructions)
        return b"".join(vectors.tobytes() for _, vectors in model.parts(tokens[:number]))

    assert hashlib.sha256(made(None, len(TEXTS))).hexdigest() == BITS
    for instructions, number in {"avx512": len(TEXTS), "avx2": len(TEXTS), "portable": 2}.items():
        if instructions == "portable" or instructions in _instructions_here():
            assert made(instructions, number) == made(None, number)
        else:
            with pytest.raises(ValueError, match=f"no instructions `{instructions}`"):
                made(instructions, number)


def _instructions_here() -> set[str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    flags = {flag for line in lines if line.startswith("flags") for flag in line.split()}
    return {name for name, needed in {"avx512": {"avx512f"}, "avx2": {"avx2", "fma"}}.items() if needed <= flags}


@pytest.mark.slow
def test_jax_agrees_to_rounding(vectors: np.ndarray) -> None:
    in_jax = LocalEmbedder(384, device="jax")
    np.testing.assert_allclose(in_jax.embed(TEXTS), vectors, atol=2e-6)
    assert in_jax.identity == LocalEmbedder(384, device="cpu").identity
    assert in_jax.route == f"jax-{jax.default_backend()}"


def test_routes_have_caches_of_their_own(tmp_path: Path) -> None:
    native = LocalEmbedder(64, device="cpu")
    with VectorCache(tmp_path) as cache:
        CachedEmbedder(native, cache).embed(["red"])
        again, in_jax = CachedEmbedder(native, cache), CachedEmbedder(LocalEmbedder(64, device="jax"), cache)
        again.embed(["red"])
        in_jax.embed(["red"])
        assert (again.num_found, in_jax.num_found) == (1, 0)
        assert {space.identity.get("route") for space in cache.spaces()} == {native.route, in_jax._embedder.route}
        assert again.identity == in_jax.identity == native.identity


def test_without_accelerator_jax_is_not_imported() -> None:
    script = (
        "import sys\n"
        "from tributary.embed import LocalEmbedder\n"
        "LocalEmbedder(256, device='cpu').embed(['red'])\n"
        "assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=100)


def test_unknown_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIBUTARY_LOCAL_DEVICE", "tpu")
    with pytest.raises(ValueError, match=r"unknown device `tpu` .*auto, cpu, jax"):
        make_embedder("local")


def test_the_core_refuses_what_is_no_text() -> None:
    encoder = Encoder(find_weights() / "model.safetensors", projection(64))
    assert encoder.dimension == 64
    for tokens, lengths, reason in [
        ([101, 102], [2, 0], "text 1: expected 1 to 512 tokens, found 0"),
        ([101] * 513, [513], "expected 1 to 512 tokens, found 513"),
        ([101, 102], [3], "do not add up to the 2 tokens"),
        ([101, 30522], [2], "token 30522 is unknown; there are 30522"),
        ([101], [-1], "cannot have -1 tokens"),
    ]:
        with pytest.raises(ValueError, match=reason):
            encoder.encode(np.array(tokens, np.uint32), np.array(lengths, np.int64))
    assert encoder.encode(np.zeros(0, np.uint32), np.zeros(0, np.int64)).shape == (0, 64)


def test_white_space_and_unicode_forms_are_one_text(full: LocalEmbedder) -> None:
    same = full.embed(["the café", "  the\tcafe\u0301\n"])
    assert same[0].tobytes() == same[1].tobytes()
    assert normalised(" a \u2028 b\x00c\ud800") == "a b c\ufffd"


def test_meaning_decides_what_is_near(full: LocalEmbedder) -> None:
    doctor, physician, tractor = full.embed(["doctor", "physician", "tractor"])
    assert doctor @ physician > 0.8
    assert doctor @ tractor < 0.4


def test_smaller_dimensions_come_from_the_frozen_projection(full: LocalEmbedder, vectors: np.ndarray) -> None:
    embedder = make_embedder("local", dimension=64)
    np.testing.assert_allclose(embedder.embed(TEXTS[:1]), reduced(vectors[:1], 64), atol=1e-6)
    assert embedder.identity == {
        "kind": "local",
        "model": "all-MiniLM-L6-v2",
        "dimension": 64,
        "weights": SHA256["model.safetensors"],
        "projection": projection_sha(),
    }
    assert "projection" not in full.identity


def test_the_projection_is_the_frozen_one() -> None:
    """Databases remember it: another file is another space."""
    assert projection_sha() == "1cc26edfc8bb5f3fb948c29594b6453e88e0a8db9a3fd44018fe353b793af55d"
    columns = projection(256)
    np.testing.assert_allclose(columns.T @ columns, np.eye(256), atol=2e-3)
    with pytest.raises(ValueError, match="between 8 and 256, or 384, found 300"):
        projection(300)


def test_it_is_the_default(shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tributary_command) -> None:
    monkeypatch.delenv("TRIBUTARY_EMBEDDER")
    monkeypatch.setenv("TRIBUTARY_CACHE", os.fspath(tmp_path / "cache"))
    assert default_embedder().identity == make_embedder("local").identity
    refused = tributary_command("preprocess", shop.write(), tmp_path / "db", TRIBUTARY_MINILM=os.fspath(tmp_path))
    assert refused.returncode == 2
    assert "make setup" in refused.stderr
    done = tributary_command("preprocess", shop.folder, tmp_path / "db")
    assert done.returncode == 0, done.stderr
    assert open_manifest(tmp_path / "db").embedder == make_embedder("local").identity


def test_later_texts_get_vectors_of_the_same_space() -> None:
    for name in ("local", "local-static", "hash"):
        identity = make_embedder(name).identity
        assert matching_embedder(identity).identity == identity
    with pytest.raises(ValueError, match="differ in projection and must not be mixed"):
        matching_embedder({**make_embedder("local").identity, "projection": "0"})


def test_missing_weights_are_an_error_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, os.fspath(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"make setup.*TRIBUTARY_MINILM.*--embedder hash") as caught:
        make_embedder("local")
    assert caught.value.filename == os.fspath(tmp_path / "model.safetensors")


@pytest.mark.parametrize("damaged", SHA256)
def test_other_files_are_refused(damaged: str, tmp_path: Path) -> None:
    for name in SHA256:
        if name == damaged:
            (tmp_path / name).write_bytes(b"{}")
        else:
            (tmp_path / name).symlink_to(find_weights() / name)
    found = hashlib.sha256(b"{}").hexdigest()
    with pytest.raises(SchemaError, match=f"{damaged}: expected the file .* found {found}.*make setup"):
        LocalEmbedder(256, folder=tmp_path).embed(["a"])
