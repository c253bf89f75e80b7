"""How the command line speaks: results on the output stream, progress, warnings and errors on the other."""

import os
import sys
from functools import cache

from rich.console import Console
from rich.text import Text

_PIPE_COLUMNS = 160


@cache
def output() -> Console:
    """Where results go."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PIPE_COLUMNS
    return console


@cache
def messages() -> Console:
    """Where progress, warnings and errors go."""
    return Console(stderr=True, highlight=False)


def shows_tracebacks() -> bool:
    """Whether the user asked to see where an error comes from (`TRIBUTARY_DEBUG=1`)."""
    return os.environ.get("TRIBUTARY_DEBUG", "") not in ("", "0")


def print_error(error: Exception) -> None:
    """One message for what the user did wrong."""
    _say("error", "bold red", _message(error))


def print_warning(message: str) -> None:
    """One message for what the user should know."""
    _say("warning", "bold yellow", message)


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror[0].lower()}{error.strerror[1:]}"
    return str(error) or type(error).__name__


def _say(label: str, style: str, message: str) -> None:
    """Prints a message unwrapped and without markup: names in it are data."""
    console = messages()
    printable = message.encode(sys.stderr.encoding or "utf-8", "backslashreplace").decode(
        sys.stderr.encoding or "utf-8", "replace"
    )
    console.print(Text.assemble((f"{label}: ", style), printable), soft_wrap=True)
