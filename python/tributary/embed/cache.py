"""Vectors that were made before: one SQLite file that every database and every run of a user shares.

    <folder>/embeddings.sqlite     TRIBUTARY_CACHE, else XDG_CACHE_HOME/tributary, else ~/.cache/tributary

A space is one identity of an embedder; within it the key of a vector is a hash of its text, as `normalised` writes it.
Every part of the work is one transaction of a write-ahead log, so runs may work side by side and a killed run loses
nothing it had stored. Vectors are kept as databases keep them, in float16.
"""

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from tributary.embed.interface import Announcing, Cutting, Embedder, Identity, Part, PartwiseEmbedder, Routed
from tributary.embed.phrases import normalised

FOLDER_VARIABLE = "TRIBUTARY_CACHE"
"""Environment variable: another folder, or `off` for no cache."""

FILE = "embeddings.sqlite"
_FASTER_THAN_CACHE = ("hash", "local-static")
_BUSY_SECONDS = 120.0
_KEYS_PER_QUERY = 500
_TABLES = """
CREATE TABLE IF NOT EXISTS spaces (id INTEGER PRIMARY KEY, identity TEXT NOT NULL UNIQUE, used REAL NOT NULL);
CREATE TABLE IF NOT EXISTS vectors (space INTEGER NOT NULL, key BLOB NOT NULL, vector BLOB NOT NULL,
                                    PRIMARY KEY (space, key));
"""


@dataclass(frozen=True)
class Space:
    """The vectors of one embedder.

    Attributes:
        id: Its number in the file.
        identity: What made them.
        num_vectors: How many there are.
        num_bytes: What they hold, without the index.
        used: When a run last used them, in seconds since 1970.
    """

    id: int
    identity: Identity
    num_vectors: int
    num_bytes: int
    used: float


def cache_folder() -> Path | None:
    """Where the cache is; None when it is switched off."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named == "off":
        return None
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tributary"


class VectorCache:
    """The open cache; used as a context manager, from one thread.

    Args:
        folder: Where its file is or will be.

    Raises:
        OSError: It cannot be read or written.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / FILE
        with self._named_errors():
            self._connection = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.executescript(_TABLES)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; a second time does nothing."""
        self._connection.close()

    def space(self, identity: Identity) -> int:
        """The number of the space of an identity, which is made if need be and marked as used."""
        text = json.dumps(identity, sort_keys=True)
        with self._transaction() as run:
            run(
                "INSERT INTO spaces (identity, used) VALUES (?, ?) ON CONFLICT (identity) DO UPDATE SET used = ?",
                (text, time.time(), time.time()),
            )
            return int(run("SELECT id FROM spaces WHERE identity = ?", (text,)).fetchone()[0])

    def find(self, space: int, keys: Sequence[bytes]) -> dict[bytes, npt.NDArray[np.float16]]:
        """The vectors there are, by key: float16 [D] each."""
        found = {}
        with self._named_errors():
            for start in range(0, len(keys), _KEYS_PER_QUERY):
                part = keys[start : start + _KEYS_PER_QUERY]
                marks = ",".join("?" * len(part))
                rows = self._connection.execute(
                    f"SELECT key, vector FROM vectors WHERE space = ? AND key IN ({marks})", (space, *part)
                )
                found.update({key: np.frombuffer(vector, dtype="<f2") for key, vector in rows})
        return found

    def known(self, space: int, keys: Sequence[bytes]) -> set[bytes]:
        """Those of some keys that have a vector."""
        there = set[bytes]()
        with self._named_errors():
            for start in range(0, len(keys), _KEYS_PER_QUERY):
                part = keys[start : start + _KEYS_PER_QUERY]
                marks = ",".join("?" * len(part))
                rows = self._connection.execute(
                    f"SELECT key FROM vectors WHERE space = ? AND key IN ({marks})", (space, *part)
                )
                there.update(key for (key,) in rows)
        return there

    def store(self, space: int, keys: Sequence[bytes], vectors: npt.NDArray[np.float16]) -> None:
        """Keeps some vectors, all or none of them; those that are there already stay.

        Args:
            space: What `space` returned.
            keys: Of each row.
            vectors: float16 [len(keys), D].
        """
        rows = [(space, key, vector.astype("<f2").tobytes()) for key, vector in zip(keys, vectors, strict=True)]
        with self._transaction():
            self._connection.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?, ?)", rows)

    def spaces(self) -> list[Space]:
        """What there is, most recently used first."""
        with self._named_errors():
            rows = self._connection.execute(
                "SELECT id, identity, used, count(key), ifnull(sum(length(key) + length(vector)), 0)"
                " FROM spaces LEFT JOIN vectors ON space = id GROUP BY id ORDER BY used DESC, id"
            ).fetchall()
        return [Space(number, json.loads(text), count, size, used) for number, text, used, count, size in rows]

    def prune(self, spaces: Sequence[int]) -> int:
        """Forgets spaces and gives their room back; the number of vectors forgotten."""
        removed = 0
        with self._transaction() as run:
            for number in spaces:
                removed += run("DELETE FROM vectors WHERE space = ?", (number,)).rowcount
                run("DELETE FROM spaces WHERE id = ?", (number,))
        with self._named_errors():
            self._connection.execute("VACUUM")
        return removed

    @contextmanager
    def _transaction(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        """One transaction; it takes the writer's lock at once, so that two runs wait for, not fail, each other."""
        with self._named_errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection.execute
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise OSError(
                5,
                f"the cache of vectors failed ({error}); move the file away, or set {FOLDER_VARIABLE} to another"
                " folder or to `off`",
                os.fspath(self.path),
            ) from error


class CachedEmbedder:
    """An embedder whose vectors are looked up before they are made, and kept as soon as they are.

    Equal texts are made once. Vectors pass through float16 on every road, so a later run gets the same bits.

    Args:
        embedder: What makes missing vectors.
        cache: Where they are kept; None to make all of them.

    Attributes:
        num_found: Texts whose vectors were there.
        num_made: Distinct texts whose vectors were made.
    """

    def __init__(self, embedder: Embedder, cache: VectorCache | None) -> None:
        self._embedder = embedder
        self._cache = cache
        self._space = cache.space(_exact_identity(embedder)) if cache is not None else 0
        self.num_found = 0
        self.num_made = 0

    @property
    def identity(self) -> Identity:
        """That of the embedder: a vector does not depend on whether it was made or found."""
        return self._embedder.identity

    @property
    def cut_texts(self) -> list[str]:
        """Texts of which the embedder read the beginning only, as far as it says."""
        return self._embedder.cut_texts if isinstance(self._embedder, Cutting) else []

    def announce(self, texts: Sequence[str]) -> None:
        """Lets an embedder whose use has a price say how many of these texts it will be asked for."""
        if isinstance(self._embedder, Announcing):
            distinct = {text_key(text): text for text in texts}
            known = self._cache.known(self._space, list(distinct)) if self._cache is not None else set()
            self._embedder.announce([text for key, text in distinct.items() if key not in known], len(known))

    def embed(self, texts: Sequence[str], report: Callable[[int], None] = lambda done: None) -> npt.NDArray[np.float32]:
        """The vectors of some texts.

        Args:
            texts: Any texts.
            report: Told how many of them are done, from time to time.

        Returns:
            float32 [len(texts), dimension], every row of length one to the precision of float16.
        """
        keys = [text_key(text) for text in texts]
        known = self._cache.find(self._space, list(dict.fromkeys(keys))) if self._cache is not None else {}
        missing: dict[bytes, str] = {}
        for key, text in zip(keys, texts, strict=True):
            if key not in known:
                missing.setdefault(key, text)
        found = sum(key in known for key in keys)
        self.num_found += found
        report(found)
        missing_keys = list(missing)
        done = found
        for members, vectors in _parts(self._embedder, list(missing.values())):
            part_keys = [missing_keys[member] for member in members]
            rows = vectors.astype(np.float16)
            if self._cache is not None:
                self._cache.store(self._space, part_keys, rows)
            known.update(zip(part_keys, rows, strict=True))
            self.num_made += len(part_keys)
            done += len(part_keys)
            report(done)
        if not keys:
            return np.empty((0, self.identity["dimension"]), dtype=np.float32)
        return np.stack([known[key] for key in keys]).astype(np.float32)


@contextmanager
def through_cache(embedder: Embedder) -> Iterator[CachedEmbedder]:
    """An embedder behind the cache while the context lasts, unless making vectors is faster than finding them."""
    folder = None if embedder.identity["kind"] in _FASTER_THAN_CACHE else cache_folder()
    if folder is None:
        yield CachedEmbedder(embedder, None)
        return
    with VectorCache(folder) as cache:
        yield CachedEmbedder(embedder, cache)


def num_cached(embedder: Embedder, texts: Sequence[str]) -> int:
    """How many of some distinct texts have a vector in the cache; the cache is neither made nor changed.

    Args:
        embedder: What would make the others.
        texts: Distinct texts.
    """
    folder = None if embedder.identity["kind"] in _FASTER_THAN_CACHE else cache_folder()
    if folder is None or not (folder / FILE).is_file():
        return 0
    connection = sqlite3.connect(f"{(folder / FILE).resolve().as_uri()}?mode=ro", uri=True, timeout=_BUSY_SECONDS)
    try:
        space = "(SELECT id FROM spaces WHERE identity = ?)"
        name, found = json.dumps(_exact_identity(embedder), sort_keys=True), 0
        for start in range(0, len(texts), _KEYS_PER_QUERY):
            keys = [text_key(text) for text in texts[start : start + _KEYS_PER_QUERY]]
            query = f"SELECT count(*) FROM vectors WHERE space = {space} AND key IN ({','.join('?' * len(keys))})"
            found += connection.execute(query, (name, *keys)).fetchone()[0]
        return found
    except sqlite3.Error as error:
        raise OSError(5, f"the cache of vectors cannot be read ({error})", os.fspath(folder / FILE)) from error
    finally:
        connection.close()


def _exact_identity(embedder: Embedder) -> Identity:
    """What the bits of a vector depend on besides its text."""
    if isinstance(embedder, Routed):
        return {**embedder.identity, "route": embedder.route}
    return embedder.identity


def text_key(text: str) -> bytes:
    """The key of a text within a space: 16 bytes, equal for texts that `normalised` makes equal."""
    return blake2b(normalised(text).encode(), digest_size=16, person=b"tributary-text").digest()


def _parts(embedder: Embedder, texts: Sequence[str]) -> Iterator[Part]:
    if isinstance(embedder, PartwiseEmbedder):
        yield from embedder.embed_parts(texts)
    elif texts:
        yield np.arange(len(texts)), embedder.embed(texts)
