"""From parquet files and `metadata.json` to a processed database (DESIGN section 3)."""

import sys

from tributary.preprocess.as_function import CallableModule

# the road
from tributary.preprocess.pipeline import (
    Outcome,
    PreprocessOptions,
    open_manifest,
    plan,
    preprocess,
    verify,
)

# what it would do
from tributary.preprocess.planning import Plan, TablePlan, TextPlan

# who watches, new vectors for what was made, what a task's SQL may take
from tributary.preprocess.progress import Silence, Watcher
from tributary.preprocess.reembed import Reembedded, reembed
from tributary.preprocess.sql_engine import SqlLimits

__all__ = [
    "Outcome",
    "Plan",
    "PreprocessOptions",
    "Reembedded",
    "Silence",
    "SqlLimits",
    "TablePlan",
    "TextPlan",
    "Watcher",
    "open_manifest",
    "plan",
    "preprocess",
    "reembed",
    "verify",
]

sys.modules[__name__].__class__ = CallableModule
