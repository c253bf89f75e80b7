"""How sampling ends: closing, Ctrl-C, fork, damage and the end of the interpreter, each at once and with its reason.

What signals, forks or ends an interpreter runs in a process of its own. Times are taken from the event to the answer
by the system's monotonic clock, which all processes share; the batches that are interrupted would take many seconds.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tributary import _headwater

# a batch of many seconds, made context by context
HEAVY = {"batch_size": 30_000, "seq_len": 2048, "num_neighbors": 1000, "split": "all"}
AT_ONCE_S = 1.0

_CHILD = """
import json, os, sys, threading, time
from tributary import _headwater

database = _headwater.Database(sys.argv[1])
heavy = json.loads(sys.argv[2])
light = {"batch_size": 8, "seq_len": 64, "split": "all"}

def open_sampler(**options):
    return _headwater.Sampler(database, ["spend"], **options)

def say(word):
    print(word, time.monotonic(), flush=True)

"""


def _start(database: _headwater.Database, script: str) -> subprocess.Popen[str]:
    """Starts a child that runs `script` after `_CHILD`."""
    argv = [sys.executable, "-c", _CHILD + script, database.path, json.dumps(HEAVY)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _said(child: subprocess.Popen[str], word: str) -> float:
    """Waits until the child says a word; when it did."""
    assert child.stdout is not None
    line = child.stdout.readline().split()
    if not line or line[0] != word:
        child.kill()
        pytest.fail(f"expected `{word}`, the child said {line} and {child.communicate()[1]}")
    return float(line[1])


def _end(child: subprocess.Popen[str]) -> None:
    """Waits for the end, which must be a good one."""
    try:
        _, errors = child.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        child.kill()
        pytest.fail(f"the child hangs: {child.communicate()[1]}")
    assert (child.returncode, errors) == (0, "")


def _until_closed(sampler: _headwater.Sampler, errors: list[str]) -> None:
    """Asks for a batch; what a closed sampler answers goes to `errors`."""
    try:
        sampler.next_batch()
    except RuntimeError as error:
        errors.append(str(error))


@pytest.mark.parametrize(
    "call",
    [
        "open_sampler(**heavy, threads=2, prefetch=2).next_batch",
        "open_sampler(**heavy, prefetch=0).next_batch",
        "lambda: open_sampler(**heavy).batch(0)",
    ],
    ids=["waiting", "sampling", "batch"],
)
def test_ctrl_c_ends_a_call_at_once(spend_shop: _headwater.Database, call: str) -> None:
    script = f"""
call = {call}
try:
    say("begun")
    call()
except KeyboardInterrupt:
    say("interrupted")
del call  # ends the workers
say("closed")
"""
    child = _start(spend_shop, script)
    _said(child, "begun")
    time.sleep(0.2)
    began = time.monotonic()
    child.send_signal(signal.SIGINT)
    interrupted, closed = _said(child, "interrupted"), _said(child, "closed")
    assert interrupted - began < AT_ONCE_S
    assert closed - interrupted < AT_ONCE_S
    _end(child)


def test_a_batch_given_up_is_the_next_one_again(spend_shop: _headwater.Database) -> None:
    """A handler that raises something else ends the call with that, and the batch comes when it is asked for again."""

    def ring(*_: object) -> None:
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, ring)
    try:
        for prefetch in (0, 2):
            sampler = _headwater.Sampler(spend_shop, ["spend"], **HEAVY, prefetch=prefetch)
            for _ in range(2):
                signal.setitimer(signal.ITIMER_REAL, 0.1)
                with pytest.raises(TimeoutError):
                    sampler.next_batch()
                assert json.loads(sampler.get_state())["step"] == 0
            sampler.close()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def test_a_closed_sampler_raises(spend_shop: _headwater.Database) -> None:
    sampler = _headwater.Sampler(spend_shop, ["spend"], batch_size=8, seq_len=64)
    state = sampler.get_state()
    sampler.next_batch()
    sampler.close()
    sampler.close()
    for call in (sampler.next_batch, lambda: sampler.set_state(state)):
        with pytest.raises(RuntimeError, match="the sampler is closed"):
            call()
    sampler.batch(0)  # needs no stream


@pytest.mark.parametrize("prefetch", [0, 2])
def test_another_thread_closes_at_once(spend_shop: _headwater.Database, prefetch: int) -> None:
    sampler = _headwater.Sampler(spend_shop, ["spend"], **HEAVY, prefetch=prefetch)
    errors: list[str] = []
    thread = threading.Thread(target=_until_closed, args=[sampler, errors])
    thread.start()
    time.sleep(0.1)
    began, turns = time.monotonic(), 0
    while time.monotonic() - began < 0.1:
        turns += 1
    assert turns > 100, "the waiting thread keeps the GIL"
    began = time.monotonic()
    sampler.close()
    thread.join()
    assert time.monotonic() - began < AT_ONCE_S
    assert errors == ["the sampler is closed"]


def test_forked_children_raise_and_parents_go_on(spend_shop: _headwater.Database) -> None:
    """Forks while workers make batches and while another thread waits for one."""
    script = """
import hashlib, warnings
warnings.simplefilter("ignore")  # forking with threads is what is tested

def digest(batch):
    return hashlib.sha256(b"".join(array.tobytes() for array in batch.values())).hexdigest()

def message(call):
    try:
        call()
    except RuntimeError as error:
        return str(error)

slow = open_sampler(**heavy, threads=1)
def wait():
    try:
        slow.next_batch()
    except RuntimeError:
        pass
waiting = threading.Thread(target=wait)
waiting.start()
sampler = open_sampler(**light, threads=2, prefetch=4)
expected = [digest(open_sampler(**light).batch(step)) for step in range(12)]

def child(step):
    code = 1
    try:
        found = [message(call) for call in (sampler.next_batch, sampler.get_state, slow.next_batch)]
        good = all(text and "fork" in text for text in found)
        good &= digest(sampler.batch(step)) == expected[step]
        good &= digest(open_sampler(**light, threads=2, prefetch=2).next_batch()) == expected[0]
        sampler.close()
        slow.close()
        code = 0 if good else 2
    finally:
        os._exit(code)

for step in range(12):
    assert digest(sampler.next_batch()) == expected[step]
    pid = os.fork()
    if pid == 0:
        child(step)
    deadline = time.monotonic() + 10
    done = 0
    while not done and time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        time.sleep(0.002)
    if not done:
        os.kill(pid, 9)
        sys.exit(f"the child forked at step {step} hangs")
    assert os.waitstatus_to_exitcode(status) == 0, (step, status)
slow.close()
waiting.join()
say("done")
"""
    child = _start(spend_shop, script)
    _said(child, "done")
    _end(child)


@pytest.mark.parametrize(
    "ending",
    [
        "sampler.batch(0)",
        "threading.Thread(target=sampler.next_batch, daemon=True).start(); time.sleep(0.1)",
        "loop = [sampler]; loop.append(loop); del sampler; loop[0].batch(0)",
    ],
    ids=["working", "waiting", "in a cycle"],
)
def test_the_interpreter_ends_with_running_workers(spend_shop: _headwater.Database, ending: str) -> None:
    script = f"""
slow = open_sampler(**heavy, threads=2, prefetch=4)
threading.Thread(target=slow.next_batch, daemon=True).start()
sampler = open_sampler(**light, threads=2, prefetch=4)
sampler.next_batch()
{ending}
say("leaving")
"""
    child = _start(spend_shop, script)
    began = _said(child, "leaving")
    _end(child)
    assert time.monotonic() - began < 2 * AT_ONCE_S, "the end of the interpreter, and of the process, took too long"


@pytest.fixture
def damaged(spend_shop: _headwater.Database, tmp_path: Path) -> tuple[_headwater.Database, set[int]]:
    """The shop with two seeds whose entity does not exist, and the positions of these among the seeds."""
    folder = tmp_path / "damaged"
    shutil.copytree(spend_shop.path, folder)
    file = folder / "tasks" / "spend.bin"
    content = file.read_bytes()
    rows = np.ascontiguousarray(spend_shop.task_seeds("spend")["row"], np.uint32)
    bad = rows.copy()
    bad[[17, 90]] = 4_000_000_000
    assert content.count(rows.tobytes()) == 1
    file.write_bytes(content.replace(rows.tobytes(), bad.tobytes()))
    return _headwater.Database(folder), {17, 90}


@pytest.mark.parametrize(("threads", "prefetch"), [(0, 0), (1, 1), (2, 6)])
def test_an_error_of_a_worker_is_raised_at_its_step(
    damaged: tuple[_headwater.Database, set[int]], spend_shop: _headwater.Database, threads: int, prefetch: int
) -> None:
    database, seeds = damaged
    options: dict[str, Any] = {"split": "all", "shuffle": False, "batch_size": 10, "seq_len": 64, "history": False}
    sampler = _headwater.Sampler(database, ["spend"], **options, threads=threads, prefetch=prefetch)
    sound = _headwater.Sampler(spend_shop, ["spend"], **options)
    bad_steps = {seed // 10 for seed in seeds}
    for step in range(sampler.steps_per_epoch):
        if step not in bad_steps:
            found, expected = sampler.next_batch(), sound.batch(step)
            assert all(found[name].tobytes() == expected[name].tobytes() for name in found), step
            continue
        state = json.loads(sampler.get_state())
        for _ in range(2):  # asking again tries it again
            with pytest.raises(_headwater.FormatError, match="verify"):
                sampler.next_batch()
            assert json.loads(sampler.get_state()) == state
        with pytest.raises(_headwater.FormatError, match=str(database.path)):
            sampler.batch(step)
        sampler.set_state(json.dumps(state | {"step": step + 1, "position": 10 * (step + 1)}))
    with pytest.raises(StopIteration):
        sampler.next_batch()
    sampler.close()


def test_a_worker_that_fails_says_nothing_on_the_error_stream(damaged: tuple[_headwater.Database, set[int]]) -> None:
    script = """
sampler = open_sampler(**(light | {"shuffle": False}), threads=2, prefetch=4)
try:
    while True:
        sampler.next_batch()
except _headwater.FormatError:
    say("damaged")
"""
    child = _start(damaged[0], script)
    _said(child, "damaged")
    _end(child)


def test_no_thread_is_left_behind(spend_shop: _headwater.Database) -> None:
    if not Path("/proc/self/task").is_dir():
        pytest.skip("threads are counted in /proc")

    def count() -> int:
        names = [Path(f"/proc/self/task/{task}/comm") for task in os.listdir("/proc/self/task")]
        return sum(name.read_text().startswith("prefetch") for name in names)

    before = count()
    samplers = [_headwater.Sampler(spend_shop, ["spend"], **HEAVY, threads=2, prefetch=2) for _ in range(3)]
    for sampler in samplers:
        sampler.set_state(sampler.get_state())
        threading.Thread(target=_until_closed, args=[sampler, []]).start()
    time.sleep(0.2)
    assert count() == before + 6
    for sampler in samplers:
        sampler.close()
    assert count() == before
