"""`tributary preflight`: would this run work?"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tributary.preflight import Check

_STYLES = {"ok": "green", "warn": "bold yellow", "fail": "bold red"}


def preflight(
    path: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file of the run; see configs/.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Replace one key of the file; repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for scripts.")] = False,
) -> None:
    """Check data, labels, memory, a step, pace and disk before a long run; exit code 1 if it would fail.

    Example: tributary preflight configs/demo.yaml
    """
    import warnings

    from tributary.cli.console import messages
    from tributary.config import ConfigError, RunConfig
    from tributary.preflight import Check
    from tributary.preflight import preflight as run

    checks: list[Check] = []
    try:
        config = RunConfig.load(path, overrides or ())
    except ConfigError as error:
        checks.append(Check("configuration", "fail", str(error), "tributary config docs explains every key"))
    else:
        with messages().status("looking at packages") as status, warnings.catch_warnings(action="ignore"):
            for check in run(config):
                checks.append(check)
                status.update(f"{check.name}: {check.status}; going on")
    if as_json:
        verdict = max((check.status for check in checks), key=("ok", "warn", "fail").index)
        typer.echo(json.dumps({"status": verdict, "checks": [asdict(check) for check in checks]}, indent=1))
    else:
        _print_table(checks)
    if any(check.status == "fail" for check in checks):
        raise typer.Exit(1)


def _print_table(checks: "list[Check]") -> None:
    """A row per check, what to do below what was found."""
    from rich.table import Table
    from rich.text import Text

    from tributary.cli.console import output

    table = Table("", "check", "found, and what to do", box=None, pad_edge=False)
    for check in checks:
        text = Text(check.found, overflow="fold")
        if check.advice:
            text.append(f"\n{check.advice}", style="bold")
        table.add_row(Text(check.status, style=_STYLES[check.status]), check.name, text)
    output().print(table)
