"""The page: what is in a run's folder, arranged for the template.

Everything shown comes from files of the run (`config.yaml`, `training_history.json`, `environment.json`,
`evaluation.json` and its rows), of the runs beside it, and from the manifest of the database. What is missing is said
to be missing.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from markupsafe import Markup
from numpy.typing import NDArray

from tributary import metrics
from tributary.report import plots
from tributary.report.beside import Other, bars_of, read_others
from tributary.report.cost import describe_cost, duration

MODELS = ("constant", "entity", "lightgbm", "ensemble", "model")
NUM_TIME_BINS = 8
NUM_HISTORY_BINS = 6


def write_report(
    run_dir: Path | str,
    evaluations: Sequence[Mapping[str, Any]],
    out_html: Path | str,
    *,
    manifest: Mapping[str, Any] | None = None,
    beside: Sequence[Path | str] = (),
) -> Path:
    """Write one self-contained HTML page about a run.

    Args:
        run_dir: folder of the run.
        evaluations: results of `tributary.evaluate.evaluate`.
        out_html: the file to write; it appears under its name only when it is complete.
        manifest: of the database; default: read from the place that was evaluated, or that the run was trained on.
        beside: folders of evaluated runs to compare with, ablations say.

    Returns:
        The file written.

    Raises:
        FileNotFoundError: the folder holds no run, or one of those beside it does not.
        ValueError: a run beside it is not evaluated.
    """
    run_dir, out_html = Path(run_dir), Path(out_html)
    config_text = (run_dir / "config.yaml").read_text(encoding="utf-8")
    config = yaml.safe_load(config_text)
    history = _read_json(run_dir / "training_history.json")
    missing: list[str] = []
    if manifest is None:
        manifest = _manifest_of(_place_of_database(evaluations, config["data"]), missing)
    others = read_others(run_dir, beside)
    page = (
        _environment()
        .get_template("report.html.jinja")
        .render(
            name=config["run"]["name"],
            database=_describe_database(manifest),
            missing=missing,
            sections=[_describe_task(run_dir, result, manifest, others) for result in evaluations],
            others=others,
            curves=[Markup(svg) for svg in _curves(history)],
            cost=describe_cost(history, _read_json(run_dir / "environment.json"), evaluations),
            config=config_text,
            run_dir=str(run_dir),
            run_name=run_dir.name,
        )
    )
    out_html.parent.mkdir(parents=True, exist_ok=True)
    partial = out_html.with_name(f".{out_html.name}.partial")
    partial.write_text(page, encoding="utf-8")
    os.replace(partial, out_html)
    return out_html


def _curves(history: Mapping[str, Any]) -> list[str]:
    """Pictures of the training."""
    return [*plots.learning_curves(history), *plots.learning_rates(history), *plots.input_waits(history)]


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tributary.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    return environment


def _number(value: float | None) -> str:
    """A figure as a person writes it."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _read_json(path: Path) -> dict[str, Any]:
    """A file of the run; empty where it was not written."""
    if not path.is_file():
        return {}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _place_of_database(evaluations: Sequence[Mapping[str, Any]], data: Mapping[str, Any]) -> str:
    """The database to describe: the first that was evaluated, else the first that was trained on."""
    places = [result["database"]["path"] for result in evaluations if "path" in result.get("database", {})]
    trained = [part["path"] for part in (data.get("databases") or {}).values()]
    return str([*places, *([data["database"]] if data.get("database") else []), *trained][0])


def _manifest_of(database: str, missing: list[str]) -> Mapping[str, Any] | None:
    from tributary.data import Database

    try:
        found: dict[str, Any] = json.loads(Database(database).manifest)
    except FileNotFoundError:
        missing.append(f"the database {database} is not there any more: its summary is left out")
        return None
    return found


def _describe_database(manifest: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Totals and a line per table."""
    if manifest is None:
        return None
    tables = []
    for table in manifest["tables"]:
        time = next((c for c in table["columns"] if c["name"] == table["temporal_column"]), None)
        statistics = time["statistics"] if time else {}
        keys = []
        for key in table["foreign_keys"]:
            parent = manifest["tables"][key["parent_table"]]["name"]
            dangling = f" ({key['dangling']:,} dangle)" if key.get("dangling") else ""
            keys.append(f"{key['column']} → {parent}{dangling}")
        tables.append(
            {
                "name": table["name"],
                "num_rows": table["num_rows"],
                "num_columns": len(table["columns"]),
                "time": f"{_day(statistics.get('min_us'))} to {_day(statistics.get('max_us'))}" if statistics else "-",
                "keys": keys,
            }
        )
    totals = {
        "tables": len(tables),
        "rows": sum(table["num_rows"] for table in tables),
        "columns": sum(table["num_columns"] for table in tables),
        "keys": sum(len(table["keys"]) for table in tables),
    }
    return {"name": manifest["name"], "build_id": manifest["build_id"], "tables": tables, "totals": totals}


def _day(time_us: int | None) -> str:
    return "?" if time_us is None else str(np.datetime64(time_us, "us").astype("datetime64[D]"))


def _describe_task(
    run_dir: Path, result: Mapping[str, Any], manifest: Mapping[str, Any] | None, others: Sequence[Other]
) -> dict[str, Any]:
    """One evaluated task: its question, table of metrics, verdicts and plots."""
    name = f"{result['task']} {result['split']} {result['regime']}"
    is_described = manifest is not None and result.get("database", manifest)["build_id"] == manifest["build_id"]
    tasks = manifest["tasks"] if manifest is not None and is_described else []
    task = next((task for task in tasks if task["name"] == result["task"]), None)
    path = run_dir / result["rows_file"]
    pictures: list[str] = []
    groups: list[str] = []
    if path.is_file():
        rows = pq.read_table(path)
        pictures, groups = _pictures(name, result, rows)
    return {
        "result": result,
        "question": _question(task, manifest) if task is not None and manifest is not None else None,
        "metrics": sorted(result["model"]["metrics"], key=lambda metric: metric != result["metric"]),
        "entries": _entries(result),
        "labels": plots.LABELS,
        "verdicts": [_classify(verdict) for verdict in result["verdicts"]],
        "ensemble_verdicts": [_classify(verdict) for verdict in result.get("ensemble", {}).get("verdicts", [])],
        "learned": result.get("learned", {"kind": "trained", "words": ""}),
        "remarks": [*result.get("remarks", []), *_left_out(result)],
        "bars": _bars(name, run_dir, result, others),
        "comparison": Markup(plots.comparison(name, result)) if _is_comparable(result) else None,
        "pictures": [Markup(svg) for svg in pictures],
        "groups": [Markup(svg) for svg in groups],
        "rows_missing": None if path.is_file() else str(path),
    }


def _entries(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The models of a result: ours, ours with the history, the baselines."""
    return [result["model"], *([result["ensemble"]] if "ensemble" in result else []), *result["baselines"]]


def _left_out(result: Mapping[str, Any]) -> list[str]:
    return [entry["details"]["left_out"] for entry in result["baselines"] if entry["details"].get("left_out")]


def _bars(name: str, run_dir: Path, result: Mapping[str, Any], others: Sequence[Other]) -> Markup | None:
    """The metric of this run and of those beside it, where they were judged on the same rows."""
    runs = bars_of(run_dir.name, result, others)
    if len(runs) < 2 or not _is_comparable(result):
        return None
    return Markup(plots.run_bars(f"{name} runs", result["metric"], runs, result["baselines"]))


def _question(task: Mapping[str, Any], manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What is asked of whom, and what may not be seen."""
    names = {c["id"]: f"{t['name']}.{c['name']}" for t in manifest["tables"] for c in t["columns"]}
    horizon = task.get("horizon_us")
    return {
        "target": task["target_column"],
        "stype": task["target_stype"],
        "entity": manifest["tables"][task["anchor_table"]]["name"],
        "description": task.get("description", ""),
        "horizon": None if horizon is None else duration(horizon / 1e6),
        "removed": [names[column] for column in task["remove_columns"] if column in names],
        "splits": task.get("splits", {}),
        "query": task.get("query"),
    }


def _classify(verdict: str) -> dict[str, str]:
    kinds = {"beats": "win", "is ahead": "even", "does not": "loss", "cannot": "even"}
    return {"text": verdict, "kind": next((kind for start, kind in kinds.items() if verdict.startswith(start)), "even")}


def _is_comparable(result: Mapping[str, Any]) -> bool:
    return result["model"]["metrics"][result["metric"]] is not None


def _pictures(name: str, result: Mapping[str, Any], rows: pa.Table) -> tuple[list[str], list[str]]:
    """Plots of the rows behind a result: of all of them, and of groups of them."""
    stype = result["target_stype"]
    if stype == "link":
        return [], []  # lists are told by their metrics
    label = np.array(rows["label"].to_pylist())
    if stype == "categorical":
        return plots.categorical_plots(name, label, np.array(rows["prediction"].to_pylist())), []
    column = "probability" if stype == "boolean" else "prediction"
    scores = {"model": rows[column].to_numpy().astype(np.float64)}
    for entry in result["baselines"]:
        scores[entry["name"]] = rows[f"baseline_{entry['name']}"].to_numpy().astype(np.float64)
    if "ensemble" in result:
        scores["ensemble"] = rows["ensemble"].to_numpy().astype(np.float64)
    if stype == "boolean":
        pictures = plots.boolean_plots(name, label.astype(bool), scores)
    else:
        pictures = plots.numerical_plots(name, label.astype(np.float64), scores)

    def measure(who: str, positions: NDArray[np.int64]) -> float | None:
        given = scores[who][positions]
        return metrics.compute(stype, label[positions], given, given)[result["metric"]]

    groups: list[str] = []
    shown = [who for who in MODELS if who in scores and not (who == "constant" and stype == "boolean")]
    for title, binned in (("time", _bins_of_time(rows)), ("history of the entity", _bins_of_history(rows))):
        if len(binned) > 1:
            heading = f"By {title} (rows below)"
            picture = plots.error_by(f"{name} {title}", heading, binned, measure, result["metric"], shown)
            groups += [] if picture is None else [picture]
    return pictures, groups


def _bins_of_time(rows: pa.Table) -> list[tuple[str, NDArray[np.int64]]]:
    """Rows in spans of time of equally many rows."""
    times = rows["seed_time"].to_numpy().astype("datetime64[us]")
    known = np.flatnonzero(~np.isnat(times))
    ordered = known[np.argsort(times[known], kind="stable")]
    if len(ordered) == 0 or times[ordered[0]] == times[ordered[-1]]:
        return []
    edges = np.unique(times[ordered[np.linspace(0, len(ordered) - 1, NUM_TIME_BINS + 1).astype(np.int64)]])
    which = np.clip(np.searchsorted(edges, times[ordered], side="right") - 1, 0, len(edges) - 2)
    bins = [(edge, ordered[which == i]) for i, edge in enumerate(edges[:-1])]
    return [(str(edge.astype("datetime64[D]"))[2:], positions) for edge, positions in bins if len(positions)]


def _bins_of_history(rows: pa.Table) -> list[tuple[str, NDArray[np.int64]]]:
    """Rows by how much was known of their entity, in groups of about equally many rows."""
    length = rows["history"].to_numpy()
    edges = np.unique(np.quantile(length, np.linspace(0, 1, NUM_HISTORY_BINS + 1)).astype(np.int64))
    if len(edges) < 2:
        return []
    bins = []
    for low, high in itertools.pairwise(edges):
        is_last = high == edges[-1]
        positions = np.flatnonzero((length >= low) & ((length <= high) if is_last else (length < high)))
        if len(positions):
            bins.append((f"{low:,}-{high if is_last else high - 1:,}", positions))
    return bins
