"""`tributary sample`: one context as a tree of rows and cells, with what is masked and what time hides."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_MAX_TEXT = 60


def sample(
    database: Annotated[Path, typer.Argument(metavar="DB", help="A processed database.")],
    task: Annotated[str | None, typer.Option(help="The task whose seed is shown.")] = None,
    table: Annotated[str | None, typer.Option(help="In place of a task: the table whose row is shown.")] = None,
    seed_index: Annotated[int, typer.Option(min=0, help="Position among all seeds of the task; row of the table.")] = 0,
    seq_len: Annotated[int, typer.Option(min=1, help="Cells of the context.")] = 256,
    num_neighbors: Annotated[int, typer.Option(min=1, help="Children kept per row and foreign key.")] = 16,
    strategy: Annotated[str, typer.Option(help="Which children are kept: uniform or recent.")] = "uniform",
    examples: Annotated[int, typer.Option(min=0, help="Labelled examples of other entities.")] = 0,
    example_choice: Annotated[str, typer.Option(help="Which examples: similar, recent or random.")] = "similar",
    mask_rate: Annotated[float, typer.Option(help="Part of the cells that is masked, as in pretraining.")] = 0.0,
    rng_seed: Annotated[int, typer.Option(help="Other draws of the same seed.")] = 0,
    html: Annotated[Path | None, typer.Option(help="Write the context as a picture, a page of its own.")] = None,
    svg: Annotated[Path | None, typer.Option(help="Write the context as a picture, SVG.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the tree as JSON, for scripts.")] = False,
) -> None:
    """Show what a model sees when it is asked one question.

    Example: tributary sample data/processed/shop --task churn --seed-index 3
    """
    from tributary.cli import picture
    from tributary.cli.console import messages, output
    from tributary.data import Database, Sampler

    if (task is None) == (table is None):
        raise typer.BadParameter("expected one of --task and --table")
    opened = Database(database)
    options: dict[str, Any] = {
        "seq_len": seq_len,
        "num_neighbors": num_neighbors,
        "strategy": strategy,
        "examples": examples,
        "example_choice": example_choice,
        "mask_rate": mask_rate,
        "rng_seed": rng_seed,
    }
    source = {"tasks": [task]} if task is not None else {"tables": [table]}
    with Sampler(opened, **source, split="all", batch_size=1, shuffle=False, **options) as sampler:
        context = sampler.explain_seed(task or table or "", seed_index)
    for path, draw in ((html, picture.context_html), (svg, picture.context_svg)):
        if path is not None:
            path.write_text(draw(context), encoding="utf-8")
            messages().print(f"picture: {path}", markup=False)
    if as_json:
        typer.echo(json.dumps(context))
    else:
        _print(output(), context)


def _print(console: "Console", context: dict[str, Any]) -> None:
    from rich.text import Text
    from rich.tree import Tree

    moment = context["seed_time"] or "the end of time"
    has_target = context["target_column"] is not None
    asked = f"{context['target_column']} ({context['target_stype']}) of " if has_target else ""
    console.print(
        Text.assemble(
            (f"{context['task']}", "bold"),
            f": {asked}{context['entity_table']} {_plain(context['entity'])} at {moment}, seed"
            f" {context['seed_index']} ({context['split']})",
        ),
        soft_wrap=True,
    )
    if has_target:
        console.print(f"label: {_plain(context['label'])} (in no cell below)", markup=False)
    if context["removed_columns"]:
        console.print(f"never shown for this task: {', '.join(context['removed_columns'])}", markup=False)
    trees: list[Tree] = []
    for row in context["rows"]:
        label = _row(row)
        trees.append(Tree(label) if row["from"] is None else trees[row["from"]].add(label))
    for row, tree in zip(context["rows"], trees, strict=True):
        if row["from"] is None:
            console.print(tree)
    counts = context["counts"]
    console.print(
        f"{counts['rows']} rows, {counts['cells']} of {counts['seq_len']} cells; linked but not shown:"
        f" {counts['hidden_by_time']} hidden by time, {counts['hidden_by_budget']} by the limits of the context",
        markup=False,
        soft_wrap=True,
    )


def _row(row: dict[str, Any]) -> "Text":
    from rich.text import Text

    text = Text()
    if row["link"] is not None:
        text.append(f"{row['kind']} by {row['link']}: ", "dim")
    elif row["kind"] == "example":
        text.append("example: ", "bold magenta")
    key = f"#{row['row']}" if row["key"] is None else _plain(row["key"])
    text.append(f"{row['table']} {key}", "bold cyan")
    if row["time"] is not None:
        text.append(f" [{row['time']}]", "green")
    for cell in row["cells"]:
        text.append(f"  {cell['column']}=")
        if cell["is_target"]:
            text.append("??? (masked)", "bold red")
        else:
            # an identifier keeps its value only through the row it names
            is_bare = cell["stype"] == "identifier" and cell["value"] is True
            text.append("(present)" if is_bare else _plain(cell["value"]), "dim" if cell["value"] is None else "")
            if cell["is_masked"]:
                text.append(" (masked)", "bold red")
    if row["has_hidden_target"]:
        text.append("\n  its target is hidden", "yellow")
    for hidden in row["hidden"]:
        why = "time" if hidden["reason"] == "time" else "the limits of the context"
        shown = ", ".join(
            _plain(example["key"]) + (f" [{example['time']}]" if example["time"] else "")
            for example in hidden["examples"]
        )
        dots = ", ..." if hidden["count"] > len(hidden["examples"]) else ""
        text.append(f"\n  {hidden['count']} {hidden['kind']} by {hidden['link']} hidden by {why}: ", "yellow")
        text.append(shown + dots, "dim")
    return text


def _plain(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split())
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"
