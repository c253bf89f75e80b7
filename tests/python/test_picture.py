"""`tributary sample --html/--svg`: every row, link and hidden row of a context is in the picture, well formed."""

from __future__ import annotations

import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

from native_database import process
from tributary import Sampler, seeds_from_keys
from tributary.cli.picture import context_html, context_svg

_SVG = "{http://www.w3.org/2000/svg}"


def test_the_picture_shows_rows_links_mask_and_hidden(
    shop: Any, tmp_path: Path, tributary_command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    shop.tables["customers"]["name"][0] = 'a <b> & "c"\x07'
    database = process(shop.write(), shop.metadata, tmp_path / "processed")
    seeds = seeds_from_keys(database, "churn", [1], times="2020-01-20")
    with Sampler(database, ["churn"], seeds=seeds, batch_size=1, num_neighbors=1, shuffle=False) as sampler:
        context = sampler.explain(0)
    root = ElementTree.fromstring(context_svg(context))
    hidden = sum(len(row["hidden"]) for row in context["rows"])
    assert hidden > 0
    assert len(root.findall(f"{_SVG}g")) == len(context["rows"]) + hidden
    assert len(root.findall(f"{_SVG}path")) == len(context["rows"]) - 1 + hidden
    texts = [text.text or "" for text in root.iter(f"{_SVG}text")]
    assert sum("??? (masked)" in text for text in texts) == 1
    assert "later than the seed" in texts
    assert 'name = a <b> & "c"' in texts
    assert context_svg(context) in context_html(context)

    page, svg = tmp_path / "context.html", tmp_path / "context.svg"
    done = tributary_command(
        "sample", tmp_path / "processed", "--task", "churn", "--seed-index", "3", "--html", page, "--svg", svg
    )
    assert done.returncode == 0, done.stderr
    assert "churn" in done.stdout
    assert svg.read_text() in page.read_text()
    ElementTree.fromstring(svg.read_text())
