"""What is in a processed database, as text, JSON or one HTML page; see `documentation/inspect.md`.

The native module reads, counts and renders; the native program `inspect` prints the same.
"""

from pathlib import Path

from tributary._headwater import Database


def answer(
    database: str | Path,
    *,
    table: str | None = None,
    column: str | None = None,
    row: tuple[str, str] | None = None,
    task: str | None = None,
    vocabulary: bool = False,
    pattern: str | None = None,
    limit: int | None = None,
    full: bool = False,
    as_json: bool = False,
) -> str:
    """The whole database, or the one thing that is asked for.

    Args:
        database: folder of a processed database.
        table: only this table.
        column: only this column, as `table.column`.
        row: a table and the key of a row as it is written in the table, or `#N` for its number.
        task: only this task.
        vocabulary: only the vocabulary.
        pattern: only texts of the vocabulary that contain this, without regard to case.
        limit: how many values, neighbours or texts are listed.
        full: read every row of large tables too, instead of a sample.
        as_json: JSON on one line instead of text.

    Returns:
        Text that ends in a line break.

    Raises:
        ValueError: a name or key does not exist, or two things were asked for.
        FormatError: a file of the database is damaged.
    """
    return Database(database).inspect(
        table=table,
        column=column,
        row=row,
        task=task,
        vocabulary=vocabulary,
        pattern=pattern,
        limit=limit,
        full=full,
        json=as_json,
    )


def write_page(database: str | Path, file: str | Path, *, full: bool = False) -> None:
    """Writes one page for a browser: the schema drawn, tables with histograms, tasks, sizes.

    Args:
        database: folder of a processed database.
        file: where the page goes; it needs nothing from elsewhere.
        full: read every row of large tables too, instead of a sample.

    Raises:
        FormatError: a file of the database is damaged.
    """
    page = Database(database).page(full=full)
    Path(file).write_text(page, encoding="utf-8", newline="\n")
