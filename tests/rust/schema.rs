//! `metadata.json` through its front door: what is refused, with which words, and what is kept.

use headwater::schema::{Schema, file_stem};
use headwater::{ColumnId, Stype, TableId, TaskKind};
use proptest::prelude::*;

const SHOP: &str = r#"{
 "name": "shop",
 "tables": {
  "customers": {"primary_key": "id", "columns": {"id": {"stype": "identifier"}, "note": {"stype": "ignored"},
    "name": {"stype": "text"}, "age": {"stype": "numerical"}}},
  "orders": {"file": "orders/*.parquet", "temporal_column": "ts", "columns": {"ts": {"stype": "timestamp"},
    "customer": {"stype": "identifier", "foreign_key": "customers.id"}, "amount": {"stype": "numerical"}}}
 },
 "tasks": {
  "churn": {"query": "SELECT 1", "anchor_table": "customers", "anchor_key": "customer", "target_column": "churn",
    "target_stype": "boolean", "observation_time_column": "at", "horizon": "30 days",
    "split": {"val": "2020-01-01", "test": "2020-02-01 12:00:00"}, "remove_columns": [["orders", "amount"]]},
  "age": {"anchor_table": "customers", "target_column": "age"}
 }
}"#;

fn parse(text: &str) -> Result<Schema, String> {
    Schema::parse(text.as_bytes(), "metadata.json").map_err(|error| error.to_string())
}

/// The message that the shop gives once `from` reads `to`.
fn message(from: &str, to: &str) -> String {
    assert!(SHOP.contains(from), "{from}");
    parse(&SHOP.replacen(from, to, 1)).expect_err(to)
}

#[test]
fn the_shop_is_understood() {
    let schema = parse(SHOP).unwrap();
    let [customers, orders] = schema.tables.as_slice() else { panic!("{schema:?}") };
    assert_eq!(
        (customers.files.as_slice(), orders.files.as_slice()),
        (["customers.parquet".to_owned()].as_slice(), ["orders/*.parquet".to_owned()].as_slice())
    );
    assert_eq!(orders.columns[1].foreign_key, Some(TableId(0)));
    assert_eq!(schema.column_id(TableId(0), 1), None);
    assert_eq!(schema.column_id(TableId(1), 2), Some(ColumnId(5)));
    let [churn, age] = schema.tasks.as_slice() else { panic!("{schema:?}") };
    assert_eq!((churn.kind, age.kind, age.target_stype), (TaskKind::Table, TaskKind::Cell, Stype::Numerical));
    assert_eq!(churn.horizon_us, Some(30 * 86_400_000_000));
    assert_eq!(churn.remove_columns, [(TableId(1), 2)]);
    assert!(churn.split.is_some_and(|split| split.val_us < split.test_us));
}

#[test]
fn the_normalised_form_is_the_same_schema() {
    let schema = parse(SHOP).unwrap();
    let normalised = schema.normalised();
    assert_eq!(parse(&normalised).unwrap(), schema);
    assert!(normalised.contains("\"kind\": \"cell\"") && normalised.contains("\"horizon\": \"30 days\""));
    assert!(!schema.encoded_part().contains("churn"));
    assert_eq!(parse(&format!("\u{feff}{SHOP}")).unwrap(), schema);
}

#[test]
fn every_fault_is_placed_and_has_a_remedy() {
    for (from, to, expected) in [
        ("\"name\": \"shop\",", "", "metadata.json: `name` is missing"),
        ("\"tables\": {\n", "\"tabels\": {\n", "unknown field `tabels`; did you mean `tables`?"),
        ("\"customers\": {", "\"\": {", "a name in `tables` is empty"),
        ("\"customers\": {", "\"ORDERS\": {", "the tables `ORDERS` and `orders` differ only by case"),
        ("\"note\": {", "\"ID\": {", "table `customers`: the columns `id` and `ID` differ only by case"),
        ("\"note\": {", "\"id\": {", "`id` occurs twice in one object"),
        ("\"stype\": \"text\"", "\"stype\": \"txt\"", "column `name`: unknown stype `txt`; did you mean `text`?"),
        ("\"stype\": \"text\"", "\"sytpe\": \"text\"", "column `name`: unknown field `sytpe`; did you mean `stype`?"),
        ("\"stype\": \"text\"", "\"stype\": 5", "`stype` must be a string, found a number"),
        (
            "\"primary_key\": \"id\"",
            "\"primary_key\": \"idd\"",
            "`primary_key` names the unknown column `idd`; did you mean `id`?",
        ),
        (
            "\"primary_key\": \"id\"",
            "\"primary_key\": \"age\"",
            "the primary_key `age` must have stype identifier, found numerical",
        ),
        (
            "\"temporal_column\": \"ts\"",
            "\"temporal_column\": \"amount\"",
            "must have stype timestamp, found numerical",
        ),
        (
            "customers.id",
            "customersid",
            "`customersid` must have the form `table.column`; did you mean `customers.id`?",
        ),
        ("customers.id", "costumers.id", "there is no table `costumers`; did you mean `customers.id`?"),
        (
            "customers.id",
            "customers.name",
            "must point to the primary key of `customers`; did you mean `customers.id`?",
        ),
        ("customers.id", "customers.idd", "table `customers` has no column `idd`; did you mean `id`?"),
        ("customers.id", "orders.ts", "table `orders` has no primary key"),
        (
            "\"stype\": \"identifier\", \"foreign_key\"",
            "\"stype\": \"text\", \"foreign_key\"",
            "a foreign key must have stype identifier, found text",
        ),
        ("orders/*.parquet", "../x.parquet", "`../x.parquet` leaves the folder through `..`"),
        ("orders/*.parquet", "/x.parquet", "`/x.parquet` is absolute"),
        ("\"orders/*.parquet\"", "[]", "`file` is an empty list"),
        (
            "\"anchor_table\": \"customers\", \"anchor_key\"",
            "\"anchor_table\": \"custmers\", \"anchor_key\"",
            "task `churn`: `anchor_table` names the unknown table `custmers`; did you mean `customers`?",
        ),
        ("\"boolean\"", "\"bolean\"", "task `churn`: unknown target_stype `bolean`; did you mean `boolean`?"),
        ("\"boolean\"", "\"identifier\"", "is identifier, which cannot be predicted"),
        ("\"SELECT 1\"", "\" \"", "task `churn`: `query` is empty"),
        (
            "\"query\": \"SELECT 1\"",
            "\"query\": \"SELECT 1\", \"table\": \"l.parquet\"",
            "both `query` and `table` are given",
        ),
        ("\"query\": \"SELECT 1\", ", "", "`target_column` `churn` is no column of `customers`"),
        ("\"30 days\"", "\"30 fortnights\"", "`horizon` is `30 fortnights`, expected a number and seconds"),
        ("2020-02-01 12:00:00", "soon", "`split`: `test` is `soon`, expected a date"),
        ("2020-02-01 12:00:00", "2019-02-01", "`val` is later than `test`"),
        (
            "[[\"orders\", \"amount\"]]",
            "[[\"orders\", \"amont\"]]",
            "unknown column `amont` of `orders`; did you mean `amount`?",
        ),
        ("[[\"orders\", \"amount\"]]", "[\"amount\"]", "`remove_columns` must be a list of [table, column] pairs"),
        ("\"target_column\": \"age\"", "\"target_column\": \"note\"", "is ignored, which cannot be predicted"),
        (
            "\"target_column\": \"age\"",
            "\"target_column\": \"age\", \"target_stype\": \"text\"",
            "`target_stype` is text, but column `age` of `customers` is numerical",
        ),
        ("\"target_column\": \"age\"", "\"target_column\": \"age\", \"kind\": \"table\"", "the task is of kind `cell`"),
        ("\"target_column\": \"age\"", "\"target_column\": \"age\",", "line"),
    ] {
        let found = message(from, to);
        assert!(found.starts_with("metadata.json") && found.contains(expected), "{to}: {found}");
    }
    for (text, expected) in
        [("[]", "expected an object"), ("", "line 1"), ("{\"name\": \"x\", \"tables\": {}}", "`tables` is empty")]
    {
        assert!(parse(text).unwrap_err().contains(expected));
    }
    let error = Schema::parse(b"{\"name\":\n \"\xff\"}", "metadata.json").unwrap_err().to_string();
    assert!(error.contains("not UTF-8: line 2"), "{error}");
}

#[test]
fn names_with_dots_are_keys_too() {
    let text = r#"{"name": "x", "tables": {
      "a.b": {"primary_key": "c.d", "file": "1.parquet", "columns": {"c.d": {"stype": "identifier"}}},
      "a": {"columns": {"k": {"stype": "identifier", "foreign_key": "a.b.c.d"}}}}}"#;
    assert_eq!(parse(text).unwrap().tables[1].columns[0].foreign_key, Some(TableId(0)));
}

proptest! {
    #[test]
    fn no_text_panics(text in ".{0,60}") {
        let _ = parse(&text);
    }

    #[test]
    fn a_cut_or_changed_description_is_an_answer(position in 0..SHOP.len(), byte in any::<u8>()) {
        let mut bytes = SHOP.as_bytes().to_vec();
        bytes[position] = byte;
        let _ = Schema::parse(&bytes, "metadata.json");
        let _ = Schema::parse(&bytes[..position], "metadata.json");
    }

    #[test]
    fn stems_are_names_within_one_folder(left in ".{0,300}", right in ".{0,300}") {
        let stem = file_stem(&left);
        prop_assert!(stem.len() <= 200 && !stem.contains('/') && !stem.contains('.') && !stem.contains('\0'));
        prop_assert_eq!(left == right, stem == file_stem(&right));
    }
}
