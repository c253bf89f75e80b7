"""A second reader, written from documentation/format.md alone, finds what the native one finds."""

import itertools
import json
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from native_database import process
from test_native import make, write_input
from tributary import _headwater as native

KINDS = {"tables": 1, "graph": 2, "tasks": 3, "vocab": 4, "vocab_embeddings": 5, "column_embeddings": 5}


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

    def packed(self, tag, width, number, index=0):
        """Numbers of `width` bytes, which eight zero bytes follow."""
        content = self.array(tag, "u1", index)
        assert len(content) == number * width + 8
        assert not content[number * width :].any()
        return unpack(content[: number * width].reshape(number, width))

    def texts(self):
        found, places = [], self.array(20, "<u8").reshape(-1, 3)
        compressed = self.array(21, "u1").tobytes()
        for (first, start, raw), (last, end, raw_end) in itertools.pairwise(places.tolist()):
            block = pa.decompress(compressed[start:end], raw_end - raw, codec="zstd", asbytes=True)
            at, lengths = 0, []
            for _ in range(last - first):
                length = shift = 0
                while True:
                    byte, at, shift = block[at], at + 1, shift + 7
                    length |= (byte & 127) << (shift - 7)
                    if byte < 128:
                        break
                lengths.append(length)
            for length in lengths:
                found.append(block[at : at + length].decode())
                at += length
            assert at == len(block)
        return found


def unpack(content):
    """Little-endian numbers, one per row of bytes."""
    padded = np.zeros((len(content), 8), "u1")
    padded[:, : content.shape[1]] = content
    return padded.view("<u8")[:, 0]


def width_of(greatest):
    return -(-int(greatest).bit_length() // 8)


def times_of(codes, numbers):
    """The times of numbers, as the `times` of a table say."""
    times = codes["base_us"] + (numbers - codes["first"]).astype("<i8") * codes["unit_us"]
    return np.where(numbers < codes["first"], -(2**63), np.where(numbers > codes["last"], 2**63 - 1, times))


class Reader:
    """One table's records."""

    def __init__(self, root, manifest, table):
        self.table, self.at = table, 0
        self.file = Sections(root, table["file"])
        self.values = self.file.array(6, "<u4")
        self.incoming = [
            key for t in manifest["tables"] for key in t["foreign_keys"] if key["parent_table"] == table["id"]
        ]
        columns = table["columns"]
        self.time = self.field(table["times"]["width"])
        parents = [manifest["tables"][key["parent_table"]]["num_rows"] for key in table["foreign_keys"]]
        self.parent_fields = [self.field(width_of(rows)) for rows in parents]
        self.child_fields = [
            (self.field(width_of(key["edges"])), self.field(width_of(key["max_children"]))) for key in self.incoming
        ]
        self.valid = []
        for first in range(0, len(columns), 32):
            group = columns[first : first + 32]
            is_nullable = any(column["encoding"].get("nullable") for column in group)
            self.valid.append(self.field(-(-len(group) // 8)) if is_nullable else None)
        self.flags = [column["name"] for column in columns if column["stype"] == "boolean"]
        self.booleans = self.field(-(-len(self.flags) // 8))
        self.places = {column["name"]: self.field(column["encoding"]["width"]) for column in columns}
        rounded = 1 << (self.at - 1).bit_length()
        stride = rounded if self.at > 0 and rounded <= 64 and (rounded - self.at) * 8 <= self.at else self.at
        content, size = self.file.array(1, "u1"), table["num_rows"] * stride
        assert len(content) == size + 8
        assert not content[size:].any()
        self.records = content[:size].reshape(table["num_rows"], stride)

    def field(self, width):
        self.at += width
        return slice(self.at - width, self.at)

    def numbers(self, field):
        return unpack(self.records[:, field])

    def times(self):
        return times_of(self.table["times"], self.numbers(self.time))

    def parents(self, slot):
        """Parent rows, -1 for none."""
        return self.numbers(self.parent_fields[slot]).astype(np.int64) - 1

    def children(self, slot):
        start, length = self.child_fields[slot]
        return self.numbers(start), self.numbers(length)

    def is_valid(self, position):
        if self.valid[position // 32] is None:
            return np.ones(len(self.records), bool)
        return self.bit(self.valid[position // 32], position % 32)

    def bit(self, field, bit):
        return (self.records[:, field.start + bit // 8] >> (bit % 8) & 1).astype(bool)

    def column(self, column):
        name, encoding = column["name"], column["encoding"]
        numbers = self.numbers(self.places[name])
        if "dictionary" in encoding:
            start, length = encoding["dictionary"]["start"], encoding["dictionary"]["len"]
            entries = np.append(self.values[start : start + length], np.zeros(1, "<u4"))
            assert (numbers < max(length, 1)).all()
            words = entries[numbers]
        else:
            words = (numbers.astype("<i8") + encoding.get("base", 0)).astype("<u4")
        match column["stype"]:
            case "numerical":
                z = words.view("<f4").astype(np.float64)
                return z * column["statistics"]["std"] + column["statistics"]["mean"]
            case "timestamp" if name == self.table["temporal_column"]:
                return self.times()
            case "timestamp":
                return encoding.get("base", 0) + numbers.astype("<i8") * encoding.get("unit", 1)
            case "boolean":
                return self.bit(self.booleans, self.flags.index(name))
            case "categorical" | "text":
                return words.astype(np.int32)
        return None

    def keys(self):
        """The primary keys, and the rows in their order."""
        rows, kind = self.table["num_rows"], self.table["key_kind"]
        least, width, is_ascending = self.file.array(2, "<u8").tolist()
        order = self.file.packed(5, width_of(rows), 0 if is_ascending else rows)
        order = np.arange(rows) if is_ascending else order
        if kind == "string":
            ends, text = self.file.packed(3, width, rows + 1), self.file.array(4, "u1").tobytes()
            return [text[a:b].decode() for a, b in itertools.pairwise(ends)], order
        distances = np.arange(rows, dtype="<u8") if width == 0 else self.file.packed(3, width, rows)
        return (np.uint64(least) + distances).view("<i8" if kind == "int" else "<u8").tolist(), order


ODD = {
    "name": "odd",
    "tables": {
        "hubs": {"primary_key": "id", "columns": {"id": {"stype": "identifier"}, "note": {"stype": "text"}}},
        "events": {
            "primary_key": "id",
            "temporal_column": "at",
            "columns": {
                "id": {"stype": "identifier"},
                "hub": {"stype": "identifier", "foreign_key": "hubs.id"},
                "at": {"stype": "timestamp"},
                "until": {"stype": "timestamp"},
                "few": {"stype": "numerical"},
                "many": {"stype": "numerical"},
                "constant": {"stype": "numerical"},
                "kind": {"stype": "categorical"},
                "again": {"stype": "text"},
                "is_new": {"stype": "boolean"},
                **{f"x{number}": {"stype": "boolean"} for number in range(40)},
            },
        },
    },
}


def write_odd(folder: Path) -> Path:
    """Columns of every encoding: nulls, dictionaries, constants, extreme times, keys in no order, long texts."""
    rng, rows, hubs = np.random.default_rng(0), 2000, 71
    folder.mkdir()
    names = [f"hub {hub * 7 % hubs:03}" for hub in range(hubs)]
    notes = [f"note {hub} " * (hub * 20) for hub in range(hubs)]
    pq.write_table(pa.table({"id": names, "note": notes}), folder / "hubs.parquet")

    def some(values, share=0.9):
        return pa.array(values, mask=rng.random(rows) > share)

    stamps = np.concatenate([[-(2**63) + 1, 2**63 - 2], rng.integers(-(2**62), 2**62, rows - 2)])
    events = {
        "id": rng.permutation(rows) * 1000 - 10**6,
        "hub": some(np.array(names)[rng.integers(0, hubs, rows)]),
        "at": some(rng.integers(0, 900, rows) * 60_000_000).cast(pa.timestamp("us")),
        "until": pa.array(stamps).cast(pa.timestamp("us")),
        "few": some(rng.integers(0, 300, rows) / 8),
        "many": rng.normal(size=rows),
        "constant": some(np.full(rows, 7.5)),
        "kind": some(np.array([f"kind {kind}" for kind in range(60)])[rng.integers(0, 60, rows)]),
        "again": np.array(notes[:9])[rng.integers(0, 9, rows)],
        "is_new": some(rng.random(rows) < 0.5),
        **{f"x{number}": rng.random(rows) < 0.5 for number in range(40)},
    }
    pq.write_table(pa.table(events), folder / "events.parquet", row_group_size=700)
    (folder / "metadata.json").write_text(json.dumps(ODD))
    return folder


@pytest.fixture(scope="module", params=["shop", "odd"])
def root(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("format")
    if request.param == "shop":
        return make(write_input(folder / "input"), folder / "database")
    process(write_odd(folder / "input"), ODD, folder / "database")
    return folder / "database"


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
        if table["key_kind"] != "none":
            keys, order = reader.keys()
            assert keys == database.row_keys(table["name"], np.arange(table["num_rows"]))
            assert [keys[row] for row in order] == sorted(keys)


def test_links_both_ways(root):
    manifest = json.loads((root / "metadata.json").read_text())
    readers = [Reader(root, manifest, table) for table in manifest["tables"]]
    graph = Sections(root, "graph.bin")
    for table, child in zip(manifest["tables"], readers, strict=True):
        for slot, key in enumerate(table["foreign_keys"]):
            parents = child.parents(slot)
            assert (parents >= 0).sum() == key["edges"]
            indices = graph.packed(1, width_of(table["num_rows"]), key["edges"], key["id"])
            times = times_of(table["times"], graph.packed(2, table["times"]["width"], key["edges"], key["id"]))
            assert (times == child.times()[indices]).all()
            parent = readers[key["parent_table"]]
            starts, counts = parent.children([known["id"] for known in parent.incoming].index(key["id"]))
            assert key["max_children"] == counts.max()
            for row, (start, count) in enumerate(zip(starts.tolist(), counts.tolist(), strict=True)):
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
        if manifest["embedder"] is None:
            continue
        file = Sections(root, name)
        assert (file.array(2, "<f2").reshape(file.array(1, "<u8")) == database.embeddings(which)).all()
        assert json.loads(file.texts()[0]) == manifest["embedder"]
