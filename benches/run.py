"""Every benchmark, one after the other: `make bench`.

Makes what they need under data/ (TPC-H's shape at a tenth of its size, generated; its processed database), then runs
`preprocess.py` and the sampler's bench on it. Bigger sizes: run them by hand, each says how.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RAW, PROCESSED = ROOT / "data/raw/tpch-shape", ROOT / "data/processed/tpch-shape"


def run(*argv: str | Path) -> None:
    """Runs a command at the root of the checkout, showing it first."""
    words = [str(word) for word in argv]
    print("\n$", " ".join(words).replace(f"{ROOT}{os.sep}", ""), flush=True)
    subprocess.run(words, check=True, cwd=ROOT)


def main() -> None:
    """Runs them all; the first failure ends it."""
    python, tributary = Path(sys.executable), Path(sys.executable).with_name("tributary")
    if not (RAW / "metadata.json").exists():
        run(python, "benches/tpch_shape.py", RAW, "--scale", "0.1")
    if not PROCESSED.exists():
        run(tributary, "preprocess", RAW, PROCESSED, "--embedder", "hash")
    run(python, "benches/preprocess.py", RAW)
    run("cargo", "bench", "--locked", "--no-default-features", "--bench", "sampler", "--", PROCESSED, "spend")


if __name__ == "__main__":
    main()
