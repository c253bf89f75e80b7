"""Explanations: what the answer follows from comes first, and nothing that is taken out leaves a trace."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from renumbered import pad
from tributary import Sampler
from tributary.data import sampler_options
from tributary.prediction.explain import explain, write_explanations
from tributary.prediction.occlusion import removals, without
from tributary.prediction.predict import Run
from tributary.seeds import seeds_from_keys
from untrained_run import processed, untrained_run, write_shop


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on the shop."""
    folder = tmp_path_factory.mktemp("shop")
    return untrained_run(folder, processed(write_shop(folder / "raw"), folder / "db"))


def column_id(run: Run, table: str, column: str) -> int:
    """Number of a column."""
    tables = {each["name"]: each for each in run.manifest["tables"]}
    return int({each["name"]: each["id"] for each in tables[table]["columns"]}[column])


def knowing(run: Run, answer: Any) -> Run:
    """The run with a known function of the batch in place of its model: z-scores float32 [B]."""

    def forward(params: Any, batch: Any, arrays: Any) -> dict[str, Any]:
        value = answer(batch)
        return {"number": value, "moment": value, "truth": value, "classes": value[:, None]}

    return dataclasses.replace(run, forward=forward)


def test_the_cell_that_the_answer_is_a_function_of_comes_first(run: Run) -> None:
    age = column_id(run, "customers", "age")
    known = knowing(run, lambda batch: jnp.where(batch.cell_column == age, batch.cell_value, 0.0).sum(axis=1) * 3.0)
    seeds = seeds_from_keys(run.database, "spend", [4, 9, 11], "2024-02-12")
    found = explain(known, "spend", seeds=seeds, cells=5)
    ages = {4: 24.0, 9: 22.0, 11: 24.0}
    statistics = {each["name"]: each for each in run.manifest["tables"][0]["columns"]}["age"]["statistics"]
    for entity, value in ages.items():
        rows = found.rows.filter(pc.equal(found.rows["entity"], entity))
        expected = 3.0 * (value - statistics["mean"]) / statistics["std"] * run.targets["spend"].std
        for kind in ("cell", "column", "row"):
            (first, *others) = rows.filter(pc.equal(rows["kind"], kind)).to_pylist()
            assert (first["table"], first["rank"]) == ("customers", 1)
            assert first["change"] == pytest.approx(expected, rel=1e-5)
            assert all(each["change"] == pytest.approx(0.0, abs=1e-5) for each in others)
        cell = rows.filter(pc.equal(rows["kind"], "cell")).to_pylist()[0]
        assert (cell["column"], cell["value"], cell["row_key"]) == ("age", str(value), str(entity))
        assert cell["answer"] == pytest.approx(expected + run.targets["spend"].mean, rel=1e-5)
        assert len(rows.filter(pc.equal(rows["kind"], "cell"))) == 5
    top = found.paths.to_pylist()[0]
    assert (top["kind"], top["path"], top["table"], top["column"]) == ("column", "", "customers", "age")
    assert top["num_seeds"] == 3


def test_paths_name_the_keys_from_the_entity(run: Run) -> None:
    """An answer that sums what the customer's orders cost follows from one path, and from every order alike."""
    amount = column_id(run, "orders", "amount")
    known = knowing(run, lambda batch: (batch.cell_column == amount).sum(axis=1).astype(jnp.float32))
    found = explain(known, "spend", "test", max_seeds=4, cells=None)
    std = run.targets["spend"].std
    paths = {(each["kind"], each["path"], each["table"], each["column"]): each for each in found.paths.to_pylist()}
    whole, column = (
        paths[(kind, "orders.customer", "orders", name)] for kind, name in (("path", None), ("column", "amount"))
    )
    cells = found.rows.filter(pc.and_(pc.equal(found.rows["kind"], "cell"), pc.equal(found.rows["column"], "amount")))
    np.testing.assert_allclose(cells["change"].to_numpy(), std, rtol=1e-5)
    count = cells.num_rows / 4
    assert count > 1
    assert whole["mean_change"] == column["mean_change"] == pytest.approx(count * std, rel=1e-5)
    assert ("column", "spend.id", "spend", "spend") in paths, "past labels of the customer"
    index = found.rows["seed_index"].to_numpy()
    assert (np.diff(index) >= 0).all()


def test_what_is_taken_out_leaves_no_trace(run: Run) -> None:
    """A context without a row is, cell by cell and link by link, one of which the rest was drawn alone."""
    seeds = seeds_from_keys(run.database, "spend", [4], "2024-02-12")
    options = sampler_options(run.config.data) | {"batch_size": 1, "shuffle": False, "seeds": seeds}
    with Sampler(run.database, ["spend"], **options) as sampler:
        batch, context = sampler.batch(0), sampler.explain(0)
    found = removals(batch, context)
    assert not any(batch.cell_is_target[0, removal.cells].any() for removal in found)
    order = next(removal for removal in found if removal.kind == "row" and removal.table == "orders")
    several = without(batch, [None, order], 3)
    for name in batch.spec():
        np.testing.assert_array_equal(getattr(several, name)[0], getattr(batch, name)[0], err_msg=name)
        np.testing.assert_array_equal(getattr(several, name)[2], getattr(batch, name)[0], err_msg=name)
    (local,) = order.rows
    assert not (several.cell_row[1] == local).any()
    assert several.row_table[1, local] == -1
    assert not (several.row_parents[1] == local).any()
    assert several.cell_is_padding[1].sum() == batch.cell_is_padding[0].sum() + len(order.cells)
    kept = np.setdiff1d(np.flatnonzero(~batch.cell_is_padding[0]), order.cells)
    np.testing.assert_array_equal(several.cell_column[1, : len(kept)], batch.cell_column[0, kept])
    assert several.cell_is_target[1, several.target_cell[1]]

    padded = pad(several, S=5, R=3, P=1)
    answers = [run.forward(run.params, each.device_fields(), run.arrays)["number"] for each in (several, padded)]
    np.testing.assert_allclose(answers[0], answers[1], rtol=1e-4, atol=1e-5)
    assert answers[0][0] == answers[0][2] != answers[0][1]


@pytest.mark.slow
def test_a_file_and_a_page(run: Run, tmp_path: Path) -> None:
    out, page = tmp_path / "why" / "buys.parquet", tmp_path / "why" / "buys.html"
    found = write_explanations(run, "buys", "test", out, html=page, max_seeds=3)
    table = pq.read_table(out)
    assert table.equals(explain(run, "buys", "test", max_seeds=3).rows)
    assert found.unit == "probability of true"
    assert set(table["kind"].to_pylist()) == {"path", "column", "row", "cell"}
    assert pq.read_table(out.with_suffix(".paths.parquet")).equals(found.paths)
    text = page.read_text()
    assert "orders.customer -&gt; orders.amount" in text
    assert "http" not in text, "nothing is fetched from elsewhere"
    assert len(list(out.parent.iterdir())) == 3
    classes = explain(run, "country", seeds=seeds_from_keys(run.database, "country", [3], "2024-02-12"))
    assert 0 < classes.rows["answer"][0].as_py() <= 1
    with pytest.raises(ValueError, match="cells = -1"):
        explain(run, "buys", cells=-1)
