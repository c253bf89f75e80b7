"""From parquet files and `metadata.json` to a processed database (DESIGN section 3)."""

# the road
from tributary.preprocess.pipeline import (
    Outcome,
    Plan,
    PreprocessOptions,
    open_manifest,
    plan,
    preprocess,
    verify,
)

# what a task's SQL may take, and who watches
from tributary.preprocess.progress import Silence, Watcher
from tributary.preprocess.sql_engine import SqlLimits

__all__ = [
    "Outcome",
    "Plan",
    "PreprocessOptions",
    "Silence",
    "SqlLimits",
    "Watcher",
    "open_manifest",
    "plan",
    "preprocess",
    "verify",
]
