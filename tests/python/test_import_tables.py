"""`tributary.import_tables`: Arrow, anything that hands out Arrow streams, and what is declared of them."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tributary


class Stream:
    """A table of another library: all it shows is a stream of Arrow."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._table.__arrow_c_stream__(requested_schema)


_PEOPLE = pa.table({"who": [5, 6, 7], "name": pa.array(["a", "b", None]).dictionary_encode()})
_MADE = [datetime(2024, 1, 1) + timedelta(days=n) for n in range(4)]
_SOLD = pa.table({"x": [5, 5, 6, None], "made": _MADE, "changed": _MADE, "id": [1, 2, 3, 4]})


@pytest.mark.parametrize("wrap", [lambda table: table, Stream])
def test_what_is_declared_goes_before_what_is_inferred(tmp_path: Path, wrap: Any) -> None:
    done = tributary.import_tables(
        {"sold": wrap(_SOLD), "people": wrap(_PEOPLE)},
        tmp_path / "shop",
        primary_keys={"people": "who"},
        foreign_keys={"sold.x": "people"},
        times={"sold": "changed"},
        threads=1,
        with_tasks=False,
    )
    metadata = done.draft.metadata
    assert metadata["name"] == "shop"
    assert metadata["tables"]["people"]["primary_key"] == "who"
    assert metadata["tables"]["sold"]["columns"]["x"] == {"stype": "identifier", "foreign_key": "people.who"}
    assert metadata["tables"]["sold"]["temporal_column"] == "changed"
    assert metadata["tables"]["sold"]["primary_key"] == "id"  # inferred
    assert pq.read_table(tmp_path / "shop" / "people.parquet")["name"].to_pylist() == ["a", "b", None]
    assert pq.read_table(tmp_path / "shop" / "sold.parquet").num_rows == 4


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames(tmp_path: Path, library: str) -> None:
    module = pytest.importorskip(library)
    frame = module.DataFrame({"id": [1, 2], "at": _MADE[:2], "note": ["a", None]})
    done = tributary.import_tables({"t": frame}, tmp_path / "out", threads=1, with_tasks=False)
    assert done.draft.metadata["tables"]["t"]["primary_key"] == "id"
    assert pq.read_table(tmp_path / "out" / "t.parquet").to_pydict() == {
        "id": [1, 2],
        "at": _MADE[:2],
        "note": ["a", None],
    }


@pytest.mark.parametrize(
    ("said", "error", "message"),
    [
        ({"primary_keys": {"folk": "who"}}, ValueError, "primary_keys: no table `folk`; there are people, sold"),
        ({"times": {"sold": "when"}}, ValueError, "times: table `sold` has no column `when`"),
        ({"foreign_keys": {"sold.x": "people"}}, ValueError, "which primary_keys does not list"),
        ({"tables": {"t": [1]}}, TypeError, r"table `t`: expected pandas, polars, Arrow .* found builtins\.list"),
        ({"tables": {}}, ValueError, "no table to import"),
    ],
)
def test_what_is_not_there_is_refused(tmp_path: Path, said: Any, error: type[Exception], message: str) -> None:
    tables = said.pop("tables", {"people": _PEOPLE, "sold": _SOLD})
    with pytest.raises(error, match=message):
        tributary.import_tables(tables, tmp_path / "out", **said)
    assert not list(tmp_path.iterdir())
