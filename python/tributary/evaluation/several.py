"""Several runs together: how far their metrics scatter, and what the average of their predictions is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from tributary.prediction.predict import Run

UNIMPORTANT = frozenset(("run.name", "run.dir", "run.seed", "data.threads", "data.prefetch", "data.in_memory"))
"""Keys by which runs of one configuration may differ."""


def average(answered: Sequence[pa.Table | None]) -> pa.Table | None:
    """The mean of several runs' predictions of the same seeds.

    Args:
        answered: as `tributary.prediction.predict.predict_split` returns them; None where there are none.

    Returns:
        The same columns: means of numbers and of probabilities of true; of classes the one that most probability was
        given to, with the mean of what it was given.

    Raises:
        ValueError: the seeds are not the same.
    """
    tables = [table for table in answered if table is not None]
    if not tables:
        return None
    first = tables[0]
    if any(not table["seed_index"].equals(first["seed_index"]) for table in tables):
        raise ValueError("the runs predicted different seeds, so that their predictions have no average")
    stype = first.schema.field("prediction").type
    if pa.types.is_string(stype):
        classes, probability = _vote(tables)
        return _replaced(first, {"prediction": classes, "probability": probability})
    if pa.types.is_boolean(stype):
        mean = np.mean([table["probability"].to_numpy() for table in tables], axis=0)
        return _replaced(first, {"prediction": mean >= 0.5, "probability": mean})
    return _replaced(first, {"prediction": np.mean([table["prediction"].to_numpy() for table in tables], axis=0)})


def summarise(runs: Sequence[Run], results: Sequence[Mapping[str, Any]], together: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of several runs.

    Args:
        runs: two or more.
        results: of `tributary.evaluation.evaluate.evaluate`, one per run.
        together: what `tributary.evaluation.evaluate.judge` says of the average of their predictions.

    Returns:
        `together`, with `runs` (name, step and metrics of each), `mean` and `std` (sample deviation) of every metric
        that all of them have, and `differences`: keys of the configuration besides the random number that differ.
    """
    names = [name for name, value in together["model"]["metrics"].items() if value is not None]
    values = {name: [result["model"]["metrics"][name] for result in results] for name in names}
    described = f"the average of the predictions of {len(runs)} runs"
    return {
        **together,
        "model": {**together["model"], "name": "average", "description": described},
        "runs": [
            {"run": result["run"], "step": result["step"], "metrics": result["model"]["metrics"]} for result in results
        ],
        "mean": {name: float(np.mean(found)) for name, found in values.items()},
        "std": {name: float(np.std(found, ddof=1)) for name, found in values.items()},
        "differences": differences([run.config.model_dump(mode="json") for run in runs]),
        "learned": results[0]["learned"],
        "remarks": results[0]["remarks"],
    }


def differences(configs: Sequence[Mapping[str, Mapping[str, Any]]]) -> list[str]:
    """`section.key` of what differs between resolved configurations, apart from names and random numbers."""
    first = configs[0]
    keys = {f"{section}.{key}" for config in configs for section in config for key in config[section]}
    found = []
    for name in sorted(keys - UNIMPORTANT):
        section, key = name.split(".", 1)
        if any(config.get(section, {}).get(key) != first.get(section, {}).get(key) for config in configs):
            found.append(name)
    return found


def _vote(tables: Sequence[pa.Table]) -> tuple[list[str], list[float]]:
    """Of each row the class that the runs gave most probability to, and its mean probability."""
    classes, probabilities = [], []
    said = [table["prediction"].to_pylist() for table in tables]
    sure = [table["probability"].to_pylist() for table in tables]
    for row in zip(*said, *sure, strict=True):
        weights: dict[str, float] = {}
        for name, probability in zip(row[: len(tables)], row[len(tables) :], strict=True):
            weights[name] = weights.get(name, 0.0) + probability
        best = max(weights, key=lambda name: weights[name])
        classes.append(best)
        probabilities.append(weights[best] / len(tables))
    return classes, probabilities


def _replaced(table: pa.Table, columns: Mapping[str, Any]) -> pa.Table:
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, pa.array(values, table.schema.field(name).type))
    return table
