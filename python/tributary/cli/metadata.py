"""`tributary metadata`: draft, check and show the description of a database."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from tributary.infer import Draft

metadata = typer.Typer(
    help="Draft the description of a database from its data.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)


@metadata.command("infer")
def infer(
    folder: Annotated[Path, typer.Argument(metavar="IN", help="Folder of parquet files.")],
    out: Annotated[
        Path | None, typer.Option(help="File to write, absent before; by default IN/metadata.json. `-`: the screen.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
    name: Annotated[str | None, typer.Option(help="Name of the database; by default that of the folder.")] = None,
    tasks: Annotated[bool, typer.Option(help="Also propose tasks, which asks questions of the past.")] = True,
    agent: Annotated[
        bool,
        typer.Option(
            "--agent",
            help="Let a chat model (OPENROUTER_API_KEY) propose descriptions, stypes and tasks: a diff to review,"
            " written beside the draft. It sees names, counts and a few short values.",
        ),
    ] = False,
    why: Annotated[bool, typer.Option("--why", help="Show the reason of every choice, and what was rejected.")] = False,
    memory: Annotated[float, typer.Option(min=0.2, metavar="GIB", help="Memory that counting may take.")] = 2.0,
    threads: Annotated[int, typer.Option(min=0, envvar="TRIBUTARY_THREADS", help="Threads; 0 takes every core.")] = 0,
) -> None:
    """Draft metadata.json: keys, links, times, stypes, and first tasks; then read it and correct it.

    Example: tributary metadata infer data/raw/shop
    """
    import json

    from rich.progress import Progress, SpinnerColumn, TextColumn

    from tributary.cli.console import messages, output
    from tributary.infer import draft

    target = folder / "metadata.json" if out is None else out
    if str(target) != "-" and target.exists() and not force:
        raise FileExistsError(f"{target} is there already; --out names another file, --force replaces it")
    columns = (SpinnerColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=messages(), transient=True, disable=not messages().is_terminal) as bars:
        bar = bars.add_task("", total=None)
        found = draft(
            folder,
            name=name,
            with_tasks=tasks,
            memory_gib=memory,
            threads=threads,
            progress=lambda item: bars.update(bar, description=item),
        )
    text = json.dumps(found.metadata, indent=2, ensure_ascii=False) + "\n"
    if str(target) == "-":
        typer.echo(text, nl=False)
        return
    show_draft(output(), found, why)
    scratch = target.with_name(f".{target.name}.tmp")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(target)
    output().print(f"{target}: read it and correct it; next: tributary preprocess {folder} OUT", markup=False)
    if agent:
        _ask_agent(found, folder, target)


def _ask_agent(found: "Draft", folder: Path, target: Path) -> None:
    """Prints what a chat model would change, and writes it beside the draft."""
    import json

    from tributary.cli.console import output, print_warning
    from tributary.infer.agent import propose

    proposal = propose(found.metadata, found.tables, folder)
    for refused in proposal.refused:
        print_warning(f"not taken: {refused}")
    if not proposal.diff:
        output().print("the chat model would change nothing")
        return
    output().print(proposal.diff, markup=False, soft_wrap=True)
    beside = target.with_name(f"{target.stem}.proposed{target.suffix}")
    beside.write_text(json.dumps(proposal.metadata, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    output().print(f"{beside}: the draft with these changes; take it over if you agree", markup=False)


def show_draft(console: "Console", found: "Draft", why: bool) -> None:
    """The choices, the questions left open, the suspects and the tasks."""
    console.print(_tables(found))
    if why:
        for line in _reasons(found):
            console.print(line, markup=False, soft_wrap=True)
    for title, lines in (
        ("To decide", found.open_questions),
        ("May know the future", [str(suspect) for suspect in found.leak_suspects]),
    ):
        if lines:
            console.print(f"[bold]{title}[/bold]")
            for line in lines:
                console.print(f"  {line}", markup=False, soft_wrap=True)
    kept = [each for each in found.tasks if each.name in found.metadata["tasks"]]
    if kept:
        console.print("[bold]Tasks[/bold]")
        for each in kept:
            console.print(f"  {each.name}: {each.query}\n    {each.reason}", markup=False, soft_wrap=True)


def _tables(found: "Draft") -> Any:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    grid = Table(box=box.SIMPLE_HEAD)
    for column in ("table", "rows", "primary key", "time", "foreign keys", "columns"):
        grid.add_column(column, justify="right" if column == "rows" else "left")
    for name, table in found.metadata["tables"].items():
        stypes: dict[str, int] = {}
        for column in table["columns"].values():
            stypes[column["stype"]] = stypes.get(column["stype"], 0) + 1
        links = [f"{c} -> {each['foreign_key']}" for c, each in table["columns"].items() if "foreign_key" in each]
        grid.add_row(
            escape(name),
            f"{found.tables[name].num_rows:,}",
            escape(table.get("primary_key", "")),
            escape(table.get("temporal_column", "")),
            escape("\n".join(links)),
            ", ".join(f"{count} {stype}" for stype, count in sorted(stypes.items())),
        )
    return grid


def _reasons(found: "Draft") -> list[str]:
    """Every choice with its score and reason, then what was rejected."""
    lines = []
    proposals: list[tuple[str, Any]] = []
    for table in found.tables:
        proposals.append((f"{table}: primary key", found.primary_keys[table]))
        proposals.append((f"{table}: time", found.temporal_columns[table]))
        links = [(place, each) for place, each in found.foreign_keys.items() if place[0] == table]
        proposals += [(f"{table}.{place[1]}: foreign key", each) for place, each in links]
    for what, proposal in proposals:
        chosen = proposal.chosen
        said = "none" if chosen is None else f"{chosen.value} ({chosen.score:.2f}: {chosen.reason})"
        lines.append(f"{what}: {said}")
        lines += [f"    not {each.value} ({each.score:.2f}: {each.reason})" for each in proposal.rejected[:3]]
    for (table, column), each in found.stypes.items():
        lines.append(f"{table}.{column}: {each.value} ({each.score:.2f}: {each.reason})")
    rejected = [each for each in found.tasks if each.name not in found.metadata["tasks"]]
    lines += [f"task {each.name}: not proposed ({each.score:.2f}: {each.reason})" for each in rejected]
    return lines


@metadata.command("check")
def check(
    input_dir: Annotated[Path, typer.Argument(metavar="IN", help="Folder with metadata.json and the parquet files.")],
    metadata: Annotated[Path | None, typer.Option(help="Another description than IN/metadata.json.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    sql_time_limit: Annotated[float, typer.Option(min=0.1, help="Seconds the SQL of a task may take.")] = 30.0,
    memory: Annotated[float, typer.Option(min=0.2, metavar="GIB", help="Memory that counting may take.")] = 2.0,
    threads: Annotated[int, typer.Option(min=0, envvar="TRIBUTARY_THREADS", help="Threads; 0 takes every core.")] = 0,
) -> None:
    """Look for what is wrong: lost keys, doubles, undated events, future dates, odd columns, label leaks; with the fix.

    Example: tributary metadata check data/raw/shop

    Exit code 1 where an error is found; warnings and notes are for you to judge.
    """
    import dataclasses
    import json

    from rich.progress import Progress, SpinnerColumn, TextColumn

    from tributary.check import check
    from tributary.cli.console import messages, output
    from tributary.preprocess import SqlLimits

    columns = (SpinnerColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=messages(), transient=True, disable=not messages().is_terminal) as bars:
        bar = bars.add_task("", total=None)
        findings = check(
            input_dir,
            metadata,
            limits=SqlLimits(seconds=sql_time_limit),
            memory_gib=memory,
            threads=threads,
            progress=lambda item: bars.update(bar, description=item),
        )
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=1, ensure_ascii=False))
    else:
        styles = {"error": "bold red", "warning": "bold yellow", "note": "cyan"}
        for finding in findings:
            line = f"{finding.place}: {finding.kind}: {finding.message}\n    fix: {finding.fix}"
            output().print(f"[{styles[finding.severity]}]{finding.severity}[/] ", end="")
            output().print(line, markup=False, soft_wrap=True)
        counts = {severity: sum(each.severity == severity for each in findings) for severity in styles}
        output().print(", ".join(f"{count} {severity}{'s' * (count != 1)}" for severity, count in counts.items()))
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(1)


@metadata.command("show")
def show(
    input_dir: Annotated[Path, typer.Argument(metavar="IN", help="Folder with metadata.json and the parquet files.")],
    metadata: Annotated[Path | None, typer.Option(help="Another description than IN/metadata.json.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page that draws the tables and their keys.")] = None,
) -> None:
    """Show what a description says: tables, keys, times, stypes; as text, or drawn as a page.

    Example: tributary metadata show data/raw/shop --html schema.html
    """
    import pyarrow.parquet as pq
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from tributary.cli.console import output
    from tributary.metadata import Description

    described = Description.load(metadata or input_dir / "metadata.json")
    files = described.table_files(input_dir)
    rows = {name: sum(pq.read_metadata(file).num_rows for file in found) for name, found in files.items()}
    if html is not None:
        html.write_text(described.page(rows), encoding="utf-8")
        typer.echo(str(html))
        return
    for name, table in described.tables.items():
        grid = Table(box=box.SIMPLE_HEAD, title=f"{name}, {rows[name]:,} rows", title_justify="left")
        for column in ("column", "stype", "", "description"):
            grid.add_column(column)
        for column, each in table["columns"].items():
            marks = [
                *(["primary key"] if column == table["primary_key"] else []),
                *(["time"] if column == table["temporal_column"] else []),
                *([f"-> {each['foreign_key']}"] if each.get("foreign_key") else []),
            ]
            cells = (column, each["stype"], ", ".join(marks), each.get("description") or "")
            grid.add_row(*(escape(cell) for cell in cells))
        output().print(grid)
    for task in described.tasks:
        line = f"task {task.name}: {task.target_stype} `{task.target_column}` of {task.anchor_table}"
        output().print(line, markup=False)
