"""A second reader, written from documentation/format.md alone, finds what the native one finds."""

import itertools
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from test_native import make, write_input
from tributary import _headwater as native

KINDS = {"tables": 1, "graph": 2, "tasks": 3, "vocab": 4, "vocab_embeddings": 5, "column_embeddings": 5}
NONE = 2**32 - 1


class Sections:
    """The sections of one binary file, by tag and index."""

    def __init__(self, root, name):
        content = (root / name).read_bytes()
        magic, version, kind, self.build_id, _, length, number, zero, _, tail = struct.unpack_from(
            "<8sIIQQQIIQQ", content
        )
        assert (magic, version, length, zero, tail) == (b"TRIBUTRY", native.FORMAT_VERSION, len(content), 0, 0)
        assert kind == KINDS[name.split("/")[0].removesuffix(".bin")]
        assert len(content) % 64 == 0
        self.content, self.places, end = content, {}, 64 + 32 * number
        for section in range(number):
            tag, index, offset, size, _ = struct.unpack_from("<IIQQQ", content, 64 + 32 * section)
            assert offset == -(-end // 64) * 64
            assert not any(content[end:offset])
            self.places[tag, index] = (offset, size)
            end = offset + size

    def array(self, tag, dtype, index=0):
        offset, size = self.places[tag, index]
        return np.frombuffer(self.content, dtype, size // np.dtype(dtype).itemsize, offset)

    def texts(self):
        ends, text = self.array(20, "<u8"), self.array(21, "u1").tobytes()
        return [text[start:end].decode() for start, end in itertools.pairwise(ends)]


class Reader:
    """One table's records."""

    def __init__(self, root, manifest, table):
        self.table = table
        self.file = Sections(root, table["file"])
        self.incoming = [
            key["id"] for t in manifest["tables"] for key in t["foreign_keys"] if key["parent_table"] == table["id"]
        ]
        columns, parents = table["columns"], len(table["foreign_keys"])
        flags = [column["name"] for column in columns if column["stype"] == "boolean"]
        valid = 2 + parents + 2 * len(self.incoming)
        booleans = valid + -(-len(columns) // 32)
        word = booleans + -(-len(flags) // 32)
        self.valid, self.booleans, self.flags, self.places = valid, booleans, flags, {}
        for column in columns:
            self.places[column["name"]] = word
            word += {"numerical": 1, "categorical": 1, "text": 1, "timestamp": 2}.get(column["stype"], 0)
        self.records = self.file.array(1, "<u4").reshape(table["num_rows"], word + word % 2)

    def times(self):
        return np.ascontiguousarray(self.records[:, :2]).view("<i8")[:, 0]

    def parents(self, slot):
        return self.records[:, 2 + slot]

    def children(self, slot):
        at = 2 + len(self.table["foreign_keys"]) + 2 * slot
        return self.records[:, at], self.records[:, at + 1]

    def is_valid(self, position):
        return (self.records[:, self.valid + position // 32] >> (position % 32) & 1).astype(bool)

    def column(self, column):
        name, at = column["name"], self.places[column["name"]]
        match column["stype"]:
            case "numerical":
                z = np.ascontiguousarray(self.records[:, at]).view("<f4").astype(np.float64)
                return z * column["statistics"]["std"] + column["statistics"]["mean"]
            case "timestamp":
                return np.ascontiguousarray(self.records[:, at : at + 2]).view("<i8")[:, 0]
            case "boolean":
                bit = self.flags.index(name)
                return (self.records[:, self.booleans + bit // 32] >> (bit % 32) & 1).astype(bool)
            case "categorical" | "text":
                return self.records[:, at].astype(np.int32)
        return None


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    source = write_input(tmp_path_factory.mktemp("format") / "input")
    return make(source, source.parent / "database")


def test_records_and_keys(root):
    database, manifest = native.Database(root), json.loads((root / "metadata.json").read_text())
    for table in manifest["tables"]:
        reader = Reader(root, manifest, table)
        assert f"{reader.file.build_id:016x}" == manifest["build_id"]
        assert (reader.times() == database.row_times(table["name"])).all()
        for position, column in enumerate(table["columns"]):
            values, is_valid = database.column(table["name"], column["name"])
            assert (reader.is_valid(position) == is_valid).all()
            found = reader.column(column)
            if found is not None:
                assert (found[is_valid] == values[is_valid]).all()
                assert not found[~is_valid].any() or column["stype"] == "numerical"
        keys = database.row_keys(table["name"], np.arange(table["num_rows"]))
        if table["key_kind"] == "int":
            assert reader.file.array(2, "<i8").tolist() == keys
        else:
            ends, text = reader.file.array(3, "<u8"), reader.file.array(4, "u1").tobytes()
            assert [text[a:b].decode() for a, b in itertools.pairwise(ends)] == keys
        assert [keys[row] for row in reader.file.array(5, "<u4")] == sorted(keys)


def test_links_both_ways(root):
    manifest = json.loads((root / "metadata.json").read_text())
    readers = [Reader(root, manifest, table) for table in manifest["tables"]]
    graph = Sections(root, "graph.bin")
    for table, child in zip(manifest["tables"], readers, strict=True):
        for slot, key in enumerate(table["foreign_keys"]):
            parents = child.parents(slot)
            assert (parents != NONE).sum() == key["edges"]
            indices, times = graph.array(1, "<u4", key["id"]), graph.array(2, "<i8", key["id"])
            assert (times == child.times()[indices]).all()
            parent = readers[key["parent_table"]]
            starts, counts = parent.children(parent.incoming.index(key["id"]))
            for row, (start, count) in enumerate(zip(starts, counts, strict=True)):
                own = indices[start : start + count]
                assert own.tolist() == sorted(np.flatnonzero(parents == row), key=lambda r: (child.times()[r], r))


def test_seeds_texts_and_vectors(root):
    database, manifest = native.Database(root), json.loads((root / "metadata.json").read_text())
    texts = Sections(root, "vocab.bin").texts()
    for task in manifest["tasks"]:
        file, seeds = Sections(root, task["file"]), database.task_seeds(task["name"])
        for tag, dtype, field in (
            (1, "<u4", "row"),
            (2, "<i8", "time"),
            (3, "u1", "split"),
            (4, "<f4", "value"),
            (6, "u1", "is_null"),
        ):
            assert (file.array(tag, dtype) == seeds[field]).all()
        indptr, indices = file.array(7, "<u4"), file.array(8, "<u4")
        assert len(indptr) == manifest["tables"][task["anchor_table"]]["num_rows"] + 1
        for row, (start, end) in enumerate(itertools.pairwise(indptr)):
            assert (seeds["row"][indices[start:end]] == row).all()
        assert (file.array(9, "<i8") == seeds["time"][indices]).all()
        assert file.array(11, "<u4").tolist() == [len(texts)]
        texts += file.texts()
    assert texts == database.vocab(range(manifest["vocabulary"]["num_texts"]))
    for which, name in (("vocab", "vocab_embeddings.bin"), ("column", "column_embeddings.bin")):
        file = Sections(root, name)
        assert (file.array(2, "<f2").reshape(file.array(1, "<u8")) == database.embeddings(which)).all()
        assert json.loads(file.texts()[0]) == manifest["embedder"]
