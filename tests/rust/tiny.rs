//! Processed databases written by hand, row by row, for tests of the readers.

use std::collections::BTreeMap;
use std::path::Path;

use headwater::csr::{Children, NO_PARENT, time_order};
use headwater::format::packed::{TimeCodes, width_of};
use headwater::format::record::{ALWAYS_VISIBLE, Cell, CellEncoding};
use headwater::format::{FORMAT_VERSION, FileKind, FileWriter, graph, num_key_sections, table, task};
use headwater::{
    ColumnId, ColumnManifest, ColumnStatistics, Database, ForeignKeyId, ForeignKeyManifest, GRAPH_FILE, KeyKind,
    LabelStatistics, Manifest, Preview, SplitCounts, Stype, TableId, TableManifest, TaskId, TaskKind, TaskManifest,
    TimeStatistics, VOCABULARY_FILE, VocabularyManifest, table_layout,
};
use tempfile::TempDir;

const BUILD_ID: u64 = 0x7154;
/// Every moment has a number.
const TIMES: TimeCodes = TimeCodes { width: 8, base_us: i64::MIN + 1, unit_us: 1, first: 1, last: u64::MAX - 1 };

/// A table. Its first column, `n`, is added by [`write`]: a number that holds the row's own number.
#[derive(Clone, Default)]
pub struct Table {
    pub name: &'static str,
    pub columns: Vec<(&'static str, Stype)>,
    /// Parent tables.
    pub keys: Vec<usize>,
    pub rows: Vec<Row>,
}

#[derive(Clone, Default)]
pub struct Row {
    /// `None`: the table has no times.
    pub time: Option<i64>,
    pub parents: Vec<Option<u32>>,
    pub cells: Vec<Option<Cell>>,
}

/// A task; `target` is a column (counted without `n`) of the anchor table for cell masking, or `None`.
#[derive(Clone)]
pub struct Task {
    pub name: &'static str,
    pub anchor: usize,
    pub target: Option<usize>,
    pub horizon: Option<i64>,
    pub removed: Vec<u32>,
    pub seeds: Vec<Seed>,
}

#[derive(Clone, Copy)]
pub struct Seed {
    pub row: u32,
    pub time: i64,
    pub split: u8,
    pub value: Option<f32>,
}

pub fn row(time: i64, parents: &[Option<u32>]) -> Row {
    Row { time: Some(time), parents: parents.to_vec(), cells: vec![] }
}

pub fn untimed(parents: &[Option<u32>]) -> Row {
    Row { time: None, parents: parents.to_vec(), cells: vec![] }
}

pub fn seed(row: u32, time: i64, split: u8, value: f32) -> Seed {
    Seed { row, time, split, value: Some(value) }
}

/// Writes and opens a database.
pub fn database(tables: &[Table], tasks: &[Task]) -> (TempDir, Database) {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), tables, tasks, |_| {});
    let database = Database::open(root.path()).unwrap();
    database.verify().unwrap();
    (root, database)
}

/// Writes a database; `spoil` may change the children before they are written.
pub fn write(root: &Path, tables: &[Table], tasks: &[Task], mut spoil: impl FnMut(&mut Vec<Children<i64>>)) {
    let mut manifest = describe(tables, tasks);
    let mut children: Vec<Children<i64>> = vec![];
    for (idx, table) in tables.iter().enumerate() {
        let times: Vec<i64> = table.rows.iter().map(time_of).collect();
        for (slot, &parent) in table.keys.iter().enumerate() {
            let parents: Vec<u32> = table.rows.iter().map(|row| row.parents[slot].unwrap_or(NO_PARENT)).collect();
            children.push(Children::scatter(tables[parent].rows.len(), &parents, &times, &time_order(&times)));
        }
        assert_eq!(manifest.tables[idx].foreign_keys.len(), table.keys.len());
    }
    spoil(&mut children);
    write_tables(root, &manifest, tables, &children);
    let mut file = FileWriter::create(root, GRAPH_FILE, FileKind::Graph, BUILD_ID, 2 * children.len()).unwrap();
    let holders = manifest.foreign_keys().map(|(table, _)| table.num_rows);
    for (key, (children, rows)) in children.iter().zip(holders).enumerate() {
        let indices = children.indices.iter().map(|&row| u64::from(row));
        file.packed(graph::indices(key as u32), width_of(u64::from(rows)), indices).unwrap();
        let code = TIMES.coder();
        file.packed(graph::times(key as u32), TIMES.width, children.times.iter().map(|&time| code(time))).unwrap();
    }
    file.finish().unwrap();
    let mut file = FileWriter::create(root, VOCABULARY_FILE, FileKind::Vocabulary, BUILD_ID, 2).unwrap();
    file.texts((0..manifest.vocabulary.num_encoded).map(|id| format!("text {id}"))).unwrap();
    file.finish().unwrap();
    for (task, description) in tasks.iter().zip(&manifest.tasks) {
        write_task(root, tables, task, &description.file);
    }
    manifest.write(root).unwrap();
}

fn time_of(row: &Row) -> i64 {
    row.time.unwrap_or(ALWAYS_VISIBLE)
}

fn write_tables(root: &Path, manifest: &Manifest, tables: &[Table], children: &[Children<i64>]) {
    for (table, description) in tables.iter().zip(&manifest.tables) {
        let layout = table_layout(manifest, description);
        let mut bytes = vec![0; layout.section_len(table.rows.len()).unwrap()];
        for (n, row) in table.rows.iter().enumerate() {
            let mut record = layout.write(&mut bytes[n * layout.stride()..]);
            record.set_time(time_of(row));
            for (slot, parent) in row.parents.iter().enumerate() {
                record.set_parent(slot, parent.unwrap_or(NO_PARENT));
            }
            for (slot, key) in manifest.children_of(description.id).enumerate() {
                let indptr = &children[key.idx()].indptr;
                record.set_children(slot, indptr[n], indptr[n + 1] - indptr[n]);
            }
            record.set_cell(0, Cell::Numerical(n as f32), &[]);
            for (column, cell) in row.cells.iter().enumerate() {
                if let Some(cell) = *cell {
                    record.set_cell(1 + column, cell, &[]);
                }
            }
        }
        let sections = 2 + num_key_sections(KeyKind::Int);
        let mut file = FileWriter::create(root, &description.file, FileKind::Table, BUILD_ID, sections).unwrap();
        file.values(table::RECORDS, &bytes).unwrap();
        file.integer_keys(&(0..table.rows.len() as u64).map(|n| 100 + n).collect::<Vec<_>>(), false).unwrap();
        file.values::<u32>(table::VALUES, &[]).unwrap();
        file.finish().unwrap();
    }
}

fn write_task(root: &Path, tables: &[Table], task: &Task, name: &str) {
    let seeds = &task.seeds;
    let rows: Vec<u32> = seeds.iter().map(|seed| seed.row).collect();
    let times: Vec<i64> = seeds.iter().map(|seed| seed.time).collect();
    let index = Children::scatter(tables[task.anchor].rows.len(), &rows, &times, &time_order(&times));
    let mut file = FileWriter::create(root, name, FileKind::Task, BUILD_ID, 13).unwrap();
    file.values(task::ROWS, &rows).unwrap();
    file.values(task::TIMES, &times).unwrap();
    file.values(task::SPLITS, &seeds.iter().map(|seed| seed.split).collect::<Vec<_>>()).unwrap();
    file.values(task::VALUES, &seeds.iter().map(|seed| seed.value.unwrap_or(0.0)).collect::<Vec<_>>()).unwrap();
    file.values(task::VOCAB, &vec![u32::MAX; seeds.len()]).unwrap();
    file.values(task::IS_NULL, &seeds.iter().map(|seed| u8::from(seed.value.is_none())).collect::<Vec<_>>()).unwrap();
    file.values(task::INDPTR, &index.indptr).unwrap();
    file.values(task::INDICES, &index.indices).unwrap();
    file.values(task::INDEX_TIMES, &index.times).unwrap();
    file.values::<i64>(task::LABEL_TIMES, &[]).unwrap();
    file.values(task::FIRST_TEXT, &[0u32]).unwrap();
    file.texts::<&str>([]).unwrap();
    file.finish().unwrap();
}

fn column(id: &mut u32, name: &str, stype: Stype) -> ColumnManifest {
    *id += 1;
    let statistics = ColumnStatistics { mean: Some(0.0), std: Some(1.0), ..ColumnStatistics::default() };
    let encoding = CellEncoding { width: CellEncoding::widest(stype), nullable: true, ..CellEncoding::default() };
    ColumnManifest { id: ColumnId(*id - 1), name: name.into(), stype, description: String::new(), statistics, encoding }
}

fn describe(tables: &[Table], tasks: &[Task]) -> Manifest {
    let (mut columns, mut keys) = (0, 0);
    let described: Vec<TableManifest> = tables
        .iter()
        .enumerate()
        .map(|(idx, table)| TableManifest {
            id: TableId::from(idx),
            name: table.name.into(),
            description: String::new(),
            file: format!("tables/{}.bin", table.name),
            num_rows: table.rows.len() as u32,
            primary_key: None,
            key_kind: KeyKind::Int,
            temporal_column: None,
            null_time_visible: false,
            times: TIMES,
            columns: std::iter::once(("n", Stype::Numerical))
                .chain(table.columns.iter().copied())
                .map(|(name, stype)| column(&mut columns, name, stype))
                .collect(),
            foreign_keys: (0..table.keys.len())
                .map(|slot| {
                    keys += 1;
                    let edges = table.rows.iter().filter(|row| row.parents[slot].is_some()).count() as u64;
                    ForeignKeyManifest {
                        id: ForeignKeyId(keys - 1),
                        column: format!("key{slot}"),
                        parent_table: TableId::from(table.keys[slot]),
                        edges,
                        dangling: 0,
                        null: table.rows.len() as u64 - edges,
                        max_children: edges,
                    }
                })
                .collect(),
        })
        .collect();
    let num_foreign_keys = keys;
    let described_tasks = tasks
        .iter()
        .enumerate()
        .map(|(idx, task)| describe_task(&described, idx, task, &mut columns, num_foreign_keys))
        .collect();
    Manifest {
        checksum: String::new(),
        format_version: FORMAT_VERSION,
        build_id: format!("{BUILD_ID:016x}"),
        name: "tiny".into(),
        num_tables: described.len() as u32,
        tables: described,
        time: TimeStatistics { mean_us: 100.0, std_us: 10.0 },
        stats_until_us: None,
        tasks: described_tasks,
        vocabulary: VocabularyManifest { num_encoded: 8, num_texts: 8 },
        num_columns: columns,
        num_foreign_keys,
        embedder: None,
        warnings: vec![],
        files: BTreeMap::new(),
    }
}

fn describe_task(tables: &[TableManifest], idx: usize, task: &Task, columns: &mut u32, keys: u32) -> TaskManifest {
    let anchor = &tables[task.anchor];
    let splits = |code| task.seeds.iter().filter(|seed| seed.split == code).count() as u32;
    let target = task.target.map(|target| &anchor.columns[1 + target]);
    let is_table = target.is_none();
    let time_column = is_table.then(|| column(columns, "at", Stype::Timestamp).id);
    let own_target = is_table.then(|| column(columns, "label", Stype::Numerical));
    let target = target.cloned().or(own_target).unwrap();
    TaskManifest {
        id: TaskId::from(idx),
        name: task.name.into(),
        description: String::new(),
        file: format!("tasks/{}.bin", task.name),
        kind: if is_table { TaskKind::Table } else { TaskKind::Cell },
        anchor_table: anchor.id,
        anchor_key: is_table.then(|| "entity".into()),
        target_column: target.name.clone(),
        target_stype: target.stype,
        target_table: None,
        top_k: None,
        observation_time_column: is_table.then(|| "at".into()),
        horizon_us: task.horizon,
        remove_columns: task.removed.iter().map(|&id| ColumnId(id)).collect(),
        metric: None,
        query: None,
        table_id: if is_table { TableId::from(tables.len() + idx) } else { anchor.id },
        target_column_id: target.id,
        time_column_id: time_column,
        foreign_key_id: is_table.then(|| ForeignKeyId(keys + idx as u32)),
        num_seeds: task.seeds.len() as u32,
        splits: SplitCounts { train: splits(0), val: splits(1), test: splits(2) },
        statistics: LabelStatistics { mean: 0.0, std: 1.0 },
        base_rate: None,
        classes: vec![],
        num_texts: 0,
        preview: Preview::default(),
        warnings: vec![],
    }
}
