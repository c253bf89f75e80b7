"""The sampler again, slow and obvious: pure Python over the raw parquet files and `metadata.json`.

Written from `documentation/sampling.md`, `batch.md` and `data_model.md` alone. It shares nothing with the native
module but the numbering of the vocabulary (`texts`) and, for tasks whose splits come from the named hash, those
splits; every key, time, z-score, draw and cell is its own.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from oracle_database import ALWAYS, END_OF_TIME, NEVER, SPLITS, OracleDatabase, Seed, Table, Task, z_score
from oracle_random import GOLDEN, WORD, Rng, hash_words, mix, permute, xxh3_64

STYPES = ["identifier", "numerical", "timestamp", "boolean", "categorical", "text"]


@dataclass
class Options:
    """The options of `tributary.Sampler`."""

    tasks: Sequence[str] = ()
    tables: Sequence[str] = ()
    task_weights: Sequence[float] | None = None
    split: str = "train"
    seeds: tuple[Sequence[int], Sequence[int]] | None = None  # rows and times of the caller's own
    batch_size: int = 32
    seq_len: int = 1024
    max_rows: int | None = None
    num_neighbors: Any = 16
    strategy: str = "uniform"
    max_hops: int | None = None
    null_cells: bool = False
    identifiers: str = "all"
    strict_time: bool = False
    database_cutoff: int | None = None
    lookback: int | None = None
    max_lag: int | None = None
    history: bool = True
    mask_rate: Any = 0.0
    mask_columns: float = 0.0
    walk_features: int = 0
    num_links: int = 0
    examples: int = 0
    example_choice: str = "similar"
    example_share: float = 0.5
    example_walks: int = 128
    example_walk_length: int = 8
    shuffle: bool = True
    rng_seed: int = 0
    rank: int = 0
    world_size: int = 1


@dataclass
class Row:
    table: int  # one past the tables of the database: rows of the task
    row: int
    hop: int
    parents: list[tuple[tuple[int, int], int]] = field(default_factory=list)  # (table, row), foreign key


class Oracle:
    """Contexts and batches, one at a time."""

    def __init__(self, database: OracleDatabase, options: Options) -> None:
        self.db, self.options = database, options
        self.order: list[tuple[int, int]] = []
        for name in options.tasks:
            task = next(idx for idx, task in enumerate(database.tasks) if task.name == name)
            wanted = range(3) if options.split == "all" else [SPLITS.index(options.split)]
            seeds = database.tasks[task].seeds
            if options.seeds is not None:
                self.order += [(task, idx) for idx in range(len(options.seeds[0]))]
                continue
            self.order += [(task, idx) for idx, seed in enumerate(seeds) if seed.split in wanted]
        for name in options.tables:
            table_id = database.table_ids[name]
            self.order += [(len(database.tasks) + table_id, row) for row in self._rows(database.tables[table_id])]

    def _rows(self, table: Table) -> list[int]:
        """Rows of a table that are seeds."""
        cutoff, rows = self.options.database_cutoff, []
        keys = table.values[table.primary_key] if table.primary_key else range(table.num_rows)
        for row, key in enumerate(keys):
            number = xxh3_64(table.name.encode() + b"\0" + str(key).encode()) % 100
            split = "train" if number < 80 else "val" if number < 90 else "test"
            time = table.times[row]
            is_late = time != ALWAYS and cutoff is not None and time > cutoff
            if time != NEVER and not is_late and self.options.split in ("all", split):
                rows.append(row)
        return rows

    def _weighted(self, position: int) -> tuple[int, int, int]:
        """The seed at a position of a stream by weight."""
        block, size, seed = position // 4096, 4096, self.options.rng_seed
        weights = self.options.task_weights
        exact = [weight / sum(weights) * size for weight in weights]
        counts = [int(share) for share in exact]
        by_remainder = sorted(range(len(exact)), key=lambda i: (counts[i] - exact[i], i))
        for i in by_remainder[: size - sum(counts)]:
            counts[i] += 1
        place = permute(position % size, size, hash_words(6, [seed, block]))
        db = self.db
        ids = [next(i for i, task in enumerate(db.tasks) if task.name == name) for name in self.options.tasks]
        ids += [len(db.tasks) + db.table_ids[name] for name in self.options.tables]
        for source, count in zip(ids, counts, strict=True):
            if place < count:
                own = [seed for seed in self.order if seed[0] == source]
                epoch, idx = divmod(block * count + place, len(own))
                return epoch, *own[permute(idx, len(own), hash_words(2, [seed, epoch, source]))]
            place -= count
        raise AssertionError("shares make up a block")

    def seeds(self, step: int) -> list[tuple[int, int, int] | None]:
        """(epoch, task, seed) of each context of a batch; None for padding."""
        options, n = self.options, len(self.order)
        first = step * options.batch_size * options.world_size + options.rank * options.batch_size
        found: list[tuple[int, int, int] | None] = []
        for position in range(first, first + options.batch_size):
            if options.task_weights is not None:
                found.append(self._weighted(position))
            elif options.shuffle:
                epoch, idx = divmod(position, n)
                found.append((epoch, *self.order[permute(idx, n, hash_words(2, [options.rng_seed, epoch]))]))
            else:
                found.append((0, *self.order[position]) if position < n else None)
        return found

    def context(self, epoch: int, task_id: int, index: int) -> dict[str, Any]:
        """The fields of one context, without padding."""
        return _Walk(self.db, self.options, epoch, task_id, index).run()


class _Walk:
    def __init__(self, db: OracleDatabase, options: Options, epoch: int, task_id: int, index: int) -> None:
        self.db, self.options, self.task_id, self.index = db, options, task_id, index
        if task_id >= len(db.tasks):
            table = task_id - len(db.tasks)
            self.task = Task("", "row", table, "", "identifier", -1, None, None, set())
            time = db.tables[table].times[index]
            self.number, self.seed = index, Seed(index, END_OF_TIME if time == ALWAYS else time, 2, None)
            words = [1, [options.rng_seed, epoch, task_id, index]]
        elif options.seeds is None:
            self.task = db.tasks[task_id]
            self.number, self.seed = index, self.task.seeds[index]
            words = [1, [options.rng_seed, epoch, task_id, index]]
        else:
            self.task = db.tasks[task_id]
            row, time = options.seeds[0][index], options.seeds[1][index]
            self.number, self.seed = -1, Seed(int(row), int(time), 2, None)  # no seed of the task has this number
            words = [3, [options.rng_seed, epoch, task_id, int(row), int(time) & WORD]]
        self.oldest = ALWAYS
        if options.lookback is not None and self.seed.time != END_OF_TIME:
            self.oldest = max(self.seed.time - options.lookback, ALWAYS)
        limit = self.seed.time - 1 if options.strict_time else self.seed.time
        if options.database_cutoff is not None:
            limit = min(limit, options.database_cutoff)
        self.state = hash_words(*words)
        if options.max_lag is not None and self.seed.time != END_OF_TIME:
            lag = Rng(hash_words(11, [self.state])).next() * (options.max_lag + 1) >> 64
            limit = min(limit, max(self.seed.time - lag, ALWAYS))
        self.limit = min(limit, 2**63 - 2)
        self.rng, self.whole_limit = Rng(self.state), self.limit
        self.shown_example: int | None = None
        self.own_table = len(db.tables) + task_id
        self.found: dict[tuple[int, int], Row] = {}
        self.lists: deque[tuple[int, list[int], int, int]] = deque()  # (table, visible entries, hop, quota)
        self.cells: list[dict[str, Any]] = []

    def sees_child(self, time: int) -> bool:
        return time == ALWAYS or self.oldest <= time <= self.limit

    def quota(self, key: int, hop: int) -> int:
        """Children drawn by a foreign key, found at a hop."""
        numbers = self.options.num_neighbors
        if isinstance(numbers, Mapping):
            numbers = numbers.get(self.db.key_names[key], numbers.get("*", 16))
        return numbers if isinstance(numbers, int) else numbers[min(hop, len(numbers)) - 1]

    def shows_label(self, idx: int) -> bool:
        other = self.task.seeds[idx]
        if idx == self.number or (self.number == -1 and (other.row, other.time) == (self.seed.row, self.seed.time)):
            return False
        if other.time == END_OF_TIME:
            return self.seed.time == END_OF_TIME and other.split == 0
        if self.task.horizon is None or other.time + self.task.horizon > self.limit:
            return False
        return other.split <= self.seed.split and other.time >= self.oldest

    def run(self) -> dict[str, Any]:
        options = self.options
        max_rows = min(options.seq_len, 32767) if options.max_rows is None else options.max_rows
        first = (self.own_table, self.number) if self.task.kind == "table" else (self.task.anchor, self.seed.row)
        self.found[first] = Row(*first, hop=0)
        visited: list[Row] = []
        self.parts = _Parts(self, max_rows)
        while len(visited) < max_rows and len(self.cells) < options.seq_len:
            if len(visited) == len(self.found) and not self.parts.find(visited):
                break
            row = list(self.found.values())[len(visited)]
            self.visit(row, len(visited))
            visited.append(row)
        return self.fields(visited)

    def draw(self):
        """Children in the order of their draws; new lists may come while it runs."""
        while self.lists:
            table, entries, hop, quota = self.lists.popleft()
            order = list(entries)
            for i in range(len(order)):
                if quota == 0:
                    break
                if self.options.strategy == "uniform":
                    j = i + self.rng.below(len(order) - i)
                    order[i], order[j] = order[j], order[i]
                    row = order[i]
                else:
                    row = order[len(order) - 1 - i]
                if table == self.own_table and not self.shows_label(row):
                    continue
                quota -= 1
                yield (table, row), hop

    def visit(self, row: Row, local: int) -> None:
        db, options = self.db, self.options
        can_go_on = options.max_hops is None or row.hop + 1 <= options.max_hops
        if row.table == self.own_table:
            self.write_seed(row, local)
            entity = self.of_task(row).row
            self.meet(row, (self.task.anchor, entity), len(db.foreign_keys) + self.task_id, can_go_on)
            return
        table = db.tables[row.table]
        self.write_row(table, row, local)
        for key, (child, slot, parent_table) in enumerate(db.foreign_keys):
            if child == row.table and table.parents[slot][row.row] is not None:
                self.meet(row, (parent_table, table.parents[slot][row.row]), key, can_go_on)
        if not can_go_on:
            return
        has_history = self.task.kind == "table" and options.history and self.task.named is None
        if has_history and row.table == self.task.anchor:
            seeds, horizon = self.task.by_row.get(row.row, []), self.task.horizon
            if self.seed.time != END_OF_TIME:
                times = {s: self.task.seeds[s].time for s in seeds}
                seeds = [s for s in seeds if horizon is not None and times[s] + horizon <= self.limit]
                seeds = [s for s in seeds if times[s] >= self.oldest]
            quota = self.quota(len(db.foreign_keys) + self.task_id, row.hop + 1)
            self.lists.append((self.own_table, seeds, row.hop + 1, quota))
        for key, (child, _, parent_table) in enumerate(db.foreign_keys):
            if parent_table == row.table:
                rows = [r for r in db.children[key].get(row.row, []) if self.sees_child(db.tables[child].times[r])]
                self.lists.append((child, rows, row.hop + 1, self.quota(key, row.hop + 1)))

    def of_task(self, row: Row) -> Seed:
        """The seed that a row of the task is."""
        return self.seed if row.row == self.number else self.task.seeds[row.row]

    def row_of(self, idx: int) -> tuple[int, int]:
        """The row that shows a seed's label."""
        return (self.own_table, idx) if self.task.kind == "table" else (self.task.anchor, self.task.seeds[idx].row)

    def meet(self, row: Row, parent: tuple[int, int], key: int, can_go_on: bool) -> None:
        if parent not in self.found:
            if not can_go_on or self.db.tables[parent[0]].times[parent[1]] > self.limit:
                return
            self.found[parent] = Row(*parent, hop=row.hop + 1)
        row.parents.append((parent, key))

    # ---- cells ----

    def room(self) -> bool:
        has_target = self.task.kind == "row" or any(cell["cell_is_target"] for cell in self.cells)
        return len(self.cells) + (not has_target) < self.options.seq_len

    def write(self, local: int, column: int, stype: str, value: Any, scale=(0.0, 1.0), target: bool = False) -> None:
        """One cell; a value of None is a missing one."""
        if not target and not self.room():
            return
        shown = not target and value is not None
        cell = {
            "cell_row": local,
            "cell_column": column,
            "cell_stype": STYPES.index(stype),
            "cell_value": 0.0,
            "cell_vocab": -1,
            "cell_calendar": [0] * 7,
            "cell_is_null": not target and value is None,
            "cell_is_target": target,
            "cell_is_padding": False,
        }
        if shown and stype == "numerical":
            cell["cell_value"] = z_score(value, scale)
        elif shown and stype == "boolean":
            cell["cell_value"] = float(value)
        elif shown and stype == "timestamp":
            cell["cell_value"] = z_score(value, self.db.time_scale)
            cell["cell_calendar"] = calendar(value)
        elif shown and stype in ("categorical", "text"):
            cell["cell_vocab"] = self.db.text_ids[value]
        self.cells.append(cell)

    def write_row(self, table: Table, row: Row, local: int) -> None:
        options, before = self.options, len(self.cells)
        is_anchor = self.task.kind == "cell" and row.table == self.task.anchor
        for column, stype in table.columns:
            value, column_id = table.values[column][row.row], self.db.column_ids[table.name, column]
            if is_anchor and column == self.task.target:
                if local == 0:
                    self.write(local, column_id, stype, None, target=True)
                    continue
                is_known = any(self.shows_label(seed) for seed in self.task.by_row.get(row.row, []))
                if not is_known and row.row != self.shown_example:
                    continue
            if column_id in self.task.removed or (stype == "identifier" and options.identifiers == "needed"):
                continue
            if value is not None or options.null_cells:
                self.write(local, column_id, stype, value, table.scales.get(column, (0.0, 1.0)))
        if len(self.cells) == before and options.identifiers == "needed":
            for column, stype in table.columns:
                column_id = self.db.column_ids[table.name, column]
                is_there = stype == "identifier" and table.values[column][row.row] is not None
                if is_there and column_id not in self.task.removed:
                    self.write(local, column_id, stype, True)
                    break

    def write_seed(self, row: Row, local: int) -> None:
        task, seed = self.task, self.of_task(row)
        if task.time_id is not None and (seed.time != END_OF_TIME or self.options.null_cells):
            self.write(local, task.time_id, "timestamp", None if seed.time == END_OF_TIME else seed.time)
        if local == 0:
            stype = "identifier" if task.named is not None else task.stype
            self.write(local, task.target_id, stype, None, target=True)
        else:
            self.write(local, task.target_id, task.stype, seed.label, task.scale)

    # ---- the arrays ----

    def fields(self, visited: list[Row]) -> dict[str, Any]:
        names = [name for name in PADDING if name.startswith("cell_") and name != "cell_is_masked"]
        context: dict[str, Any] = {name: [cell[name] for cell in self.cells] for name in names}
        numbers = {(row.table, row.row): local for local, row in enumerate(visited)}
        times = [
            self.of_task(row).time if row.table == self.own_table else self.db.tables[row.table].times[row.row]
            for row in visited
        ]
        has_time = [self.seed.time != END_OF_TIME and t not in (ALWAYS, NEVER) for t in times]
        ages = [max(0, self.seed.time - t) / 86_400_000_000 for t in times]
        links = [[(numbers[p], key) for p, key in row.parents if p in numbers] for row in visited]
        label, scale = self.seed.label, self.task.scale
        value, vocab = 0.0, -1
        if label is None or self.task.named is not None:
            pass
        elif self.task.stype == "numerical":
            value = z_score(label, scale)
        elif self.task.stype == "boolean":
            value = float(label)
        elif self.task.stype == "timestamp":
            value = z_score(label, self.db.time_scale)
        else:
            vocab = self.db.text_ids[label]
        context |= {
            "row_table": [row.table for row in visited],
            "row_hop": [row.hop for row in visited],
            "row_age": [age if has else 0.0 for age, has in zip(ages, has_time, strict=True)],
            "row_has_time": has_time,
            "row_parents": [[parent for parent, _ in row] for row in links],
            "row_parent_keys": [[key for _, key in row] for row in links],
            **self.candidates(visited),
            "seed_task": self.task_id,
            "seed_index": self.index,
            "seed_row": self.seed.row,
            "seed_time": self.seed.time,
            "target_cell": -1 if self.task.kind == "row" else context["cell_is_target"].index(True),
            "target_value": value,
            "target_vocab": vocab,
            "target_is_null": label is None,
            "seed_is_padding": False,
        }
        self.draw_pairs(context)
        self.mask(context)
        self.walk_probabilities(context)
        return context

    def candidates(self, visited: list[Row]) -> dict[str, list[Any]]:
        """Rows of the context that a link task chooses among, and those its label names."""
        named = self.task.named
        is_candidate = [named is not None and row.table == named for row in visited]
        label = self.seed.label or []
        return {
            "row_is_candidate": is_candidate,
            "row_is_target": [is_one and row.row in label for is_one, row in zip(is_candidate, visited, strict=True)],
            "candidate_row": [row.row if is_one else -1 for is_one, row in zip(is_candidate, visited, strict=True)],
        }

    # ---- what is asked of a context beside its target ----

    def draw_pairs(self, context: dict[str, Any]) -> None:
        """Takes true links out and puts false ones beside them."""
        number, tables = self.options.num_links, context["row_table"]
        parents, keys = context["row_parents"], context["row_parent_keys"]
        pairs: list[tuple[int, int, int, bool] | None] = [None] * number
        links = [
            (child, parent, key)
            for child in range(len(tables))
            for parent, key in zip(parents[child], keys[child], strict=True)
            if key < len(self.db.foreign_keys)
        ]
        rng = Rng(hash_words(5, [self.state]))
        chosen = []
        for i in range(min((number + 1) // 2, len(links))):
            j = i + rng.below(len(links) - i)
            links[i], links[j] = links[j], links[i]
            child, parent, key = links[i]
            chosen.append(links[i])
            pairs[2 * i] = (child, parent, key, True)
            others = [row for row, table in enumerate(tables) if table == tables[parent] and row != parent]
            if 2 * i + 1 < number and others:
                pairs[2 * i + 1] = (child, others[rng.below(len(others))], key, False)
        for child in range(len(tables)):
            kept = [link for link in zip(parents[child], keys[child], strict=True) if (child, *link) not in chosen]
            parents[child], keys[child] = [parent for parent, _ in kept], [key for _, key in kept]
        for at, name in enumerate(("link_child", "link_parent", "link_key", "link_is_true")):
            context[name] = [(-1, -1, -1, False)[at] if pair is None else pair[at] for pair in pairs]

    def mask(self, context: dict[str, Any]) -> None:
        options, state = self.options, hash_words(4, [self.state])
        masked = []
        for at, code in enumerate(context["cell_stype"]):
            rates = options.mask_rate
            rate = rates.get(STYPES[code], 0.0) if isinstance(rates, Mapping) else rates
            number = mix((state + (at + 1) * GOLDEN) & WORD) >> 11
            of_column = hash_words(4, [state, context["cell_column"][at]]) >> 11
            is_hidden = number < rate * 2**53 or of_column < options.mask_columns * 2**53
            masked.append(is_hidden and STYPES[code] != "identifier" and not context["cell_is_target"][at])
        if self.task.kind == "row" and (options.mask_columns > 0 or self.rates()):
            self.mask_one(context, masked, state)
        context["cell_is_masked"] = masked

    def rates(self) -> list[str]:
        """Stypes of which cells may be masked."""
        rates, all_columns = self.options.mask_rate, self.options.mask_columns > 0
        rate = rates.get if isinstance(rates, Mapping) else lambda stype: rates
        return [stype for stype in STYPES[1:] if all_columns or rate(stype)]

    def mask_one(self, context: dict[str, Any], masked: list[bool], state: int) -> None:
        """One cell of row 0 for certain, where one has a value."""
        cells = [
            at
            for at, local in enumerate(context["cell_row"])
            if local == 0 and STYPES[context["cell_stype"][at]] in self.rates() and not context["cell_is_null"][at]
        ]
        if cells and not any(masked[at] for at in cells):
            masked[cells[Rng(hash_words(4, [state, WORD])).below(len(cells))]] = True

    def walk_probabilities(self, context: dict[str, Any]) -> None:
        import numpy as np

        rows, steps = len(context["row_table"]), self.options.walk_features
        links = [(row, parent) for row in range(rows) for parent in context["row_parents"][row]]
        degree = np.zeros(rows, np.float32)
        for link in links:
            for end in link:
                degree[end] += 1
        here = np.zeros(rows, np.float32)
        here[0] = 1
        context["row_walk"] = np.zeros((rows, steps), np.float32)
        for step in range(steps):
            share = here / np.maximum(degree, np.float32(1))
            after = np.where(degree > 0, np.float32(0), here)
            for row, parent in links:
                after[parent] += share[row]
                after[row] += share[parent]
            context["row_walk"][:, step] = here = after


# ---- labelled examples of other entities ----------------------------------------------------------------------------


class _Parts:
    """The parts of a context: the seed's own, one per example, and what is left for the seed."""

    def __init__(self, walk: _Walk, max_rows: int) -> None:
        options = walk.options
        self.walk, self.whole = walk, (options.seq_len, max_rows)
        self.children = walk.draw()
        self.own: tuple[Any, ...] | None = None  # children, lists and generator of the seed's own part
        self.waiting: list[int] | None = None if options.examples else []  # chosen seeds; None: not chosen yet
        self.limit: tuple[int, ...] | None = None  # cells and rows before which the part may go on
        if options.examples:
            self.limit = tuple(most - math.floor(options.example_share * most) for most in self.whole)

    def find(self, visited: list[Row]) -> bool:
        """Finds the next row once every found one is visited."""
        walk = self.walk
        used = (len(walk.cells), len(visited))
        if self.limit is None or (used[0] < self.limit[0] and used[1] < self.limit[1]):
            for key, hop in self.children:
                if key not in walk.found:
                    walk.found[key] = Row(*key, hop=hop)
                    return True
        if self.limit is None:
            return False
        if self.waiting is None:
            self.state = hash_words(8, [walk.state])
            self.waiting = _Choice(walk, self.state).choose()
            self.own, self.number = (self.children, walk.lists, walk.rng), 0
        while self.waiting:
            shares, idx = len(self.waiting), self.waiting.pop(0)
            number, self.number = self.number, self.number + 1
            key = walk.row_of(idx)
            if key in walk.found:
                continue
            walk.found[key] = Row(*key, hop=0)
            self.limit = tuple(u + max(most - u, 0) // shares for u, most in zip(used, self.whole, strict=True))
            walk.lists, walk.rng = deque(), Rng(hash_words(10, [self.state, number]))
            self.children = walk.draw()
            time = walk.task.seeds[idx].time
            walk.limit = min(walk.whole_limit, time - 1 if walk.options.strict_time else time)
            walk.shown_example = key[1] if walk.task.kind == "cell" else None
            return True
        self.limit, walk.limit, walk.shown_example = None, walk.whole_limit, None
        assert self.own is not None
        self.children, walk.lists, walk.rng = self.own
        return self.find(visited)


class _Choice:
    """Which labels of other entities are shown."""

    def __init__(self, walk: _Walk, state: int) -> None:
        self.walk, self.state, self.rng = walk, state, Rng(state)
        self.chosen: list[int] = []

    def choose(self) -> list[int]:
        walk, options = self.walk, self.walk.options
        if (walk.task.kind == "cell" and walk.task.target_id in walk.task.removed) or walk.task.named is not None:
            return []
        if options.example_choice == "similar":
            self.similar()
        entries = self.visible()
        if options.example_choice == "random":
            self.take(entries)
            return self.chosen
        for time in sorted({walk.task.seeds[idx].time for idx in entries}, reverse=True):
            self.take([idx for idx in entries if walk.task.seeds[idx].time == time])
        return self.chosen

    def visible(self) -> list[int]:
        """Labels by (time, seed) that may be visible, those of the seed's own entity included."""
        walk, task = self.walk, self.walk.task
        entries = [i for i, s in enumerate(task.seeds) if s.label is not None and s.split <= walk.seed.split]
        entries.sort(key=lambda idx: (task.seeds[idx].time, idx))
        if walk.seed.time == END_OF_TIME:
            return entries
        if task.horizon is None:
            return []
        return [i for i in entries if walk.oldest <= task.seeds[i].time <= walk.limit - task.horizon]

    def is_open(self, idx: int) -> bool:
        walk = self.walk
        is_other = walk.task.seeds[idx].row != walk.seed.row
        return is_other and walk.row_of(idx) not in walk.found and walk.shows_label(idx) and idx not in self.chosen

    def take(self, entries: list[int]) -> None:
        """Draws without replacement until there are enough."""
        order = list(entries)
        for i in range(len(order)):
            if len(self.chosen) == self.walk.options.examples:
                return
            j = i + self.rng.below(len(order) - i)
            order[i], order[j] = order[j], order[i]
            if self.is_open(order[i]):
                self.chosen.append(order[i])

    def similar(self) -> None:
        walk, db, options = self.walk, self.walk.db, self.walk.options
        anchor = walk.task.anchor
        if walk.task.kind == "table" and db.tables[anchor].times[walk.seed.row] > walk.limit:
            return
        hits: dict[int, list[tuple[int, int]]] = {}
        for number in range(options.example_walks):
            for step, (table, row) in enumerate(self.random_walk(number), start=1):
                if table == anchor and row != walk.seed.row:
                    hits.setdefault(row, []).append((step, number))
        for row in sorted(hits, key=lambda row: (-len(hits[row]), min(hits[row]))):
            if len(self.chosen) == options.examples:
                return
            seeds = walk.task.by_row.get(row, [])
            latest = next((idx for idx in reversed(seeds) if walk.shows_label(idx)), None)
            if latest is not None and walk.row_of(latest) not in walk.found:
                self.chosen.append(latest)

    def random_walk(self, number: int) -> list[tuple[int, int]]:
        """The rows after each step."""
        walk = self.walk
        rng = Rng(hash_words(9, [self.state, number]))
        place, back, path = (walk.task.anchor, walk.seed.row), None, []
        while len(path) < walk.options.example_walk_length:
            step = self.step(rng, place, back)
            if step is None:
                break
            place, back = step
            path.append(place)
        return path

    def step(self, rng: Rng, place: tuple[int, int], back: int | None) -> tuple[tuple[int, int], int | None] | None:
        """The next row, and the key it was come down by; None where no link leads anywhere."""
        walk, db = self.walk, self.walk.db
        table, row = place
        keys = list(enumerate(db.foreign_keys))
        links = [(True, key) for key, (child, _, _) in keys if child == table and key != back]
        links += [(False, key) for key, (_, _, parent) in keys if parent == table]
        while links:
            is_up, key = links.pop(rng.below(len(links)))
            child, slot, parent_table = db.foreign_keys[key]
            if is_up:
                parent = db.tables[table].parents[slot][row]
                if parent is not None and db.tables[parent_table].times[parent] <= walk.limit:
                    return (parent_table, parent), None
                continue
            rows = db.children[key].get(row, [])
            if not rows:
                continue
            times = db.tables[child].times
            for _ in range(3):
                drawn = rows[rng.below(len(rows))]
                if walk.sees_child(times[drawn]):
                    return (child, drawn), key
            seen = [r for r in rows if walk.sees_child(times[r])]
            if seen:
                return (child, seen[rng.below(len(seen))]), key
        return None


def calendar(time_us: int) -> list[int]:
    moment = datetime(1970, 1, 1) + timedelta(microseconds=time_us)
    day_of_year = moment.timetuple().tm_yday
    return [moment.second, moment.minute, moment.hour, moment.weekday(), moment.day, moment.month, day_of_year]


# ---- comparison -----------------------------------------------------------------------------------------------------

PADDING = {
    **dict.fromkeys(["cell_row", "cell_column", "cell_stype", "cell_vocab", "row_table", "row_hop"], -1),
    **dict.fromkeys(["row_parents", "row_parent_keys", "seed_task", "seed_index", "seed_row"], -1),
    **dict.fromkeys(["target_cell", "target_vocab", "link_child", "link_parent", "link_key"], -1),
    **dict.fromkeys(["cell_value", "cell_calendar", "row_age", "row_walk", "target_value", "seed_time"], 0),
    **dict.fromkeys(["cell_is_null", "cell_is_target", "cell_is_masked", "row_has_time", "link_is_true"], False),
    **dict.fromkeys(["row_is_candidate", "row_is_target"], False),
    "candidate_row": -1,
    **dict.fromkeys(["cell_is_padding", "target_is_null", "seed_is_padding"], True),
}


def assert_context(
    batch: Mapping[str, Any], b: int, expected: Mapping[str, Any] | None, same_text: Sequence[int]
) -> None:
    """Context `b` of a native batch is `expected` (None: padding), field by field, padding included."""
    import numpy as np

    assert set(batch) == set(PADDING)
    for name, padding in PADDING.items():
        found = batch[name][b]
        if name in ("row_is_candidate", "row_is_target", "candidate_row") and found.size == 0:
            assert not any(expected["row_is_candidate"] if expected else []), "a link task is sampled"
            continue
        if name in ("cell_vocab", "target_vocab"):
            found = np.array([*same_text, -1], found.dtype)[found]  # -1, for none, stays
        wanted = np.full(found.shape, padding, found.dtype)
        if expected is not None:
            value = expected[name]
            if name in ("row_parents", "row_parent_keys"):
                for local, links in enumerate(value):
                    wanted[local, : len(links)] = links
            elif np.ndim(found) == 0:
                wanted = np.asarray(value, found.dtype)
            else:
                wanted[: len(value)] = value
        place = f"{name} of context {b} (task {batch['seed_task'][b]}, seed {batch['seed_index'][b]})"
        if found.dtype.kind == "f":
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5, err_msg=place)
        else:
            np.testing.assert_array_equal(found, wanted, err_msg=place)


def assert_batches(sampler: Any, oracle: Oracle, steps: Sequence[int]) -> None:
    """The native batches of some steps are the oracle's."""
    for step in steps:
        batch = sampler.batch(step)
        for b, seed in enumerate(oracle.seeds(step)):
            assert_context(batch, b, None if seed is None else oracle.context(*seed), oracle.db.same_text)
