"""Naming texts by where they stand in a database, for messages about texts that an embedder did not take whole."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from tributary import _headwater
from tributary.embed import EndpointError
from tributary.embed.phrases import normalised

_SHOWN_TEXTS = 5
_SHOWN_CHARACTERS = 80


def with_places(error: EndpointError, folder: Path, texts: Sequence[str], num_columns: int) -> EndpointError:
    """The error of an endpoint that refuses texts, with table, column and row of each.

    Args:
        error: What the embedder raised; its refusals are texts of `texts`.
        folder: The database, staged or published.
        texts: The phrases of its columns, then its vocabulary.
        num_columns: How many of them are phrases.
    """
    reasons = {refusal.text: refusal.reason for refusal in error.refusals}
    lines = [
        f"{place}: {_shown(text)}: {reasons[text]}"
        for text, place in _places(folder, texts, num_columns, list(reasons)).items()
    ]
    number = "a text" if len(reasons) == 1 else f"{len(reasons)} texts"
    advice = "change them in the data or choose another embedder; the next run sends what is not in the cache"
    host = str(error).split(" refuses ")[0].rstrip(":")
    return EndpointError("\n  ".join([f"{host} refuses {number}:", *lines, advice]), error.refusals)


def cut_warning(cut: Sequence[str], folder: Path, texts: Sequence[str], num_columns: int) -> str:
    """Says which texts were cut, a few of them by table, column and row; arguments as for `with_places`."""
    shown = list(dict.fromkeys(cut))[:_SHOWN_TEXTS]
    places = _places(folder, texts, num_columns, shown)
    lines = [f"{place}: {_shown(text)}" for text, place in places.items()]
    number, theirs = ("a text was", "its beginning was")
    if len(cut) > 1:
        number, theirs = (f"{len(cut):,} texts were", "their beginnings were")
    return "\n  ".join([f"{number} longer than the endpoint takes; {theirs} embedded:", *lines])


def _places(folder: Path, texts: Sequence[str], num_columns: int, wanted: Sequence[str]) -> dict[str, str]:
    """Where some texts stand, in words."""
    members = defaultdict(list)
    sought = {normalised(text): text for text in wanted}
    for member, text in enumerate(texts):
        if (alike := sought.get(normalised(text))) is not None:  # equal texts were sent once, as one of them
            members[alike].append(member)
    ids = [member - num_columns for group in members.values() for member in group if member >= num_columns]
    cells = defaultdict(list)
    for place in json.loads(_headwater.text_places(folder, ids)) if ids else []:
        cells[place["text"]].append(place)
    places = {}
    for text in wanted:
        words = ["the phrase of a column (its description in metadata.json)"] if members[text][0] < num_columns else []
        found = [place for member in members[text] if member >= num_columns for place in cells[member - num_columns]]
        places[text] = "; ".join(words + [_in_words(place) for place in found])
    return places


def _in_words(place: dict[str, str | int | None]) -> str:
    row = f"row {place['row']}" if place["key"] is None else f"key {place['key']}"
    more = int(place["cells"] or 0) - 1
    also = f" and {more:,} more cells" if more else ""
    return f"table `{place['table']}`, column `{place['column']}`, {row}{also}"


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}...")
