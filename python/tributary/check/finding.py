"""What a check found, where, and what to do about it."""

from __future__ import annotations

import dataclasses
from typing import Literal

Severity = Literal["error", "warning", "note"]


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing about a database."""

    severity: Severity
    """error: preprocessing fails or a task cheats; warning: probably a mistake; note: worth knowing."""
    kind: str
    """Short name of the check, as `orphans`."""
    place: str
    """Table, column or task."""
    message: str
    """What was expected and what was found."""
    fix: str
    """What to do."""
