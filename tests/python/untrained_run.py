"""A small shop through the whole of preprocessing, and runs of untrained models whose parameters are all at work."""

from __future__ import annotations

import functools
import json
from datetime import datetime, timedelta
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tributary.config import RunConfig
from tributary.data import Database, database_arrays
from tributary.embed import make_embedder
from tributary.model.forward import describe_model, draw_params, make_forward
from tributary.prediction.predict import Run
from tributary.preprocess import PreprocessOptions, preprocess
from tributary.runs.learned import LearnedDatabase, learned_database, rescaled, translate

START = datetime(2024, 1, 1)
NUM_CUSTOMERS = 40


def write_shop(raw: Path, *, with_later: bool = False) -> Path:
    """Customers, orders, and three questions; later, orders that change every mean and deviation, and a new country."""
    raw.mkdir()
    number = np.arange(200)
    customers = {
        "id": np.arange(NUM_CUSTOMERS),
        "age": (20 + np.arange(NUM_CUSTOMERS) % 7).astype(float),
        "country": [["DE", "FR", "IT"][n % 3] for n in range(NUM_CUSTOMERS)],
    }
    orders = {
        "id": number,
        "customer": number * 7 % NUM_CUSTOMERS,
        "amount": (number % 13).astype(float),
        "at": [START + timedelta(hours=6 * int(n)) for n in number],
    }
    labels = {
        "id": np.arange(120) % NUM_CUSTOMERS,
        "moment": [START + timedelta(days=20 * (1 + n // NUM_CUSTOMERS)) for n in range(120)],
        "spend": np.arange(120) / 7,
        "split": ["train", "val", "test"] * 40,
    }
    if with_later:
        customers["country"][NUM_CUSTOMERS - 1] = "ZZ"
        orders["id"] = np.arange(260)
        orders["customer"] = np.append(orders["customer"], np.arange(60) % NUM_CUSTOMERS)
        orders["amount"] = np.append(orders["amount"], np.full(60, 5e3))
        orders["at"] += [datetime(2031, 1, 1)] * 60
        labels["spend"][-30:] += 1e4
    buys = {**{name: labels[name] for name in ("id", "moment", "split")}, "buys": np.arange(120) % 2 == 0}
    for name, table in {"customers": customers, "orders": orders, "spend": labels, "buys": buys}.items():
        pq.write_table(pa.table(table), raw / f"{name}.parquet")
    (raw / "metadata.json").write_text(json.dumps(_metadata()))
    return raw


def _metadata() -> dict:
    identifier = {"stype": "identifier"}

    def asked(name: str, stype: str) -> dict:
        return {
            "table": f"{name}.parquet",
            "anchor_table": "customers",
            "anchor_key": "id",
            "target_column": name,
            "target_stype": stype,
            "observation_time_column": "moment",
            "horizon": "10 days",
        }

    return {
        "name": "shop",
        "tables": {
            "customers": {
                "primary_key": "id",
                "columns": {
                    "id": identifier,
                    "age": {"stype": "numerical"},
                    "country": {"stype": "categorical"},
                },
            },
            "orders": {
                "primary_key": "id",
                "temporal_column": "at",
                "columns": {
                    "id": identifier,
                    "customer": {"stype": "identifier", "foreign_key": "customers.id"},
                    "amount": {"stype": "numerical"},
                    "at": {"stype": "timestamp"},
                },
            },
        },
        "tasks": {
            "spend": asked("spend", "numerical"),
            "buys": asked("buys", "boolean"),
            "country": {"anchor_table": "customers", "target_column": "country"},
            "when": {"anchor_table": "orders", "target_column": "at"},
        },
    }


def processed(raw: Path, folder: Path) -> Path:
    """The processed database."""
    preprocess(raw, folder, embedder=make_embedder("hash", dimension=16), options=PreprocessOptions(force=True))
    return folder


def untrained_run(folder: Path, database: Path, learned: LearnedDatabase | None = None, **model: object) -> Run:
    """A run whose parameters are drawn at random, none of them zero."""
    config = RunConfig.from_mapping(
        {
            "run": {"dir": str(folder), "name": "run"},
            "data": {"database": str(database), "seq_len": 48, "num_neighbors": 4},
            "model": {"d_model": 16, "num_layers": 1, "num_heads": 2, "d_ff": 16, **model},
            "train": {"eval_batch_size": 8},
        }
    )
    opened = Database(str(database))
    translation = translate(learned, opened, database_arrays(opened))
    graphdef, _ = describe_model(config.model, 16)
    leaves, tree = jax.tree.flatten(draw_params(config.model, 16, 0))
    rng = np.random.default_rng(0)
    noisy = [np.asarray(leaf) + rng.normal(size=leaf.shape).astype(np.float32) / 4 for leaf in leaves]
    rescale = None
    if translation.scale is not None:
        rescale = functools.partial(rescaled, scale=translation.scale, shift=translation.shift)
    return Run(
        path=folder / "run",
        config=config,
        database=opened,
        manifest=json.loads(opened.manifest),
        arrays=jax.device_put(translation.arrays),
        params=jax.device_put(jax.tree.unflatten(tree, noisy)),
        step=0,
        forward=make_forward(graphdef, rescale),
        graphdef=graphdef,
        targets=translation.targets,
        rescale=rescale,
    )


def learned_of(database: Path) -> LearnedDatabase:
    """What a run trained on a database remembers."""
    opened = Database(str(database))
    return learned_database(opened, database_arrays(opened))
