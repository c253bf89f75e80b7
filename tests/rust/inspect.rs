//! What `inspect` says of a database agrees with what went into it.

use headwater::inspect::{Options, Summary, answer, find_table, page, row};
use headwater::preprocess::{EncodeOptions, encode, publish};
use headwater::{Database, Error, RowId};
use serde_json::{Value, json};

use crate::shop::{Shop, days, flags, ints, strings, write_parquet};

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
    let summary = Summary::of(&database, false).unwrap();
    let json = serde_json::to_value(&summary).unwrap();
    assert_eq!(json["rows"], json!({"customers": 3, "orders": 6}));
    assert_eq!(json["edges"], json!({"orders.customer_id": 5}));
    let orders = &summary.tables[1];
    assert_eq!(orders.time_range, Some(["1970-01-02".into(), "1970-01-06".into()]));
    assert_eq!(orders.num_never_visible, 1);
    let key = &orders.foreign_keys[0];
    assert_eq!((key.edges, key.dangling, key.max_children, key.childless_parents), (5, 1, 3, Some(1)));
    assert!((key.mean_children - 5.0 / 3.0).abs() < 1e-9);
    let task = &summary.tasks[0];
    assert_eq!((task.base_rates["train"], task.base_rates.get("val"), task.base_rates["test"]), (0.5, None, 1.0));
    assert_eq!(summary.files["graph.bin"], std::fs::metadata(database.path().join("graph.bin")).unwrap().len());
    assert!(!summary.files.contains_key("metadata.json"));
}

#[test]
fn the_text_has_every_table_column_key_task_and_file() {
    let (_shop, database) = database();
    let text = answer(&database, &Options::default()).unwrap();
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

fn ask(database: &Database, change: impl FnOnce(&mut Options)) -> headwater::Result<String> {
    let mut options = Options::default();
    change(&mut options);
    answer(database, &options)
}

#[test]
fn histograms_and_fan_outs_are_exact() {
    let (_shop, database) = database();
    let json: Value = serde_json::from_str(&ask(&database, |options| options.json = true).unwrap()).unwrap();
    let orders = &json["tables"][1];
    assert_eq!((&orders["rows_read"], &orders["num_rows"]), (&json!(6), &json!(6)));
    let column = |name: &str| {
        orders["columns"].as_array().unwrap().iter().find(|column| column["name"] == name).unwrap().clone()
    };
    let amounts = json!({"scale": "linear", "edges": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "counts": [1, 1, 1, 0, 1]});
    assert_eq!(column("amount")["histogram"], amounts);
    let moments = &column("ts")["histogram"];
    assert_eq!(moments["counts"], json!([1, 0, 1, 0, 1, 0, 1, 0, 1]));
    assert_eq!((&moments["edges"][0], &moments["edges"][1]), (&json!("1970-01-02"), &json!("1970-01-02 12:00:00")));
    let statuses = json!({"values": [{"value": "paid", "count": 3}, {"value": "open", "count": 2}], "others": 0});
    assert_eq!(column("status")["top"], statuses);
    let gifts = json!({"values": [{"value": true, "count": 3}, {"value": false, "count": 2}], "others": 0});
    assert_eq!(column("is_gift")["top"], gifts);
    assert_eq!(
        orders["foreign_keys"][0]["fan_out"],
        json!({"parents": 3, "childless": 1, "min": 0, "median": 2, "mean": 5.0 / 3.0, "p90": 3, "p99": 3, "max": 3,
               "histogram": [1, 0, 2]})
    );
    let shares: f64 = json["sizes"].as_array().unwrap().iter().map(|kind| kind["share"].as_f64().unwrap()).sum();
    assert!((shares - 1.0).abs() < 1e-9);
}

#[test]
fn a_row_is_shown_with_its_neighbors() {
    let (_shop, database) = database();
    let of = |key: &str| ("customers".to_owned(), key.to_owned());
    let json = ask(&database, |options| (options.row, options.json, options.limit) = (Some(of("10")), true, Some(2)));
    let ada: Value = serde_json::from_str(&json.unwrap()).unwrap();
    let orders = &ada["children"][0];
    assert_eq!((&orders["count"], orders["first"].as_array().unwrap().len()), (&json!(3), 2));
    assert_eq!((&orders["first"][1]["key"], &orders["first"][1]["time"]), (&json!(2), &json!("1970-01-03")));
    assert_eq!(orders["first"][0]["cells"][3], json!({"column": "amount", "stype": "numerical", "value": 1.0}));
    assert_eq!(
        ada["seeds"],
        json!([{"task": "churn", "target_column": "churn", "count": 1,
                "first": [{"time": "1970-01-02", "split": "train", "label": true}]}])
    );
    let text = ask(&database, |options| options.row = Some(("orders".into(), "#1".into()))).unwrap();
    for word in ["orders 2 (#1) [1970-01-03]", "by customer_id: customers 10 (#0)  name=Ada", "open"] {
        assert!(text.contains(word), "{word} is missing in\n{text}");
    }
    let dangling = ask(&database, |options| options.row = Some(("orders".into(), "5".into()))).unwrap();
    assert!(dangling.contains("(names no row)"), "{dangling}");
}

#[test]
fn every_part_can_be_asked_for() {
    let (_shop, database) = database();
    let table = ask(&database, |options| options.table = Some("customers".into())).unwrap();
    for word in ["customers: 3 rows, 2 columns", "how to call them", "Rows by their number of orders by customer_id"] {
        assert!(table.contains(word), "{word} is missing in\n{table}");
    }
    let column = ask(&database, |options| options.column = Some("orders.amount".into())).unwrap();
    assert!(column.contains("1 to 5, mean 2.75, std 1.479, 1 not finite"), "{column}");
    let task = ask(&database, |options| options.task = Some("churn".into())).unwrap();
    assert!(task.contains("50.00 % true") && task.contains("horizon           30 days"), "{task}");
    let texts = ask(&database, |options| (options.vocabulary, options.pattern) = (true, Some("ADA".into()))).unwrap();
    assert!(texts.contains("1 texts contain `ADA`") && texts.contains("customers.name"), "{texts}");
}

/// What to ask for, and what the answer says of it.
type Mistake = (fn(&mut Options), &'static str);

#[test]
fn unknown_names_are_answered_with_known_ones() {
    let (_shop, database) = database();
    let mistakes: [Mistake; 8] = [
        (|options| options.table = Some("ordres".into()), "did you mean `orders`?"),
        (|options| options.table = Some("zzz".into()), "there are `customers`, `orders`"),
        (|options| options.column = Some("orders.amuont".into()), "did you mean `amount`?"),
        (|options| options.column = Some("amount".into()), "write it as `table.column`"),
        (|options| options.task = Some("chrun".into()), "did you mean `churn`?"),
        (|options| options.row = Some(("orders".into(), "77".into())), "keys are integers such as `1`"),
        (|options| options.pattern = Some("paid".into()), "goes with --vocabulary"),
        (|options| (options.table, options.task) = (Some("a".into()), Some("b".into())), "give one of them"),
    ];
    for (change, word) in mistakes {
        let error = ask(&database, change).unwrap_err();
        assert!(matches!(&error, Error::Argument(text) if text.contains(word)), "{error}");
    }
}

/// Two tables whose names would be markup, with a key of each to the other, a loop, and string keys.
fn hostile() -> (tempfile::TempDir, Database) {
    let folder = tempfile::tempdir().unwrap();
    let (input, staging) = (folder.path().join("input"), folder.path().join("staging"));
    for path in [&input, &staging] {
        std::fs::create_dir_all(path).unwrap();
    }
    let metadata = r#"{"name": "<img src=x onerror=alert(1)>", "tables": {
      "<script>alert(1)</script>": {"file": "a.parquet", "primary_key": "\"k\"", "columns": {
        "\"k\"": {"stype": "identifier"},
        "'<b>": {"stype": "identifier", "foreign_key": "&amp;.\"k\""},
        "self": {"stype": "identifier", "foreign_key": "<script>alert(1)</script>.\"k\""},
        "v": {"stype": "categorical", "description": "</td><script>"}}},
      "&amp;": {"file": "b.parquet", "primary_key": "\"k\"", "columns": {
        "\"k\"": {"stype": "identifier"},
        "a.b": {"stype": "identifier", "foreign_key": "<script>alert(1)</script>.\"k\""}}}}}"#;
    std::fs::write(input.join("metadata.json"), metadata).unwrap();
    let keys = || strings(&[Some("<i>"), Some("x\u{1b}[31m")]);
    let values = strings(&[Some("<script>x</script>"), Some("]]>")]);
    write_parquet(&input.join("a.parquet"), vec![("\"k\"", keys()), ("'<b>", keys()), ("self", keys()), ("v", values)]);
    write_parquet(&input.join("b.parquet"), vec![("\"k\"", keys()), ("a.b", keys())]);
    encode(&input, &staging, &EncodeOptions::default(), &|_, _, _| Ok(())).unwrap();
    publish(&staging).unwrap();
    let database = Database::open(&staging).unwrap();
    (folder, database)
}

#[test]
fn names_and_values_are_never_markup() {
    let (_folder, database) = hostile();
    let html = page(&database, false).unwrap();
    for word in ["<script", "<img", "<b>'", "<i>", "\u{1b}", "http:", "https:", "url(h", "]]>", "'<"] {
        assert!(!html.contains(word), "{word} is in the page");
    }
    assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && html.contains("&lt;/td&gt;&lt;script&gt;"));
    assert_eq!(html.matches("<g class=\"link\">").count(), 3);
    let text = ask(&database, |_| {}).unwrap();
    assert!(!text.contains('\u{1b}'));
    let column = ask(&database, |options| options.column = Some("&amp;.a.b".into())).unwrap();
    assert!(column.starts_with("&amp;.a.b: identifier"), "{column}");
    let row = ask(&database, |options| options.row = Some(("&amp;".into(), "<i>".into()))).unwrap();
    assert!(row.contains("by a.b: <script>alert(1)</script> <i> (#0)"), "{row}");
}

/// Whatever lies in the files, the answer is a text or an error that names what is damaged.
#[test]
fn damaged_files_are_errors() {
    let (_shop, database) = database();
    let root = database.path().to_owned();
    let (mut answered, mut refused) = (0, 0);
    for name in database.manifest().files.keys().filter(|name| name.ends_with("bin")) {
        let path = root.join(name);
        let sound = std::fs::read(&path).unwrap();
        for at in (64..sound.len()).step_by(8) {
            let mut damaged = sound.clone();
            damaged[at..(at + 8).min(sound.len())].fill(0xfe);
            // a new file, so that no mapping of the old one changes
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, &damaged).unwrap();
            let answers = || -> headwater::Result<()> {
                let database = Database::open(&root)?;
                page(&database, true)?;
                ask(&database, |options| options.vocabulary = true)?;
                ask(&database, |options| options.table = Some("orders".into()))?;
                for (table, rows) in [("orders", 6), ("customers", 3)] {
                    for row in 0..rows {
                        ask(&database, |options| options.row = Some((table.into(), format!("#{row}"))))?;
                    }
                }
                Ok(())
            };
            match answers() {
                Ok(()) => answered += 1,
                Err(Error::Format { path, .. }) => {
                    assert!(path.starts_with(&root));
                    refused += 1;
                }
                Err(other) => panic!("{name} at {at}: {other}"),
            }
        }
        std::fs::write(&path, &sound).unwrap();
    }
    assert!(answered > 0 && refused > 100, "{answered} {refused}");
}
