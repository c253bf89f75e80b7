//! What pretraining asks of a context: masked cells, pairs of rows, walk features.

use std::collections::BTreeMap;

use headwater::format::record::{Cell, NEVER_VISIBLE};
use headwater::sampler::{Batch, MaskRate, Sampler, SamplerConfig, Split, Weights};
use headwater::{Database, Stype};
use tempfile::TempDir;

use crate::tiny::{Row, Seed, Table, Task, database, seed, untimed};

/// Customers; orders of customers, paid by customers, each with cells of three stypes.
fn orders() -> (TempDir, Database) {
    let order = |n: u32| Row {
        time: Some(i64::from(n)),
        parents: vec![Some(n % 5), (!n.is_multiple_of(3)).then_some(n % 4)],
        cells: vec![Some(Cell::Identifier), Some(Cell::Boolean(n.is_multiple_of(2))), Some(Cell::Text(0))],
    };
    let columns = vec![("id", Stype::Identifier), ("flag", Stype::Boolean), ("word", Stype::Text)];
    let tables = [
        Table { name: "customers", rows: vec![untimed(&[]); 5], ..Table::default() },
        Table { name: "orders", columns, keys: vec![0, 0], rows: (0..60).map(order).collect() },
    ];
    let seeds: Vec<Seed> = (0..40).map(|n| seed(n % 5, 20 + i64::from(n), 0, 1.0)).collect();
    database(&tables, &[Task { name: "t", anchor: 0, target: None, horizon: Some(3), removed: vec![], seeds }])
}

fn config() -> SamplerConfig {
    SamplerConfig {
        tasks: vec!["t".into()],
        split: Split::All,
        batch_size: 40,
        seq_len: 80,
        prefetch: 0,
        ..SamplerConfig::default()
    }
}

fn batch(database: &Database, config: SamplerConfig, step: u64) -> Batch {
    Sampler::new(database, config).unwrap().batch(step).unwrap()
}

/// Masked cells and all cells by stype.
fn counts(batches: &[Batch]) -> BTreeMap<i8, (f64, f64)> {
    let mut counts = BTreeMap::new();
    for batch in batches {
        let cells = (0..batch.cell_stype.len()).filter(|&at| !batch.cell_is_padding[at] && !batch.cell_is_target[at]);
        for at in cells {
            let (masked, all) = counts.entry(batch.cell_stype[at]).or_insert((0.0, 0.0));
            *masked += f64::from(u8::from(batch.cell_is_masked[at]));
            *all += 1.0;
        }
    }
    counts
}

#[test]
fn masks_hide_cells_at_their_rates_and_change_nothing_else() {
    let (_root, database) = orders();
    let every = SamplerConfig { mask_rate: MaskRate::Every(0.25), ..config() };
    let rates = BTreeMap::from([("boolean".to_owned(), 1.0), ("text".to_owned(), 0.1)]);
    let by_stype = SamplerConfig { mask_rate: MaskRate::ByStype(rates), ..config() };
    for (config, rates) in [(every, [0.25; 3]), (by_stype, [0.0, 1.0, 0.1])] {
        let masked: Vec<Batch> = (0..10).map(|step| batch(&database, config.clone(), step)).collect();
        for (step, found) in masked.iter().enumerate() {
            let mut plain = batch(&database, self::config(), step as u64);
            assert!(!plain.cell_is_masked.contains(&true));
            plain.cell_is_masked.clone_from(&found.cell_is_masked);
            assert!(plain == *found, "masks change no other field");
            assert!((0..found.cell_row.len()).all(|at| {
                let is_asked = found.cell_is_target[at] || found.cell_is_padding[at];
                !(found.cell_is_masked[at] && (is_asked || found.cell_stype[at] == Stype::Identifier.code() as i8))
            }));
        }
        let counts = counts(&masked);
        assert!(counts[&(Stype::Identifier.code() as i8)].0 < 1.0);
        for (stype, rate) in [Stype::Numerical, Stype::Boolean, Stype::Text].iter().zip(rates) {
            let (masked, all) = counts[&(stype.code() as i8)];
            let deviation = (all * rate * (1.0 - rate)).sqrt();
            assert!((masked - rate * all).abs() <= 5.0 * deviation, "{stype}: {masked} of {all} at {rate}");
        }
        // a later epoch masks other cells of the same seeds
        let one = Sampler::new(&database, SamplerConfig { shuffle: false, ..config.clone() }).unwrap();
        assert_eq!(one.batch(0).unwrap().cell_is_masked, one.batch(0).unwrap().cell_is_masked);
        assert_ne!(masked[0].cell_is_masked, masked[1].cell_is_masked);
    }
}

#[test]
fn columns_are_masked_as_a_whole() {
    let (_root, database) = orders();
    let config = SamplerConfig { mask_columns: 0.3, ..config() };
    let (mut hidden, mut all) = (0.0, 0.0);
    for step in 0..10 {
        let batch = batch(&database, config.clone(), step);
        let mut columns: BTreeMap<(usize, i32), Vec<bool>> = BTreeMap::new();
        for at in 0..batch.cell_row.len() {
            let can_be_hidden = batch.cell_stype[at] > Stype::Identifier.code() as i8 && !batch.cell_is_target[at];
            if can_be_hidden {
                let column = (at / batch.shape.cells, batch.cell_column[at]);
                columns.entry(column).or_default().push(batch.cell_is_masked[at]);
            } else {
                assert!(!batch.cell_is_masked[at]);
            }
        }
        for cells in columns.values() {
            assert!(cells.iter().all(|&is_masked| is_masked == cells[0]));
            hidden += f64::from(u8::from(cells[0]));
            all += 1.0;
        }
    }
    assert!((hidden - 0.3 * all).abs() < 5.0 * (all * 0.21_f64).sqrt(), "{hidden} of {all}");
}

/// The links of a context: child, parent, key.
fn links(batch: &Batch, context: usize) -> Vec<(i16, i16, i16)> {
    let (rows, width) = (batch.shape.rows, batch.shape.parents);
    let at = |row: usize, link: usize| (context * rows + row) * width + link;
    let places = (0..rows).flat_map(|row| (0..width).map(move |link| (row, link)));
    let link = |(row, link)| (row as i16, batch.row_parents[at(row, link)], batch.row_parent_keys[at(row, link)]);
    let links: Vec<_> = places.clone().map(link).filter(|link| link.1 >= 0).collect();
    let is_packed = |&(row, link): &(usize, usize)| {
        link == 0 || batch.row_parents[at(row, link)] < 0 || batch.row_parents[at(row, link - 1)] >= 0
    };
    assert!(places.clone().all(|place| is_packed(&place)), "links stand in front");
    links
}

#[test]
fn pairs_are_links_taken_out_and_rows_that_are_no_parents() {
    let (_root, database) = orders();
    for num_links in [1, 6, 7, 600] {
        let whole = batch(&database, config(), 3);
        let asked = batch(&database, SamplerConfig { num_links, ..config() }, 3);
        assert_eq!(whole.cell_column, asked.cell_column);
        assert_eq!(whole.row_table, asked.row_table);
        for context in 0..40 {
            let (before, after) = (links(&whole, context), links(&asked, context));
            let mut taken = before.clone();
            taken.retain(|link| !after.contains(link));
            assert_eq!(before.iter().filter(|link| !taken.contains(link)).count(), after.len());
            let database_links = before.iter().filter(|link| link.2 < 2).count();
            assert_eq!(taken.len(), num_links.div_ceil(2).min(database_links));
            assert!(taken.iter().all(|link| link.2 < 2), "links of the task stay");
            let tables = &asked.row_table[context * asked.shape.rows..];
            let pair = |at: usize| {
                let at = context * num_links + at;
                ((asked.link_child[at], asked.link_parent[at], asked.link_key[at]), asked.link_is_true[at])
            };
            let mut truths = vec![];
            for at in 0..num_links {
                let (link, is_true) = pair(at);
                if link.0 < 0 {
                    assert_eq!((link, is_true), ((-1, -1, -1), false));
                } else if at % 2 == 0 {
                    assert!(is_true && taken.contains(&link));
                    truths.push(link);
                } else {
                    let (of, _) = pair(at - 1);
                    assert!(!is_true && (link.0, link.2) == (of.0, of.2) && link.1 != of.1);
                    assert_eq!(tables[link.1 as usize], tables[of.1 as usize]);
                    assert!(!before.contains(&link));
                }
            }
            truths.sort_unstable();
            taken.sort_unstable();
            assert_eq!(truths, taken);
        }
    }
}

#[test]
fn walk_features_by_hand() {
    // seed - entity - two orders, the first with a payer of its own; customer 1 points to itself
    let tables = [
        Table {
            name: "customers",
            keys: vec![0],
            rows: vec![untimed(&[None]), untimed(&[Some(1)])],
            ..Table::default()
        },
        Table {
            name: "orders",
            keys: vec![0, 0],
            rows: vec![untimed(&[Some(0), Some(1)]), untimed(&[Some(0), None])],
            ..Table::default()
        },
    ];
    let tasks =
        [Task { name: "t", anchor: 0, target: None, horizon: None, removed: vec![], seeds: vec![seed(0, 1, 0, 1.0)] }];
    let (_root, database) = database(&tables, &tasks);
    let config = SamplerConfig { walk_features: 3, batch_size: 1, max_rows: Some(6), ..config() };
    let batch = batch(&database, config.clone(), 0);
    let by_table: Vec<i32> = batch.row_table[..5].to_vec();
    assert_eq!(by_table, [2, 0, 1, by_table[3], by_table[4]]);
    let row = |row: usize| &batch.row_walk[3 * row..3 * row + 3];
    let third = 1.0_f32 / 3.0;
    assert_eq!(row(0), [0.0, third, 0.0]);
    assert_eq!(row(1)[..2], [1.0, 0.0]);
    // after two steps: back, or at one of the orders
    let orders: Vec<usize> = (0..5).filter(|&row| by_table[row] == 1).collect();
    assert!(orders.iter().all(|&order| row(order)[..2] == [0.0, third]));
    let payer = (2..5).find(|&row| by_table[row] == 0).unwrap();
    assert_eq!(row(payer), [0.0, 0.0, third / 2.0]);
    assert_eq!(row(5), [0.0; 3], "padding");
    for step in 0..3 {
        let sum: f32 = (0..5).map(|at| row(at)[step]).sum();
        assert!((sum - 1.0).abs() < 1e-6);
    }
    // a row on its own keeps the walk
    let alone = self::batch(&database, SamplerConfig { max_rows: Some(1), ..config }, 0);
    assert_eq!(alone.row_walk, [1.0; 3]);
}

#[test]
fn rows_are_seeds_at_their_own_time() {
    let order = |n: u32| Row {
        time: Some(if n == 7 { NEVER_VISIBLE } else { i64::from(n) }),
        parents: vec![Some(0)],
        cells: vec![],
    };
    let tables = [
        Table { name: "customers", rows: vec![untimed(&[]); 3], ..Table::default() },
        Table { name: "orders", keys: vec![0], rows: (0..400).map(order).collect(), ..Table::default() },
    ];
    let seeds = vec![seed(0, 1, 0, 5.0)];
    let tasks = [Task { name: "t", anchor: 0, target: None, horizon: Some(0), removed: vec![], seeds }];
    let (_root, database) = database(&tables, &tasks);
    let rows = |tables: &[&str], options: SamplerConfig| -> Vec<(i32, i64, i64)> {
        let tables = tables.iter().map(|&table| table.to_owned()).collect();
        let config = SamplerConfig { tasks: vec![], tables, shuffle: false, batch_size: 500, ..options };
        let batch = batch(&database, config, 0);
        assert!(batch.target_cell.iter().all(|&cell| cell == -1) && batch.target_is_null.iter().all(|&is| is));
        assert!(!batch.cell_is_target.contains(&true));
        let seeds = batch.seed_task.iter().zip(&batch.seed_index).zip(&batch.seed_time).zip(&batch.seed_is_padding);
        let real = seeds.filter(|&(_, &is_padding)| !is_padding);
        real.map(|(((&task, &index), &time), _)| (task, index, time)).collect()
    };
    let all = rows(&["customers", "orders"], config());
    // a row without a time is asked at the end of time, one whose time is null not at all
    assert_eq!(all[..3], [(1, 0, i64::MAX), (1, 1, i64::MAX), (1, 2, i64::MAX)]);
    let expected: Vec<_> = (0..400).filter(|&n| n != 7).map(|n| (2, n, n)).collect();
    assert_eq!(all[3..], expected);
    let cut = rows(&["orders"], SamplerConfig { database_cutoff: Some(20), ..config() });
    assert_eq!(cut.len(), 20);
    let of_split = |split| rows(&["orders"], SamplerConfig { split, ..config() });
    let (train, val, test) = (of_split(Split::Train), of_split(Split::Val), of_split(Split::Test));
    assert!((290..350).contains(&train.len()) && val.len() > 15 && test.len() > 15);
    let mut whole = [train, val, test].concat();
    whole.sort_unstable();
    assert_eq!(whole, expected);
    // the context starts at the row, sees nothing later, no label, and has one masked cell there
    let table = |mask_rate| SamplerConfig {
        tasks: vec![],
        tables: vec!["orders".into()],
        mask_rate: MaskRate::Every(mask_rate),
        seq_len: 1024,
        num_neighbors: 500.into(),
        ..config()
    };
    let contexts = batch(&database, table(1e-9), 0);
    for context in 0..40 {
        let (cells, rows) = (contexts.shape.cells, contexts.shape.rows);
        let tables = &contexts.row_table[context * rows..(context + 1) * rows];
        assert_eq!(tables[0], 1);
        assert!(tables.iter().all(|&table| table < 2));
        let orders = tables.iter().filter(|&&table| table == 1).count() as i64;
        let time = contexts.seed_time[context];
        assert_eq!(orders, time + i64::from(time < 7));
        let masked: Vec<usize> = (0..cells).filter(|&at| contexts.cell_is_masked[context * cells + at]).collect();
        assert_eq!(masked, [0]);
    }
    assert!(!batch(&database, table(0.0), 0).cell_is_masked.contains(&true));
    let sampler = Sampler::new(&database, SamplerConfig { split: Split::All, ..table(1.0) }).unwrap();
    let explained = sampler.explain_seed("orders", 9).unwrap();
    assert_eq!((explained.entity_row, explained.target_column.as_ref()), (9, None));
    assert!(explained.rows[0].cells[0].is_masked && explained.render().contains("(masked)"));
    assert!(sampler.explain_seed("orders", 7).unwrap_err().to_string().contains("row 7: its time is null"));
    assert!(sampler.explain_seed("orders", 400).is_err() && sampler.explain_seed("t", 0).is_err());
    let unknown = SamplerConfig { tables: vec!["order".into()], ..config() };
    let Err(error) = Sampler::new(&database, unknown) else { panic!("there is no such table") };
    assert!(error.to_string().contains("did you mean `orders`"), "{error}");
}

#[test]
fn weights_hold_for_any_number_of_processes() {
    let (_root, database) = orders();
    let config = |batch_size, rank, world_size| SamplerConfig {
        tables: vec!["customers".into(), "orders".into()],
        task_weights: Some(Weights(vec![1.0, 1.0, 2.0])),
        shuffle: true,
        batch_size,
        rank,
        world_size,
        seq_len: 8,
        ..config()
    };
    let sampler = |size, rank, world| Sampler::new(&database, config(size, rank, world)).unwrap();
    let seeds = |sampler: &Sampler, step| {
        let batch = sampler.batch(step).unwrap();
        batch.seed_task.into_iter().zip(batch.seed_index).collect::<Vec<_>>()
    };
    let whole = sampler(1024, 0, 1);
    let all: Vec<(i32, i64)> = (0..4).flat_map(|step| seeds(&whole, step)).collect();
    let count = |task| all.iter().filter(|seed| seed.0 == task).count();
    assert_eq!([count(0), count(1), count(2)], [1024, 1024, 2048]);
    for batch in all.chunks(64) {
        let orders = batch.iter().filter(|seed| seed.0 == 2).count();
        assert!((14..50).contains(&orders), "{orders} of 64");
    }
    let ranks = [sampler(32, 0, 2), sampler(32, 1, 2)];
    let shared: Vec<(i32, i64)> =
        (0..64).flat_map(|step| [seeds(&ranks[0], step), seeds(&ranks[1], step)].concat()).collect();
    assert_eq!(shared, all);
    let tiny = SamplerConfig { task_weights: Some(Weights(vec![1e-9, 1.0, 1.0])), ..config(4, 0, 1) };
    let Err(error) = Sampler::new(&database, tiny) else { panic!("no share for `t`") };
    assert!(error.to_string().contains("share of `t` is too small"), "{error}");
}
