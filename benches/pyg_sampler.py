"""Sampling beside PyG's `NeighborLoader` with feature gather, on TPC-H customers, two hops, in the same run.

Usage: python benches/pyg_sampler.py --rival-python PYTHON [--database tpch-1] [--widths 16 32 64]

Seeds per CPU-second over all threads. Ours assembles whole contexts: at most 1,024 cells of at most two hops, in the
order of their visits, seen at the time of the seed, labels of earlier seeds among them. PyG gathers the rows of its
tables (numbers, categories, calendar fields; no texts) into one graph per batch of 256 seeds, its faster size.

PyG needs a native backend. With `pyg-lib` in the rivals' environment it samples by time, as ours does. PyPI has no
`pyg-lib`, so without it the script compiles the sampler of `torch-sparse` (two files of its source distribution, a few
minutes of g++), with which PyG refuses times: its seeds then see the future, and the seeds of a batch share the rows
they have in common, which is less work than one neighbourhood per seed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import rival
from measure import Figures, cpu_seconds, describe, in_turn, measured, run, verdict

TASK = "cust-buys"
OUR_BATCH, THEIR_BATCH, HOPS, SEQ_LEN = 32, 256, 2, 1024
TARGET = 2  # times PyG's seeds per CPU-second
TORCH_SPARSE = "torch-sparse==0.6.18"
LIBRARY = "libneighbor_sample.so"


def compiled_sampler(folder: Path, python: Path) -> Path:
    """The neighbour sampler of torch-sparse, compiled from its source distribution where it is absent."""
    library = folder / LIBRARY
    if library.exists():
        return library
    folder.mkdir(parents=True, exist_ok=True)
    download = [python, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "--no-build-isolation"]
    # metadata cannot be made without torch in the build environment; the archive is there all the same
    subprocess.run([*download, "-d", folder, TORCH_SPARSE], check=False, capture_output=True)
    (archive,) = folder.glob("torch_sparse-*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    source = folder / archive.name.removesuffix(".tar.gz")
    code = "import torch; print(torch.__path__[0])"
    torch = Path(subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip())
    include = [torch / "include", torch / "include/torch/csrc/api/include", source / "third_party/parallel-hashmap"]
    files = [source / "csrc" / name for name in ("neighbor_sample.cpp", "cpu/neighbor_sample_cpu.cpp")]
    flags = ["-O3", "-DNDEBUG", "-std=c++20", "-fPIC", "-shared", "-w", *(f"-I{path}" for path in include)]
    links = [f"-L{torch / 'lib'}", "-ltorch", "-ltorch_cpu", "-lc10"]
    print("compiling the sampler of torch-sparse", file=sys.stderr)
    subprocess.run(["g++", *flags, *files, *links, "-o", library], check=True)
    return library


def features(table: Any, columns: dict[str, Any]) -> Any:
    """The rows of a table as torch-frame keeps them.

    Args:
        table: A pyarrow table.
        columns: Their descriptions, by name; texts and identifiers are left out.

    Returns:
        A `TensorFrame` of float32 [N, k] numbers, int64 [N, k] categories and int64 [N, k, 7] calendar fields.
    """
    import numpy as np
    import torch
    import torch_frame

    def dense(name: str) -> Any:
        return table[name].combine_chunks()

    numbers = [name for name, column in columns.items() if column["stype"] == "numerical"]
    categories = [name for name, column in columns.items() if column["stype"] in ("categorical", "boolean")]
    moments = [name for name, column in columns.items() if column["stype"] == "timestamp"]
    values, names = {}, {}
    if numbers:
        arrays = [dense(name).to_numpy(zero_copy_only=False).astype(np.float32) for name in numbers]
        values[torch_frame.numerical] = torch.from_numpy(np.stack(arrays, axis=1))
        names[torch_frame.numerical] = numbers
    if categories:
        arrays = [dense(name).dictionary_encode().indices.to_numpy(zero_copy_only=False) for name in categories]
        values[torch_frame.categorical] = torch.from_numpy(np.stack(arrays, axis=1).astype(np.int64))
        names[torch_frame.categorical] = categories
    if moments:
        fields = np.zeros((len(table), len(moments), 7), dtype=np.int64)
        for idx, name in enumerate(moments):
            days = dense(name).to_numpy(zero_copy_only=False).astype("datetime64[D]")
            months = days.astype("datetime64[M]")
            fields[:, idx, 0] = months.astype("datetime64[Y]").astype(np.int64) + 1970
            fields[:, idx, 1] = months.astype(np.int64) % 12
            fields[:, idx, 2] = (days - months).astype(np.int64)
            fields[:, idx, 3] = (days.astype(np.int64) + 3) % 7
        values[torch_frame.timestamp] = torch.from_numpy(fields)
        names[torch_frame.timestamp] = moments
    if not values:
        values[torch_frame.numerical] = torch.zeros(len(table), 1)
        names[torch_frame.numerical] = ["constant"]
    return torch_frame.TensorFrame(values, names)


def rows_of(keys: Any, wanted: Any) -> Any:
    """The row of every wanted key; keys are distinct integers and all wanted ones are among them."""
    import numpy as np

    order = np.argsort(keys, kind="stable")
    return order[np.searchsorted(keys[order], wanted)]


def graph(folder: Path) -> tuple[Any, Any, Any]:
    """The database as PyG's heterogeneous graph, both directions of every foreign key.

    Returns:
        The graph, and the seeds of the task: customer rows int64 [N] and times int64 [N] in seconds, shuffled.
    """
    import numpy as np
    import pyarrow.parquet as pq
    import torch
    from torch_geometric.data import HeteroData

    description = json.loads((folder / "metadata.json").read_text())
    tables = {name: pq.read_table(folder / table["file"]) for name, table in description["tables"].items()}
    data = HeteroData()

    def integers(table: Any, name: str) -> Any:
        return table[name].to_numpy()

    for name, table in description["tables"].items():
        data[name].tf = features(tables[name], table["columns"])
        data[name].num_nodes = len(tables[name])
        if "temporal_column" in table:
            seconds = integers(tables[name], table["temporal_column"]).astype("datetime64[s]")
            data[name].time = torch.from_numpy(seconds.astype(np.int64))
        for column, cell in table["columns"].items():
            if "foreign_key" in cell:
                parent, key = cell["foreign_key"].split(".")
                parents = rows_of(integers(tables[parent], key), integers(tables[name], column))
                edges = torch.stack([torch.arange(len(tables[name])), torch.from_numpy(parents)])
                data[name, f"f2p_{column}", parent].edge_index = edges
                data[parent, f"rev_f2p_{column}", name].edge_index = edges.flip(0)
    task = description["tasks"][TASK]
    labels = pq.read_table(folder / task["table"])
    labels = labels.take(np.random.default_rng(0).permutation(len(labels))[:100_000])
    anchor = description["tables"][task["anchor_table"]]
    customers = rows_of(
        integers(tables[task["anchor_table"]], anchor["primary_key"]), integers(labels, task["anchor_key"])
    )
    times = integers(labels, task["observation_time_column"]).astype("datetime64[s]").astype(np.int64)
    return data, torch.from_numpy(customers), torch.from_numpy(times)


def theirs(folder: Path, library: Path, width: int, seconds: float) -> None:
    """PyG's loader, in the caller's thread."""
    import torch
    import torch_geometric.typing
    from torch_geometric.loader import NeighborLoader

    torch.set_num_threads(1)
    timed = {}
    with measured() as figures:
        data, customers, times = graph(folder)
        if torch_geometric.typing.WITH_PYG_LIB:
            timed = {"time_attr": "time", "input_time": times, "temporal_strategy": "uniform"}
        else:
            torch.ops.load_library(str(library))
            torch_geometric.typing.WITH_TORCH_SPARSE = True
        loader = NeighborLoader(
            data,
            num_neighbors={edge: [width] * HOPS for edge in data.edge_types},
            input_nodes=("customer", customers),
            batch_size=THEIR_BATCH,
            subgraph_type="directional",
            **timed,
        )
        batches, seeds, rows = iter(loader), 0, 0
        for _ in range(3):
            next(batches)
        wall, cpu = time.perf_counter(), cpu_seconds()
        while cpu_seconds() - cpu < seconds:
            batch = next(batches, None)
            if batch is None:
                batches = iter(loader)
                continue
            seeds += THEIR_BATCH
            rows += sum(batch[name].tf.num_rows for name in batch.node_types)
        figures |= {"draw_wall_s": time.perf_counter() - wall, "draw_cpu_s": cpu_seconds() - cpu}
        figures |= {"seeds": seeds, "rows": rows / seeds, "is_timed": float(bool(timed))}


def ours(folder: Path, width: int, seconds: float) -> None:
    """Our sampler, in the caller's thread."""
    import numpy as np

    from tributary import _headwater

    with measured() as figures:
        sampler = _headwater.Sampler(
            _headwater.Database(folder),
            [TASK],
            batch_size=OUR_BATCH,
            seq_len=SEQ_LEN,
            num_neighbors=width,
            max_hops=HOPS + 1,  # row 0 is the seed, its customer the first hop
            prefetch=0,
        )
        for _ in range(100):
            batch = sampler.next_batch()
        wall, cpu, seeds = time.perf_counter(), cpu_seconds(), 0
        while cpu_seconds() - cpu < seconds:
            batch = sampler.next_batch()
            seeds += OUR_BATCH
        figures |= {"draw_wall_s": time.perf_counter() - wall, "draw_cpu_s": cpu_seconds() - cpu}
        figures |= {"seeds": seeds, "rows": float((np.asarray(batch["row_table"]) >= 0).sum(axis=1).mean())}


def rate(found: Figures) -> float:
    """Seeds per CPU-second."""
    return found["seeds"] / found["draw_cpu_s"]


def compare(arguments: argparse.Namespace, python: Path) -> None:
    """Prints the figures and the ratio of every width."""
    from rival_sampler import processed

    source = rival.database(arguments.database, arguments, python)
    folders = {"ours": processed(arguments.database, arguments, python), "PyG": source}
    library = compiled_sampler(arguments.data / "pyg", python)
    for width in arguments.widths:

        def start(who: str, width: int = width) -> Figures:
            options = ("--contestant", who, "--widths", str(width), "--seconds", str(arguments.seconds))
            interpreter = sys.executable if who == "ours" else python
            words = ("--folder", folders[who], "--library", library, *options)
            return run(interpreter, __file__, *words, OMP_NUM_THREADS="1")

        results = in_turn(["ours", "PyG"], arguments.rounds, start)
        for who, found in results.items():
            print(
                f"{arguments.database} width {width:3} {who:5}{describe(rate(found)):>9} seeds/CPU-s"
                f"  {found['rows']:6.1f} rows a seed  peak {found['peak_mb']:6.0f} MiB"
            )
        ratio = rate(results["ours"]) / rate(results["PyG"])
        how = "by time" if results["PyG"]["is_timed"] else "without time, torch-sparse"
        print(f"  {ratio:.1f} x the seeds/CPU-s of PyG {how} ({TARGET}: {verdict(ratio >= TARGET)})", flush=True)


def main() -> None:
    """Compares both, or is one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", default="tpch-1", choices=["tpch-0.1", "tpch-1"])
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32, 64], help="children of a row per foreign key")
    parser.add_argument("--seconds", type=float, default=3.0, help="CPU time of one run")
    parser.add_argument("--contestant", choices=["ours", "PyG"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--library", type=Path, help=argparse.SUPPRESS)
    rival.add_arguments(parser)
    arguments = parser.parse_args()
    if arguments.contestant == "ours":
        ours(arguments.folder, arguments.widths[0], arguments.seconds)
    elif arguments.contestant:
        theirs(arguments.folder, arguments.library, arguments.widths[0], arguments.seconds)
    else:
        compare(arguments, rival.rival_python(arguments))


if __name__ == "__main__":
    main()
