"""A context as a picture: rows as boxes by hop, links by key, the masked cell, and what stays hidden in grey."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

_WIDTH, _GAP_X, _GAP_Y, _LINE, _PAD = 250, 130, 14, 15, 8
_MAX_TEXT = 34
_COLORS = ("#cfe3f7", "#d8efcf", "#fbe3c6", "#ead7f3", "#f7d3d8", "#d0eeea", "#f3efc4", "#dfe0ea")
_REASONS = {
    "time": "later than the seed",
    "lookback": "older than the look-back window",
    "budget": "beyond the limits of the context",
}


@dataclass
class _Box:
    """One row, or some hidden rows, with its place."""

    title: str
    lines: list[tuple[str, str]]  # text, class
    color: str
    hop: int
    origin: int | None
    link: str
    is_hidden: bool = False
    y: float = field(default=0.0)

    @property
    def height(self) -> float:
        return 2 * _PAD + _LINE * (1 + len(self.lines))

    @property
    def x(self) -> float:
        return _PAD + self.hop * (_WIDTH + _GAP_X)


def context_svg(context: Mapping[str, Any]) -> str:
    """An explained context as SVG.

    Args:
        context: what `Sampler.explain` answers.

    Returns:
        A whole SVG document; hovering over a box shows it unabridged.
    """
    boxes = _boxes(context)
    below: dict[int, float] = {}
    for box in boxes:
        box.y = below.get(box.hop, 3.0 * _LINE)
        below[box.hop] = box.y + box.height + _GAP_Y
    width = max(box.x for box in boxes) + _WIDTH + _PAD
    height = max(below.values()) + _PAD
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}" font-family="sans-serif" font-size="11">',
        "<style>.title{font-weight:bold}.null{fill:#999}.masked{fill:#c00;font-weight:bold}.note{fill:#777}"
        ".link{fill:none;stroke:#888}.key{fill:#555;font-size:9px}.hidden{opacity:.75}</style>",
        f'<rect width="{width:g}" height="{height:g}" fill="white"/>',
        f'<text x="{_PAD}" y="{_LINE + 3}" class="title">{escape(_heading(context))}</text>',
        f'<text x="{_PAD}" y="{2 * _LINE + 3}" class="note">{escape(_footing(context))}</text>',
    ]
    parts += [_link(boxes[box.origin], box) for box in boxes if box.origin is not None]
    parts += [_draw(box) for box in boxes]
    return "\n".join([*parts, "</svg>\n"])


def context_html(context: Mapping[str, Any]) -> str:
    """An explained context as a page that needs nothing else.

    Args:
        context: what `Sampler.explain` answers.
    """
    title = escape(_heading(context))
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f"<body>\n{context_svg(context)}</body>\n</html>\n"
    )


def _heading(context: Mapping[str, Any]) -> str:
    moment = context["seed_time"] or "the end of time"
    entity = f"{context['entity_table']} {_value(context['entity'])}"
    asked = "" if context["target_column"] is None else f"{context['target_column']} of "
    return f"{context['task']}: {asked}{entity} at {moment} ({context['split']})"


def _footing(context: Mapping[str, Any]) -> str:
    counts = context["counts"]
    label = "" if context["target_column"] is None else f"label: {_value(context['label'])} (in no cell) - "
    return (
        f"{label}{counts['rows']} rows, {counts['cells']} of "
        f"{counts['seq_len']} cells - grey: linked rows that the seed does not see, and why"
    )


def _boxes(context: Mapping[str, Any]) -> list[_Box]:
    tables = list(dict.fromkeys(row["table"] for row in context["rows"]))
    boxes = []
    for row in context["rows"]:
        key = f"#{row['row']}" if row["key"] is None else _value(row["key"])
        is_seed = row["kind"] == "seed" and row["key"] is None
        title = f"{context['task']} (the seed)" if is_seed else f"{row['table']} {key}"
        title = f"example: {title}" if row["kind"] == "example" else title
        lines = [(f"at {row['time']}", "note")] if row["time"] else []
        for cell in row["cells"]:
            kind = "masked" if cell["is_target"] or cell["is_masked"] else "null" if cell["value"] is None else ""
            is_bare = cell["stype"] == "identifier" and cell["value"] is True
            value = "??? (masked)" if cell["is_target"] else "(present)" if is_bare else _value(cell["value"])
            value += " (masked)" if cell["is_masked"] else ""
            lines.append((f"{cell['column']} = {value}", kind))
        if row["has_hidden_target"]:
            lines.append(("its target is hidden", "note"))
        color = _COLORS[tables.index(row["table"]) % len(_COLORS)]
        boxes.append(_Box(title, lines, color, row["hop"], row["from"], row["link"] or ""))
    for row in context["rows"]:
        for hidden in row["hidden"]:
            examples = [
                _value(example["key"]) + (f" at {example['time']}" if example["time"] else "")
                for example in hidden["examples"]
            ]
            if hidden["count"] > len(examples):
                examples.append("...")
            title = f"{hidden['count']} {hidden['kind']} hidden"
            reason = _REASONS[hidden["reason"]]
            if (hidden["kind"], hidden["reason"]) == ("history", "time"):
                reason = "label not known yet"
            elif hidden["reason"] == "time" and row["example"] is not None:
                reason = "later than the example"
            lines = [(reason, "note"), *((example, "null") for example in examples)]
            boxes.append(_Box(title, lines, "#eeeeee", row["hop"] + 1, row["local"], hidden["link"], is_hidden=True))
    return boxes


def _link(origin: _Box, box: _Box) -> str:
    """A curve between two boxes, labelled with the foreign key."""
    start_x, start_y = origin.x + _WIDTH, origin.y + _PAD + _LINE / 2
    end_x, end_y = box.x, box.y + _PAD + _LINE / 2
    middle = (start_x + end_x) / 2
    dash = ' stroke-dasharray="4 3"' if box.is_hidden else ""
    curve = f"M{start_x:g} {start_y:g} C{middle:g} {start_y:g} {middle:g} {end_y:g} {end_x:g} {end_y:g}"
    return (
        f'<path class="link" d="{curve}"{dash}/>'
        f'<text class="key" text-anchor="end" x="{end_x - 4:g}" y="{end_y - 3:g}">{escape(_short(box.link, 24))}</text>'
    )


def _draw(box: _Box) -> str:
    style = ' class="hidden" stroke-dasharray="4 3"' if box.is_hidden else ""
    whole = "\n".join([box.title, *(text for text, _ in box.lines)])
    parts = [
        f"<g><title>{escape(whole)}</title>"
        f'<rect x="{box.x:g}" y="{box.y:g}" width="{_WIDTH}" height="{box.height:g}" rx="5" fill="{box.color}" '
        f'stroke="#888"{style}/>'
    ]
    for number, (text, kind) in enumerate([(box.title, "title"), *box.lines]):
        y = box.y + _PAD + _LINE * (number + 0.75)
        parts.append(f'<text x="{box.x + _PAD:g}" y="{y:g}" class="{kind}">{escape(_short(text, _MAX_TEXT))}</text>')
    return "".join([*parts, "</g>"])


def _value(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    # characters that no XML document can hold
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
