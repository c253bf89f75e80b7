//! Which labels a seed sees: never its own, and those of other seeds by the rules for seeds of the caller's own, too.

use headwater::sampler::{Questions, SamplerConfig, Strategy};
use headwater::{Database, TaskId};

use crate::sampler::{config, context, numbers, shop};
use crate::tiny::{Seed, Table, database, row, seed, untimed};

/// The labels of history rows, ascending.
fn history(database: &Database, config: &SamplerConfig, step: u64, table: i32) -> Vec<i64> {
    let mut labels = numbers(&context(database, config, step)[1..], table);
    labels.sort_unstable();
    labels
}

#[test]
fn the_own_label_is_not_drawn_even_when_it_is_closed() {
    let (tables, mut tasks) = shop(&[(0, 1)], vec![seed(0, 10, 0, 1.0), seed(0, 20, 0, 2.0)]);
    tasks[0].horizon = Some(0);
    let (_root, database) = database(&tables, &tasks);
    let one = SamplerConfig { strategy: Strategy::Recent, num_neighbors: 1.into(), ..config("churn") };
    assert_eq!(history(&database, &one, 0, 2), [0i64; 0]);
    assert_eq!(history(&database, &one, 1, 2), [1], "the newest closed label is its own, which takes no draw");
}

#[test]
fn questions_see_labels_of_every_split_but_of_their_entity_and_time() {
    let seeds: Vec<Seed> = vec![
        seed(0, 20, 0, 1.0), // the question's own entity and time
        seed(0, 20, 2, 2.0),
        seed(0, 10, 2, 3.0),
        seed(1, 20, 1, 4.0), // another entity at that time
        seed(1, 21, 0, 5.0), // not closed
    ];
    let tables = [
        Table { name: "customers", rows: vec![untimed(&[]); 2], ..Table::default() },
        Table { name: "orders", keys: vec![0, 0], rows: vec![row(1, &[Some(0), Some(1)])], ..Table::default() },
    ];
    let tasks = shop(&[(0, 1)], seeds).1;
    let (_root, database) = database(&tables, &[crate::tiny::Task { horizon: Some(0), ..tasks[0].clone() }]);
    let asked = |row: i64, time: i64| {
        let questions = Questions::new(&database, TaskId(0), &[row], Some(&[time])).unwrap();
        history(&database, &SamplerConfig { seeds: Some(questions), ..config("churn") }, 0, 2)
    };
    assert_eq!(asked(0, 20), [3, 4]);
    assert_eq!(asked(1, 20), [1, 2, 3]);
    assert_eq!(asked(0, 21), [1, 2, 3, 4, 5]);
    assert_eq!(asked(1, 9), [0i64; 0]);
}

#[test]
fn a_removed_observation_time_is_in_no_row() {
    let (tables, mut tasks) = shop(&[(0, 1)], vec![seed(0, 10, 0, 1.0), seed(0, 50, 0, 2.0)]);
    let columns = |tasks: &[crate::tiny::Task]| {
        let (_root, database) = database(&tables, tasks);
        let batch = headwater::sampler::Sampler::new(&database, config("churn")).unwrap().batch(1).unwrap();
        let of_task = |&at: &usize| [0, 2].contains(&batch.cell_row[at]);
        (0..64).filter(of_task).map(|at| batch.cell_column[at]).collect::<Vec<_>>()
    };
    // columns: `n` of two tables, then the time and the label of the task
    assert_eq!(columns(&tasks), [2, 3, 2, 3]);
    tasks[0].removed = vec![2];
    assert_eq!(columns(&tasks), [3, 3]);
}
