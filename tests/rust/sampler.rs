//! The sampler's laws, on databases written by hand. Row `n` of a table shows its number in its column `n`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use headwater::format::record::{Cell, NEVER_VISIBLE};
use headwater::prefetch::Next;
use headwater::sampler::{Batch, END_OF_TIME, Identifiers, Sampler, SamplerConfig, Split, Strategy};
use headwater::{Database, Error, Stype};

use crate::tiny::{self, Row, Seed, Table, Task, database, row, seed, untimed};

const CUSTOMER: i32 = 0;
const ORDER: i32 = 1;
const DAY: i64 = 86_400_000_000;

/// Customers without a time, orders of customers with times, items of orders.
pub fn shop(orders: &[(u32, i64)], seeds: Vec<Seed>) -> (Vec<Table>, Vec<Task>) {
    let customers = orders.iter().map(|(customer, _)| customer + 1).max().unwrap_or(1);
    let tables = vec![
        Table { name: "customers", rows: (0..customers).map(|_| untimed(&[])).collect(), ..Table::default() },
        Table {
            name: "orders",
            keys: vec![0],
            rows: orders.iter().map(|&(customer, time)| row(time, &[Some(customer)])).collect(),
            ..Table::default()
        },
    ];
    (tables, vec![task("churn", seeds, Some(10))])
}

pub fn task(name: &'static str, seeds: Vec<Seed>, horizon: Option<i64>) -> Task {
    Task { name, anchor: 0, target: None, horizon, removed: vec![], seeds }
}

pub fn config(task: &str) -> SamplerConfig {
    SamplerConfig {
        tasks: vec![task.into()],
        split: Split::All,
        batch_size: 1,
        seq_len: 64,
        shuffle: false,
        prefetch: 0,
        ..SamplerConfig::default()
    }
}

/// One row of a context: its table, its `n` (the value of the label for rows of the task), its hop, its parents.
#[derive(Debug, PartialEq)]
pub struct Seen {
    pub table: i32,
    pub n: Option<i64>,
    pub hop: i16,
    pub parents: Vec<(i16, i16)>,
}

pub fn seen(batch: &Batch, context: usize) -> Vec<Seen> {
    let (rows, width, cells) = (batch.shape.rows, batch.shape.parents, batch.shape.cells);
    let of_row = |local: usize| Seen {
        table: batch.row_table[context * rows + local],
        n: (context * cells..(context + 1) * cells)
            .filter(|&at| batch.cell_row[at] == local as i16 && !batch.cell_is_target[at])
            .find(|&at| batch.cell_stype[at] == Stype::Numerical.code() as i8)
            .map(|at| batch.cell_value[at] as i64),
        hop: batch.row_hop[context * rows + local],
        parents: (0..width)
            .map(|link| (context * rows + local) * width + link)
            .map(|at| (batch.row_parents[at], batch.row_parent_keys[at]))
            .filter(|link| link.0 >= 0)
            .collect(),
    };
    (0..rows).map(of_row).take_while(|seen| seen.table >= 0).collect()
}

pub fn context(database: &Database, config: &SamplerConfig, step: u64) -> Vec<Seen> {
    seen(&Sampler::new(database, config.clone()).unwrap().batch(step).unwrap(), 0)
}

pub fn numbers(seen: &[Seen], table: i32) -> Vec<i64> {
    seen.iter().filter(|seen| seen.table == table).map(|seen| seen.n.unwrap()).collect()
}

#[test]
fn parents_come_before_children_and_links_are_listed() {
    // orders have two keys to customers: 0 buyer, 1 payer; items point to orders
    let tables = [
        Table { name: "customers", rows: vec![untimed(&[]); 3], ..Table::default() },
        Table {
            name: "orders",
            keys: vec![0, 0],
            rows: vec![row(1, &[Some(0), Some(0)]), row(2, &[Some(2), Some(0)]), row(3, &[Some(1), None])],
            ..Table::default()
        },
        Table { name: "items", keys: vec![1], rows: vec![untimed(&[Some(1)])], ..Table::default() },
    ];
    let (_root, database) = database(&tables, &[task("t", vec![seed(0, 9, 0, 1.0)], Some(0))]);
    let recent = SamplerConfig { strategy: Strategy::Recent, ..config("t") };
    let links = |links: &[(i16, i16)]| links.to_vec();
    let expected = [
        Seen { table: 3, n: None, hop: 0, parents: links(&[(1, 3)]) },
        Seen { table: 0, n: Some(0), hop: 1, parents: vec![] },
        Seen { table: 1, n: Some(0), hop: 2, parents: links(&[(1, 0), (1, 1)]) },
        // the payer's newest order: its buyer, customer 2, is a parent and comes at once
        Seen { table: 1, n: Some(1), hop: 2, parents: links(&[(4, 0), (1, 1)]) },
        Seen { table: 0, n: Some(2), hop: 3, parents: vec![] },
        Seen { table: 2, n: Some(0), hop: 3, parents: links(&[(3, 2)]) },
    ];
    assert_eq!(context(&database, &recent, 0), expected);
    // a limit of hops is a limit for parents and children
    for max_hops in 0..4 {
        let limited = SamplerConfig { max_hops: Some(max_hops), ..recent.clone() };
        let hops: Vec<i16> = context(&database, &limited, 0).iter().map(|seen| seen.hop).collect();
        assert!(hops.iter().all(|&hop| hop <= max_hops as i16), "{hops:?}");
        assert_eq!(hops.len(), [1, 2, 4, 6][max_hops]);
    }
}

#[test]
fn a_row_that_points_to_itself_and_a_cycle_end() {
    let tables = [Table {
        name: "staff",
        keys: vec![0],
        rows: vec![untimed(&[Some(0)]), untimed(&[Some(2)]), untimed(&[Some(1)]), untimed(&[None])],
        ..Table::default()
    }];
    let seeds = (0..4).map(|row| seed(row, 5, 0, 0.0)).collect();
    let (_root, database) = database(&tables, &[task("t", seeds, None)]);
    let rows = |step| numbers(&context(&database, &config("t"), step), 0);
    assert_eq!([rows(0), rows(1), rows(2), rows(3)], [vec![0], vec![1, 2], vec![2, 1], vec![3]]);
    assert_eq!(context(&database, &config("t"), 0)[1].parents, [(1, 0)]);
    assert_eq!(context(&database, &config("t"), 1)[2].parents, [(1, 0)]);
}

#[test]
fn nothing_later_than_the_seed_is_seen() {
    // orders at 0..20, half of them with a carrier that is known later; customer 0 is the entity
    let carriers: Vec<Row> = (0..10).map(|n| row(if n % 2 == 0 { 3 } else { 15 }, &[])).collect();
    let orders = (0..20).map(|time| row(time, &[Some(0), Some(time as u32 % 10)]));
    let orders: Vec<Row> = orders.chain([row(NEVER_VISIBLE, &[Some(0), None])]).collect();
    let tables = [
        Table { name: "customers", rows: vec![untimed(&[])], ..Table::default() },
        Table { name: "orders", keys: vec![0, 2], rows: orders, ..Table::default() },
        Table { name: "carriers", rows: carriers, ..Table::default() },
    ];
    let times = [-1, 0, 3, 10, 15, 19, 50, END_OF_TIME];
    let seeds = times.map(|time| seed(0, time, 0, 0.0)).to_vec();
    let (_root, database) = database(&tables, &[task("t", seeds, None)]);
    for (step, seed_time) in times.into_iter().enumerate() {
        for is_strict in [false, true] {
            for cutoff in [None, Some(12)] {
                let config = SamplerConfig {
                    strict_time: is_strict,
                    database_cutoff: cutoff,
                    num_neighbors: 99.into(),
                    seq_len: 400,
                    ..config("t")
                };
                let seen = context(&database, &config, step as u64);
                let is_visible = |time: i64| {
                    (time < seed_time || time == seed_time && !is_strict) && cutoff.is_none_or(|cutoff| time <= cutoff)
                };
                let orders: BTreeSet<i64> = numbers(&seen, 1).into_iter().collect();
                assert_eq!(orders, (0..20).filter(|&time| is_visible(time)).collect());
                let carriers: BTreeSet<i64> = numbers(&seen, 2).into_iter().collect();
                let carrier_time = |n: i64| if n % 2 == 0 { 3 } else { 15 };
                let expected = (0..10).filter(|&n| {
                    is_visible(carrier_time(n)) && (0..20).any(|order| order % 10 == n && is_visible(order))
                });
                assert_eq!(carriers, expected.collect(), "seed {seed_time} strict {is_strict} cutoff {cutoff:?}");
            }
        }
    }
}

#[test]
fn history_waits_for_closed_labels_of_no_later_split() {
    // seeds of customer 0 at 0, 10, ... 50; horizon 10; the third has no label, the fourth is of the test split
    let mut seeds: Vec<Seed> = (0..6).map(|n| seed(0, 10 * n, 0, 100.0 + n as f32)).collect();
    seeds[2].value = None;
    seeds[3].split = 2;
    seeds.push(seed(1, 0, 0, 7.0));
    let (tables, tasks) = shop(&[(0, 1), (1, 1)], seeds);
    let (_root, database) = database(&tables, &tasks);
    let labels = |config: &SamplerConfig, step| {
        let mut labels = numbers(&context(&database, config, step)[1..], 2);
        labels.sort_unstable();
        labels
    };
    let plain = config("churn");
    assert_eq!(labels(&plain, 0), [0i64; 0]);
    assert_eq!(labels(&plain, 1), [100]);
    assert_eq!(labels(&plain, 3), [100, 101]);
    assert_eq!(labels(&plain, 5), [100, 101, 104], "the label of the test split stays hidden");
    assert_eq!(labels(&SamplerConfig { strict_time: true, ..plain.clone() }, 1), [0i64; 0]);
    assert_eq!(labels(&SamplerConfig { database_cutoff: Some(19), ..plain.clone() }, 5), [100]);
    assert_eq!(labels(&SamplerConfig { history: false, ..plain.clone() }, 5), [0i64; 0]);
    let recent = SamplerConfig { strategy: Strategy::Recent, num_neighbors: 2.into(), ..plain };
    let seen = context(&database, &recent, 5);
    assert_eq!(numbers(&seen[1..], 2), [104, 101], "hidden seeds take no draw");
    assert_eq!(seen[2].parents, [(1, 1)], "a row of history points to its entity");
    assert_eq!(seen[2].hop, 2);
}

#[test]
fn history_of_every_visited_entity_is_seen() {
    let seeds = vec![seed(0, 50, 0, 1.0), seed(1, 20, 0, 2.0), seed(1, 45, 0, 3.0)];
    let tables = [
        Table { name: "customers", rows: vec![untimed(&[]); 2], ..Table::default() },
        Table { name: "orders", keys: vec![0, 0], rows: vec![row(1, &[Some(0), Some(1)])], ..Table::default() },
    ];
    let (_root, database) = database(&tables, &[task("t", seeds, Some(10))]);
    let seen = context(&database, &config("t"), 0);
    assert_eq!(numbers(&seen[1..], 2), [2]);
    assert_eq!(seen.last().unwrap().parents, [(3, 2)], "it points to the other customer");
}

#[test]
fn untimed_history_shows_training_labels_only() {
    let seeds = [0, 1, 2, 0].iter().enumerate().map(|(n, &split)| seed(0, END_OF_TIME, split, n as f32)).collect();
    let (tables, mut tasks) = shop(&[(0, 1)], seeds);
    for horizon in [None, Some(5)] {
        tasks[0].horizon = horizon;
        let (_root, database) = database(&tables, &tasks);
        let labels = |step| numbers(&context(&database, &config("churn"), step)[1..], 2);
        assert_eq!(labels(0), [3]);
        assert_eq!(labels(3), [0]);
        assert_eq!(labels(2).len(), 2);
    }
}

#[test]
fn cell_targets_are_masked_and_others_stay_hidden_until_known() {
    // one customer, orders with an amount known 10 after the order; the third order has none
    let amount = |n: i64| (n != 2).then_some(Cell::Numerical(1000.0 + n as f32));
    let order = |n: i64| Row { time: Some(10 * n), parents: vec![Some(0)], cells: vec![amount(n)] };
    let tables = [
        Table { name: "customers", rows: vec![untimed(&[])], ..Table::default() },
        Table {
            name: "orders",
            columns: vec![("amount", Stype::Numerical)],
            keys: vec![0],
            rows: (0..6).map(order).collect(),
        },
    ];
    let seed_of = |n: i64| Seed { row: n as u32, time: 10 * n, split: (n == 3).into(), value: amount(n).map(|_| 1.0) };
    let seeds = (0..6).map(seed_of).collect();
    let mut tasks = [Task { name: "amount", anchor: 1, target: Some(0), horizon: Some(10), removed: vec![], seeds }];
    let amount_id = 2;
    let amounts = |tasks: &[Task], null_cells: bool, step: u64| {
        let (_root, database) = database(&tables, tasks);
        let config = SamplerConfig { null_cells, ..config("amount") };
        let batch = Sampler::new(&database, config).unwrap().batch(step).unwrap();
        let seen = seen(&batch, 0);
        let mut amounts = BTreeMap::new();
        for at in (0..batch.shape.cells).filter(|&at| batch.cell_column[at] == amount_id) {
            let n = seen[batch.cell_row[at] as usize].n.unwrap();
            assert_eq!(batch.cell_is_target[at], batch.cell_row[at] == 0);
            assert!(batch.cell_value[at] == 0.0 || !batch.cell_is_target[at]);
            assert!(amounts.insert(n, batch.cell_value[at]).is_none());
        }
        assert_eq!(batch.target_cell[0], 1);
        assert!(batch.cell_is_target[1]);
        (seen.len(), amounts)
    };
    let known = |all: &[i64]| -> BTreeMap<i64, f32> { all.iter().map(|&n| (n, 1000.0 + n as f32)).collect() };
    let with_target = |seed: i64, all: &[i64]| {
        let mut known = known(all);
        known.insert(seed, 0.0);
        known
    };
    assert_eq!(amounts(&tasks, false, 0), (2, with_target(0, &[])));
    assert_eq!(amounts(&tasks, false, 3), (5, with_target(3, &[0, 1])));
    assert_eq!(amounts(&tasks, false, 5), (7, with_target(5, &[0, 1, 4])), "order 3 is of the validation split");
    // a null label is hidden with the others, and the target stands though its own label is null
    assert_eq!(amounts(&tasks, true, 4), (6, with_target(4, &[0, 1])));
    assert_eq!(amounts(&tasks, false, 2), (4, with_target(2, &[0, 1])));
    tasks[0].horizon = None;
    assert_eq!(amounts(&tasks, false, 5), (7, with_target(5, &[])));
    for seed in &mut tasks[0].seeds {
        seed.time = END_OF_TIME;
    }
    assert_eq!(amounts(&tasks, false, 3), (7, with_target(3, &[0, 1, 4, 5])), "training cells of an untimed task");
    tasks[0].removed = vec![2];
    assert_eq!(amounts(&tasks, false, 3), (7, with_target(3, &[])));
}

#[test]
fn removed_columns_and_identifiers() {
    let cells = |present: bool| vec![present.then_some(Cell::Identifier), Some(Cell::Boolean(true)), None];
    let columns = vec![("id", Stype::Identifier), ("flag", Stype::Boolean), ("word", Stype::Text)];
    let tables = [Table {
        name: "a",
        columns,
        keys: vec![],
        rows: vec![
            Row { time: None, parents: vec![], cells: cells(true) },
            Row { time: None, parents: vec![], cells: cells(false) },
        ],
    }];
    let columns = |removed: &[u32], options: SamplerConfig, step: u64| {
        let seeds = vec![seed(0, 1, 0, 1.0), seed(1, 1, 0, 1.0)];
        let (_root, database) = database(&tables, &[Task { removed: removed.to_vec(), ..task("t", seeds, None) }]);
        let batch = Sampler::new(&database, options).unwrap().batch(step).unwrap();
        let cells = (0..64).filter(|&at| batch.cell_row[at] == 1);
        cells.map(|at| (batch.cell_column[at], batch.cell_is_null[at])).collect::<Vec<_>>()
    };
    let (all, needed) = (config("t"), SamplerConfig { identifiers: Identifiers::Needed, ..config("t") });
    let nulls = |options: &SamplerConfig| SamplerConfig { null_cells: true, ..options.clone() };
    assert_eq!(columns(&[], all.clone(), 0), [(0, false), (1, false), (2, false)]);
    assert_eq!(columns(&[], nulls(&all), 1), [(0, false), (1, true), (2, false), (3, true)]);
    assert_eq!(columns(&[0, 2], all.clone(), 0), [(1, false)]);
    assert_eq!(columns(&[], needed.clone(), 0), [(0, false), (2, false)]);
    for step in [0, 1] {
        assert_eq!(columns(&[], nulls(&needed), step), [(0, false), (2, false), (3, true)]);
    }
    assert_eq!(columns(&[0, 2], needed.clone(), 0), [(1, false)], "the identifier stands for a row without cells");
    assert_eq!(columns(&[0, 2], needed.clone(), 1), [], "an absent identifier does not");
    assert_eq!(columns(&[0, 1, 2], needed, 0), []);
}

#[test]
fn budgets_hold_exactly() {
    let orders: Vec<(u32, i64)> = (0..40).map(|time| (0, time)).collect();
    let (tables, tasks) = shop(&orders, vec![seed(0, 100, 0, 1.0)]);
    let (_root, database) = database(&tables, &tasks);
    for (seq_len, rows) in [(1, 1), (2, 1), (3, 2), (4, 3), (10, 9), (43, 42), (60, 42)] {
        let config = SamplerConfig { seq_len, num_neighbors: 64.into(), ..config("churn") };
        let batch = Sampler::new(&database, config).unwrap().batch(0).unwrap();
        assert_eq!(seen(&batch, 0).len(), rows.min(seq_len), "{seq_len}");
        assert_eq!(batch.cell_is_padding.iter().filter(|&&padding| !padding).count(), seq_len.min(43));
        assert_eq!(batch.cell_is_target.iter().filter(|&&target| target).count(), 1);
        assert!(batch.cell_is_target[batch.target_cell[0] as usize]);
    }
    for num_neighbors in [0, 1, 5, 39, 40, 1000] {
        let config = SamplerConfig { num_neighbors: num_neighbors.into(), ..config("churn") };
        assert_eq!(context(&database, &config, 0).len(), 2 + num_neighbors.min(40));
    }
    for max_rows in [1, 2, 3, 10] {
        let config = SamplerConfig { max_rows: Some(max_rows), ..config("churn") };
        let batch = Sampler::new(&database, config).unwrap().batch(0).unwrap();
        assert_eq!(batch.shape.rows, max_rows);
        assert_eq!(seen(&batch, 0).len(), max_rows);
        assert!(batch.row_parents.iter().all(|&parent| parent < max_rows as i16));
    }
}

#[test]
fn a_wide_row_is_cut_but_keeps_its_target() {
    let columns: Vec<(&str, Stype)> = vec![("flag", Stype::Boolean); 9];
    let cells = vec![Some(Cell::Boolean(true)); 9];
    let tables = [Table { name: "a", columns, keys: vec![], rows: vec![Row { time: None, parents: vec![], cells }] }];
    for target in 0..9 {
        let task = Task { target: Some(target), ..task("t", vec![seed(0, 1, 0, 1.0)], None) };
        let (_root, database) = database(&tables, &[task]);
        for seq_len in 1..12 {
            let config = SamplerConfig { seq_len, ..config("t") };
            let batch = Sampler::new(&database, config).unwrap().batch(0).unwrap();
            let shown: Vec<i32> = batch.cell_column.iter().copied().filter(|&column| column >= 0).collect();
            let target = 1 + target;
            let mut expected: Vec<i32> = (0..10).filter(|&column| column != target as i32).take(seq_len - 1).collect();
            let place = expected.partition_point(|&column| column < target as i32);
            expected.insert(place, target as i32);
            assert_eq!(shown, expected);
            assert_eq!(batch.target_cell[0] as usize, place);
        }
    }
}

#[test]
fn links_to_rows_without_room_are_not_listed() {
    let tables = [
        Table { name: "a", rows: vec![untimed(&[]); 3], ..Table::default() },
        Table { name: "b", keys: vec![0, 0, 0], rows: vec![untimed(&[Some(0), Some(1), Some(2)])], ..Table::default() },
    ];
    let (_root, database) = database(&tables, &[Task { anchor: 1, ..task("t", vec![seed(0, 1, 0, 1.0)], None) }]);
    for max_rows in 1..6 {
        let config = SamplerConfig { max_rows: Some(max_rows), ..config("t") };
        let seen = context(&database, &config, 0);
        if let Some(b) = seen.get(1) {
            let expected: Vec<(i16, i16)> = (2..max_rows.min(5) as i16).map(|local| (local, local - 2)).collect();
            assert_eq!(b.parents, expected);
        }
    }
}

#[test]
fn ages_calendars_and_labels() {
    let (tables, tasks) = shop(&[(0, 3 * DAY)], vec![seed(0, 5 * DAY, 0, 0.5), seed(0, END_OF_TIME, 0, -2.0)]);
    let (_root, database) = database(&tables, &tasks);
    let sampler = Sampler::new(&database, SamplerConfig { batch_size: 3, ..config("churn") }).unwrap();
    let batch = sampler.batch(0).unwrap();
    assert_eq!(batch.row_age[..4], [0.0, 0.0, 2.0, 0.0]);
    assert_eq!(batch.row_has_time[..4], [true, false, true, false]);
    assert_eq!(batch.cell_calendar[..7], [0, 0, 0, 1, 6, 1, 6]); // Tuesday, 6 January 1970
    assert_eq!(batch.cell_value[0].to_bits(), ((((5 * DAY) as f64 - 100.0) / 10.0) as f32).to_bits());
    assert_eq!(batch.target_value, [0.5, -2.0, 0.0]);
    assert_eq!(batch.target_vocab, [-1, -1, -1]);
    assert_eq!(batch.seed_time, [5 * DAY, END_OF_TIME, 0]);
    assert_eq!(batch.seed_index, [0, 1, -1]);
    assert_eq!(batch.seed_row, [0, 0, -1]);
    assert_eq!(batch.seed_task, [0, 0, -1]);
    assert_eq!(batch.target_is_null, [false, false, true]);
    assert_eq!(batch.seed_is_padding, [false, false, true]);
    // the end of time has no observation time to show and no ages
    assert_eq!(batch.target_cell, [1, 0, -1]);
    assert!(batch.row_has_time[64..128].iter().all(|&has| !has));
    let padding = 128..192;
    assert!(batch.cell_is_padding[padding.clone()].iter().all(|&is| is));
    assert!(batch.row_table[padding.clone()].iter().chain(&batch.cell_column[padding]).all(|&id| id == -1));
}

/// A hub with many children at two levels, and many seeds.
fn hub(seeds: usize) -> (Vec<Table>, Vec<Task>) {
    let orders: Vec<(u32, i64)> = (0..300).map(|n| (n % 7, i64::from(n) * 3 % 200)).collect();
    let seeds = (0..seeds).map(|n| seed(n as u32 % 7, 50 + n as i64 % 150, (n % 3) as u8, n as f32)).collect();
    shop(&orders, seeds)
}

#[test]
fn children_of_a_hub_are_drawn_uniformly() {
    let orders: Vec<(u32, i64)> = (0..30).map(|time| (0, time)).collect();
    let (tables, tasks) = shop(&orders, vec![seed(0, 19, 0, 1.0)]);
    let (_root, database) = database(&tables, &tasks);
    let config =
        SamplerConfig { shuffle: true, batch_size: 500, num_neighbors: 6.into(), history: false, ..config("churn") };
    let sampler = Sampler::new(&database, config).unwrap();
    // the pair of the first two of six draws among 20 visible orders: 380 outcomes
    let mut pairs: BTreeMap<(i64, i64), f64> = BTreeMap::new();
    for step in 0..76 {
        let batch = sampler.batch(step).unwrap();
        for context in 0..500 {
            let orders = numbers(&seen(&batch, context), ORDER);
            assert_eq!(orders.len(), 6);
            *pairs.entry((orders[0], orders[1])).or_default() += 1.0;
        }
    }
    assert_eq!(pairs.len(), 380);
    let chi2: f64 = pairs.values().map(|count| (count - 100.0).powi(2) / 100.0).sum();
    assert!((300.0..467.0).contains(&chi2), "chi2 {chi2} with 379 degrees of freedom");
}

fn drain(sampler: &Sampler, most: usize) -> Vec<Batch> {
    let mut batches = vec![];
    while batches.len() < most {
        match sampler.poll(Duration::from_secs(10)).unwrap() {
            Next::Ready(batch) => batches.push(batch),
            Next::End => break,
            Next::Pending => panic!("ten seconds for a tiny batch"),
        }
    }
    batches
}

#[test]
fn a_batch_is_a_function_of_its_step() {
    let (tables, tasks) = hub(50);
    let (_root, database) = database(&tables, &tasks);
    let base = SamplerConfig { shuffle: true, batch_size: 8, rng_seed: 3, ..config("churn") };
    let direct = Sampler::new(&database, base.clone()).unwrap();
    let expected: Vec<Batch> = (0..13).map(|step| direct.batch(step).unwrap()).collect();
    assert_ne!(expected[0].seed_index, expected[1].seed_index);
    for (threads, prefetch) in [(0, 0), (1, 1), (2, 2), (4, 7), (16, 3), (0, 4)] {
        let sampler = Sampler::new(&database, SamplerConfig { threads, prefetch, ..base.clone() }).unwrap();
        assert!(drain(&sampler, 13) == expected, "threads {threads} prefetch {prefetch}");
    }
    // backwards, and by another seed
    assert!((0..13).rev().all(|step| direct.batch(step).unwrap() == expected[step as usize]));
    let other = Sampler::new(&database, SamplerConfig { rng_seed: 4, ..base }).unwrap();
    assert_ne!(other.batch(0).unwrap().seed_index, expected[0].seed_index);
}

#[test]
fn a_state_continues_at_every_step() {
    let (tables, tasks) = hub(20);
    let (_root, database) = database(&tables, &tasks);
    let base = SamplerConfig { shuffle: true, batch_size: 4, threads: 2, prefetch: 3, ..config("churn") };
    let sampler = Sampler::new(&database, base.clone()).unwrap();
    let mut states = vec![sampler.state().unwrap()];
    let mut batches = vec![];
    for _ in 0..12 {
        batches.extend(drain(&sampler, 1));
        states.push(sampler.state().unwrap());
    }
    for (step, state) in states.iter().enumerate() {
        let other = Sampler::new(&database, SamplerConfig { threads: 1, prefetch: 1, ..base.clone() }).unwrap();
        drain(&other, step % 3);
        other.restore(state).unwrap();
        assert_eq!(other.state().unwrap(), *state);
        assert!(drain(&other, 12 - step) == batches[step..]);
    }
    // the same on another number of processes: the global order goes on
    let split = SamplerConfig { batch_size: 4, world_size: 2, rank: 1, ..base.clone() };
    let second = Sampler::new(&database, split).unwrap();
    second.restore(&states[4]).unwrap();
    assert_eq!(drain(&second, 1)[0].seed_index, batches[5].seed_index);
    assert!(second.restore(&states[3]).unwrap_err().to_string().contains("no multiple"));
}

#[test]
fn a_foreign_state_is_refused_with_both_shown() {
    let (tables, tasks) = hub(20);
    let (_one, database_one) = database(&tables, &tasks);
    let (_two, database_two) = database(&hub(21).0, &hub(21).1);
    let one = Sampler::new(&database_one, config("churn")).unwrap();
    let two = Sampler::new(&database_two, config("churn")).unwrap();
    let message = two.restore(&one.state().unwrap()).unwrap_err().to_string();
    assert!(message.contains(&database_one.manifest().checksum), "{message}");
    assert!(message.contains(&database_two.manifest().checksum), "{message}");
    let longer = Sampler::new(&database_one, SamplerConfig { seq_len: 65, ..config("churn") }).unwrap();
    let message = longer.restore(&one.state().unwrap()).unwrap_err().to_string();
    assert!(message.contains("\"seq_len\":64") && message.contains("\"seq_len\":65"), "{message}");
    assert!(one.restore("{}").is_err());
    assert!(one.restore("nonsense").is_err());
}

#[test]
fn ranks_share_every_step_and_an_epoch_is_complete() {
    let (tables, tasks) = hub(23);
    let (_root, database) = database(&tables, &tasks);
    for shuffle in [true, false] {
        let sampler = |batch_size, rank, world_size| {
            let config = SamplerConfig { shuffle, batch_size, rank, world_size, ..config("churn") };
            Sampler::new(&database, config).unwrap()
        };
        let whole = sampler(6, 0, 1);
        assert_eq!((whole.num_seeds(), whole.steps_per_epoch()), (23, 4));
        let ranks = [sampler(2, 0, 3), sampler(2, 1, 3), sampler(2, 2, 3)];
        let mut all = vec![];
        for step in 0..4 {
            let expected = whole.batch(step).unwrap();
            let shares: Vec<i64> = ranks.iter().flat_map(|rank| rank.batch(step).unwrap().seed_index).collect();
            assert_eq!(shares, expected.seed_index);
            all.extend(shares);
        }
        let epoch: BTreeSet<i64> = all[..23].iter().copied().collect();
        assert_eq!(epoch, (0..23).collect());
        if shuffle {
            assert!(whole.batch(1_000_000).is_ok());
        } else {
            assert_eq!(all[23..], [-1]);
            assert!(all[..23].is_sorted());
            assert!(matches!(whole.batch(4), Err(Error::Argument(_))));
            assert_eq!(drain(&whole, 99).len(), 4);
        }
    }
}

#[test]
fn splits_and_tasks_follow_each_other() {
    let (tables, mut tasks) = hub(10);
    tasks.push(Task { name: "other", ..tasks[0].clone() });
    let (_root, database) = database(&tables, &tasks);
    let seeds = |tasks: &[&str], split| {
        let tasks = tasks.iter().map(|&task| task.to_owned()).collect();
        let config = SamplerConfig { tasks, split, batch_size: 20, ..config("") };
        let batch = Sampler::new(&database, config).unwrap().batch(0).unwrap();
        batch.seed_task.iter().copied().zip(batch.seed_index).filter(|seed| seed.0 >= 0).collect::<Vec<_>>()
    };
    assert_eq!(seeds(&["churn"], Split::Val), [(0, 1), (0, 4), (0, 7)]);
    assert_eq!(seeds(&["other", "churn"], Split::Test), [(1, 2), (1, 5), (1, 8), (0, 2), (0, 5), (0, 8)]);
    for (task, found) in [("chrun", "did you mean `churn`"), ("nothing", "unknown task `nothing`")] {
        let Err(error) = Sampler::new(&database, config(task)) else { panic!("task {task} exists") };
        assert!(error.to_string().contains(found), "{error}");
    }
}

#[test]
fn a_closed_sampler_says_so() {
    let (tables, tasks) = hub(10);
    let (_root, database) = database(&tables, &tasks);
    let sampler = Sampler::new(&database, SamplerConfig { prefetch: 4, threads: 4, ..config("churn") }).unwrap();
    drain(&sampler, 1);
    sampler.close();
    sampler.close();
    assert!(matches!(sampler.poll(Duration::from_secs(1)), Err(Error::Closed(_))));
    assert!(sampler.batch(0).is_ok(), "a batch of a step needs no stream");
}

#[test]
fn damaged_content_is_an_error_not_a_crash() {
    let (tables, tasks) = hub(10);
    let root = tempfile::tempdir().unwrap();
    tiny::write(root.path(), &tables, &tasks, |children| children[0].indices.fill(123_456));
    let database = Database::open(root.path()).unwrap();
    assert!(database.verify().is_err());
    for prefetch in [0, 2] {
        let sampler = Sampler::new(&database, SamplerConfig { prefetch, ..config("churn") }).unwrap();
        assert!(matches!(sampler.poll(Duration::from_secs(10)), Err(Error::Format { .. })));
        assert!(matches!(sampler.batch(0), Err(Error::Format { .. })));
        assert!(matches!(sampler.explain(0), Err(Error::Format { .. })));
    }
}

#[test]
fn an_explanation_shows_what_was_hidden() {
    let orders: Vec<(u32, i64)> = (0..30).map(|time| (0, time)).collect();
    let seeds = vec![seed(0, 5, 0, 3.0), seed(0, 19, 0, 4.0), seed(0, 25, 0, 5.0)];
    let (tables, tasks) = shop(&orders, seeds);
    let (_root, database) = database(&tables, &tasks);
    let sampler = Sampler::new(&database, SamplerConfig { num_neighbors: 6.into(), ..config("churn") }).unwrap();
    let explained = sampler.explain(1).unwrap();
    assert_eq!((explained.label.as_f64(), explained.split), (Some(4.0), "train"));
    assert_eq!(explained.entity, 100);
    assert_eq!(explained.counts.rows, explained.rows.len());
    assert_eq!(explained.rows.len(), 2 + 6 + 1);
    // 10 orders and one seed lie in the future, 14 orders were not drawn
    assert_eq!((explained.counts.hidden_by_time, explained.counts.hidden_by_budget), (11, 14));
    let cells: usize = explained.rows.iter().map(|row| row.cells.len()).sum();
    assert_eq!(cells, explained.counts.cells);
    let targets: Vec<_> = explained.rows.iter().flat_map(|row| &row.cells).filter(|cell| cell.is_target).collect();
    assert!(targets.len() == 1 && targets[0].value.is_null());
    let history: Vec<_> = explained.rows.iter().filter(|row| row.kind == "history").collect();
    assert_eq!(history[0].cells[1].value.as_f64(), Some(3.0));
    let text = explained.render();
    assert!(text.contains("label=???") && text.contains("10 child by orders.key0 hidden by time"), "{text}");
    assert_eq!(sampler.explain_seed("churn", 1).unwrap().rows.len(), explained.rows.len());
    assert!(sampler.explain(3).is_err());
    assert!(sampler.explain_seed("churn", 3).is_err());
    assert!(explained.rows.iter().all(|row| row.table != "customers" || row.row == CUSTOMER as u32));
}
