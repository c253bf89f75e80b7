"""`tributary inspect`: the text of the native module, JSON for machines, one page for a browser."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from conftest import Shop

HOSTILE = "</td><script>alert('1')</script>"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory, tributary_command) -> Path:
    """The shop with a table and a database whose name would be markup."""
    folder = tmp_path_factory.mktemp("inspect")
    shop = Shop(folder / "shop")
    shop.metadata["name"] = HOSTILE
    shop.metadata["tables"][HOSTILE] = shop.metadata["tables"].pop("products")
    shop.metadata["tables"]["orders"]["columns"]["product_id"]["foreign_key"] = f"{HOSTILE}.id"
    result = tributary_command("preprocess", shop.write(), folder / "db", "--stats-until", "2090-01-02")
    assert result.returncode == 0, result.stderr
    return folder / "db"


class Page(HTMLParser):
    """What is in a page: tags, the addresses it names, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src", "xlink:href", "data")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in ("meta", "rect", "path"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("rect", "path"):
            return
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_text_json_and_page_tell_the_same(database: Path, tmp_path: Path, tributary_command) -> None:
    text = tributary_command("inspect", database).stdout
    said = "Means and deviations of columns: over rows before 2090-01-02"
    for word in (
        HOSTILE,
        "orders.customer_id",
        "3 distinct",
        "0 to 6, mean 2.9,",
        "Sizes",
        "hash (256 dimensions",
        said,
    ):
        assert word in text
    facts = json.loads(tributary_command("inspect", "--json", database).stdout)
    assert facts["rows"] == {"customers": 12, "orders": 60, HOSTILE: 5}
    assert facts["edges"] == {"orders.customer_id": 60, "orders.product_id": 60}
    assert facts["stats_until"] == "2090-01-02"
    orders = facts["tables"][1]
    fan_out = orders["foreign_keys"][0]["fan_out"]
    assert (fan_out["min"], fan_out["median"], fan_out["max"], fan_out["histogram"]) == (5, 5, 5, [0, 0, 0, 12])
    amount = next(column for column in orders["columns"] if column["name"] == "amount")
    assert amount["histogram"]["edges"] == [float(edge) for edge in range(8)]
    assert amount["histogram"]["counts"] == [9, 9, 9, 9, 8, 8, 8]
    churn = next(task for task in facts["tasks"] if task["name"] == "churn")
    assert sum(preview["rows"] for preview in churn["previews"].values()) == churn["num_seeds"] == 12

    result = tributary_command("inspect", database, "--html", tmp_path / "page.html")
    assert (result.returncode, result.stdout) == (0, f"{tmp_path / 'page.html'}\n")
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert page.open == []
    assert not {"script", "img", "link", "iframe", "object"} & set(page.tags)
    assert all(address.startswith("#") for address in page.addresses)
    assert page.text.count(HOSTILE) >= 5
    assert said in page.text
    assert page.text.count("orders.customer_id → customers: 60 edges, 0 dangling, 0 null") == 1


def test_one_thing_at_a_time(database: Path, tributary_command) -> None:
    row = json.loads(tributary_command("inspect", database, "--row", "customers", "3", "--json").stdout)
    assert (row["key"], row["children"][0]["count"], len(row["children"][0]["first"])) == (3, 5, 5)
    assert row["children"][0]["first"][0]["time"] == "2020-01-12"
    text = tributary_command("inspect", database, "--row", "orders", "110", "--limit", "2").stdout
    assert "orders 110 (#10) [2020-01-12]" in text
    assert "by product_id: " + HOSTILE + " 1 (#0)" in text
    assert "amount       numerical   3\n" in text
    assert "Most frequent values" in tributary_command("inspect", database, "--column", "customers.country").stdout
    assert "Rows by their number of orders" in tributary_command("inspect", database, "--table", "customers").stdout
    assert "Quantiles" in tributary_command("inspect", database, "--task", "spend").stdout
    assert "5 texts contain `THING`" in tributary_command("inspect", database, "--vocabulary", "THING").stdout


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--table", "order"], "did you mean `orders`?"),
        (["--column", "orders.amuont"], "did you mean `amount`?"),
        (["--row", "orders", "1"], "its keys are integers such as `100`"),
        (["--task", "chrun"], "did you mean `churn`?"),
        (["THING"], "goes with --vocabulary"),
        (["--html", "x.html", "--task", "churn"], "--html writes a page of the whole database"),
    ],
)
def test_mistakes_are_one_message(database: Path, tributary_command, arguments: list[str], word: str) -> None:
    result = tributary_command("inspect", database, *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert word in result.stderr
    assert "Traceback" not in result.stderr


def test_a_terminal_that_knows_little_gets_the_text(database: Path, tributary_command) -> None:
    result = tributary_command("inspect", database, PYTHONIOENCODING="ascii")
    assert result.returncode == 0
    assert "orders.customer_id" in result.stdout


def test_a_damaged_file_is_named_with_the_remedy(database: Path, tmp_path: Path, tributary_command) -> None:
    damaged = shutil.copytree(database, tmp_path / "damaged")
    file = damaged / "graph.bin"
    content = file.read_bytes()
    file.write_bytes(content[:-64])
    result = tributary_command("inspect", damaged)
    assert result.returncode == 2
    assert "graph.bin" in result.stderr
    assert "run `tributary preprocess` again" in result.stderr
