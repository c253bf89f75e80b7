"""Damaged databases through the commands: verified as what they were or refused with one message; nothing crashes.

The commands run in a process of their own, one for all the damages, so that a crash of the native code is seen.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

WORDS = (0, 1, 2**31 - 1, 2**32, 2**63 - 1, 2**64 - 1)
COMMANDS = {
    "verify": ("verify", "--digest", "{}"),
    "inspect": ("inspect", "--json", "{}"),
    "sample": ("sample", "{}", "--task", "churn"),
}

Damage = Callable[[Path], None]


def _edit(change: Callable[[bytes], bytes]) -> Damage:
    def damage(file: Path) -> None:
        content = file.read_bytes()
        file.unlink()  # the file shares its bytes with the good one
        file.write_bytes(change(content))

    return damage


def _flip(at: int, bit: int) -> Damage:
    return _edit(lambda content: content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])


def _word(at: int, word: int) -> Damage:
    return _edit(lambda content: content[:at] + struct.pack("<Q", word) + content[at + 8 :])


def _replace(make: Callable[[Path], object]) -> Damage:
    def damage(file: Path) -> None:
        file.unlink()
        make(file)

    return damage


def _damages(size: int, rng: random.Random) -> Iterator[tuple[str, Damage]]:
    """Ways to damage a file of some bytes, each with its name."""
    for _ in range(12):
        at, bit = rng.randrange(size), rng.randrange(8)
        yield f"bit {bit} of byte {at}", _flip(at, bit)
    for _ in range(8):
        at, word = rng.randrange(max(1, size - 8)), rng.choice(WORDS)
        yield f"word {word} at {at}", _word(at, word)
    for end in sorted({0, 8, 63, size // 2, size - 1}):
        yield f"cut to {end}", _edit(lambda content, end=end: content[:end])
    yield "longer", _edit(lambda content: content + b"\0")
    yield "absent", _replace(lambda file: None)
    yield "a folder", _replace(Path.mkdir)
    yield "a link to itself", _replace(lambda file: file.symlink_to(file.name))
    yield "a device", _replace(lambda file: file.symlink_to("/dev/zero"))


def _run(arguments: list[str]) -> tuple[int, str]:
    """Runs one command line in this process: its exit code and what it printed; a traceback is code 200."""
    from tributary.cli import main

    output = StringIO()
    try:
        with redirect_stdout(output), redirect_stderr(StringIO()):
            main(arguments)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        return code, output.getvalue()
    except BaseException:
        return 200, traceback.format_exc()
    return 0, output.getvalue()


def _judge(good: Path, scratch: Path) -> dict[str, Counter[str]]:
    """Damages every file in every way, runs every command on the result, and counts what they answer."""
    rng = random.Random(0)
    wanted = _run(["verify", "--digest", str(good)])
    assert wanted[0] == 0
    counts: dict[str, Counter[str]] = {command: Counter() for command in COMMANDS}
    for file in sorted(path.relative_to(good) for path in good.rglob("*") if path.is_file()):
        for name, damage in _damages((good / file).stat().st_size, rng):
            folder = scratch / "damaged"
            shutil.copytree(good, folder, copy_function=os.link)
            damage(folder / file)
            for command, words in COMMANDS.items():
                code, output = _run([word.format(folder) for word in words])
                is_lie = command == "verify" and code == 0 and (code, output) != wanted
                outcome = "lie" if is_lie else {0: "answered", 2: "refused"}.get(code, "crash")
                counts[command][outcome] += 1
                if outcome in ("lie", "crash"):
                    print(f"{command}: {outcome} on {file}, {name}: {output[-800:]}", file=sys.stderr)
            shutil.rmtree(folder)
    return counts


@pytest.mark.slow
def test_damage_is_refused_or_harmless(shop, tmp_path: Path) -> None:
    from tributary.embed import make_embedder
    from tributary.preprocess import preprocess

    preprocess(shop.write(), tmp_path / "good", embedder=make_embedder("hash", dimension=16))
    (tmp_path / "scratch").mkdir()
    argv = [sys.executable, __file__, str(tmp_path / "good"), str(tmp_path / "scratch")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    counts = json.loads(done.stdout)
    assert counts["verify"]["refused"] >= 300
    for command, outcomes in counts.items():
        assert set(outcomes) <= {"answered", "refused"}, f"{command} {outcomes}\n{done.stderr[-4000:]}"


if __name__ == "__main__":
    print(json.dumps(_judge(Path(sys.argv[1]), Path(sys.argv[2]))))
