//! The laws of labelled examples, on databases written by hand.

use std::collections::{BTreeMap, BTreeSet};

use headwater::format::record::Cell;
use headwater::sampler::{Batch, END_OF_TIME, ExampleChoice, Sampler, SamplerConfig, Share, Split};
use headwater::{Database, Error, Stype};

use crate::tiny::{Row, Seed, Table, Task, database, row, seed, untimed};

const CHOICES: [ExampleChoice; 3] = [ExampleChoice::Similar, ExampleChoice::Recent, ExampleChoice::Random];
/// The table of the task's rows in a database of three tables.
const TASK: i32 = 3;
const PURCHASES: i32 = 2;

fn config(examples: usize, example_choice: ExampleChoice) -> SamplerConfig {
    SamplerConfig {
        tasks: vec!["churn".into()],
        split: Split::All,
        examples,
        example_choice,
        batch_size: 1,
        seq_len: 200,
        shuffle: false,
        history: false,
        prefetch: 0,
        ..SamplerConfig::default()
    }
}

/// Customers and products without a time, purchases of both.
fn shop(customers: u32, purchases: &[(u32, u32, i64)], seeds: Vec<Seed>) -> (Vec<Table>, Vec<Task>) {
    let products = purchases.iter().map(|&(_, product, _)| product + 1).max().unwrap_or(1);
    let purchase = |&(customer, product, time): &(u32, u32, i64)| row(time, &[Some(customer), Some(product)]);
    let tables = vec![
        Table { name: "customers", rows: vec![untimed(&[]); customers as usize], ..Table::default() },
        Table { name: "products", rows: vec![untimed(&[]); products as usize], ..Table::default() },
        Table {
            name: "purchases",
            keys: vec![0, 1],
            rows: purchases.iter().map(purchase).collect(),
            ..Table::default()
        },
    ];
    let task = Task { name: "churn", anchor: 0, target: None, horizon: Some(10), removed: vec![], seeds };
    (tables, vec![task])
}

fn batch(database: &Database, config: &SamplerConfig, step: u64) -> Batch {
    Sampler::new(database, config.clone()).unwrap().batch(step).unwrap()
}

/// Rows of the task but for the seed's own, as (label, hop, the entity's row).
fn examples(batch: &Batch) -> Vec<(i64, i16, i64)> {
    let number = |local: i16, stype: Stype| {
        let at = (0..batch.shape.cells)
            .find(|&at| batch.cell_row[at] == local && batch.cell_stype[at] == stype.code() as i8)
            .unwrap();
        batch.cell_value[at] as i64
    };
    let locals = (1..batch.shape.rows).filter(|&local| batch.row_table[local] == TASK);
    locals
        .map(|local| {
            let entity = batch.row_parents[local * batch.shape.parents];
            let entity = if entity < 0 { -1 } else { number(entity, Stype::Numerical) };
            (number(local as i16, Stype::Numerical), batch.row_hop[local], entity)
        })
        .collect()
}

fn labels(database: &Database, config: &SamplerConfig, step: u64) -> BTreeSet<i64> {
    examples(&batch(database, config, step)).iter().map(|example| example.0).collect()
}

/// Every customer bought the same product, so that walks reach all of them.
fn everybody(customers: u32) -> Vec<(u32, u32, i64)> {
    (0..customers).map(|customer| (customer, 0, -5)).collect()
}

#[test]
fn examples_have_known_labels_of_no_later_split_and_other_entities() {
    // the last seed asks at 50; labels take 10; planted: an open one, one without a label, one of a later split, and
    // the entity's own
    let mut seeds = vec![
        seed(1, 0, 0, 101.0),
        seed(2, 40, 0, 102.0),
        seed(3, 41, 0, 103.0),
        seed(4, 20, 2, 104.0),
        seed(5, 10, 1, 105.0),
        seed(6, 10, 0, 106.0),
        seed(0, 30, 0, 107.0),
        seed(0, 50, 1, 108.0),
    ];
    seeds[5].value = None;
    let (tables, tasks) = shop(7, &everybody(7), seeds);
    let (_root, database) = database(&tables, &tasks);
    for choice in CHOICES {
        let seen = |changed: SamplerConfig, step| labels(&database, &changed, step);
        let plain = config(20, choice);
        assert_eq!(seen(plain.clone(), 7), BTreeSet::from([101, 102, 105]), "{choice:?}");
        assert_eq!(seen(SamplerConfig { strict_time: true, ..plain.clone() }, 7), BTreeSet::from([101, 105]));
        assert_eq!(seen(SamplerConfig { database_cutoff: Some(49), ..plain.clone() }, 7), BTreeSet::from([101, 105]));
        assert_eq!(seen(SamplerConfig { lookback: Some(30), ..plain.clone() }, 7), BTreeSet::from([102]));
        assert_eq!(seen(plain.clone(), 6), BTreeSet::from([101]), "training seeds see training labels");
        assert_eq!(seen(plain.clone(), 0), BTreeSet::new());
        assert_eq!(seen(SamplerConfig { split: Split::Val, ..plain }, 1), BTreeSet::from([101, 102, 105]));
        assert_eq!(seen(config(0, choice), 7), BTreeSet::new());
    }
}

#[test]
fn untimed_examples_are_of_the_training_split() {
    let seeds = (0..8).map(|n| seed(n, END_OF_TIME, (n % 3) as u8, f64::from(n) as f32)).collect();
    let (tables, mut tasks) = shop(8, &everybody(8), seeds);
    tasks[0].horizon = None;
    let (_root, database) = database(&tables, &tasks);
    for choice in CHOICES {
        assert_eq!(labels(&database, &config(20, choice), 0), BTreeSet::from([3, 6]));
        assert_eq!(labels(&database, &config(20, choice), 2), BTreeSet::from([0, 3, 6]));
    }
}

#[test]
fn the_recent_ones_are_the_latest() {
    let seeds = (0..40).map(|n| seed(1 + n % 9, i64::from(n / 4), 0, n as f32));
    let (tables, tasks) = shop(10, &everybody(10), seeds.chain([seed(0, 18, 0, 0.0)]).collect());
    let (_root, database) = database(&tables, &tasks);
    // closed at 18: those up to 8, the ninth four
    let seen = labels(&database, &config(6, ExampleChoice::Recent), 40);
    assert_eq!(seen.len(), 6);
    assert!((32..36).all(|n| seen.contains(&n)) && seen.iter().all(|n| (28..36).contains(n)), "{seen:?}");
}

#[test]
fn random_examples_are_uniform() {
    // 20 visible labels among others; the ordered pair of two of them: 380 outcomes
    let other = |n: u32| match n % 4 {
        0 => seed(0, i64::from(n), 0, -1.0),
        1 => seed(1, i64::from(n) + 1000, 0, -1.0),
        2 => seed(2, i64::from(n), 2, -1.0),
        _ => seed(1 + n % 7, i64::from(n), 0, n as f32),
    };
    let seeds = (0..80).map(other).chain([seed(0, 500, 1, 0.0)]).collect();
    let (tables, tasks) = shop(8, &everybody(8), seeds);
    let (_root, database) = database(&tables, &tasks);
    let shuffled = SamplerConfig {
        shuffle: true,
        split: Split::Val,
        batch_size: 500,
        seq_len: 12,
        ..config(2, ExampleChoice::Random)
    };
    let sampler = Sampler::new(&database, shuffled).unwrap();
    let mut pairs: BTreeMap<[i64; 2], f64> = BTreeMap::new();
    let label = 3 + 1; // after the columns of the tables and the task's time
    for step in 0..76 {
        let batch = sampler.batch(step).unwrap();
        for context in 0..500 {
            let cells = context * 12..(context + 1) * 12;
            let labels = cells.filter(|&at| batch.cell_column[at] == label && !batch.cell_is_target[at]);
            let labels: Vec<i64> = labels.map(|at| batch.cell_value[at] as i64).collect();
            *pairs.entry(labels.try_into().unwrap()).or_default() += 1.0;
        }
    }
    assert_eq!(pairs.len(), 380);
    let chi2: f64 = pairs.values().map(|count| (count - 100.0).powi(2) / 100.0).sum();
    assert!((300.0..467.0).contains(&chi2), "chi2 {chi2} with 379 degrees of freedom");
}

/// Customers 0 to 3 buy products 0 and 1 over and over; 4 to 9 others.
fn neighbourhoods() -> (Vec<Table>, Vec<Task>) {
    let near = (0..4).flat_map(|customer| (0..6).map(move |n| (customer, n % 2, i64::from(n))));
    let far = (4..10).flat_map(|customer| (0..6).map(move |n| (customer, 2 + n % 3, i64::from(n))));
    let bridge = [(4, 0, 3)];
    let purchases: Vec<_> = near.chain(far).chain(bridge).collect();
    let labels = (0..10).flat_map(|n| [seed(n, 0, 0, n as f32), seed(n, 5, 0, 10.0 + n as f32)]);
    shop(10, &purchases, labels.chain([seed(0, 100, 0, 0.0)]).collect())
}

#[test]
fn similar_examples_share_neighbours_and_have_their_latest_label() {
    let (tables, tasks) = neighbourhoods();
    let (_root, database) = database(&tables, &tasks);
    for rng_seed in 0..20 {
        let similar = SamplerConfig { rng_seed, example_walks: 200, ..config(3, ExampleChoice::Similar) };
        let found = examples(&batch(&database, &similar, 20));
        let found: BTreeSet<_> = found.into_iter().collect();
        assert_eq!(found, BTreeSet::from([(11, 0, 1), (12, 0, 2), (13, 0, 3)]));
    }
    // walks of no length meet nobody: the latest labels stand in, as do those that are lacking
    let none = SamplerConfig { example_walk_length: 0, ..config(9, ExampleChoice::Similar) };
    assert_eq!(labels(&database, &none, 20), (11..20).collect());
    let few = SamplerConfig { example_walks: 1, ..config(9, ExampleChoice::Similar) };
    assert_eq!(labels(&database, &few, 20), (11..20).collect());
}

#[test]
fn walks_take_no_links_of_the_future() {
    // customer 1 bought the same product, but later than the seed asks; customer 2 before
    let purchases = [(0, 0, 1), (1, 0, 90), (2, 0, 2), (3, 1, 3)];
    let seeds = vec![seed(1, 0, 0, 1.0), seed(2, 0, 0, 2.0), seed(3, 0, 0, 3.0), seed(0, 50, 0, 0.0)];
    let (tables, tasks) = shop(4, &purchases, seeds);
    let (_root, database) = database(&tables, &tasks);
    for rng_seed in 0..30 {
        let similar = SamplerConfig { rng_seed, ..config(1, ExampleChoice::Similar) };
        assert_eq!(labels(&database, &similar, 3), BTreeSet::from([2]));
    }
}

#[test]
fn an_example_shows_what_was_known_at_its_time() {
    // customer 1 buys at 0..20; an example of it at 8 brings what came before, customer 0 nothing
    let purchases: Vec<_> = (0..20).map(|time| (1, 0, time)).collect();
    let seeds = vec![seed(1, 8, 0, 5.0), seed(0, 50, 0, 0.0)];
    let (tables, tasks) = shop(2, &purchases, seeds);
    let (_root, database) = database(&tables, &tasks);
    for choice in [ExampleChoice::Recent, ExampleChoice::Random] {
        for (strict_time, expected) in [(false, 9), (true, 8)] {
            let config = SamplerConfig { strict_time, ..config(3, choice) };
            let batch = batch(&database, &config, 1);
            assert_eq!(examples(&batch), [(5, 0, 1)]);
            let purchases = batch.row_table.iter().filter(|&&table| table == PURCHASES).count();
            assert_eq!(purchases, expected);
        }
    }
}

#[test]
fn examples_get_their_share_and_the_seed_the_rest() {
    // every customer has 60 purchases of a product of its own; a row has one cell, the rows of the task two
    let purchases: Vec<_> = (0..4).flat_map(|customer| (0..60).map(move |time| (customer, customer, time))).collect();
    let seeds = vec![seed(1, 60, 0, 1.0), seed(2, 60, 0, 2.0), seed(0, 80, 0, 0.0), seed(3, 80, 0, 0.0)];
    let (tables, tasks) = shop(4, &purchases, seeds);
    let (_root, database) = database(&tables, &tasks);
    let rows_of_the_seed = |share: f64, seq_len: usize, max_rows: Option<usize>| {
        let options = SamplerConfig {
            example_share: Share(share),
            seq_len,
            max_rows,
            num_neighbors: 100.into(),
            ..config(2, ExampleChoice::Random)
        };
        let batch = batch(&database, &options, 2);
        assert_eq!(examples(&batch).len(), 2, "{share} {seq_len} {max_rows:?}");
        // purchases that point to the customer in row 1
        let width = batch.shape.parents;
        batch.row_parents.chunks(width).filter(|parents| parents.contains(&1)).count() - 1
    };
    // 3 cells of the seed and its entity, 1 of the product, the purchases
    assert_eq!(rows_of_the_seed(0.5, 100, None), 50 - 4);
    assert_eq!(rows_of_the_seed(0.9, 100, None), 10 - 4);
    assert_eq!(rows_of_the_seed(1.0, 100, None), 0, "the seed's row and its parents come first");
    assert_eq!(rows_of_the_seed(0.5, 1000, Some(40)), 20 - 3);
    assert_eq!(rows_of_the_seed(0.5, 1000, None), 60, "a seed with few rows leaves the rest to the examples");
    assert_eq!(rows_of_the_seed(1.0, 400, None), 60, "examples with few rows leave the rest to the seed");
}

#[test]
fn examples_of_a_cell_task_are_rows_with_a_known_target() {
    // customers with orders; the amount of an order is known 10 later
    let order = |n: i64| Row {
        time: Some(10 * n),
        parents: vec![Some((n % 3) as u32)],
        cells: vec![Some(Cell::Numerical(1000.0 + n as f32))],
    };
    let tables = [
        Table { name: "customers", rows: vec![untimed(&[]); 3], ..Table::default() },
        Table {
            name: "orders",
            columns: vec![("amount", Stype::Numerical)],
            keys: vec![0],
            rows: (0..9).map(order).collect(),
        },
    ];
    let seeds = (0..9).map(|n| seed(n, 10 * i64::from(n), u8::from(n == 4) * 2, 1.0)).collect();
    let task = Task { name: "churn", anchor: 1, target: Some(0), horizon: Some(10), removed: vec![], seeds };
    let amounts = |task: &Task, options: SamplerConfig| -> BTreeSet<i64> {
        let (_root, database) = database(&tables, std::slice::from_ref(task));
        let batch = batch(&database, &options, 6);
        let shown = (0..batch.shape.cells).filter(|&at| batch.cell_column[at] == 2 && !batch.cell_is_target[at]);
        shown.map(|at| batch.cell_value[at] as i64).collect()
    };
    for choice in CHOICES {
        let alone = SamplerConfig { num_neighbors: 0.into(), ..config(20, choice) };
        let expected = [0, 1, 2, 3, 5].map(|n| 1000 + n);
        assert_eq!(amounts(&task, alone.clone()), BTreeSet::from(expected), "{choice:?}");
        let removed = Task { removed: vec![2], ..task.clone() };
        assert_eq!(amounts(&removed, alone.clone()), BTreeSet::new());
        let (_root, database) = database(&tables, &[removed]);
        let starts = batch(&database, &alone, 6).row_hop.iter().filter(|&&hop| hop == 0).count();
        assert_eq!(starts, 1, "an example that cannot show its label is none: {choice:?}");
    }
}

#[test]
fn labels_of_later_splits_change_no_choice() {
    let early = |split| move |n: u32| seed(1 + n % 7, i64::from(n), split, n as f32);
    let seeds = |others: u32| (0..30).map(early(0)).chain([seed(0, 500, 1, 0.0)]).chain((0..others).map(early(2)));
    for choice in [ExampleChoice::Random, ExampleChoice::Recent] {
        let chosen = [0, 30].map(|others| {
            let (tables, tasks) = shop(8, &everybody(8), seeds(others).collect());
            let (_root, database) = database(&tables, &tasks);
            examples(&batch(&database, &config(5, choice), 30))
        });
        assert_eq!(chosen[0], chosen[1], "{choice:?}");
    }
}

#[test]
fn every_example_has_draws_of_its_own() {
    // two customers with ten purchases each, of which two are drawn for each example
    let purchases: Vec<_> = (1..3).flat_map(|customer| (0..10).map(move |time| (customer, time, 0))).collect();
    let (tables, tasks) = shop(3, &purchases, vec![seed(1, 5, 0, 1.0), seed(2, 5, 0, 2.0), seed(0, 50, 0, 0.0)]);
    let (_root, database) = database(&tables, &tasks);
    let is_equal = |rng_seed| {
        let options =
            SamplerConfig { rng_seed, num_neighbors: 2.into(), max_hops: Some(2), ..config(2, ExampleChoice::Random) };
        let batch = batch(&database, &options, 2);
        let rows =
            (0..batch.shape.cells).filter(|&at| batch.cell_column[at] == PURCHASES && !batch.cell_is_padding[at]);
        let drawn: BTreeSet<i64> = rows.map(|at| batch.cell_value[at] as i64).collect();
        assert_eq!(drawn.len(), 4);
        let of = |rows: std::ops::Range<i64>| drawn.range(rows).map(|row| row % 10).collect::<Vec<_>>();
        of(0..10) == of(10..20)
    };
    // equal by chance in one of 45
    assert!((0..20).filter(|&rng_seed| is_equal(rng_seed)).count() < 5);
}

#[test]
fn other_draws_do_not_change() {
    let (tables, tasks) = neighbourhoods();
    let (_root, database) = database(&tables, &tasks);
    let cells = |examples, rng_seed| {
        let config = SamplerConfig { rng_seed, num_neighbors: 3.into(), ..config(examples, ExampleChoice::Random) };
        let batch = batch(&database, &config, 20);
        (0..batch.shape.cells).map(|at| (batch.cell_column[at], batch.cell_value[at].to_bits())).collect::<Vec<_>>()
    };
    for rng_seed in 0..10 {
        let (without, with) = (cells(0, rng_seed), cells(1, rng_seed));
        // the seed, its entity, its purchases with their products: all within the seed's part of 100 cells
        let own = 2 + 1 + 3;
        assert_eq!(without[..own], with[..own]);
        assert_ne!(without, with);
    }
}

#[test]
fn contexts_with_examples_are_functions_of_their_step() {
    let (tables, tasks) = neighbourhoods();
    let (_root, database) = database(&tables, &tasks);
    for choice in CHOICES {
        let base = SamplerConfig { shuffle: true, batch_size: 8, ..config(4, choice) };
        let direct = Sampler::new(&database, base.clone()).unwrap();
        let expected: Vec<Batch> = (0..9).map(|step| direct.batch(step).unwrap()).collect();
        assert!((0..9).rev().all(|step| direct.batch(step).unwrap() == expected[step as usize]));
        let other = Sampler::new(&database, SamplerConfig { rng_seed: 1, ..base }).unwrap();
        assert!((0..9).any(|step| other.batch(step).unwrap() != expected[step as usize]));
    }
    let wrong = SamplerConfig { example_share: Share(1.5), ..config(1, ExampleChoice::Random) };
    assert!(matches!(Sampler::new(&database, wrong), Err(Error::Argument(_))));
}

#[test]
fn an_explanation_names_examples() {
    let purchases: Vec<_> = (0..20).map(|time| (1, 0, time)).collect();
    let (tables, tasks) = shop(2, &purchases, vec![seed(1, 8, 0, 5.0), seed(0, 50, 0, 0.0)]);
    let (_root, database) = database(&tables, &tasks);
    let sampler = Sampler::new(&database, config(3, ExampleChoice::Recent)).unwrap();
    let explained = sampler.explain(1).unwrap();
    let example = explained.rows.iter().find(|row| row.kind == "example").unwrap();
    assert_eq!((example.from, example.example, example.row), (None, Some(example.local), 0));
    let entity = explained.rows.iter().find(|row| row.from == Some(example.local)).unwrap();
    assert_eq!(entity.example, Some(example.local));
    assert_eq!(explained.rows[0].example, None);
    let late: usize = entity.hidden.iter().filter(|hidden| hidden.reason == "time").map(|hidden| hidden.count).sum();
    assert_eq!(late, 11, "purchases after the time of the example");
    assert!(explained.render().contains("example: churn #0"), "{}", explained.render());
}
