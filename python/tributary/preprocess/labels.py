"""The labels of tasks: from a query in the SQL child, or from a ready table.

What a query may be is checked before anything is encoded, so that a typo costs seconds; the labels themselves
(entity exists, type fits, time present) are checked where they are read, in the native module.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from tributary.errors import SchemaError
from tributary.metadata import Description, TaskDescription
from tributary.moments import moment_us
from tributary.preprocess.moments import duration_us, interval_text, rounds
from tributary.preprocess.progress import Watcher
from tributary.preprocess.sql_engine import Entities, SqlEngine, SqlLimits

_SPLIT_COLUMN = "split"
# as RelBench writes it, in its manifests and in its older tasks
_WINDOW_PARAMETERS = ("{timedelta}", "{self.timedelta}")
_PARAMETER = re.compile(r"\{[A-Za-z_][A-Za-z_0-9.]*\}")


@dataclass(frozen=True)
class _Query:
    task: TaskDescription
    text: str
    output: Path


@dataclass(frozen=True)
class _Checked:
    columns: list[str]
    reads_moments: bool


class LabelQueries:
    """The queries of some tasks, checked, and their results as parquet files.

    Args:
        description: The described database.
        tasks: The tasks to be made; those without a query are passed over.
        input_dir: Folder of the parquet files.
        scratch_dir: Folder for results and spill files; it exists.
        limits: What one query may take.
    """

    def __init__(
        self,
        description: Description,
        tasks: Iterable[TaskDescription],
        input_dir: Path,
        scratch_dir: Path,
        limits: SqlLimits,
    ) -> None:
        with_query = [(task, task.query) for task in tasks if task.query is not None]
        self._primary_keys = {name: table["primary_key"] for name, table in description.tables.items()}
        self._engine = SqlEngine(
            description.table_files(input_dir), scratch_dir, limits, description.temporal_columns()
        )
        outputs = self._engine.outputs(len(with_query))
        self._queries = {
            task.name: _Query(task, _filled_in(task, text), output)
            for (task, text), output in zip(with_query, outputs, strict=True)
        }
        self._checked: dict[str, _Checked] = {}
        self._times: tuple[int | None, int | None] | None = None

    def close(self) -> None:
        """Ends the SQL child."""
        self._engine.close()

    def check(self, watcher: Watcher) -> None:
        """Parses and binds every query and looks for the columns its task names.

        A query that cannot be judged because the parquet file of a table cannot be read is left for later: encoding
        finds the fault of the file and names it better.

        Args:
            watcher: Told of functions whose value changes from run to run.

        Raises:
            SchemaError: A query is not one read-only SELECT with the columns of its task.
        """
        for query in self._queries.values():
            if self._engine.broken_tables(query.task.name):
                return
            self._check(query, watcher)

    def run(self, task: str, watcher: Watcher) -> Path:
        """Runs the query of a task.

        Args:
            task: Its name.
            watcher: As in `check`.

        Returns:
            A parquet file with the columns of the task, and `split` if the result has it.

        Raises:
            SchemaError: The query fails or takes more than the limits allow.
        """
        query = self._queries[task]
        if task not in self._checked:
            self._check(query, watcher)
        checked = self._checked[task]
        if checked.reads_moments:
            self._run_rounds(query, checked.columns, watcher)
        else:
            self._engine.run(task, query.text, checked.columns, query.output)
        return query.output

    def _run_rounds(self, query: _Query, columns: list[str], watcher: Watcher) -> None:
        """Asks at the moments of the task; labels without an entity are left out, as RelBench leaves them out."""
        task = query.task
        assert task.anchor_key is not None
        parts = rounds(task, *self._extent(task))
        # RelBench's moments come with its rule on late entities; whoever names the moments means every entity
        is_relbench = task.timestamps is None and task.split is not None
        test_us = moment_us(task.split["test"]) if is_relbench and task.split is not None else None
        key = self._primary_keys[task.anchor_table]
        entities = Entities(task.anchor_key, task.anchor_table, key, test_us)
        left_out = self._engine.run_rounds(task.name, query.text, columns, query.output, parts, entities)
        if left_out.null_keys:
            watcher.warn(
                f"task `{task.name}`: {left_out.null_keys:,} rows of the query's result have no `{task.anchor_key}`"
                " and are no labels"
            )
        if left_out.late:
            watcher.warn(
                f"task `{task.name}`: {left_out.late:,} labels were left out, their row of `{task.anchor_table}` came"
                " only after `split.test`"
            )

    def _extent(self, task: TaskDescription) -> tuple[int | None, int | None]:
        """First and last time of the database, looked up once."""
        if self._times is None:
            self._times = self._engine.extent(task.name)
        return self._times

    def _check(self, query: _Query, watcher: Watcher) -> None:
        task = query.task
        try:
            checked = self._engine.check(task.name, query.text, has_moments=task.has_moments)
        except SchemaError as error:
            raise SchemaError(f"{error}{_hint_of_parameters(query.text)}") from error
        for function in checked.unstable:
            watcher.warn(
                f"task `{task.name}`: the query uses `{function}`, whose value changes from run to run;"
                " its labels cannot be reproduced"
            )
        if task.timestamps is not None and not checked.reads_moments:
            raise SchemaError(
                f"query of task `{task.name}`: the task has `timestamps`, but the query does not read them; read them"
                " as `FROM timestamps t`, with the column `t.timestamp`, or leave `timestamps` out"
            )
        if checked.reads_moments:
            rounds(task, *self._extent(task))  # what is wrong with them is found before anything is encoded
        columns = _needed_columns(task, [name for name, _ in checked.columns])
        self._checked[task.name] = _Checked(columns, checked.reads_moments)


def _filled_in(task: TaskDescription, query: str) -> str:
    """The query with its parameters replaced."""
    if task.timedelta is None:
        return query
    interval = interval_text(duration_us(task.timedelta))
    for parameter in _WINDOW_PARAMETERS:
        query = query.replace(parameter, interval)
    return query


def _hint_of_parameters(query: str) -> str:
    """What to say beside an error if the query has what looks like a parameter."""
    found = sorted(set(_PARAMETER.findall(query)))
    return f"; `{found[0]}` is no parameter, there is `{_WINDOW_PARAMETERS[0]}` alone" if found else ""


def _needed_columns(task: TaskDescription, found: Sequence[str]) -> list[str]:
    """The columns of the result that the task needs, each present exactly once."""
    needed = task.label_columns
    for column in needed:
        if column not in found:
            near = get_close_matches(column, found, n=1)
            hint = f"; did you mean `{near[0]}`?" if near else ""
            raise SchemaError(
                f"query of task `{task.name}`: the result has no column `{column}`{hint}"
                f" (its columns: {', '.join(f'`{name}`' for name in found)})"
            )
        if list(found).count(column) > 1:
            raise SchemaError(f"query of task `{task.name}`: the result has the column `{column}` more than once")
    return [*needed, _SPLIT_COLUMN] if _SPLIT_COLUMN in found and _SPLIT_COLUMN not in needed else needed
