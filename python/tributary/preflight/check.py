"""One thing that was looked at."""

from __future__ import annotations

import dataclasses
from typing import Literal

Status = Literal["ok", "warn", "fail"]


@dataclasses.dataclass(frozen=True)
class Check:
    """What was found, and what to do about it."""

    name: str
    status: Status
    """`fail`: the run would stop, or teach nothing; `warn`: it would run, and probably not as it was meant."""
    found: str
    advice: str = ""
    """Empty where all is well."""


def judged(name: str, found: str, *, fail: str = "", warn: str = "") -> Check:
    """A check that fails with the advice `fail`, warns with `warn`, or is well where both are empty."""
    if fail:
        return Check(name, "fail", found, fail)
    return Check(name, "warn" if warn else "ok", found, warn)


def size_text(num_bytes: float) -> str:
    """Bytes in the unit a person would use."""
    if num_bytes < 1024:
        return f"{num_bytes:.0f} bytes"
    for unit in ("KiB", "MiB"):
        num_bytes /= 1024
        if num_bytes < 1024:
            return f"{num_bytes:.1f} {unit}"
    return f"{num_bytes / 1024:,.1f} GiB"
