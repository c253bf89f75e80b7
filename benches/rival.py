"""Where the rivals live: an environment of their own, made on request.

Usage: python benches/rival.py FOLDER        (makes the environment; 3 to 6 GB, minutes)

The rivals need torch and other packages that Tributary does not, so they run under an interpreter of their own, given
by `--rival-python` or the variable `TRIBUTARY_RIVAL_PYTHON`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

from measure import run

PACKAGES = (
    "torch==2.13.0",
    "relational-transformer==1.10.0",
    "duckdb==1.5.5",
    "duckdb-extension-tpch==1.5.5",
    "torch-geometric==2.8.1",
    "pytorch-frame==0.3.0",
    "polars==2.1.0",
    "pyarrow",
    "numpy",
)
ROOT = Path(__file__).resolve().parent.parent
MODEL = "all-MiniLM-L12-v2"  # the name the rival's sampler looks for
DATABASES = {"shop": ("shop", "1"), "tpch-0.1": ("tpch", "0.1"), "tpch-1": ("tpch", "1")}


def make_venv(folder: Path) -> Path:
    """Makes the environment in a folder; its interpreter. One that is there already is completed."""
    if not (folder / "bin" / "python").exists():
        venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
    return python


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that say where the rivals and their data are."""
    parser.add_argument("--rival-python", type=Path, default=os.environ.get("TRIBUTARY_RIVAL_PYTHON"))
    parser.add_argument("--make-venv", type=Path, metavar="FOLDER", help="make the rivals' environment there first")
    parser.add_argument("--data", type=Path, default=ROOT / "data/raw/bench", help="where the databases are, or go")
    parser.add_argument("--rounds", type=int, default=3, help="every contestant runs so often; medians are printed")


def rival_python(arguments: argparse.Namespace) -> Path:
    """The rivals' interpreter; ends the program with advice where there is none."""
    if arguments.make_venv:
        return make_venv(arguments.make_venv)
    if arguments.rival_python is None or not Path(arguments.rival_python).exists():
        sys.exit(
            "error: the rivals' python is not known; give --rival-python or TRIBUTARY_RIVAL_PYTHON, "
            "or --make-venv FOLDER to make one"
        )
    return Path(arguments.rival_python)


def database(name: str, arguments: argparse.Namespace, python: Path) -> Path:
    """The folder of a database in both layouts, generated where it is absent.

    Args:
        name: One of `DATABASES`.
        arguments: With the folder of the data.
        python: An interpreter with duckdb and its TPC-H extension.
    """
    folder = arguments.data / name
    if not (folder / "metadata.json").exists():
        kind, scale = DATABASES[name]
        print(f"generating {folder}", file=sys.stderr)
        subprocess.run([python, ROOT / "benches/databases.py", kind, folder, "--scale", scale], check=True)
    return folder


def preprocessed(name: str, arguments: argparse.Namespace, python: Path, dimension: int) -> Path:
    """The rival's own preprocessed form of a database, with random text vectors; made where it is absent.

    Its embedder downloads a model, and what a vector holds costs its sampler nothing, so the vectors are random.

    Args:
        name: One of `DATABASES`.
        arguments: With the folder of the data.
        python: The rivals' interpreter.
        dimension: Width of the vectors; its own model's is 384.

    Returns:
        The folder that its sampler calls `pre_dir`.
    """
    source, folder = database(name, arguments, python), arguments.data / f"rival-{name}"
    inner = folder / DATABASES[name][0]
    if not (inner / "meta.json").exists():
        print(f"the rival preprocesses {source}", file=sys.stderr)
        run(python, ROOT / "benches/rival_preprocess.py", source, "--contestant", "rival", "--keep", folder)
    if (
        json.loads((inner / "meta.json").read_text()).get("text_embeddings", {}).get(MODEL, {}).get("d_text")
        != dimension
    ):
        subprocess.run([python, __file__, inner, "--vectors", str(dimension)], check=True)
    return folder


def write_vectors(folder: Path, dimension: int) -> None:
    """Writes random unit vectors for every text of the rival's preprocessed database, as its embedder would."""
    import ml_dtypes
    import numpy as np

    number, rng = len(json.loads((folder / "text.json").read_text())), np.random.default_rng(0)
    with (folder / f"text_emb_{MODEL}.bin").open("wb") as file:
        for begin in range(0, number, 1 << 16):
            vectors = rng.standard_normal((min(1 << 16, number - begin), dimension), dtype=np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            file.write(vectors.astype(ml_dtypes.bfloat16).tobytes())
    description = json.loads((folder / "meta.json").read_text())
    described = {"file": f"text_emb_{MODEL}.bin", "d_text": dimension}
    description["text_embeddings"] = {MODEL: described}
    (folder / "meta.json").write_text(json.dumps(description))


def main() -> None:
    """Makes the environment, or (within a benchmark) the vectors of a database."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--vectors", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.vectors:
        write_vectors(arguments.folder, arguments.vectors)
    else:
        print(make_venv(arguments.folder))


if __name__ == "__main__":
    main()
