"""Which endpoint to ask, with which key, and how patiently.

The key comes from the environment alone: an argument would show in the list of processes. Baseten's key goes to Baseten
only; `TRIBUTARY_EMBEDDER_API_KEY` goes to the address that is chosen, and nowhere else.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

Reduction = Literal["projected", "truncated", "server"]

_URL, _KEY, _MODEL = "TRIBUTARY_EMBEDDER_URL", "TRIBUTARY_EMBEDDER_API_KEY", "TRIBUTARY_EMBEDDER_MODEL"
_REDUCTION = "TRIBUTARY_EMBEDDER_REDUCTION"
_BASETEN_URL, _BASETEN_KEY = "BASETEN_EMBEDDER_URL", "BASETEN_API_KEY"
_NO_KEY = "no-key"  # the client insists on one; servers without keys ignore it


@dataclass(frozen=True)
class EndpointSettings:
    """How to reach an endpoint; `documentation/embedders.md` explains each."""

    url: str
    """Where `/embeddings` is found, such as `https://api.openai.com/v1`."""

    model: str
    """The name by which the server knows the model."""

    api_key: str = field(default=_NO_KEY, repr=False)
    """Sent as bearer token."""

    server_reduces: bool = False
    """Ask the server for the dimension instead of cutting its vectors here."""

    width: int | None = None
    """Numbers in the server's vectors, if known; else the first answer says."""

    max_texts: int = 256
    """Texts in a request."""

    max_tokens: int = 100_000
    """Tokens in a request, as estimated here."""

    max_text_tokens: int = 8_000
    """Tokens of a text, as estimated here; what exceeds them is cut off."""

    max_concurrency: int = 32
    """Requests under way at once; how many there are adapts to what the server takes."""

    timeout_seconds: float = 60.0
    """What one request may take."""

    deadline_seconds: float = 600.0
    """How long a batch that keeps failing is tried again."""

    @property
    def host(self) -> str:
        """The server's name, for messages: an address may carry secrets, this does not."""
        return urlsplit(self.url).hostname or "the endpoint"


def endpoint_settings(
    *, url: str | None = None, model: str | None = None, environment: Mapping[str, str] = os.environ
) -> EndpointSettings:
    """The settings of a user.

    Args:
        url: Instead of `TRIBUTARY_EMBEDDER_URL` or, failing that, `BASETEN_EMBEDDER_URL`.
        model: Instead of `TRIBUTARY_EMBEDDER_MODEL`.
        environment: Where the variables are looked up; `TRIBUTARY_EMBEDDER_REDUCTION=server` among them asks the
            server for the dimension.

    Returns:
        Settings with the key that belongs to the address.

    Raises:
        ValueError: Address or model are missing, or the address is none.
    """
    address = url or environment.get(_URL) or environment.get(_BASETEN_URL)
    if not address:
        raise ValueError(
            f"embedder `endpoint`: no address; set {_URL} (or --embedder-url), such as http://host:8000/v1"
        )
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("embedder `endpoint`: the address must begin with http:// or https:// and name a host")
    if parts.username or parts.password or parts.query:
        raise ValueError(f"embedder `endpoint`: the address must hold no user, key or query; the key goes in {_KEY}")
    name = model or environment.get(_MODEL)
    if not name:
        raise ValueError(f"embedder `endpoint`: no model; set {_MODEL} (or --embedder-model)")
    reduction = environment.get(_REDUCTION, "here")
    if reduction not in ("here", "server"):
        raise ValueError(f"embedder `endpoint`: {_REDUCTION} must be here or server, found {reduction!r}")
    key = _clean_key(environment, _KEY)
    is_baseten = address == environment.get(_BASETEN_URL) or parts.hostname.endswith(".baseten.co")
    if not key and is_baseten:
        key = _clean_key(environment, _BASETEN_KEY)
    return EndpointSettings(url=address, model=name, api_key=key or _NO_KEY, server_reduces=reduction == "server")


def _clean_key(environment: Mapping[str, str], variable: str) -> str:
    """A key without the line end that files and pipes leave on it; empty when there is none."""
    key = environment.get(variable, "").strip()
    if not (key.isascii() and (key.isprintable() and " " not in key)):
        raise ValueError(f"embedder `endpoint`: the key in {variable} holds blanks or signs that no key has")
    return key
