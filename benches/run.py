"""Every benchmark with small defaults, one after the other: `make bench`.

Without more, ours is measured beside DuckDB and pyarrow on the shop, a database of a million rows made under
data/raw/bench. With the variable `TRIBUTARY_RIVAL_PYTHON` (or `--rival-python`, `--make-venv FOLDER`) the rivals and
polars join in and TPC-H at a tenth of its size is made too. Bigger sizes: each benchmark says how.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import rival


def run(*argv: str | Path) -> None:
    """Runs a command at the root of the checkout, showing it first."""
    words = [str(word) for word in argv]
    print("\n$", " ".join(words).replace(f"{rival.ROOT}{os.sep}", ""), flush=True)
    subprocess.run(words, check=True, cwd=rival.ROOT)


def main() -> None:
    """Runs them all; the first failure ends it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    rival.add_arguments(parser)
    arguments = parser.parse_args()
    own, python = Path(sys.executable), Path(sys.executable)
    if has_rival := bool(arguments.rival_python or arguments.make_venv):
        python = rival.rival_python(arguments)
    names = ["shop", "tpch-0.1"] if has_rival else ["shop"]
    folders = [rival.database(name, arguments, python) for name in names]
    shared = ["--data", arguments.data, "--rounds", str(arguments.rounds)]
    rivals = ["--rival-python", python] if has_rival else ["--no-rival"]
    run(own, "benches/preprocess.py", *folders, "--peers-python", python, "--rounds", str(arguments.rounds))
    if has_rival:
        run(own, "benches/rival_preprocess.py", *names, *shared, *rivals)
    run(own, "benches/rival_sampler.py", *names, *shared, *rivals)
    processed = arguments.data.resolve() / "processed-shop"
    run("cargo", "bench", "--locked", "--no-default-features", "--bench", "sampler", "--", processed, "churn")


if __name__ == "__main__":
    main()
