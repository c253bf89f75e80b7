"""What inference answers: a choice, how sure it is, why, and what else there was."""

from __future__ import annotations

import dataclasses
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Candidate(Generic[T]):
    """One possibility."""

    value: T
    score: float
    """0 to 1."""
    reason: str


@dataclasses.dataclass(frozen=True)
class Proposal(Generic[T]):
    """The choice among candidates."""

    chosen: Candidate[T] | None
    """None: none is good enough."""
    rejected: tuple[Candidate[T], ...] = ()
    """The others, best first."""
    open_question: str | None = None
    """What a person should decide."""


def choose(candidates: list[Candidate[T]], *, least: float, margin: float = 0.0, what: str = "") -> Proposal[T]:
    """The best candidate, if it reaches `least`; close seconds leave the question open.

    Args:
        candidates: possibilities; the first of equal ones wins.
        least: score below which none is chosen.
        margin: a second within it makes an open question.
        what: the question, for its text.
    """
    ranked = sorted(candidates, key=lambda candidate: -candidate.score)
    if not ranked:
        return Proposal(None)
    best, others = ranked[0], tuple(ranked[1:])
    if best.score < least:
        near = [candidate for candidate in ranked if candidate.score >= 0.5 * least]
        listed = ", ".join(str(candidate.value) for candidate in near[:4])
        question = f"{what}: unsure about {listed}" if near and what else None
        return Proposal(None, tuple(ranked), question)
    close = [candidate for candidate in others if best.score - candidate.score < margin and candidate.score >= least]
    question = None
    if close and what:
        listed = ", ".join(str(candidate.value) for candidate in close[:4])
        question = f"{what}: {best.value} was chosen, {listed} fits almost as well"
    return Proposal(best, others, question)
