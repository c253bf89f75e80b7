//! Labels and cells become seeds, from the front door: parquet in, an opened database out.

use headwater::preprocess::{column_phrases, publish, vocab_texts, write_embeddings};
use headwater::{Database, Error, TableId, TaskId, TaskKind, Vectors};

use crate::shop::{DAY, Shop, days, flags, floats, ints, strings};

const CHURN: &str = r#""churn": {"query": "SELECT 1", "anchor_table": "customers", "anchor_key": "customer",
  "target_column": "churn", "target_stype": "boolean", "observation_time_column": "moment", "horizon": "30 days",
  "split": {"val": "1970-01-11", "test": "1970-01-21"}, "remove_columns": [["orders", "amount"]]}"#;

fn task(name: &str, target: &str, stype: &str) -> String {
    format!(
        r#""{name}": {{"query": "SELECT 1", "anchor_table": "customers", "anchor_key": "customer",
        "target_column": "{target}", "target_stype": "{stype}", "observation_time_column": "moment",
        "horizon": "1 day", "split": {{"val": "1970-01-11", "test": "1970-01-21"}}}}"#
    )
}

fn message(result: headwater::Result<impl std::fmt::Debug>) -> String {
    match result {
        Err(error @ Error::Schema { .. }) => error.to_string(),
        other => panic!("expected a schema error, found {other:?}"),
    }
}

#[test]
fn seeds_are_sorted_split_by_time_and_indexed_by_entity() {
    let shop = Shop::new(CHURN);
    let report = shop
        .label(
            "churn",
            vec![
                ("churn", flags(&[Some(true), Some(false), Some(true), None, Some(false)])),
                ("customer", ints(&[20, 10, 10, 30, 20])),
                ("moment", days(&[Some(20), Some(9), Some(1), Some(3), Some(10)])),
                ("more", ints(&[0; 5])),
            ],
        )
        .unwrap();
    assert_eq!((report.num_seeds, report.null_targets, report.base_rate), (4, 1, Some(0.5)));
    assert!(report.warnings.iter().any(|warning| warning.contains("churn") && warning.contains("1 of 5")));

    publish(&shop.staging()).unwrap();
    let database = Database::open(shop.staging()).unwrap();
    database.verify().unwrap();
    let seeds = database.task(TaskId(0));
    assert_eq!((seeds.rows, seeds.splits), ([0, 0, 1, 1].as_slice(), [0, 0, 1, 2].as_slice()));
    assert_eq!(seeds.times, [1, 9, 10, 20].map(|day| day * DAY));
    assert_eq!((seeds.values, seeds.is_null), ([1.0, 0.0, 0.0, 1.0].as_slice(), [0; 4].as_slice()));
    assert_eq!((seeds.indptr, seeds.indices), ([0, 2, 4, 4].as_slice(), [0, 1, 2, 3].as_slice()));
    assert_eq!((seeds.vocab, seeds.label_times.len()), ([u32::MAX; 4].as_slice(), 0));

    let described = database.manifest().task("churn").unwrap();
    assert_eq!((described.kind, described.horizon_us), (TaskKind::Table, Some(30 * DAY)));
    assert_eq!(described.remove_columns.iter().map(|id| id.0).collect::<Vec<_>>(), [5]);
    let ids = (described.table_id.0, described.time_column_id.map(|id| id.0), described.target_column_id.0);
    assert_eq!((ids, described.foreign_key_id.map(|id| id.0)), ((2, Some(8), 9), Some(1)));
    assert_eq!((database.manifest().num_columns, database.manifest().num_tables), (10, 2));
}

#[test]
fn numbers_are_scaled_by_the_training_labels() {
    let shop = Shop::new(&task("spend", "spend", "numerical"));
    let report = shop
        .label(
            "spend",
            vec![
                ("customer", ints(&[10, 20, 30, 10])),
                ("moment", days(&[Some(1), Some(2), Some(15), Some(25)])),
                ("spend", floats(&[Some(2.0), Some(6.0), Some(8.0), Some(f64::NAN)])),
            ],
        )
        .unwrap();
    let scale = report.statistics.unwrap();
    assert_eq!((scale.mean, scale.std, report.null_targets), (4.0, 2.0, 1));
    publish(&shop.staging()).unwrap();
    assert_eq!(Database::open(shop.staging()).unwrap().task(TaskId(0)).values, [-1.0, 1.0, 2.0]);
}

#[test]
fn constant_labels_are_zero() {
    let shop = Shop::new(&task("spend", "spend", "numerical"));
    let moments = days(&[Some(1); 3]);
    let columns = vec![("customer", ints(&[10, 20, 30])), ("moment", moments), ("spend", floats(&[Some(0.1); 3]))];
    assert!(shop.label("spend", columns).unwrap().statistics.unwrap().std.abs() < 1e-9);
    publish(&shop.staging()).unwrap();
    let database = Database::open(shop.staging()).unwrap();
    assert!(database.task(TaskId(0)).values.iter().all(|value| *value == 0.0));
}

#[test]
fn labels_at_the_edge_of_floats_stay_finite() {
    let shop = Shop::new(&task("spend", "spend", "numerical"));
    let spends = floats(&[Some(f64::MAX), Some(f64::MIN), Some(f64::MAX)]);
    let columns = vec![("customer", ints(&[10, 20, 30])), ("moment", days(&[Some(1); 3])), ("spend", spends)];
    let statistics = shop.label("spend", columns).unwrap().statistics.unwrap();
    assert!(statistics.mean.is_finite() && statistics.std.is_finite(), "{statistics:?}");
    publish(&shop.staging()).unwrap();
    let database = Database::open(shop.staging()).unwrap();
    assert!(database.task(TaskId(0)).values.iter().all(|value| value.is_finite()));
    let previews = &database.manifest().tasks[0].preview;
    assert!([&previews.train, &previews.val, &previews.test].iter().all(|split| split.std.is_none_or(f64::is_finite)));
}

fn status_labels(last: &'static str) -> Vec<(&'static str, arrow_array::ArrayRef)> {
    vec![
        ("customer", ints(&[10, 20, 30])),
        ("moment", days(&[Some(1), Some(2), Some(3)])),
        ("status", strings(&[Some("paid"), Some("lost"), Some(last)])),
    ]
}

#[test]
fn texts_of_tasks_follow_the_vocabulary_in_the_order_of_the_tasks() {
    let tasks = [task("first", "status", "categorical"), task("second", "status", "categorical")].join(",");
    let digests: Vec<String> = [["first", "second"], ["second", "first"]]
        .into_iter()
        .map(|order| {
            let shop = Shop::new(&tasks);
            for name in order {
                shop.label(name, status_labels(if name == "first" { "broken" } else { "stolen" })).unwrap();
            }
            let texts = vocab_texts(&shop.staging()).unwrap();
            publish(&shop.staging()).unwrap();
            assert_eq!(texts, vocab_texts(&shop.staging()).unwrap());
            let database = Database::open(shop.staging()).unwrap();
            for (task, third) in [(0, "broken"), (1, "stolen")] {
                let answers: Vec<String> =
                    database.task(TaskId(task)).vocab.iter().map(|&id| database.text(id).unwrap()).collect();
                assert_eq!(answers, ["status is paid".into(), "status is lost".into(), format!("status is {third}")]);
            }
            let encoded = database.manifest().vocabulary.num_encoded;
            let classes = |task: usize| database.manifest().tasks[task].classes.clone();
            let paid = texts.iter().position(|text| text == "status is paid").unwrap() as u32;
            assert_eq!(classes(0), [paid, encoded, encoded + 1]);
            assert_eq!(classes(1), [paid, encoded + 2, encoded + 3]);
            assert_eq!(database.manifest().vocabulary.num_texts, encoded + 4);
            database.verify().unwrap()
        })
        .collect();
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn a_replaced_task_leaves_other_names_of_its_file_alone() {
    let shop = Shop::new(CHURN);
    let labels =
        |value| vec![("customer", ints(&[10])), ("moment", days(&[Some(1)])), ("churn", flags(&[Some(value)]))];
    shop.label("churn", labels(true)).unwrap();
    let (file, twin) = (shop.staging().join("tasks/churn.bin"), shop.staging().join("../twin.bin"));
    let before = std::fs::read(&file).unwrap();
    std::fs::hard_link(&file, &twin).unwrap();
    shop.label("churn", labels(false)).unwrap();
    assert_eq!(std::fs::read(&twin).unwrap(), before);
    assert_ne!(std::fs::read(&file).unwrap(), before);
}

#[test]
fn the_labels_may_name_the_split() {
    let shop = Shop::new(CHURN);
    let labels = |splits: &[Option<&str>]| {
        vec![
            ("customer", ints(&[10, 20, 30])),
            ("moment", days(&[Some(1), Some(2), Some(3)])),
            ("churn", flags(&[Some(true); 3])),
            ("split", strings(splits)),
        ]
    };
    let splits = shop.label("churn", labels(&[Some("test"), Some("train"), Some("val")])).unwrap().splits;
    assert_eq!((splits.train, splits.val, splits.test), (1, 1, 1));
    let wrong = message(shop.label("churn", labels(&[Some("test"), Some("training"), None])));
    assert!(wrong.contains("churn") && wrong.contains("training") && wrong.contains("label 1"), "{wrong}");
    let null = message(shop.label("churn", labels(&[None; 3])));
    assert!(null.contains("split") && null.contains("null"), "{null}");
}

#[test]
fn every_fault_of_the_labels_names_the_task_and_its_cause() {
    let shop = Shop::new(CHURN);
    let good = || {
        [
            ("customer", ints(&[10, 20])),
            ("moment", days(&[Some(1), Some(2)])),
            ("churn", flags(&[Some(true), Some(false)])),
        ]
    };
    let with = |idx: usize, name: &'static str, array| {
        let mut columns = good();
        columns[idx] = (name, array);
        message(shop.label("churn", columns.to_vec()))
    };
    for (fault, words) in [
        (with(0, "customer", ints(&[10, 77])), ["customer", "77", "customers"]),
        (with(0, "customer", floats(&[Some(10.0), None])), ["customer", "label 1", "no key"]),
        (with(0, "customer", floats(&[Some(10.0), Some(20.5)])), ["customer", "20.5", "no row"]),
        (with(0, "customer", strings(&[Some("10"), Some("20")])), ["customer", "strings", "integers"]),
        (with(0, "custom", ints(&[10, 20])), ["anchor_key", "did you mean `custom`", "churn"]),
        (with(1, "moment", days(&[Some(1), None])), ["moment", "label 1, of `20`", "observation time"]),
        (with(1, "moment", ints(&[1, 2])), ["moment", "numbers", "timestamp"]),
        (with(1, "when", days(&[Some(1), Some(2)])), ["moment", "observation_time_column", "when"]),
        (with(2, "churn", strings(&[Some("yes"), Some("no")])), ["strings", "boolean", "target_stype"]),
        (with(2, "churn", ints(&[0, 2])), ["label 1", "2 is not a boolean", "churn"]),
        (with(2, "chum", flags(&[None, None])), ["target_column", "did you mean `chum`", "churn"]),
    ] {
        assert!(fault.starts_with("task `churn`"), "{fault}");
        assert!(words.iter().all(|word| fault.contains(word)), "{fault}");
    }
    assert!(matches!(shop.fill("churn"), Err(Error::Argument(_))));
    assert!(matches!(shop.label("chum", good().to_vec()), Err(Error::Argument(text)) if text.contains("`churn`")));
    assert!(!shop.staging().join("tasks/churn.bin").exists());
}

#[test]
fn cells_with_a_value_and_a_time_are_seeds() {
    let tasks = r#""gift": {"anchor_table": "orders", "target_column": "is_gift"},
                   "amount": {"anchor_table": "orders", "target_column": "amount"},
                   "name": {"anchor_table": "customers", "target_column": "name"},
                   "ts": {"anchor_table": "orders", "target_column": "ts"}"#;
    let shop = Shop::new(tasks);
    let report = shop.fill("gift").unwrap();
    assert_eq!((report.num_seeds, report.null_targets, report.null_times), (4, 1, 1));
    for name in ["amount", "name", "ts"] {
        shop.fill(name).unwrap();
    }
    publish(&shop.staging()).unwrap();
    let database = Database::open(shop.staging()).unwrap();
    database.verify().unwrap();
    let gift = database.task(TaskId(0));
    assert_eq!((gift.rows, gift.values), ([0, 2, 3, 4].as_slice(), [1.0, 0.0, 1.0, 1.0].as_slice()));
    assert_eq!(gift.times, [1, 3, 4, 5].map(|day| day * DAY));
    let described = database.manifest().task("gift").unwrap();
    assert_eq!((described.table_id, described.target_column_id.0, described.horizon_us), (TableId(1), 6, Some(0)));
    assert_eq!((described.time_column_id, described.foreign_key_id), (None, None));

    let (amount, scale) = (database.task(TaskId(1)), database.manifest().tasks[1].statistics);
    let values: Vec<f64> = amount.values.iter().map(|&z| f64::from(z) * scale.std + scale.mean).collect();
    assert!(values.iter().zip([1.0, 2.0, 3.0, 5.0]).all(|(found, value)| (found - value).abs() < 1e-6), "{values:?}");
    let name = database.task(TaskId(2));
    assert_eq!(name.times, [i64::MAX; 3]);
    assert_eq!(name.vocab.iter().map(|&id| database.text(id).unwrap()).collect::<Vec<_>>(), ["Ada", "Bo", "Ada"]);
    assert_eq!(database.task(TaskId(3)).label_times, [1, 2, 3, 4, 5].map(|day| day * DAY));
    assert!(matches!(shop.label("gift", vec![("id", ints(&[1]))]), Err(Error::Argument(_))));
}

#[test]
fn labels_without_a_horizon_stay_hidden_and_the_user_hears_of_it() {
    let shop = Shop::new(&CHURN.replace(r#""horizon": "30 days","#, ""));
    let columns = vec![("customer", ints(&[10])), ("moment", days(&[Some(1)])), ("churn", flags(&[Some(true)]))];
    let report = shop.label("churn", columns).unwrap();
    assert!(report.warnings.iter().any(|warning| warning.contains("horizon")), "{:?}", report.warnings);
    publish(&shop.staging()).unwrap();
    assert_eq!(Database::open(shop.staging()).unwrap().manifest().tasks[0].horizon_us, None);
}

#[test]
fn vectors_are_counted_finite_and_of_one_maker() {
    use half::f16;
    let shop = Shop::new(CHURN);
    let columns = vec![("customer", ints(&[10])), ("moment", days(&[Some(1)])), ("churn", flags(&[Some(true)]))];
    shop.label("churn", columns).unwrap();
    let staging = shop.staging();
    let phrases = column_phrases(&staging).unwrap();
    assert_eq!((phrases.len(), phrases[1].as_str()), (10, "name of customers: how to call them"));
    assert_eq!(phrases[8..], ["moment of churn", "churn of churn"]);
    let vectors = |number: usize| vec![f16::from_f32(0.5); number * 4];
    let write = |which, values: &[f16], maker: &str| write_embeddings(&staging, which, values, 4, maker);
    let texts = vocab_texts(&staging).unwrap().len();
    assert!(matches!(write(Vectors::Column, &vectors(9), "{}"), Err(Error::Argument(_))));
    assert!(matches!(write(Vectors::Column, &[f16::NAN; 40], "{}"), Err(Error::Argument(_))));
    assert!(matches!(write(Vectors::Column, &vectors(10), "{"), Err(Error::Argument(_))));
    write(Vectors::Column, &vectors(10), r#"{"kind": "a"}"#).unwrap();
    write(Vectors::Vocabulary, &vectors(texts), r#"{"kind": "b"}"#).unwrap();
    assert!(matches!(publish(&staging), Err(Error::Format { .. })));
    write(Vectors::Vocabulary, &vectors(texts), r#"{"kind": "a"}"#).unwrap();
    publish(&staging).unwrap();
    let database = Database::open(&staging).unwrap();
    assert_eq!(database.manifest().embedder, Some(serde_json::json!({"kind": "a"})));
    let stored = database.vectors(Vectors::Column).unwrap();
    assert_eq!((stored.number, stored.dimension, stored.values()[39]), (10, 4, f16::from_f32(0.5)));
    assert!(matches!(write(Vectors::Column, &vectors(10), "{}"), Err(Error::Argument(_))));
}
