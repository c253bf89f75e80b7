"""The key of an endpoint: in no output, no error, no traceback, no log, no file and no list of processes."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import faulty_endpoint as faulty
from faulty_endpoint import KEY, FaultyEndpoint
from tributary.embed.endpoint_settings import endpoint_settings

_PART = KEY[:12]


def _variables(server: FaultyEndpoint, folder: Path) -> dict[str, str]:
    return {
        "TRIBUTARY_EMBEDDER_URL": server.url,
        "TRIBUTARY_EMBEDDER_API_KEY": KEY,
        "TRIBUTARY_EMBEDDER_MODEL": "m",
        "TRIBUTARY_CACHE": os.fspath(folder / "cache"),
        "OPENAI_LOG": "debug",  # the client's own log, at its loudest
        "NO_PROXY": "127.0.0.1",
    }


def _assert_nothing_holds_the_key(folder: Path, *outputs: str) -> None:
    for output in outputs:
        assert _PART not in output
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        assert _PART.encode() not in path.read_bytes(), path


def _echo(code: int) -> faulty.Fault:
    """The key in every place a server could put it, at the edge of what is shown of a message too."""
    message = f"bad key {KEY} " + "x" * 170 + f" {KEY} {KEY}"
    return faulty.status(code, message, X_Key=KEY, WWW_Authenticate=f"Bearer {KEY}")


@pytest.mark.slow
@pytest.mark.parametrize("debug", ["0", "1"])
def test_the_key_is_in_nothing_that_is_written(shop, tmp_path: Path, tributary_command: Any, debug: str) -> None:
    outputs = []
    with FaultyEndpoint() as server:
        for index, code in enumerate((0, 401, 400, 403, 422)):
            server.always = _echo(code) if code else None
            environment = {**_variables(server, tmp_path), "TRIBUTARY_DEBUG": debug}
            if code:
                environment["TRIBUTARY_CACHE"] = os.fspath(tmp_path / f"cache-{code}")
            database = tmp_path / f"db-{index}"
            arguments = ("preprocess", shop.write(), database, "--embedder", "endpoint", "--dimension", "32")
            done = tributary_command(*arguments, **environment)
            assert (done.returncode == 0) == (code == 0), done.stderr
            assert f"status {code}" in done.stderr or code == 0
            outputs += [done.stdout, done.stderr]
        server.always = None
        done = tributary_command("inspect", tmp_path / "db-0", **_variables(server, tmp_path))
        listed = tributary_command("cache", "list", **_variables(server, tmp_path))
    _assert_nothing_holds_the_key(tmp_path, *outputs, done.stdout, listed.stdout)


def test_the_key_is_in_no_list_of_processes(shop, tmp_path: Path) -> None:
    if not Path("/proc/self/cmdline").exists():
        pytest.skip("no /proc")
    waiting = lambda handler, texts: time.sleep(0.5) is not None  # noqa: E731
    with FaultyEndpoint(always=waiting) as server:
        environment = {**os.environ, **_variables(server, tmp_path), "OPENAI_LOG": ""}
        words = ["preprocess", shop.write(), tmp_path / "db", "--embedder", "endpoint", "--dimension", "32"]
        command = [sys.executable, "-c", "from tributary.cli import main; main()", *map(os.fspath, words)]
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
            while not server.requests and run.poll() is None:
                time.sleep(0.01)
            assert server.requests
            lines = []
            for folder in Path("/proc").glob("[0-9]*"):
                try:
                    lines.append((folder / "cmdline").read_bytes())
                except OSError:
                    continue
            run.kill()
    assert any(b"embedder\0endpoint" in line for line in lines)
    assert not [line for line in lines if _PART.encode() in line]


@pytest.mark.parametrize("verb", ["preprocess", "embed"])
def test_no_argument_takes_a_key(verb: str, tmp_path: Path, tributary_command: Any) -> None:
    for name in ("--api-key", "--embedder-api-key", "--embedder-key"):
        done = tributary_command(verb, tmp_path, tmp_path / "out", name, KEY)
        assert done.returncode == 2
        assert "No such option" in done.stderr
        assert _PART not in done.stdout + done.stderr


def test_keys_are_taken_as_files_and_pipes_leave_them() -> None:
    own = {"TRIBUTARY_EMBEDDER_URL": "https://e.example/v1", "TRIBUTARY_EMBEDDER_MODEL": "m"}
    assert endpoint_settings(environment={**own, "TRIBUTARY_EMBEDDER_API_KEY": f" {KEY}\r\n"}).api_key == KEY
    for broken in (f"{KEY}\nmore", f"{KEY} {KEY}", f"{KEY}\x07", f"{KEY}é"):
        with pytest.raises(ValueError, match="the key in TRIBUTARY_EMBEDDER_API_KEY holds blanks or signs") as caught:
            endpoint_settings(environment={**own, "TRIBUTARY_EMBEDDER_API_KEY": broken})
        assert _PART not in str(caught.value)


def test_which_variable_wins() -> None:
    """Flags before own variables before Baseten's; a key goes only to the address it belongs to."""
    baseten = {"BASETEN_EMBEDDER_URL": "https://model-1.api.baseten.co/v1", "BASETEN_API_KEY": "baseten-key"}
    own = {
        "TRIBUTARY_EMBEDDER_URL": "https://own.example/v1",
        "TRIBUTARY_EMBEDDER_API_KEY": "own-key",
        "TRIBUTARY_EMBEDDER_MODEL": "own-model",
    }
    keyless = {name: value for name, value in own.items() if not name.endswith("KEY")}

    def chosen(environment: dict[str, str], **flags: str) -> tuple[str, str, str]:
        settings = endpoint_settings(environment=environment, **flags)
        return settings.url, settings.api_key, settings.model

    url = baseten["BASETEN_EMBEDDER_URL"]
    assert chosen({**baseten, **own}) == ("https://own.example/v1", "own-key", "own-model")
    assert chosen({**baseten, **own}, url="http://flag.example/v1", model="flagged") == (
        "http://flag.example/v1",
        "own-key",
        "flagged",
    )
    assert chosen(baseten, model="m") == (url, "baseten-key", "m")
    assert chosen({**baseten, "TRIBUTARY_EMBEDDER_API_KEY": "own-key"}, model="m") == (url, "own-key", "m")
    assert chosen({**baseten, **keyless})[1] == "no-key"
    assert chosen({**baseten, **keyless}, url="http://flag.example/v1")[1] == "no-key"
    assert chosen({**baseten, **keyless}, url="https://model-2.api.baseten.co/v1")[1] == "baseten-key"
