"""What the failure of a request means: wait and try again, send less, or stop."""

import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openai import APIStatusError

_REFUSALS = (400, 413, 422)
_FATAL = {401: "does not accept the key", 403: "forbids the request", 404: "does not know the address or the model"}
_SHOWN_CHARACTERS = 200
_LENGTH_WORDS = ("token", "too long", "too large", "length", "context", "maximum")


@dataclass(frozen=True)
class Refusal:
    """A text that an endpoint does not take.

    Attributes:
        text: The text, as it was given.
        reason: The endpoint's words.
    """

    text: str
    reason: str


class EndpointError(OSError):
    """An endpoint did not give vectors; whatever it gave before is kept in the cache.

    Args:
        message: What happened.
        refusals: The texts it is about, if it is about texts.
    """

    def __init__(self, message: str, refusals: tuple[Refusal, ...] = ()) -> None:
        super().__init__(message)
        self.refusals = refusals


class TroubleError(Exception):
    """A request failed in a way that may pass.

    Args:
        message: What happened.
        wait: Seconds to stay away, if the server says so.
        is_overrun: It was asked too much at once.
        patience: Seconds after which trying again is hopeless.
    """

    def __init__(
        self, message: str, *, wait: float | None = None, is_overrun: bool = False, patience: float = float("inf")
    ) -> None:
        super().__init__(message)
        self.wait = wait
        self.is_overrun = is_overrun
        self.patience = patience


class RefusalError(Exception):
    """The server will not take a batch.

    Args:
        message: What it says.
        is_about_length: Whether fewer or shorter texts may help.
    """

    def __init__(self, message: str, *, is_about_length: bool) -> None:
        super().__init__(message)
        self.is_about_length = is_about_length


class FatalError(Exception):
    """No request will be taken."""


def judged(error: "APIStatusError", api_key: str) -> TroubleError | RefusalError | FatalError:
    """What the status of an answer means.

    Args:
        error: What the client raised.
        api_key: Taken out of every message, for servers echo it.
    """
    status = error.status_code
    said = _server_message(error, api_key)
    what = f"status {status}" + (f" ({said})" if said else "")
    if status in _REFUSALS or (status >= 500 and _speaks_of_length(said)):
        return RefusalError(what, is_about_length=status == 413 or _speaks_of_length(said))
    if status == 429 and "insufficient_quota" in error.response.text:
        return FatalError(what)
    if status in (429, 503, 529):
        return TroubleError(what, wait=_retry_after(error), is_overrun=True)
    if status >= 500 or status in (408, 409):
        return TroubleError(what, wait=_retry_after(error))
    reason = _FATAL.get(status)  # said instead of the server's words, which may hold a part of the key
    return FatalError(f"status {status}: {reason}" if reason else what)


def _retry_after(error: "APIStatusError") -> float | None:
    """Seconds the server asks us to stay away; None when it does not say."""
    headers = error.response.headers
    try:
        if (milliseconds := headers.get("retry-after-ms")) is not None:
            return max(0.0, float(milliseconds) / 1000)
        if (value := headers.get("retry-after")) is None:
            return None
        if value.strip().replace(".", "", 1).isdigit():
            return float(value)
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def _server_message(error: "APIStatusError", api_key: str) -> str:
    body = error.body
    if isinstance(body, dict):
        body = body.get("message") or body.get("error") or body.get("detail") or body
    said = " ".join(str(body or "").split()).replace(api_key, "***")  # before a part of the key can be cut off
    return said if len(said) <= _SHOWN_CHARACTERS else f"{said[:_SHOWN_CHARACTERS]}..."


def _speaks_of_length(message: str) -> bool:
    return any(word in message.lower() for word in _LENGTH_WORDS)
