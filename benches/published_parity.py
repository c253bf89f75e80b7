"""Our published models beside the package `relational-transformer` 1.10.0 on a CPU, in float32: equal, and how fast.

Usage: python benches/published_parity.py --rival-python PYTHON                 (parity, tiny and full size, then speed)
       python benches/published_parity.py --rival-python PYTHON --no-speed
       python benches/published_parity.py --rival-python PYTHON --write-fixture tests/python/data/published

The package's own torch model gets random weights and writes them as safetensors; our import reads them; both get the
same contexts, ours as a batch, theirs translated by `translate`, which shares no code with the model that reads the
batch. The contexts hold what goes wrong easily: padding, identifiers, missing values, rows without links, several keys
to one row, a row that points to itself, several hidden cells. Every answer of every cell is compared. `--write-fixture`
keeps the tiny cases, which `tests/python/test_published.py` then compares without torch.

Speed: one context of 1,024 cells, the 22M sizes, forward, and forward with backward; CPU-seconds of all threads, each
in a process of its own, medians of `--rounds`. The package cannot train on a CPU as it is, `published_reference.py`
says what is changed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import rival
from measure import Figures, in_turn, measured, run
from safetensors.numpy import load_file, save_file

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/python"))

from synthetic_batch import (  # noqa: E402
    BOOLEAN,
    CATEGORICAL,
    IDENTIFIER,
    NUMERICAL,
    TEXT,
    TIMESTAMP,
    database_arrays,
    synthetic_batch,
)
from tributary.batch import Batch, DatabaseArrays  # noqa: E402

KINDS = ("rt-v1", "rt-plurel", "rt-j")
TINY = {"num_blocks": 2, "d_model": 16, "d_text": 8, "num_heads": 2, "d_ff": 24}
FULL = {
    "rt-v1": {"num_blocks": 12, "d_model": 256, "d_text": 384, "num_heads": 8, "d_ff": 1024},
    "rt-plurel": {"num_blocks": 12, "d_model": 256, "d_text": 384, "num_heads": 8, "d_ff": 1024},
    "rt-j": {"num_blocks": 12, "d_model": 512, "d_text": 384, "num_heads": 8, "d_ff": 2048},
}
TOLERANCE = 1e-4
NUM_PARENTS = 5  # of a row, what the package has room for
Arrays = dict[str, np.ndarray]


# --- Contexts ----------------------------------------------------------------------------------------------------


def make_case(kind: str, d_text: int, *, batch_size: int, seq_len: int, max_rows: int) -> tuple[Batch, Any, np.ndarray]:
    """A batch, the arrays it points into, and cells to hide besides the targets, bool [B, S]."""
    rng = np.random.default_rng(7)
    batch = synthetic_batch(3, batch_size=batch_size, seq_len=seq_len, max_rows=max_rows, null_cells=True)
    arrays = database_arrays(d_text)
    offset = rng.normal(size=arrays.column_offset.shape).astype(np.float32)
    stypes = batch.cell_stype
    if kind != "rt-j":  # whose predecessors cannot hide words
        word_targets = (batch.cell_is_target & np.isin(stypes, (CATEGORICAL, TEXT))).any(axis=1)
        shown = batch.cell_is_target & word_targets[:, None]
        batch = dataclasses.replace(
            batch, cell_is_target=batch.cell_is_target & ~shown, cell_vocab=np.where(shown, 0, batch.cell_vocab)
        )
    can_hide = np.isin(stypes, (NUMERICAL, TIMESTAMP, BOOLEAN, *((CATEGORICAL, TEXT) if kind == "rt-j" else ())))
    is_masked = can_hide & ~batch.cell_is_padding & ~batch.cell_is_null & (rng.random(stypes.shape) < 0.1)
    # Some are masked by the batch itself, whose value fields then hold labels that nobody may read.
    batch = dataclasses.replace(batch, cell_is_masked=is_masked & (rng.random(stypes.shape) < 0.5))
    return tangle(batch, rng), dataclasses.replace(arrays, column_offset=offset), is_masked


def tangle(batch: Batch, rng: np.random.Generator) -> Batch:
    """Links some rows anew: to any visited row, twice to one, to themselves, or to none."""
    parents = batch.row_parents.copy()
    for context in range(parents.shape[0]):
        num_rows = int((batch.row_table[context] >= 0).sum())
        for row in np.flatnonzero(rng.random(num_rows) < 0.5):
            links = rng.integers(0, num_rows, parents.shape[2])
            choice = rng.integers(4)
            links[:] = {0: links, 1: links[0], 2: row, 3: -1}[int(choice)]
            parents[context, row] = links
    keys = np.where(parents >= 0, np.maximum(batch.row_parent_keys, 0), -1).astype(batch.row_parent_keys.dtype)
    return dataclasses.replace(batch, row_parents=parents, row_parent_keys=keys)


def translate(kind: str, batch: Batch, arrays: DatabaseArrays, is_masked: np.ndarray) -> Arrays:
    """The package's batch of the same contexts, as `documentation/published_models.md` says."""
    stype, hidden = batch.cell_stype, batch.cell_is_target | is_masked
    sem_type = np.full(stype.shape, 0, np.int32)
    sem_type[np.isin(stype, (CATEGORICAL, TEXT))] = 1
    sem_type[stype == TIMESTAMP] = 2
    sem_type[stype == BOOLEAN] = 0 if kind == "rt-j" else 3
    absent = batch.cell_is_padding | (stype == IDENTIFIER) | (batch.cell_is_null & ~hidden)
    share = 1.0 / (1.0 + np.exp(-arrays.column_offset.astype(np.float64)))
    mean, std = (values[np.maximum(batch.cell_column, 0)] for values in (share, np.sqrt(share * (1.0 - share))))
    number = np.where(stype == BOOLEAN, (batch.cell_value - mean) / std, batch.cell_value)
    row = np.where(absent, -1, batch.cell_row).astype(np.int64)
    links = np.full((*stype.shape, NUM_PARENTS), -1, np.int64)
    of_row = np.take_along_axis(batch.row_parents, np.maximum(batch.cell_row, 0)[:, :, None].astype(np.int64), axis=1)
    links[:, :, : of_row.shape[2]] = np.where(absent[:, :, None], -1, of_row)
    words = arrays.vocab_vectors[np.maximum(batch.cell_vocab, 0)].astype(np.float32)
    table = np.take_along_axis(batch.row_table, np.maximum(batch.cell_row, 0).astype(np.int64), axis=1)
    return {
        "node_idxs": row,
        "f2p_nbr_idxs": links,
        "col_name_idxs": np.where(absent, 0, batch.cell_column).astype(np.int32),
        "table_name_idxs": np.where(absent, 0, table).astype(np.int32),
        "is_padding": absent,
        "is_targets": hidden & ~absent,
        "sem_types": sem_type,
        "number_values": np.where(hidden, 0, number).astype(np.float32)[..., None],
        "datetime_values": np.where(hidden | (stype != TIMESTAMP), 0, batch.cell_value).astype(np.float32)[..., None],
        "text_values": words * ((batch.cell_vocab >= 0) & ~hidden)[..., None],
        "col_name_values": arrays.column_vectors[np.maximum(batch.cell_column, 0)].astype(np.float32),
    }


# --- Ours --------------------------------------------------------------------------------------------------------


def our_model(kind: str, sizes: dict[str, int], weights: Arrays, attention: str) -> tuple[Any, Any]:
    """Static description and parameters of our model with weights of theirs."""
    from tributary.config import ModelConfig
    from tributary.import_weights import SIZES
    from tributary.model.forward import describe_model
    from tributary.model.published import to_params

    given = {ours: sizes[theirs] for theirs, ours in SIZES.items()}
    config = ModelConfig.model_validate({"preset": kind, **given, "attention": attention})
    graphdef, _ = describe_model(config, sizes["d_text"])
    return graphdef, to_params(config, sizes["d_text"], weights)


def our_answers(graphdef: Any, params: Any, batch: Batch, arrays: Any, is_masked: np.ndarray) -> Arrays:
    """What every head of ours says of every cell, under the package's names."""
    import jax
    from flax import nnx

    def forward(params: Any) -> Any:
        cells = np.broadcast_to(np.arange(batch.seq_len, dtype=np.int32), batch.cell_row.shape)
        return nnx.merge(graphdef, params)(batch.device_fields(), arrays, cells, is_masked)

    found = jax.device_get(jax.jit(forward)(params))
    scalars = {"number": found.number, "datetime": found.moment, "boolean": found.truth}
    return {"text": found.query, **{name: values[..., None] for name, values in scalars.items()}}


def parity(kind: str, sizes: dict[str, int], python: Path, fixture: Path | None, **shape: int) -> float:
    """Largest absolute difference over all answers of all cells; printed per head."""
    batch, arrays, is_masked = make_case(kind, sizes["d_text"], **shape)
    theirs = translate(kind, batch, arrays, is_masked)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_file(theirs, folder / "theirs.safetensors")
        reference(python, "compare", kind, sizes, folder)
        expected = load_file(folder / "answers.safetensors")
        weights = load_file(folder / "weights.safetensors")
        if fixture is not None:
            keep(fixture, kind, folder, batch, arrays, is_masked, expected)
    worst = 0.0
    for attention in ("dense", "auto"):
        graphdef, params = our_model(kind, sizes, weights, attention)
        found = our_answers(graphdef, params, batch, arrays, is_masked)
        exists = ~theirs["is_padding"]
        gaps = {head: float(np.abs(found[head] - values)[exists].max()) for head, values in expected.items()}
        largest = max(float(np.abs(values[exists]).max()) for values in expected.values())
        worst = max(worst, *gaps.values())
        listed = ", ".join(f"{head} {gap:.1e}" for head, gap in gaps.items())
        count = sum(array.size for array in weights.values())
        print(f"{kind:9} {count:>11,} parameters, attention {attention:5}: {listed} (answers up to {largest:.1f})")
    return worst


def keep(
    folder: Path, kind: str, made: Path, batch: Batch, arrays: Any, is_masked: np.ndarray, expected: Arrays
) -> None:
    """Writes weights and case into the folder of the fixture."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{kind}.safetensors").write_bytes((made / "weights.safetensors").read_bytes())
    device = {name: values for name, values in vars(batch.device_fields()).items() if values is not None}
    case = {
        **{f"batch.{name}": np.ascontiguousarray(values) for name, values in device.items()},
        **{f"arrays.{name}": np.ascontiguousarray(values) for name, values in vars(arrays).items()},
        "is_masked": is_masked,
        **{f"expected.{name}": values for name, values in expected.items()},
    }
    save_file(case, folder / f"{kind}.case.safetensors")


def reference(python: Path, work: str, kind: str, sizes: dict[str, int], folder: Path) -> None:
    """Runs the package; its failure ends the benchmark with its last words."""
    script = ROOT / "benches/published_reference.py"
    done = subprocess.run(
        [python, script, work, kind, json.dumps(sizes), folder],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin"},
    )
    if done.returncode != 0:
        sys.exit(f"error: the package failed on {kind}:\n{done.stderr[-2000:]}")


# --- Speed -------------------------------------------------------------------------------------------------------


def spend(kind: str, folder: Path, work: str, attention: str, rounds: int) -> None:
    """Measures our forward passes, or forward and backward passes, after one that compiles."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    sizes = FULL[kind]
    batch, arrays, _ = speed_case(sizes["d_text"])
    graphdef, params = our_model(kind, sizes, load_file(folder / f"{kind}.safetensors"), attention)
    device = jax.device_put(batch.device_fields())
    target = jnp.asarray(batch.target_cell[:, None])

    def loss(params: Any, batch: Batch, arrays: DatabaseArrays) -> jax.Array:
        number = nnx.merge(graphdef, params)(batch, arrays, target).number
        return jnp.mean((number - batch.target_value) ** 2)

    function = jax.jit(loss if work == "forward" else jax.value_and_grad(loss))
    arguments = (jax.device_put(params), device, jax.device_put(arrays))
    jax.block_until_ready(function(*arguments))
    with measured() as figures:
        for _ in range(rounds):
            jax.block_until_ready(function(*arguments))
        figures["rounds"] = float(rounds)


def speed_case(d_text: int) -> tuple[Batch, Any, np.ndarray]:
    """One full context of 1,024 cells whose target is a number."""
    batch = synthetic_batch(1, batch_size=1, seq_len=1024, max_rows=900, tasks=(0,))
    if batch.cell_is_padding.any():
        raise ValueError("expected a full context")
    return batch, database_arrays(d_text), np.zeros_like(batch.cell_is_target)


def speed(kind: str, python: Path, rounds: int, attentions: list[str]) -> None:
    """Prints CPU-seconds of both, and their ratio."""
    sizes = FULL[kind]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_file(translate(kind, *speed_case(sizes["d_text"])), folder / "theirs.safetensors")
        reference(python, "compare", kind, sizes, folder)
        (folder / "weights.safetensors").rename(folder / f"{kind}.safetensors")
        for work in ("forward", "step"):

            def start(contestant: str, work: str = work) -> Figures:
                if contestant == "theirs":
                    script, words = ROOT / "benches/published_reference.py", [work, kind, json.dumps(sizes), folder]
                    return run(python, script, *words, "--rounds", "2")
                words = ["--contestant", contestant, "--work", work, "--kind", kind, "--folder", folder]
                return run(sys.executable, __file__, *words)

            figures = in_turn(["theirs", *attentions], rounds, start)
            base = figures["theirs"]["cpu_s"] / figures["theirs"]["rounds"]
            for contestant, found in figures.items():
                cpu, wall = (found[field] / found["rounds"] for field in ("cpu_s", "wall_s"))
                label = "package, patched" if contestant == "theirs" else f"ours, {contestant}"
                print(
                    f"{kind} {work:7} {label:17} {cpu:6.2f} CPU-s {wall:6.2f} s wall, peak {found['peak_mb']:,.0f} MiB,"
                    f" {base / cpu:.2f} times the package's speed"
                )


def main() -> None:
    """Compares, then measures; exit code 1 where an answer differs by more than the tolerance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    rival.add_arguments(parser)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--attentions", nargs="+", default=["dense", "auto"], help="ours, in the measurement of speed")
    parser.add_argument("--write-fixture", type=Path, help="keep the tiny cases in this folder; nothing else is done")
    parser.add_argument("--no-speed", action="store_true")
    parser.add_argument("--no-parity", action="store_true")
    for hidden in ("contestant", "work", "kind", "folder"):
        parser.add_argument(f"--{hidden}", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contestant:
        spend(arguments.kind, Path(arguments.folder), arguments.work, arguments.contestant, rounds=2)
        return
    python = rival.rival_python(arguments)
    worst = 0.0
    for kind in [] if arguments.no_parity else arguments.kinds:
        worst = max(worst, parity(kind, TINY, python, arguments.write_fixture, batch_size=4, seq_len=40, max_rows=12))
        if arguments.write_fixture is None:
            worst = max(worst, parity(kind, FULL[kind], python, None, batch_size=2, seq_len=512, max_rows=200))
    if worst:
        print(f"largest difference {worst:.1e}, tolerance {TOLERANCE:.0e}")
    if worst > TOLERANCE:
        sys.exit(1)
    if not arguments.no_speed and arguments.write_fixture is None:
        speed("rt-v1", python, arguments.rounds, arguments.attentions)


if __name__ == "__main__":
    main()
