"""Checks that every relative link of the Markdown pages points to something that exists."""

import re
import sys
from pathlib import Path

LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")


def main() -> None:
    """Prints each broken link as `page: target` and exits with 1 when there is one."""
    root = Path(__file__).resolve().parent.parent
    pages = [*root.glob("*.md"), *root.glob("documentation/**/*.md"), *root.glob("data/*.md")]
    broken = [
        f"{page.relative_to(root)}: {target}"
        for page in pages
        for target, _ in LINK.findall(page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]
    print("\n".join(broken) or f"{len(pages)} pages, every relative link holds")
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
