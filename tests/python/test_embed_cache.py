"""The cache of vectors: nothing is made twice, nothing kept is lost, and databases do not notice it."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from tributary import _headwater
from tributary.embed import CachedEmbedder, FeatureHashEmbedder, VectorCache, cache_folder, make_embedder, through_cache
from tributary.embed.interface import Identity, Part
from tributary.embed.phrases import normalised
from tributary.preprocess import open_manifest, preprocess, reembed, verify


class Counting:
    """Vectors of feature hashing under another name, with a record of what was asked for."""

    def __init__(self, model: str = "counting-1", fails_after: int | None = None) -> None:
        self.asked: list[str] = []
        self._hash = FeatureHashEmbedder(16)
        self._model = model
        self._fails_after = fails_after

    @property
    def identity(self) -> Identity:
        return Identity(kind="counting", model=self._model, dimension=16)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        self.asked += texts
        return self._hash.embed([normalised(text) for text in texts])

    def embed_parts(self, texts: Sequence[str]) -> Iterator[Part]:
        for start in range(0, len(texts), 3):
            if self._fails_after is not None and start >= self._fails_after:
                raise RuntimeError("out of money")
            yield np.arange(start, min(start + 3, len(texts))), self.embed(texts[start : start + 3])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRIBUTARY_CACHE", os.fspath(tmp_path / "cache"))
    return tmp_path / "cache"


def test_every_text_is_made_once(folder: Path) -> None:
    counting = Counting()
    with through_cache(counting) as cached:
        first = cached.embed(["a", "b", "a", " a\n", "", "c"])
        assert (cached.num_found, cached.num_made) == (0, 4)
    assert counting.asked == ["a", "b", "", "c"]
    assert first[0].tobytes() == first[2].tobytes() == first[3].tobytes()
    with through_cache(counting) as cached:
        told: list[int] = []
        second = cached.embed(["c", "d", "a"], told.append)
        assert (cached.num_found, cached.num_made) == (2, 1)
    assert counting.asked[4:] == ["d"]
    assert told == [2, 3]
    assert second[2].tobytes() == first[0].tobytes()
    np.testing.assert_array_equal(first, first.astype(np.float16))


def test_embedders_do_not_share_vectors(folder: Path) -> None:
    for model in ("one", "two"):
        with through_cache(Counting(model)) as cached:
            cached.embed(["a"])
            assert cached.num_made == 1
    with VectorCache(folder) as cache:
        assert [space.identity["model"] for space in cache.spaces()] == ["two", "one"]
        assert [space.num_vectors for space in cache.spaces()] == [1, 1]


def test_what_was_made_before_a_failure_is_kept() -> None:
    texts = [f"text {idx}" for idx in range(10)]
    failing = Counting(fails_after=6)
    with pytest.raises(RuntimeError, match="out of money"), through_cache(failing) as cached:
        cached.embed(texts)
    again = Counting()
    with through_cache(again) as cached:
        cached.embed(texts)
    assert failing.asked == texts[:6]
    assert again.asked == texts[6:]


def test_what_was_made_before_a_kill_is_kept(folder: Path) -> None:
    script = (
        "import numpy as np, os, signal, sys\n"
        "from pathlib import Path\n"
        "from tributary.embed import VectorCache\n"
        "cache = VectorCache(Path(sys.argv[1]))\n"
        "space = cache.space({'kind': 'k', 'model': 'm', 'dimension': 4})\n"
        "for key in range(50):\n"
        "    cache.store(space, [bytes([key])], np.full((1, 4), key, dtype=np.float16))\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", script, folder], timeout=60).returncode == -signal.SIGKILL
    with VectorCache(folder) as cache:
        found = cache.find(cache.space(Identity(kind="k", model="m", dimension=4)), [bytes([key]) for key in range(60)])
    assert {key[0]: vector.tolist() for key, vector in found.items()} == {key: [key] * 4 for key in range(50)}


def test_runs_side_by_side_do_not_disturb_each_other(folder: Path) -> None:
    errors: list[BaseException] = []

    def work(worker: int) -> None:
        try:
            with VectorCache(folder) as cache:
                cached = CachedEmbedder(Counting(), cache)
                for idx in range(20):
                    cached.embed([f"text {idx + shift}" for shift in range(worker, worker + 5)])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with VectorCache(folder) as cache:
        assert [space.num_vectors for space in cache.spaces()] == [29]
        texts = [f"text {idx}" for idx in range(29)]
        counting = Counting()
        vectors = CachedEmbedder(counting, cache).embed(texts)
    assert counting.asked == []
    np.testing.assert_array_equal(vectors, Counting().embed(texts).astype(np.float16))


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path) -> None:
    assert cache_folder() == folder
    monkeypatch.setenv("TRIBUTARY_CACHE", "off")
    assert cache_folder() is None
    with through_cache(Counting()) as cached:
        assert cached.embed(["a", "a"]).shape == (2, 16)
    monkeypatch.delenv("TRIBUTARY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", os.fspath(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "tributary"


def test_a_damaged_cache_is_named(folder: Path) -> None:
    folder.mkdir()
    (folder / "embeddings.sqlite").write_bytes(b"not a database, but long enough to be read as one" * 100)
    with pytest.raises(OSError, match=r"the cache of vectors failed .*TRIBUTARY_CACHE"):
        VectorCache(folder)


def test_preprocessing_twice_makes_vectors_once(shop, tmp_path: Path) -> None:
    counting = Counting()
    outcome = preprocess(shop.write(), tmp_path / "one", embedder=counting)
    assert outcome.vectors is not None
    assert (outcome.vectors.found, outcome.vectors.made) == (0, len(counting.asked))
    asked = len(counting.asked)
    outcome = preprocess(shop.folder, tmp_path / "two", embedder=counting)
    assert outcome.vectors is not None
    assert outcome.vectors.made == 0
    assert len(counting.asked) == asked
    assert verify(tmp_path / "one") == verify(tmp_path / "two")


def test_new_vectors_for_a_processed_database(shop, tmp_path: Path) -> None:
    preprocess(shop.write(), tmp_path / "db", embedder=Counting())
    done = reembed(tmp_path / "db", make_embedder("hash", dimension=32))
    preprocess(shop.folder, tmp_path / "fresh", embedder=make_embedder("hash", dimension=32))
    assert verify(tmp_path / "db") == verify(tmp_path / "fresh")
    assert done.manifest.embedder == open_manifest(tmp_path / "fresh").embedder
    assert _headwater.Database(tmp_path / "db").embeddings("vocab").shape[1] == 32
    outcome = preprocess(shop.folder, tmp_path / "db", embedder=make_embedder("hash", dimension=32))
    assert outcome.is_up_to_date
    with pytest.raises(OSError, match="no processed database"):
        reembed(tmp_path / "absent", Counting())
    assert not (tmp_path / "absent").exists()


def test_cli_embeds_lists_and_prunes(shop, tmp_path: Path, folder: Path, tributary_command) -> None:
    preprocess(shop.write(), tmp_path / "db", embedder=Counting())
    found = tributary_command("embed", tmp_path / "db", "--embedder", "hash", "--dimension", "64")
    assert found.returncode == 0, found.stderr
    assert "made" in found.stdout
    listing = tributary_command("cache", "list")
    assert "counting-1" in listing.stdout, listing.stderr
    refused = tributary_command("cache", "prune")
    assert refused.returncode == 2
    assert "prune what?" in refused.stderr
    pruned = tributary_command("cache", "prune", "--all")
    assert "counting-1" in pruned.stdout, pruned.stderr
    assert "0 vectors of 0 spaces" in pruned.stdout
    with VectorCache(folder) as cache:
        assert cache.spaces() == []


def test_cli_prunes_by_model_age_and_size(folder: Path, tributary_command) -> None:
    for model in ("old", "middle", "new"):
        with through_cache(Counting(model)) as cached:
            cached.embed([f"{model} {idx}" for idx in range(10)])
    with VectorCache(folder) as cache:
        cache._connection.execute("UPDATE spaces SET used = used - 864000 WHERE identity LIKE '%old%'")
        size = cache.spaces()[0].num_bytes

    def kept(*arguments: str) -> list[str]:
        done = tributary_command("cache", "prune", *arguments)
        assert done.returncode == 0, done.stderr
        with VectorCache(folder) as cache:
            return [space.identity["model"] for space in cache.spaces()]

    assert kept("--max-size", "1KB", "--dry-run") == ["new", "middle", "old"]
    assert kept("--unused-days", "20") == ["new", "middle", "old"]
    assert kept("--unused-days", "9") == ["new", "middle"]
    assert kept("--max-size", str(size)) == ["new"]
    assert kept("--model", "new") == []
    for arguments, message in [
        (["--model", "absent"], "nothing of the model `absent`"),
        (["--space", "7"], "no space 7"),
        (["--max-size", "big"], "such as 500MB"),
    ]:
        refused = tributary_command("cache", "prune", *arguments)
        assert refused.returncode == 2
        assert message in refused.stderr


def test_processes_side_by_side_lose_nothing_when_some_are_killed(folder: Path) -> None:
    """Three writers share a space; two of them are killed at work; every transaction that ended is there."""
    script = (
        "import numpy as np, sys\n"
        "from pathlib import Path\n"
        "from tributary.embed import VectorCache\n"
        "cache = VectorCache(Path(sys.argv[1]))\n"
        "space = cache.space({'kind': 'k', 'model': 'm', 'dimension': 4})\n"
        "for number in range(int(sys.argv[3])):\n"
        "    keys = [bytes([int(sys.argv[2]), number // 256, number % 256, part]) for part in range(8)]\n"
        "    cache.store(space, keys, np.full((8, 4), number, dtype=np.float16))\n"
        "    print(number, flush=True)\n"
    )

    def start(writer: int, count: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", script, os.fspath(folder), str(writer), str(count)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    doomed, patient = [start(writer, 60_000) for writer in (1, 2)], start(3, 60)
    ended = {3: 59}
    for writer, process in enumerate(doomed, 1):
        with process:
            assert process.stdout is not None
            for _ in range(40):
                process.stdout.readline()
            process.kill()
            ended[writer] = max(40, *(int(line) for line in process.stdout.read().splitlines()[:-1] or ["0"]))
    with patient:
        assert patient.wait(timeout=60) == 0
    with VectorCache(folder) as cache:
        space = cache.space(Identity(kind="k", model="m", dimension=4))
        for writer, last in ended.items():
            keys = [bytes([writer, n // 256, n % 256, part]) for n in range(last) for part in range(8)]
            assert len(cache.known(space, keys)) == len(keys)
