"""`tributary <verb>`: one file per verb, each from arguments to one call.

A verb's file imports what is heavy inside its function, so that help and errors come at once. What a user did wrong
(bad data, bad arguments, failing files) is one message on the error stream and exit code 2; Ctrl-C is exit code 130;
a traceback means a fault of this program.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from keyword import iskeyword

import typer

from tributary.cli.console import print_error, shows_tracebacks

_EPILOG = """
[bold]A first walk[/bold]: [cyan]tributary preprocess IN OUT[/cyan], then [cyan]inspect OUT[/cyan] and
[cyan]sample OUT --task TASK[/cyan] to look around, then [cyan]train --config configs/demo.yaml[/cyan].
Every verb explains itself: [cyan]tributary VERB --help[/cyan].
"""

# verb -> section of the help; a verb lives in the file of its name, as the function (or group of verbs) of its name,
# with a `_` behind it where Python has the word for itself
_VERBS = {
    "import": "Data",
    "metadata": "Data",
    "preprocess": "Data",
    "verify": "Data",
    "embed": "Data",
    "cache": "Data",
    "embed-serve": "Data",
    "inspect": "Data",
    "query": "Data",
    "sample": "Data",
    "config": "Models",
    "preflight": "Models",
    "train": "Models",
    "import-weights": "Models",
    "evaluate": "Models",
    "predict": "Models",
    "embed-rows": "Models",
    "report": "Models",
    "promote": "Models",
}


def make_app(only: str | None = None) -> typer.Typer:
    """The command line.

    Args:
        only: Load the file of this verb alone; the others are not needed to run it.

    Returns:
        A typer app with every verb that has a file, or with the one asked for.
    """
    app = typer.Typer(
        name="tributary",
        help="Predictions from a whole relational database: preprocess it, train on it, ask it.",
        epilog=_EPILOG,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for verb, section in _VERBS.items():
        name = f"{verb}_" if iskeyword(verb) else verb.replace("-", "_")
        if (only is None or verb == only) and find_spec(f"tributary.cli.{name}") is not None:
            function = getattr(import_module(f"tributary.cli.{name}"), name)
            if isinstance(function, typer.Typer):
                app.add_typer(function, name=verb, rich_help_panel=section)
            else:
                app.command(verb, rich_help_panel=section)(function)
    return app


def _print_version(is_asked: bool) -> None:
    if is_asked:
        import tributary

        typer.echo(f"tributary {tributary.__version__}")
        raise typer.Exit


def _options(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    pass


def main(arguments: list[str] | None = None) -> None:
    """Runs one command line and exits.

    Args:
        arguments: What was typed after `tributary`; the process's own by default.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    verb = arguments[0] if arguments and arguments[0] in _VERBS else None
    try:
        make_app(verb)(arguments, prog_name="tributary")
    except (OSError, ValueError) as error:
        if shows_tracebacks():
            raise
        print_error(error)
        sys.exit(2)
    except Exception as error:
        if not _is_tributary_error(error) or shows_tracebacks():
            raise
        print_error(error)
        sys.exit(2)


def _is_tributary_error(error: Exception) -> bool:
    from tributary.errors import TributaryError

    return isinstance(error, TributaryError)


def __getattr__(name: str) -> typer.Typer:
    if name == "app":
        return make_app()
    raise AttributeError(f"module 'tributary.cli' has no attribute {name!r}")
