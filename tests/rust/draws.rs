//! How many children are drawn, and what the draws depend on.

use std::collections::BTreeMap;

use headwater::sampler::{NumNeighbors, PerHop, Questions, SamplerConfig, Strategy};
use headwater::{Database, TaskId};
use tempfile::TempDir;

use crate::sampler::{config, context, numbers, seen, shop, task};
use crate::tiny::{Table, database, seed, untimed};

/// One customer with five orders of four items each.
fn nested() -> (TempDir, Database) {
    let tables = [
        Table { name: "customers", rows: vec![untimed(&[])], ..Table::default() },
        Table { name: "orders", keys: vec![0], rows: vec![untimed(&[Some(0)]); 5], ..Table::default() },
        Table {
            name: "items",
            keys: vec![1],
            rows: (0..20).map(|n| untimed(&[Some(n / 4)])).collect(),
            ..Table::default()
        },
    ];
    database(&tables, &[task("t", vec![seed(0, 5, 0, 0.0)], None)])
}

#[test]
fn num_neighbors_by_hop_and_by_key() {
    let (_root, database) = nested();
    let drawn = |num_neighbors: NumNeighbors| {
        let rows = context(&database, &SamplerConfig { num_neighbors, ..config("t") }, 0);
        (numbers(&rows, 1).len(), numbers(&rows, 2).len())
    };
    let each = |numbers: &[usize]| PerHop::Each(numbers.to_vec());
    // the customer is at hop 1, orders are at hop 2, items at hop 3
    assert_eq!(drawn(NumNeighbors::Every(each(&[9, 3, 1]))), (3, 3));
    assert_eq!(drawn(NumNeighbors::Every(each(&[9, 2]))), (2, 4), "the last number holds for further hops");
    assert_eq!(drawn(NumNeighbors::Every(each(&[0, 4]))), (4, 16));
    let by_key = |keys: &[(&str, PerHop)]| {
        NumNeighbors::ByKey(
            keys.iter().map(|(name, numbers)| ((*name).to_owned(), numbers.clone())).collect::<BTreeMap<_, _>>(),
        )
    };
    assert_eq!(drawn(by_key(&[("orders.key0", PerHop::Same(2)), ("*", PerHop::Same(1))])), (2, 2));
    assert_eq!(drawn(by_key(&[("orders.key0", PerHop::Same(2))])), (2, 8), "16 without *");
    assert_eq!(drawn(by_key(&[("items.key0", each(&[9, 9, 3])), ("*", each(&[9, 1]))])), (1, 3));
}

/// Two customers with thirty orders each at the same times; the seeds of the first are alike.
fn twins() -> (TempDir, Database) {
    let orders: Vec<(u32, i64)> = (0..60).map(|n| (n / 30, i64::from(n % 30))).collect();
    let (tables, tasks) = shop(&orders, vec![seed(0, 40, 0, 1.0), seed(0, 40, 0, 1.0)]);
    database(&tables, &tasks)
}

fn few(shuffle: bool, rng_seed: u64) -> SamplerConfig {
    SamplerConfig { shuffle, rng_seed, history: false, num_neighbors: 6.into(), ..config("churn") }
}

#[test]
fn draws_follow_seed_epoch_and_rng_seed() {
    let (_root, database) = twins();
    let orders = |config: &SamplerConfig, step| numbers(&context(&database, config, step), 1);
    let first = orders(&few(false, 0), 0);
    assert_eq!(first, orders(&few(false, 0), 0));
    assert_ne!(first, orders(&few(false, 0), 1), "the other seed");
    assert_ne!(first, orders(&few(false, 1), 0), "another rng_seed");
    // each epoch has both seeds; the draws of none of them come again
    let epochs = SamplerConfig { batch_size: 2, ..few(true, 0) };
    let sampler = headwater::sampler::Sampler::new(&database, epochs).unwrap();
    let mut all: Vec<Vec<i64>> = vec![];
    for epoch in 0..8 {
        let batch = sampler.batch(epoch).unwrap();
        all.extend((0..2).map(|context| numbers(&seen(&batch, context), 1)));
    }
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 16);
}

#[test]
fn every_epoch_has_an_order_of_its_own() {
    let orders: Vec<(u32, i64)> = (0..40).map(|n| (n, 0)).collect();
    let (tables, tasks) = shop(&orders, (0..40).map(|n| seed(n, 5, 0, 0.0)).collect());
    let (_root, database) = database(&tables, &tasks);
    let order = |rng_seed, step| {
        let config = SamplerConfig { batch_size: 40, ..few(true, rng_seed) };
        headwater::sampler::Sampler::new(&database, config).unwrap().batch(step).unwrap().seed_index
    };
    assert_ne!(order(0, 0), order(0, 1));
    assert_ne!(order(0, 0), order(1, 0));
    assert_eq!(order(0, 1), order(0, 1));
}

#[test]
fn draws_of_questions_follow_entity_and_time_but_not_their_place() {
    let (_root, database) = twins();
    let drawn = |rows: &[i64], times: &[i64], step: u64| {
        let questions = Questions::new(&database, TaskId(0), rows, Some(times)).unwrap();
        let orders = numbers(&context(&database, &SamplerConfig { seeds: Some(questions), ..few(false, 0) }, step), 1);
        orders.iter().map(|order| order % 30).collect::<Vec<_>>()
    };
    let first = drawn(&[0], &[50], 0);
    assert_eq!(drawn(&[1, 0, 0], &[50, 51, 50], 2), first);
    assert_ne!(drawn(&[0], &[51], 0), first, "another time");
    assert_ne!(drawn(&[1], &[50], 0), first, "another entity");
}

#[test]
fn links_to_rows_behind_the_last_cell_are_not_listed() {
    let tables = [
        Table { name: "a", rows: vec![untimed(&[]); 3], ..Table::default() },
        Table { name: "b", keys: vec![0, 0, 0], rows: vec![untimed(&[Some(0), Some(1), Some(2)])], ..Table::default() },
    ];
    let about_b = crate::tiny::Task { anchor: 1, ..task("t", vec![seed(0, 1, 0, 1.0)], None) };
    let (_root, database) = database(&tables, &[about_b]);
    // two cells of the seed, then one of every row: the context ends with its cells, not with its rows
    for seq_len in 3..7 {
        let config = SamplerConfig { seq_len, max_rows: Some(60), strategy: Strategy::Recent, ..config("t") };
        let rows = context(&database, &config, 0);
        let last = seq_len as i16 - 1;
        let expected: Vec<(i16, i16)> = (2..last).map(|local| (local, local - 2)).collect();
        assert_eq!(rows[1].parents, expected, "{seq_len} cells");
    }
}
