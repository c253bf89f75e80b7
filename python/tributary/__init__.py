"""Tributary: predictions from a whole relational database, without feature engineering.

A processed database is opened with `Database`; a `Sampler` cuts one bounded context per seed out of it, in which
nothing later than the seed's time is visible:

    import tributary

    database = tributary.Database("data/processed/shop")
    sampler = tributary.Sampler(database, ["churn"], split="train", batch_size=8, seq_len=256)
    batch = sampler.batch(0)              # a Batch of numpy arrays, documented in documentation/batch.md
    print(batch.cell_value.shape)         # (8, 256)

A trained run is opened with `load_run` and asked about any keys at any time:

    run = tributary.load_run("runs/demo")
    table = run.predict("churn", keys=[17, 42], time="2024-06-01")
    why = run.explain("churn", keys=[17, 42], time="2024-06-01")

`preprocess` makes a processed database from parquet files and a `metadata.json`. The names below are loaded when they
are first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tributary.batch import Batch
    from tributary.data import Database, Sampler
    from tributary.errors import FormatError, SchemaError, TributaryError
    from tributary.importing import import_source, import_tables
    from tributary.prediction.predict import Run, load_run
    from tributary.preprocess import preprocess, verify
    from tributary.seeds import Seeds, seeds_from_keys, seeds_from_query, seeds_from_table
    from tributary.training.mixture import Mixture

__version__: str

_HOMES = {
    # data
    "Batch": "tributary.batch",
    "Database": "tributary.data",
    "Mixture": "tributary.training.mixture",
    "Sampler": "tributary.data",
    "Seeds": "tributary.seeds",
    "seeds_from_keys": "tributary.seeds",
    "seeds_from_query": "tributary.seeds",
    "seeds_from_table": "tributary.seeds",
    # import
    "import_source": "tributary.importing",
    "import_tables": "tributary.importing",
    # preprocessing
    "preprocess": "tributary.preprocess",
    "verify": "tributary.preprocess",
    # trained runs
    "Run": "tributary.prediction.predict",
    "load_run": "tributary.prediction.predict",
    # errors
    "FormatError": "tributary.errors",
    "SchemaError": "tributary.errors",
    "TributaryError": "tributary.errors",
}

__all__ = [
    "Batch",
    "Database",
    "FormatError",
    "Mixture",
    "Run",
    "Sampler",
    "SchemaError",
    "Seeds",
    "TributaryError",
    "__version__",
    "import_source",
    "import_tables",
    "load_run",
    "preprocess",
    "seeds_from_keys",
    "seeds_from_query",
    "seeds_from_table",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":  # Cargo.toml owns it; the installed package repeats it
        return import_module("importlib.metadata").version("tributary")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'tributary' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
