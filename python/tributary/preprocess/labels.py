"""The labels of tasks: from a query in the SQL child, or from a ready table.

What a query may be is checked before anything is encoded, so that a typo costs seconds; the labels themselves
(entity exists, type fits, time present) are checked where they are read, in the native module.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from tributary.errors import SchemaError
from tributary.metadata import Description, TaskDescription
from tributary.preprocess.progress import Watcher
from tributary.preprocess.sql_engine import SqlEngine, SqlLimits

_SPLIT_COLUMN = "split"


@dataclass(frozen=True)
class _Query:
    task: TaskDescription
    text: str
    output: Path


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
        self._engine = SqlEngine(description.table_files(input_dir), scratch_dir, limits)
        outputs = self._engine.outputs(len(with_query))
        self._queries = {
            task.name: _Query(task, text, output) for (task, text), output in zip(with_query, outputs, strict=True)
        }
        self._checked: dict[str, list[str]] = {}

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
        self._engine.run(task, query.text, self._checked[task], query.output)
        return query.output

    def _check(self, query: _Query, watcher: Watcher) -> None:
        task = query.task
        checked = self._engine.check(task.name, query.text)
        for function in checked.unstable:
            watcher.warn(
                f"task `{task.name}`: the query uses `{function}`, whose value changes from run to run;"
                " its labels cannot be reproduced"
            )
        self._checked[task.name] = _needed_columns(task, [name for name, _ in checked.columns])


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
