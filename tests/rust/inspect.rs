//! What `inspect` says of a database agrees with what went into it.

use headwater::inspect::{Summary, find_table, row};
use headwater::preprocess::publish;
use headwater::{Database, Error, RowId};
use serde_json::{Value, json};

use crate::shop::{Shop, days, flags, ints};

const CHURN: &str = r#""churn": {"query": "SELECT 1", "anchor_table": "customers", "anchor_key": "customer",
  "target_column": "churn", "target_stype": "boolean", "observation_time_column": "moment", "horizon": "30 days",
  "split": {"val": "1970-01-11", "test": "1970-01-21"}}"#;

fn database() -> (Shop, Database) {
    let shop = Shop::new(CHURN);
    let columns = vec![
        ("customer", ints(&[10, 20, 30])),
        ("moment", days(&[Some(1), Some(2), Some(25)])),
        ("churn", flags(&[Some(true), Some(false), Some(true)])),
    ];
    shop.label("churn", columns).unwrap();
    publish(&shop.staging()).unwrap();
    let database = Database::open(shop.staging()).unwrap();
    (shop, database)
}

#[test]
fn the_summary_counts_what_is_there() {
    let (_shop, database) = database();
    let summary = Summary::of(&database);
    let json = serde_json::to_value(&summary).unwrap();
    assert_eq!(json["rows"], json!({"customers": 3, "orders": 6}));
    assert_eq!(json["edges"], json!({"orders.customer_id": 5}));
    let orders = &summary.tables[1];
    assert_eq!(orders.time_range, Some(["1970-01-02".into(), "1970-01-06".into()]));
    assert_eq!(orders.num_never_visible, 1);
    let key = &orders.foreign_keys[0];
    assert_eq!((key.edges, key.dangling, key.max_children, key.childless_parents), (5, 1, 3, 1));
    assert!((key.mean_children - 5.0 / 3.0).abs() < 1e-9);
    let task = &summary.tasks[0];
    assert_eq!((task.base_rates["train"], task.base_rates.get("val"), task.base_rates["test"]), (0.5, None, 1.0));
    assert_eq!(summary.files["graph.bin"], std::fs::metadata(database.path().join("graph.bin")).unwrap().len());
    assert!(!summary.files.contains_key("metadata.json"));
}

#[test]
fn the_text_has_every_table_column_key_task_and_file() {
    let (_shop, database) = database();
    let text = Summary::of(&database).render();
    for word in [
        "shop: 2 tables, 9 rows, 5 edges",
        "customers",
        "is_gift",
        "orders.customer_id",
        "churn (boolean)",
        "graph.bin",
    ] {
        assert!(text.contains(word), "{word} is missing in\n{text}");
    }
    assert!(text.lines().all(|line| line == line.trim_end()));
}

#[test]
fn a_row_is_decoded_to_the_values_of_the_user() {
    let (_shop, database) = database();
    let orders = find_table(&database, "orders").unwrap().id;
    let first = row(&database, orders, RowId(0)).unwrap();
    let value = |row: &Value, column: &str| {
        row["cells"].as_array().unwrap().iter().find(|cell| cell["column"] == column).unwrap()["value"].clone()
    };
    assert_eq!((&first["key"], &first["time"]), (&json!(1), &json!("1970-01-02")));
    assert_eq!(value(&first, "amount"), json!(1.0));
    assert_eq!((value(&first, "is_gift"), value(&first, "status")), (json!(true), json!("paid")));
    assert_eq!(value(&first, "customer_id"), json!(10));
    assert_eq!(first["parents"], json!([{"column": "customer_id", "table": "customers", "row": 0, "key": 10}]));
    let last = row(&database, orders, RowId(5)).unwrap();
    assert_eq!((value(&last, "amount"), value(&last, "ts"), &last["time"]), (Value::Null, Value::Null, &Value::Null));
    // the key of a parent that is missing is not kept; that it was there is
    assert_eq!(value(&row(&database, orders, RowId(4)).unwrap(), "customer_id"), json!(true));
    let customers = find_table(&database, "customers").unwrap().id;
    let ada = row(&database, customers, RowId(0)).unwrap();
    assert_eq!(ada["children"], json!([{"table": "orders", "column": "customer_id", "count": 3}]));
    assert!(matches!(row(&database, customers, RowId(3)), Err(Error::Argument(_))));
    assert!(matches!(find_table(&database, "costumers"), Err(Error::Argument(text)) if text.contains("`customers`")));
}
