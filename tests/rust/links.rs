//! Link tasks: labels that list rows, and the candidates of a context.

use std::sync::Arc;

use arrow_array::builder::{Int64Builder, LargeListBuilder, ListBuilder, StringBuilder};
use arrow_array::{Array, ArrayRef};
use headwater::preprocess::publish;
use headwater::sampler::{Batch, Sampler, SamplerConfig, Split};
use headwater::schema::Schema;
use headwater::{Database, Error, Stype, TaskId};

use crate::shop::{DAY, Shop, days, ints, strings};

const NEXT: &str = r#""next": {"table": "labels.parquet", "anchor_table": "customers", "anchor_key": "customer",
  "target_column": "orders", "target_stype": "link", "target_table": "orders", "top_k": 3,
  "observation_time_column": "moment", "horizon": "1 day", "split": {"val": "1970-01-03", "test": "1970-01-05"}}"#;
const ORDERS: i32 = 1;

/// A list of keys per label; null for `None`.
fn lists(values: &[Option<&[Option<i64>]>]) -> ArrayRef {
    let mut builder = ListBuilder::new(Int64Builder::new());
    for list in values {
        builder.append_option(list.map(|list| list.iter().copied()));
    }
    Arc::new(builder.finish())
}

fn labelled(
    customers: &[i64],
    moments: &[i64],
    orders: ArrayRef,
) -> (Shop, headwater::Result<headwater::preprocess::TaskReport>) {
    let shop = Shop::new(NEXT);
    let moments: Vec<Option<i64>> = moments.iter().map(|&day| Some(day)).collect();
    let report =
        shop.label("next", vec![("customer", ints(customers)), ("moment", days(&moments)), ("orders", orders)]);
    (shop, report)
}

fn opened(shop: &Shop) -> Database {
    publish(&shop.staging()).unwrap();
    let database = Database::open(shop.staging()).unwrap();
    database.verify().unwrap();
    database
}

fn message(result: headwater::Result<impl std::fmt::Debug>) -> String {
    match result {
        Err(error @ Error::Schema { .. }) => error.to_string(),
        other => panic!("expected a schema error, found {other:?}"),
    }
}

#[test]
fn lists_and_pairs_are_the_same_labels() {
    // orders 4 and 2 of customer 10 in two labels of one moment; a null, a key that no order has, a label of nothing
    let some = [Some(4), None, Some(4)];
    let orders = lists(&[Some(&some), Some(&[Some(2), Some(77)]), Some(&[Some(3)]), Some(&[]), None]);
    let (shop, report) = labelled(&[10, 10, 20, 30, 20], &[2, 2, 1, 4, 6], orders);
    let report = report.unwrap();
    assert_eq!((report.num_seeds, report.null_targets), (2, 2));
    assert!(report.warnings.iter().any(|warning| warning.contains("1 of 5 keys") && warning.contains("`77`")));
    let database = opened(&shop);
    let seeds = database.task(TaskId(0));
    assert_eq!((seeds.rows, seeds.times), ([1, 0].as_slice(), [DAY, 2 * DAY].as_slice()));
    assert_eq!((seeds.targets_of(0), seeds.targets_of(1)), ([2].as_slice(), [1, 3].as_slice()));
    let described = database.manifest().task("next").unwrap();
    assert_eq!((described.target_stype, described.top_k), (Stype::Identifier, Some(3)));
    // val begins with day 2, test with day 4, where two labels name nothing
    let (train, val, test) = (&described.preview.train, &described.preview.val, &described.preview.test);
    assert_eq!((train.mean_links, train.num_targets, train.nulls), (Some(1.0), Some(1), 0));
    assert_eq!((val.mean_links, val.num_targets, val.nulls), (Some(2.0), Some(2), 0));
    assert_eq!((test.mean_links, test.num_targets, test.nulls), (None, None, 2));
    assert!(serde_json::to_string(database.manifest()).unwrap().contains(r#""target_stype":"link","target_table":1"#));

    let pairs = ints(&[4, 3, 2, 77]);
    let (shop, report) = labelled(&[10, 20, 10, 10], &[2, 1, 2, 2], pairs);
    assert_eq!(report.unwrap().num_seeds, 2);
    let same = opened(&shop);
    let same = same.task(TaskId(0));
    assert_eq!((same.rows, same.target_indptr, same.targets), (seeds.rows, seeds.target_indptr, seeds.targets));
}

#[test]
fn large_lists_are_read_and_wrong_ones_refused() {
    let mut builder = LargeListBuilder::new(Int64Builder::new());
    builder.append_value([Some(1), Some(3)]);
    let sliced: ArrayRef = Arc::new(builder.finish());
    let (shop, report) = labelled(&[10], &[2], sliced.slice(0, 1));
    assert_eq!(report.unwrap().num_seeds, 1);
    assert_eq!(opened(&shop).task(TaskId(0)).targets, [0, 2]);

    let mut builder = ListBuilder::new(StringBuilder::new());
    builder.append_value([Some("1")]);
    let found = message(labelled(&[10], &[2], Arc::new(builder.finish())).1);
    assert!(found.contains("holds strings, but the keys of `orders` are integers"), "{found}");
    let found = message(labelled(&[10], &[2], strings(&[Some("1")])).1);
    assert!(found.contains("holds strings, but the keys of `orders` are integers"), "{found}");
    let found = message(labelled(&[10], &[2], lists(&[Some(&[Some(70), Some(71)])])).1);
    assert!(found.contains("none of 2 keys names a row of the target table, the first is `70`"), "{found}");
}

#[test]
fn descriptions_of_link_tasks_are_strict() {
    let parse = |task: &str| {
        let text = format!(
            r#"{{"name": "x", "tables": {{"a": {{"primary_key": "id", "columns": {{"id": {{"stype": "identifier"}}}}}},
              "b": {{"columns": {{"n": {{"stype": "numerical"}}}}}}}}, "tasks": {{"t": {{"anchor_table": "a", {task}}}}}}}"#
        );
        Schema::parse(text.as_bytes(), "metadata.json")
    };
    let good = r#""query": "SELECT 1", "target_column": "y", "target_stype": "link", "target_table": "a""#;
    let schema = parse(good).unwrap();
    assert_eq!(schema.tasks[0].links.unwrap().top_k, 10);
    assert_eq!(Schema::parse(schema.normalised().as_bytes(), "again").unwrap(), schema);
    let cases = [
        (good.replace(r#", "target_table": "a""#, ""), "`target_table` is missing"),
        (good.replace(r#""a""#, r#""c""#), "`target_table` names the unknown table `c`"),
        (good.replace(r#""a""#, r#""b""#), "target table `b` has no primary key"),
        (good.replace("\"link\"", "\"boolean\""), "`target_table` belongs to link tasks"),
        (format!("{good}, \"top_k\": 0"), "`top_k` must be a whole number from 1 to 1000"),
        (format!("{good}, \"top_k\": 2.5"), "`top_k` must be a whole number from 1 to 1000"),
        (r#""target_column": "id", "target_stype": "link", "target_table": "a""#.into(), "a link task needs labels"),
    ];
    for (task, expected) in cases {
        let found = message(parse(&task));
        assert!(found.contains(expected), "{found}");
    }
}

fn options() -> SamplerConfig {
    SamplerConfig {
        tasks: vec!["next".into()],
        split: Split::All,
        batch_size: 2,
        seq_len: 64,
        max_rows: Some(8),
        shuffle: false,
        prefetch: 0,
        ..SamplerConfig::default()
    }
}

/// Rows of orders among the candidates of a context, and those that are named.
fn candidates(batch: &Batch, context: usize) -> (Vec<i64>, Vec<i64>) {
    let rows = batch.shape.rows;
    let places = context * rows..(context + 1) * rows;
    for at in places.clone() {
        assert_eq!(batch.row_is_candidate[at], batch.row_table[at] == ORDERS);
        assert_eq!(batch.row_is_candidate[at], batch.candidate_row[at] >= 0);
        assert!(batch.row_is_candidate[at] || !batch.row_is_target[at]);
    }
    let of = |marks: &[bool]| {
        let mut found: Vec<i64> = places.clone().filter(|&at| marks[at]).map(|at| batch.candidate_row[at]).collect();
        found.sort_unstable();
        found
    };
    (of(&batch.row_is_candidate), of(&batch.row_is_target))
}

#[test]
fn links_are_judged_among_the_rows_of_the_context() {
    // asked on day 2: order 2 is there, order 4 comes on day 4 and is nowhere
    let orders = lists(&[Some(&[Some(2), Some(4)]), Some(&[Some(1)])]);
    let (shop, report) = labelled(&[10, 10], &[2, 4], orders);
    report.unwrap();
    let database = opened(&shop);
    let batch = Sampler::new(&database, options()).unwrap().batch(0).unwrap();
    assert_eq!(batch.shape.answers, batch.shape.rows);
    assert_eq!(candidates(&batch, 0), (vec![0, 1], vec![1]));
    assert_eq!(candidates(&batch, 1), (vec![0, 1, 3], vec![0]));
    // the target's cell asks and says nothing; the list of day 2 is over on day 4 and is no row there
    let task_table = database.manifest().tables.len() as i32;
    for context in 0..2 {
        let at = context * batch.shape.cells + batch.target_cell[context] as usize;
        assert_eq!((batch.cell_stype[at], batch.cell_value[at], batch.cell_vocab[at]), (0, 0.0, -1));
        let rows = &batch.row_table[context * batch.shape.rows..(context + 1) * batch.shape.rows];
        assert_eq!(rows.iter().filter(|&&table| table == task_table).count(), 1);
        assert!(!batch.target_is_null[context]);
    }
    let shown = SamplerConfig { examples: 4, ..options() };
    let shown = Sampler::new(&database, shown).unwrap().batch(0).unwrap();
    assert_eq!(candidates(&shown, 1), (vec![0, 1, 3], vec![0]));
}

#[test]
fn the_answer_has_no_width_where_no_link_task_is_sampled() {
    let (shop, report) = labelled(&[10], &[2], lists(&[Some(&[Some(2)])]));
    report.unwrap();
    let database = opened(&shop);
    let config = SamplerConfig { tasks: vec![], tables: vec!["customers".into()], ..options() };
    let batch = Sampler::new(&database, config).unwrap().batch(0).unwrap();
    assert_eq!((batch.shape.answers, batch.row_is_target.len(), batch.candidate_row.len()), (0, 0, 0));
}
