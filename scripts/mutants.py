"""Breaks the sampler on purpose, one rule at a time, and says which tests notice.

    python scripts/mutants.py                     # all mutants: the Rust tests, for survivors the Python ones
    python scripts/mutants.py --only lookback     # those whose rule contains the word
    python scripts/mutants.py --list              # the mutants, nothing is run

A mutant is one expression of `rust/src/sampler` with another in its place. All of them are compiled at once into a
copy of the checkout, each behind a number that the environment variable `MUTANT` switches on: one build serves all. A
mutant that every Rust test of the sampler lets pass is then shown to the Python tests of the sampler, the oracle among
them. A mutant that no test notices means a rule of `documentation/sampling.md` that nothing holds: exit code 1. So does
a mutant whose place is not found (exit code 2): the code has moved on, and the list below must follow.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SAMPLER = Path("rust/src/sampler")
# what the Rust tests of the sampler are called, in the library and in tests/rust
RUST_FILTERS = ["sampler::", "labels::", "draws::", "pretraining::", "examples::"]
# the test that draws thousands of contexts comes last: most mutants are noticed before
SLOW_RUST_TEST = "children_of_a_hub_are_drawn_uniformly"
PYTHON_TESTS = ["test_sampler.py", "test_sampler_state.py", "test_seeds.py", "test_sampler_oracle.py"]
LIMIT_S = 300
"""A mutant may run forever; that is noticed, too."""

_SWITCH = """
/// Whether a mutant is switched on.
#[allow(clippy::unwrap_used)]
pub(crate) fn is_mutant(number: u32) -> bool {
    static MUTANT: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *MUTANT.get_or_init(|| std::env::var("MUTANT").map_or(0, |text| text.parse().unwrap())) == number
}
"""


@dataclass(frozen=True)
class Mutant:
    """One expression in the place of another."""

    rule: str
    """What `documentation/sampling.md` says and the mutant breaks."""
    code: str
    """A piece of a sampler file that occurs once, the expression between « and »."""
    broken: str
    """The expression of the mutant."""

    @property
    def place(self) -> tuple[str, str, str]:
        """What stands before the expression, the expression, and what follows."""
        before, rest = self.code.split("«")
        expression, after = rest.split("»")
        return before, expression, after


def _mutants(*rows: tuple[str, str, str]) -> list[Mutant]:
    return [Mutant(*row) for row in rows]


VISIBILITY = _mutants(
    ("strict_time hides the very time of the seed", "let by_seed = if «config.strict_time» {", "false"),
    ("nothing after database_cutoff is seen", "by_seed.min(«config.database_cutoff.unwrap_or(i64::MAX)»)", "i64::MAX"),
    ("null times are never seen, not even at the end of time", ".min(«i64::MAX - 1»);", "i64::MAX"),
    ("a row of the seed's very time is seen", "        «time <= self.limit»\n", "time < self.limit"),
    ("a row after the seed's time is not seen", "        «time <= self.limit»\n", "true"),
    ("the end of time has no look-back window", "lookback.filter(|_| «seed_time != END_OF_TIME»)", "true"),
    ("the look-back window begins at seed_time - lookback", "seed_time.saturating_sub(«lookback»)", "lookback - 1"),
    ("a lag moves the limit back", "self.limit.min(«self.seed_time.saturating_sub(lag)»)", "i64::MAX"),
    ("the end of time has no lag", "let is_timeless = «self.seed_time == END_OF_TIME»;", "false"),
    ("every context has a lag of its own", "hash(Domain::Lag, &[«self.random_state(rng_seed, seed)»])", "rng_seed"),
    (
        "a child at the window's very start is seen",
        "let skip = first_not(end, |at| «time(at) < self.oldest»)",
        "time(at) <= self.oldest",
    ),
    ("children without times are of any age", "|at| «time(at) == ALWAYS_VISIBLE»)", "time(at) < i64::MIN"),
    ("labels at the end of time close for seeds there only", "return «self.seed_time == END_OF_TIME» && label", "true"),
    ("labels at the end of time are of the split train", "END_OF_TIME && «label.split == TRAIN»;", "true"),
    ("labels of later splits are hidden", "«label.split <= self.seed_split» &&", "true"),
    ("labels of the same split are seen", "«label.split <= self.seed_split» &&", "label.split < self.seed_split"),
    ("labels from before the look-back window are hidden", "&& «label.time >= self.oldest» &&", "true"),
    ("a label waits for its horizon", "label.time.checked_add(«horizon»)", "0 * horizon"),
    ("a label that closes at the limit is seen", "|closes| «closes <= self.limit»)", "closes < self.limit"),
    (
        "draws count closed labels in the window only",
        "range(«first_not(end, |at| time(at) < self.oldest) as usize»,",
        "0",
    ),
    ("draws count closed labels only", "is_some_and(|end| «end <= self.limit»)", "end <= i64::MAX"),
    (
        "ages are not negative",
        "(«self.seed_time.saturating_sub(time).max(0)» as",
        "self.seed_time.saturating_sub(time)",
    ),
    ("the end of time has no ages", "if «self.seed_time == END_OF_TIME» || time ==", "false"),
)

LABELS = _mutants(
    ("a seed never shows its own label", "Some(index) => «seed == index»,", "false"),
    (
        "own seeds hide labels of the same entity",
        "label.time == self.time && «self.seeds.rows[seed] == self.row»",
        "false",
    ),
    ("labels of other entities at that time are seen", "== self.time && «self.seeds.rows[seed] == self.row»", "true"),
    ("a seed without a label shows none", "!is_own && «self.seeds.is_null[seed] == 0» &&", "true"),
    ("seeds of one's own see labels of every split", "(row, time, «LAST_SPLIT»)", "0"),
    ("the target in other rows waits for its label", ".any(|&seed| «self.shows_label(seed as usize)»)", "true"),
    ("the target of row 0 is masked", "if «local == 0» {\n                masked = target", "false"),
    ("a removed target is shown in no other row", "else if «target.is_removed» || !asked.shows_target_of", "false"),
    ("remove_columns are left out", "!= target && «removed.contains(&column.id)»", "false"),
    ("a removed observation time is left out", ".filter(|id| «!task.remove_columns.contains(id)»)", "true"),
    ("the end of time is not shown as an observation time", "if «time != END_OF_TIME» {\n", "true"),
)

WALK = _mutants(
    (
        "max_hops limits children",
        "if «visit.hop < self.max_hops» {\n            self.waiting",
        "visit.hop <= self.max_hops",
    ),
    ("max_hops limits parents", "if «parent.hop > self.max_hops» ||", "false"),
    ("parents after the seed's time are not seen", "|| «!asked.visibility.row(time)» {", "false"),
    ("history is an option", "has_history: «config.history» &&", "true"),
    (
        "the seeds of every visited entity are its history",
        "plan.has_history && «table == plan.anchor_table» {",
        "table == plan.anchor_table && hop == 1",
    ),
    ("max_rows ends a context", "while «visited < max_rows» &&", "visited + 1 < max_rows"),
    ("links to rows that were not visited are taken out", "if «self.frontier.rows().len() > visited» {", "false"),
    (
        "num_neighbors limits the draws of a list",
        "if «self.turn.quota == 0» ||",
        "false",
    ),
    (
        "recent takes the newest first",
        "Strategy::Recent => «self.draws.newest()»,",
        "self.draws.uniform(&mut self.rng)",
    ),
    (
        "a seed whose label is hidden does not count as drawn",
        "if «!asked.shows_label(asked.seeds.indices[at as usize] as usize)» {",
        "false",
    ),
    (
        "every visible child can be drawn",
        "self.draws.start(«visible.len as u32»);\n        true",
        "(visible.len as u32).saturating_sub(1)",
    ),
    ("num_neighbors may differ by hop", "self.quotas.get(list.key, «list.hop»)", "1"),
    (
        "the last number of neighbours holds for all further hops",
        "each[«(hop as usize).min(each.len()) - 1»]",
        "(hop as usize - 1) % each.len()",
    ),
    (
        "a key that is not named has the number of *",
        "by_key.get(name).unwrap_or(«&other»)",
        "&PerHop::Same(NumNeighbors::DEFAULT)",
    ),
)

CELLS = _mutants(
    ("null_cells shows missing cells", "= if «self.config.null_cells» { shown }", "false"),
    (
        "identifiers = needed drops identifiers",
        "if «config.identifiers == Identifiers::Needed» && column.stype",
        "false",
    ),
    ("a row without cells shows an identifier", "if «cells.len() == start» && self.config.identifiers", "false"),
    ("only a row without cells shows an identifier", "if «cells.len() == start» && self.config.identifiers", "true"),
    (
        "only a present identifier is shown",
        "|column: &&ColumnPlan| «record.is_valid(column.position)»",
        "column.position < usize::MAX",
    ),
    ("a place is kept for the target", "self.len + «usize::from(!self.has_target)» >= self.row", "0"),
    ("what follows the last cell is padding", "let end = «self.row.len().min(self.len + 8)»;", "self.len"),
)

RANDOMNESS = _mutants(
    ("draws are without replacement", "if «picked != first» {", "false"),
    ("the newest come from the end of the list", "        «self.len - self.drawn»\n    }\n}", "self.drawn - 1"),
    ("below is exact", "while «(product as u32) < threshold» {", "product == 0"),
    ("below takes the upper half", "        «(product >> 32) as u32»\n", "(product % u64::from(bound.max(1))) as u32"),
    ("every seed has draws of its own", "&[rng_seed, epoch, task, «index as u64»])", "0 * index as u64"),
    ("every epoch has draws of its own", "hash(Domain::Context, &[rng_seed, «epoch», task,", "0"),
    ("draws follow rng_seed", "hash(Domain::Context, &[«rng_seed», epoch, task,", "0"),
    ("draws of one's own seeds depend on the entity", "task, «u64::from(self.row)», self.time", "0"),
    ("draws of one's own seeds depend on the time", "u64::from(self.row), «self.time as u64»]", "0"),
)

ORDER = _mutants(
    ("every epoch has an order of its own", "hash(Domain::Order, &[self.rng_seed, «epoch»])", "0 * epoch"),
    ("the order follows rng_seed", "hash(Domain::Order, &[«self.rng_seed», epoch])", "0"),
    (
        "a split samples its own seeds",
        "Members::of(task.num_seeds, |idx| «config.split.takes(splits[idx as usize])»)",
        "splits.len() > idx as usize",
    ),
    ("ranks are disjoint", "first.checked_add(«rank * size»)", "0 * rank"),
    (
        "a fixed pass reaches the last seed",
        "        «self.order.len().div_ceil(self.config.seeds_per_step())»\n",
        "self.order.len() / self.config.seeds_per_step()",
    ),
    ("a state of another database is refused", "if «state.database != own.database» {", "false"),
    ("a state of other options is refused", "if «state.config != own.config» ||", "false"),
    (
        "another number of processes goes on at the same seed",
        "position.step = «state.position / per_step»;",
        "state.step",
    ),
    ("a state within a step is refused", "if «!state.position.is_multiple_of(per_step)» {", "false"),
)

PRETRAINING = _mutants(
    ("identifiers are never masked", "|stype: Stype| if «stype == Stype::Identifier» { 0.0 }", "false"),
    ("the target is not masked", "is_masked && «!cells.is_target[at]»;", "true"),
    (
        "cells are masked at the rate of their stype",
        "nth(state, at as u64)) < «self.cells[stype as usize]»;",
        "self.cells[1]",
    ),
    ("whole columns are masked", "&[state, cells.column[at] as u64])) < «self.columns»;", "0"),
    ("a seed without a target has a masked cell", "if «context.is_row_seed» {\n            self.hide_one", "false"),
    (
        "the links of true pairs are taken out",
        "canvas.row_parents[at as usize] = «-1»;",
        "canvas.row_parents[at as usize]",
    ),
    ("a false pair names another row than the parent", "== table && «row != parent as usize»);", "true"),
    ("links of tasks are not asked about", "is_ok_and(|key| «key < self.num_keys»)", "true"),
    ("a row without links keeps the walk", "if of > 0.0 { 0.0 } else { «here» }", "0.0 * here"),
    ("a walk goes from parents to children, too", "self.next[row] += «self.shares[parent]»;", "0.0"),
)

EXAMPLES = _mutants(
    ("examples are of other entities", "«asked.seeds.rows[seed as usize] != asked.row» && !is_found", "true"),
    ("random examples have visible labels", "if «asked.shows_label(seed as usize)» && is_open", "true"),
    ("recent examples have visible labels", "&& «asked.shows_label(seed as usize)» && is_open", "true"),
    ("an example comes once", "if «!self.chosen.contains(&seed)» && asked", "true"),
    ("labels of later splits are no examples", "&& «seeds.splits[seed as usize] <= last_split»;", "true"),
    ("a removed target has no examples", "|| «plan.target.is_some_and(|target| target.is_removed)» {", "false"),
    ("the latest label of an entity is its example", "latest.find(|&seed| «asked.shows_label(seed as usize)»)", "true"),
    ("an example sees what its own seed sees", "*asked = «whole.as_example(seed, examples.config)»;", "whole"),
    ("each example has draws of its own", "&[examples.state, «next as u64 - 1»]", "0"),
)

MUTANTS = [*VISIBILITY, *LABELS, *WALK, *CELLS, *RANDOMNESS, *ORDER, *PRETRAINING, *EXAMPLES]


# --- The copy ----------------------------------------------------------------------------------------------------


def plant(sources: dict[Path, str], chosen: dict[int, Mutant]) -> dict[Path, str]:
    """The sampler's files with every mutant behind its number.

    Args:
        sources: text by path.
        chosen: mutants by number.

    Raises:
        SystemExit: the piece of a mutant does not occur exactly once.
    """
    by_place: dict[tuple[Path, int, int], list[int]] = defaultdict(list)
    lost = []
    for number, mutant in chosen.items():
        before, expression, after = mutant.place
        piece = before + expression + after
        found = [
            (path, match.start()) for path, text in sources.items() for match in re.finditer(re.escape(piece), text)
        ]
        if len(found) != 1:
            lost.append(f"{number} ({mutant.rule}): `{piece.strip()}` occurs {len(found)} times")
            continue
        (path, start), offset = found[0], len(before)
        by_place[path, start + offset, start + offset + len(expression)].append(number)
    if lost:
        print("error: mutants without a place:", *lost, sep="\n  ", file=sys.stderr)
        sys.exit(2)
    planted = dict(sources)
    for (path, start, end), numbers in sorted(by_place.items(), key=lambda item: item[0][1], reverse=True):
        text = planted[path]
        chain = "".join(f"if crate::is_mutant({number}) {{ {chosen[number].broken} }} else " for number in numbers)
        planted[path] = f"{text[:start]}({chain}{{ {text[start:end]} }}){text[end:]}"
    return planted


def make_copy(folder: Path, chosen: dict[int, Mutant]) -> None:
    """A copy of what Cargo and pytest read, with the mutants in it; unchanged files keep their times."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    files = [Path(name) for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    sources = {path: (ROOT / path).read_text() for path in files if path.parent == SAMPLER}
    texts = plant(sources, chosen)
    texts[Path("rust/src/lib.rs")] = (ROOT / "rust/src/lib.rs").read_text() + _SWITCH
    for path in files:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        content = texts[path].encode() if path in texts else (ROOT / path).read_bytes()
        if not target.exists() or target.read_bytes() != content:
            target.write_bytes(content)


def cargo(folder: Path, *arguments: str) -> list[dict[str, object]]:
    """Builds in the copy; Cargo's messages."""
    argv = ["cargo", *arguments, "--locked", "--no-default-features", "--message-format=json-render-diagnostics"]
    environment = os.environ | {"PYO3_BUILD_EXTENSION_MODULE": "1"}
    environment.setdefault("CARGO_TARGET_DIR", str(ROOT / "target"))
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        sys.exit(f"error: the copy in {folder} does not compile:\n{done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_binaries(folder: Path) -> list[str]:
    """The unit tests and the integration tests, built with the mutants."""
    messages = cargo(folder, "test", "--no-run", "--lib", "--test", "rust")
    return [str(message["executable"]) for message in messages if message.get("executable")]


def python_environment(folder: Path) -> dict[str, str]:
    """Where the copy's package lies, with a native module that holds the mutants."""
    messages = cargo(folder, "build", "--lib", "--features", "python")
    files = [name for message in messages for name in message.get("filenames") or [] if name.endswith(".so")]  # type: ignore[attr-defined]
    shutil.copyfile(
        next(name for name in files if "libheadwater" in name), folder / "python/tributary/_headwater.abi3.so"
    )
    shared = os.environ.get("TRIBUTARY_SHARED_DATA", str(ROOT.parent / "shared" / "data"))
    return {"PYTHONPATH": str(folder / "python"), "TRIBUTARY_SHARED_DATA": shared}


# --- The verdict -------------------------------------------------------------------------------------------------


def killer(argv: Sequence[str], folder: Path, number: int, **environment: str) -> str | None:
    """The first test that fails with a mutant switched on, or None."""
    variables = os.environ | environment | {"MUTANT": str(number)}
    try:
        done = subprocess.run(
            argv, cwd=folder, env=variables, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"no end within {LIMIT_S} s"
    if done.returncode == 0:
        return None
    names = re.findall(r"^(?:test (\S+) \.\.\. FAILED|FAILED (\S+))", done.stdout, re.MULTILINE)
    return (names[0][0] or names[0][1].split("/")[-1]) if names else f"exit code {done.returncode}"


def judge(folder: Path, chosen: dict[int, Mutant], with_python: bool) -> list[int]:
    """Runs the Rust tests for every mutant and the Python ones for those that remain; the survivors."""
    rust = [[binary, *RUST_FILTERS, "--skip", SLOW_RUST_TEST] for binary in test_binaries(folder)]
    rust += [[argv[0], SLOW_RUST_TEST] for argv in rust]
    survivors = show(rust, folder, chosen)
    if not survivors or not with_python:
        return survivors
    print(f"{len(survivors)} mutants are shown to the Python tests", flush=True)
    pytest = [[sys.executable, "-m", "pytest", "-q", "-x", f"tests/python/{name}"] for name in PYTHON_TESTS]
    return show(pytest, folder, {number: chosen[number] for number in survivors}, **python_environment(folder))


def show(commands: list[list[str]], folder: Path, chosen: dict[int, Mutant], **environment: str) -> list[int]:
    """Runs commands for every mutant until one notices it; the numbers of those that none noticed."""
    if found := next((name for argv in commands if (name := killer(argv, folder, 0, **environment))), None):
        sys.exit(f"error: {found} fails without any mutant")
    survivors = []
    for number, mutant in chosen.items():
        began = time.perf_counter()
        found = next((name for argv in commands if (name := killer(argv, folder, number, **environment))), None)
        seconds, word = time.perf_counter() - began, "noticed" if found else "SURVIVED"
        print(f"{number:3} {word:8} {mutant.rule}  [{found or '-'}, {seconds:.0f} s]", flush=True)
        if found is None:
            survivors.append(number)
    return survivors


def main() -> None:
    """From the arguments to the list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="WORD", help="mutants whose rule contains the word")
    parser.add_argument("--folder", type=Path, help="where the copy is made; kept, so that the next build is short")
    parser.add_argument("--no-python", action="store_true", help="the Rust tests alone")
    parser.add_argument("--list", action="store_true", help="print the mutants and check their places")
    arguments = parser.parse_args()
    chosen = {number: mutant for number, mutant in enumerate(MUTANTS, 1) if arguments.only in mutant.rule}
    if arguments.list:
        plant({path: path.read_text() for path in sorted((ROOT / SAMPLER).glob("*.rs"))}, chosen)
        print(*(f"{number:3} {mutant.rule}" for number, mutant in chosen.items()), sep="\n")
        return
    folder = arguments.folder or Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "mutants"
    make_copy(folder.resolve(), chosen)
    survivors = judge(folder.resolve(), chosen, not arguments.no_python)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} mutants were noticed")
    sys.exit(1 if survivors else 0)


if __name__ == "__main__":
    main()
