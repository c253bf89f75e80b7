"""The front door: every public name resolves, importing is cheap, and the stub says what the native module has."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tributary
from tributary import _headwater

_STUB = Path(tributary.__file__).with_name("_headwater.pyi")


def test_every_public_name_resolves() -> None:
    for name in tributary.__all__:
        assert getattr(tributary, name) is not None
    assert dir(tributary) == sorted(tributary.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = tributary.nonsense


def test_importing_the_package_imports_nothing_else() -> None:
    script = (
        "import sys, tributary\n"
        "heavy = {'jax', 'numpy', 'duckdb', 'pyarrow', 'tributary._headwater'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
        "tributary.preprocess\n"
        "heavy = {'jax', 'pandas', 'duckdb', 'pyarrow'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_errors_have_one_base() -> None:
    for kind in (tributary.SchemaError, tributary.FormatError):
        assert issubclass(kind, tributary.TributaryError)
        assert not issubclass(kind, OSError | ValueError)


def test_the_stub_names_what_the_native_module_has() -> None:
    described = set()
    for statement in ast.parse(_STUB.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.ClassDef | ast.FunctionDef):
            described.add(statement.name)
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            described.add(statement.target.id)
    assert described == set(_headwater.__all__) == {name for name in dir(_headwater) if not name.startswith("_")}


def test_the_stub_describes_every_method() -> None:
    for statement in ast.parse(_STUB.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.ClassDef) and not statement.name.endswith("Error"):
            described = {entry.name for entry in statement.body if isinstance(entry, ast.FunctionDef)}
            native = getattr(_headwater, statement.name)
            assert {name for name in described if not name.startswith("__")} == {
                name for name in dir(native) if not name.startswith("_")
            }


@pytest.mark.slow
def test_stubtest() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "tributary._headwater", "--ignore-missing-stub"],
        capture_output=True,
        text=True,
        timeout=110,
        env={**os.environ, "MYPYPATH": str(_STUB.parents[1])},
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
