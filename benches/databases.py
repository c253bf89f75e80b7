"""Databases for the benchmarks, in two layouts at once: what Tributary reads, and what the rival reads.

Usage: python benches/databases.py shop OUT [--scale 1.0]
       python benches/databases.py tpch OUT [--scale 0.1]

`shop` is made with numpy: a million rows at scale 1, customers and products with power-law degrees. `tpch` comes from
DuckDB's own generator and needs the packages `duckdb` and `duckdb-extension-tpch`. Keys count from 0 in the order of
the rows, as the rival's engine demands; the two-column key of PARTSUPP is left out.

OUT holds `db/<table>.parquet`, `tasks/<task>/{train,val,test}.parquet` and `manifest.yaml` (RelBench 3, the rival's
input), and `metadata.json` with `labels/<task>.parquet` (the same label rows in one file with a `split` column).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

YEAR_US = 365 * 86_400_000_000

# table -> (primary key, time column, {foreign key: parent table}, {column: stype of what is neither key nor time})
Tables = dict[str, tuple[str | None, str | None, dict[str, str], dict[str, str]]]

SHOP: Tables = {
    "customers": (
        "customer_id",
        "signup",
        {},
        {"age": "numerical", "country": "categorical", "premium": "boolean"},
    ),
    "products": (
        "product_id",
        None,
        {},
        {"title": "text", "brand": "categorical", "price": "numerical", "weight": "numerical"},
    ),
    "orders": (
        "order_id",
        "ordered_at",
        {"customer_id": "customers"},
        {"channel": "categorical", "shipping": "numerical", "gift": "boolean"},
    ),
    "order_items": (
        None,
        "item_ts",
        {"order_id": "orders", "product_id": "products"},
        {"qty": "numerical", "unit_price": "numerical", "discount": "numerical", "status": "categorical"},
    ),
    "reviews": (
        None,
        "reviewed_at",
        {"customer_id": "customers", "product_id": "products"},
        {"rating": "numerical", "text": "text", "verified": "boolean"},
    ),
}

TPCH: Tables = {
    "region": ("regionkey", None, {}, {"r_name": "categorical", "r_comment": "text"}),
    "nation": ("nationkey", None, {"regionkey": "region"}, {"n_name": "categorical", "n_comment": "text"}),
    "supplier": (
        "suppkey",
        None,
        {"nationkey": "nation"},
        {"s_name": "text", "s_address": "text", "s_phone": "text", "s_acctbal": "numerical", "s_comment": "text"},
    ),
    "part": (
        "partkey",
        None,
        {},
        {
            "p_name": "text",
            "p_mfgr": "categorical",
            "p_brand": "categorical",
            "p_type": "categorical",
            "p_size": "numerical",
            "p_container": "categorical",
            "p_retailprice": "numerical",
            "p_comment": "text",
        },
    ),
    "partsupp": (
        None,
        None,
        {"partkey": "part", "suppkey": "supplier"},
        {"ps_availqty": "numerical", "ps_supplycost": "numerical", "ps_comment": "text"},
    ),
    "customer": (
        "custkey",
        None,
        {"nationkey": "nation"},
        {
            "c_name": "text",
            "c_address": "text",
            "c_phone": "text",
            "c_acctbal": "numerical",
            "c_mktsegment": "categorical",
            "c_comment": "text",
        },
    ),
    "orders": (
        "orderkey",
        "o_orderdate",
        {"custkey": "customer"},
        {
            "o_orderstatus": "categorical",
            "o_totalprice": "numerical",
            "o_orderpriority": "categorical",
            "o_clerk": "categorical",
            "o_shippriority": "numerical",
            "o_comment": "text",
        },
    ),
    "lineitem": (
        None,
        "l_shipdate",
        {"orderkey": "orders", "partkey": "part", "suppkey": "supplier"},
        {
            "l_linenumber": "numerical",
            "l_quantity": "numerical",
            "l_extendedprice": "numerical",
            "l_discount": "numerical",
            "l_tax": "numerical",
            "l_returnflag": "categorical",
            "l_linestatus": "categorical",
            "l_commitdate": "timestamp",
            "l_receiptdate": "timestamp",
            "l_shipinstruct": "categorical",
            "l_shipmode": "categorical",
            "l_comment": "text",
        },
    ),
}

# task -> (entity table, key column of the labels, target, stype, horizon)
SHOP_TASKS = {"churn": ("customers", "customer_id", "churn", "boolean", "30 days")}
TPCH_TASKS = {
    "cust-buys": ("customer", "custkey", "buys", "boolean", "90 days"),
    "cust-spend": ("customer", "custkey", "spend", "numerical", "90 days"),
}
SPLITS = ("train", "val", "test")


def write_descriptions(out: Path, name: str, tables: Tables, tasks: dict[str, tuple[str, ...]]) -> None:
    """Writes `metadata.json` and the manifests of the rival (JSON is YAML too)."""
    metadata: dict[str, Any] = {"name": name, "tables": {}, "tasks": {}}
    manifest: dict[str, Any] = {"name": name, "tables": {}}
    for table, (key, time, parents, others) in tables.items():
        columns: dict[str, Any] = {key: {"stype": "identifier"}} if key else {}
        for column, parent in parents.items():
            columns[column] = {"stype": "identifier", "foreign_key": f"{parent}.{tables[parent][0]}"}
        columns |= {time: {"stype": "timestamp"}} if time else {}
        columns |= {column: {"stype": stype} for column, stype in others.items()}
        described = {"file": f"db/{table}.parquet", "columns": columns}
        described |= {"primary_key": key} if key else {}
        metadata["tables"][table] = described | ({"temporal_column": time} if time else {})
        entry = {"pkey": key, "time_col": time, "fkeys": parents}
        manifest["tables"][table] = {field: value for field, value in entry.items() if value}
    for task, (anchor, key, target, stype, horizon) in tasks.items():
        metadata["tasks"][task] = {
            "table": f"labels/{task}.parquet",
            "anchor_table": anchor,
            "anchor_key": key,
            "target_column": target,
            "target_stype": stype,
            "observation_time_column": "timestamp",
            "horizon": horizon,
        }
        kind = "binary_classification" if stype == "boolean" else "regression"
        labels = {"name": task, "kind": "forecast", "entity_table": anchor, "entity_col": key, "target_col": target}
        labels |= {"task_type": kind, "time_col": "timestamp"}
        (out / "tasks" / task / "manifest.yaml").write_text(json.dumps(labels))
    (out / "manifest.yaml").write_text(json.dumps(manifest))
    (out / "metadata.json").write_text(json.dumps(metadata, indent=1))


def write_labels(out: Path, task: str, splits: dict[str, Any]) -> None:
    """Writes one task's labels twice: a file per split, and one file with a `split` column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = out / "tasks" / task
    folder.mkdir(parents=True, exist_ok=True)
    (out / "labels").mkdir(exist_ok=True)
    for split, table in splits.items():
        pq.write_table(table, folder / f"{split}.parquet")
    whole = [table.append_column("split", pa.array([split] * len(table))) for split, table in splits.items()]
    pq.write_table(pa.concat_tables(whole), out / "labels" / f"{task}.parquet")


def shop_tables(scale: float, rng: Any) -> dict[str, dict[str, Any]]:
    """The columns of the shop's tables, as numpy arrays."""
    import numpy as np

    sizes = {"customers": 50_000, "products": 10_000, "orders": 200_000, "order_items": 600_000, "reviews": 140_000}
    customers, products, orders, items, reviews = (int(size * scale) for size in sizes.values())
    start, words = np.datetime64("2020-01-01", "us"), np.array([f"word{k}" for k in range(800)])

    def moments(number: int) -> Any:
        return start + rng.integers(0, 3 * YEAR_US, number).astype("timedelta64[us]")

    def kinds(number: int, count: int, prefix: str) -> Any:
        return np.array([f"{prefix}{k}" for k in range(count)])[rng.integers(0, count, number)]

    def sentences(number: int, length: int) -> list[str]:
        return [" ".join(chosen) for chosen in words[rng.integers(0, len(words), (number, length))]]

    def hubs(exponent: float, number: int, parents: int) -> Any:
        return np.minimum(rng.zipf(exponent, number) - 1, parents - 1)

    ordered = np.sort(moments(orders))
    order_of = rng.integers(0, orders, items)
    return {
        "customers": {
            "customer_id": np.arange(customers),
            "signup": moments(customers),
            "age": rng.integers(18, 90, customers).astype(float),
            "country": kinds(customers, 40, "country "),
            "premium": rng.random(customers) < 0.2,
        },
        "products": {
            "product_id": np.arange(products),
            "title": sentences(products, 5),
            "brand": kinds(products, 300, "brand "),
            "price": rng.lognormal(3, 1, products),
            "weight": rng.random(products),
        },
        "orders": {
            "order_id": np.arange(orders),
            "customer_id": hubs(1.3, orders, customers),
            "ordered_at": ordered,
            "channel": kinds(orders, 6, "channel "),
            "shipping": 20 * rng.random(orders),
            "gift": rng.random(orders) < 0.05,
        },
        "order_items": {
            "order_id": order_of,
            "product_id": hubs(1.2, items, products),
            "item_ts": ordered[order_of],
            "qty": rng.integers(1, 9, items).astype(float),
            "unit_price": rng.lognormal(3, 1, items),
            "discount": rng.random(items),
            "status": kinds(items, 5, "status "),
        },
        "reviews": {
            "customer_id": rng.integers(0, customers, reviews),
            "product_id": hubs(1.2, reviews, products),
            "reviewed_at": moments(reviews),
            "rating": rng.integers(1, 6, reviews).astype(float),
            "text": sentences(reviews, 8),
            "verified": rng.random(reviews) < 0.8,
        },
    }


def make_shop(out: Path, scale: float) -> None:
    """Writes the shop: 1,000,000 rows and 80,000 labels at scale 1."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    tables = shop_tables(scale, rng)
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), out / "db" / f"{name}.parquet")
    signups, splits = tables["customers"]["signup"], {}
    by_signup = np.argsort(signups, kind="stable")
    for split, share, begin, end in (("train", 60_000, 11, 25), ("val", 10_000, 27, 29), ("test", 10_000, 31, 32)):
        number = int(share * scale)
        months = np.sort(rng.integers(begin, end + 1, number)) * (YEAR_US // 12)
        moments = np.datetime64("2020-01-01", "us") + months.astype("timedelta64[us]")
        # a question about a customer comes after the customer
        chosen = by_signup[rng.integers(0, np.searchsorted(signups, moments, sorter=by_signup))]
        splits[split] = pa.table({"timestamp": moments, "customer_id": chosen, "churn": rng.random(number) < 0.4})
    write_labels(out, "churn", splits)
    write_descriptions(out, "shop", SHOP, SHOP_TASKS)


def tpch_connection(scale: float) -> Any:
    """DuckDB with TPC-H generated, and for every table with a key a view `key_<table>` of (key, position)."""
    import duckdb
    import duckdb_extension_tpch

    (extension,) = (Path(duckdb_extension_tpch.__file__).parent / "extensions").glob("*/tpch.duckdb_extension")
    connection = duckdb.connect(config={"allow_unsigned_extensions": True})
    connection.execute(f"LOAD '{extension}'")
    connection.execute(f"CALL dbgen(sf = {scale})")
    for table, (key, _, _, _) in TPCH.items():
        if key:
            column = f"{table[0]}_{key}"
            connection.execute(
                f"CREATE TABLE key_{table} AS "
                f"SELECT {column} AS key, row_number() OVER (ORDER BY {column}) - 1 AS position FROM {table}"
            )
    return connection


def tpch_select(table: str) -> str:
    """The query of one table of TPC-H, keys replaced by positions, money and dates by DOUBLE and TIMESTAMP."""
    key, time, parents, others = TPCH[table]
    prefix = {"partsupp": "ps"}.get(table, table[0])
    joins = {column: (parent, f"{prefix}_{column}") for column, parent in parents.items()}
    joins |= {key: (table, f"{prefix}_{key}")} if key else {}
    selected = [
        f"key_{of}.position AS {column}" for column, (of, _) in sorted(joins.items(), key=lambda j: j[0] != key)
    ]
    decimal = {"s_acctbal", "p_retailprice", "ps_supplycost", "c_acctbal", "o_totalprice"}
    decimal |= {"l_quantity", "l_extendedprice", "l_discount", "l_tax"}
    for column, stype in (({time: "timestamp"} if time else {}) | others).items():
        cast = "::TIMESTAMP" if stype == "timestamp" else "::DOUBLE" if column in decimal else ""
        selected.append(f"{column}{cast} AS {column}")
    joined = "".join(f" JOIN key_{of} ON key_{of}.key = t.{column}" for of, column in joins.values())
    return f"SELECT {', '.join(selected)} FROM {table} t{joined}" + (f" ORDER BY {key}" if key else "")


def make_tpch(out: Path, scale: float) -> None:
    """Writes TPC-H: 8.7 million rows at scale 1, and the same labels of every customer at quarterly moments."""
    connection = tpch_connection(scale)
    for table in TPCH:
        connection.execute(f"COPY ({tpch_select(table)}) TO '{out}/db/{table}.parquet' (FORMAT parquet)")
    labels = {"cust-buys": "count(o.orderkey) > 0 AS buys", "cust-spend": "coalesce(sum(o.o_totalprice), 0.0) AS spend"}
    periods = (("1993-01-01", "1996-12-31"), ("1997-01-01", "1997-03-31"), ("1997-04-01", "1997-06-30"))
    for task, label in labels.items():
        splits = {}
        for split, (begin, end) in zip(SPLITS, periods, strict=True):
            splits[split] = connection.execute(
                "WITH moments AS (SELECT unnest(generate_series("
                f"TIMESTAMP '{begin}', TIMESTAMP '{end}', INTERVAL 90 DAY)) AS moment) "
                f'SELECT moment AS "timestamp", c.custkey AS custkey, {label} '
                f"FROM moments CROSS JOIN '{out}/db/customer.parquet' c LEFT JOIN '{out}/db/orders.parquet' o "
                "ON o.custkey = c.custkey AND o.o_orderdate > moment AND o.o_orderdate <= moment + INTERVAL 90 DAY "
                "GROUP BY ALL ORDER BY 1, 2"
            ).to_arrow_table()
        write_labels(out, task, splits)
    write_descriptions(out, "tpch", TPCH, TPCH_TASKS)


def main() -> None:
    """Writes one database."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", choices=("shop", "tpch"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--scale", type=float, default=None, help="default: 1 for shop, 0.1 for tpch")
    arguments = parser.parse_args()
    (arguments.out / "db").mkdir(parents=True, exist_ok=True)
    if arguments.database == "shop":
        make_shop(arguments.out, arguments.scale or 1.0)
    else:
        make_tpch(arguments.out, arguments.scale or 0.1)


if __name__ == "__main__":
    main()
