"""The command line: light help, one message and exit code 2 for what the user did wrong, facts for scripts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


def test_help_teaches(tributary_command) -> None:
    result = tributary_command("--help")
    assert result.returncode == 0
    for word in ("preprocess", "verify", "inspect", "sample", "tributary preprocess IN OUT"):
        assert word in result.stdout


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys, tributary, tributary.cli\n"
        "try: tributary.cli.main(['preprocess', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'jax', 'pandas', 'sklearn', 'duckdb', 'numpy', 'pyarrow', 'lightgbm'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=60)


def test_every_verb_has_help(tributary_command) -> None:
    for verb in ("preprocess", "verify", "inspect", "sample"):
        result = tributary_command(verb, "--help")
        assert result.returncode == 0
        assert f"Example: tributary {verb}" in result.stdout


def test_from_parquet_to_facts(shop, tmp_path: Path, tributary_command) -> None:
    result = tributary_command("preprocess", shop.write(), tmp_path / "db")
    assert result.returncode == 0
    assert all(line.startswith("warning: task `") for line in result.stderr.splitlines())
    assert "warning: task `churn`: every training label is false" in result.stderr
    for word in ("customers", "60 edges, 0 dangling, 0 null", "churn", "next: tributary inspect"):
        assert word in result.stdout

    result = tributary_command("preprocess", shop.folder, tmp_path / "db", TRIBUTARY_THREADS="1")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.endswith("is already up to date\n")

    result = tributary_command("inspect", tmp_path / "db", "--json")
    assert (result.returncode, result.stderr) == (0, "")
    facts = json.loads(result.stdout)
    assert facts["rows"] == {"customers": 12, "products": 5, "orders": 60}
    assert facts["edges"] == {"orders.customer_id": 60, "orders.product_id": 60}

    result = tributary_command("inspect", tmp_path / "db")
    assert result.returncode == 0
    for word in ("shop", "mean 1.5, std 0", "% true", "3 distinct", "2020-01-02", "primary key", "hash (256 dim"):
        assert word in result.stdout

    digests = {tributary_command("verify", tmp_path / "db", "--digest").stdout for _ in range(2)}
    assert len(digests) == 1
    assert tributary_command("verify", tmp_path / "db").stdout.strip().endswith(digests.pop().strip())


def test_one_context_as_a_tree(shop, tmp_path: Path, tributary_command) -> None:
    assert tributary_command("preprocess", shop.write(), tmp_path / "db").returncode == 0
    result = tributary_command("sample", tmp_path / "db", "--task", "churn", "--seed-index", "3")
    assert (result.returncode, result.stderr) == (0, "")
    for word in ("churn", "customers", "masked", "2020-02-01", "hidden"):
        assert word in result.stdout
    result = tributary_command("sample", tmp_path / "db", "--task", "chrun")
    assert result.returncode == 2
    assert "`churn`" in result.stderr
    result = tributary_command("sample", tmp_path / "db", "--task", "churn", "--seed-index", "1000")
    assert result.returncode == 2
    assert "1000" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["preprocess", "nowhere", "out"], ["error: ", "nowhere"]),
        (["verify", "nowhere"], ["error: ", "nowhere"]),
        (["inspect", "nowhere"], ["error: ", "nowhere"]),
        (["preprocess", ".", "out", "--embedder", "hsah"], ["error: unknown embedder `hsah`; did you mean `hash`"]),
        (["preprocess", ".", "out", "--threads", "-1"], ["--threads", "greater than or equal to 0"]),
        (["preprocess", ".", "out", "--stats-until", "soon"], ["error: "]),
        (["preproces"], ["No such command", "preprocess"]),
        (["preprocess", "only-one"], ["OUT"]),
    ],
)
def test_mistakes_are_one_message(tmp_path: Path, tributary_command, monkeypatch, arguments, words) -> None:
    monkeypatch.chdir(tmp_path)
    result = tributary_command(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_traceback_on_demand(tmp_path: Path, tributary_command) -> None:
    result = tributary_command("verify", tmp_path / "nowhere", TRIBUTARY_DEBUG="1")
    assert "Traceback" in result.stderr


def test_names_are_data_in_messages(shop, tributary_command, tmp_path: Path) -> None:
    shop.metadata["tables"]["orders"]["columns"]["[bold red]x[/]"] = {"stype": "nmerical"}
    result = tributary_command("preprocess", shop.write(), tmp_path / "db")
    assert result.returncode == 2
    assert "[bold red]x[/]" in result.stderr
    assert "numerical" in result.stderr


def test_ctrl_c_is_exit_code_130_and_leaves_nothing(shop, tmp_path: Path) -> None:
    shop.metadata["tasks"]["churn"]["query"] = (
        "SELECT id AS customer_id, TIMESTAMP '2020-02-01' AS obs_time,"
        " (SELECT count(*) FROM range(1000000000000)) > 0 AS churn FROM customers"
    )
    command = "from tributary.cli import main; main()"
    child = subprocess.Popen(
        [sys.executable, "-c", command, "preprocess", str(shop.write()), str(tmp_path / "db")],
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    finished = tmp_path / ".db.partial" / "database" / "graph.bin"
    while not finished.exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    os.killpg(child.pid, signal.SIGINT)
    _, said = child.communicate(timeout=30)
    assert child.returncode == 130
    assert b"Traceback" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shop"]
