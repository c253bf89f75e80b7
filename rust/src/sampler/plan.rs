//! What a context of a task may show of each table, resolved once per sampler.

use super::config::{Identifiers, NumNeighbors, PerHop, SamplerConfig};
use crate::bitmap;
use crate::database::table_layout;
use crate::error::{Error, Result, suggestion};
use crate::format::record::CellPlace;
use crate::ids::ColumnId;
use crate::manifest::{ColumnManifest, Manifest, TableManifest, TaskKind, TaskManifest};
use crate::stype::Stype;

/// One column that is shown.
#[derive(Clone, Copy, Debug)]
pub struct ColumnPlan {
    /// Its position among the table's columns.
    pub position: usize,
    /// Where its cell lies in a record.
    pub place: CellPlace,
    /// Its id over the whole database.
    pub id: i32,
    /// Its semantic type.
    pub stype: Stype,
}

/// One foreign key, seen from one of its tables.
#[derive(Clone, Copy, Debug)]
pub struct LinkPlan {
    /// Its place in the record: among the parents, or among the lists of children.
    pub slot: usize,
    /// Its id over the whole database.
    pub key: u32,
    /// The table at its other end.
    pub table: u32,
}

/// One column that is shown, and its place among those shown.
#[derive(Clone, Copy, Debug)]
pub struct PlacedColumn {
    /// The column.
    pub column: ColumnPlan,
    /// Columns shown before it.
    pub offset: usize,
}

/// The cells of a row without nulls, by what is written for them. Only tables of at most 64 columns have one, and no
/// table where missing cells are shown.
#[derive(Clone, Debug)]
pub struct RowPlan {
    /// One bit per column: it is shown.
    pub shown: u64,
    /// Some column has missing cells.
    pub is_nullable: bool,
    /// Columns shown.
    pub len: usize,
    /// By column: its place among those shown.
    pub offsets: [u8; 64],
    /// What every cell has, in their order.
    pub blocks: Vec<Block>,
    /// Numerical columns.
    pub numbers: Vec<PlacedColumn>,
    /// Categorical and text columns.
    pub texts: Vec<PlacedColumn>,
    /// Boolean columns.
    pub truths: Vec<PlacedColumn>,
    /// Timestamp columns.
    pub moments: Vec<PlacedColumn>,
}

/// Eight cells, of which the last ones may be none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Block {
    /// Column ids.
    pub ids: [i32; 8],
    /// Stype codes.
    pub stypes: [i8; 8],
}

impl RowPlan {
    fn new(columns: &[ColumnPlan], shown: &[u32], is_nullable: bool) -> Option<Self> {
        let shown_columns: Vec<ColumnPlan> =
            columns.iter().filter(|column| bitmap::get(shown, column.position)).copied().collect();
        if columns.len() > 64 || shown_columns.is_empty() {
            return None;
        }
        let (mut offsets, mut blocks) = ([0; 64], vec![Block::default(); shown_columns.len().div_ceil(8)]);
        for (offset, column) in shown_columns.iter().enumerate() {
            offsets[column.position] = offset as u8;
            blocks[offset / 8].ids[offset % 8] = column.id;
            blocks[offset / 8].stypes[offset % 8] = column.stype.code() as i8;
        }
        let of = |stypes: &[Stype]| {
            let placed = shown_columns.iter().enumerate().map(|(offset, &column)| PlacedColumn { column, offset });
            placed.filter(|placed| stypes.contains(&placed.column.stype)).collect()
        };
        Some(Self {
            shown: shown_columns.iter().fold(0, |bits, column| bits | 1 << column.position),
            is_nullable,
            len: shown_columns.len(),
            offsets,
            blocks,
            numbers: of(&[Stype::Numerical]),
            texts: of(&[Stype::Categorical, Stype::Text]),
            truths: of(&[Stype::Boolean]),
            moments: of(&[Stype::Timestamp]),
        })
    }
}

/// What is shown of one table and where it leads.
#[derive(Clone, Debug)]
pub struct TablePlan {
    /// All columns, shown or not, by position.
    pub columns: Vec<ColumnPlan>,
    /// One bit per column: it is shown.
    pub shown: Vec<u32>,
    /// How a row is written at once.
    pub row: Option<RowPlan>,
    /// Identifiers of which the first one present is shown where a row would have no cell.
    pub spare_identifiers: Vec<ColumnPlan>,
    /// Keys this table holds.
    pub parents: Vec<LinkPlan>,
    /// Keys that point to this table.
    pub children: Vec<LinkPlan>,
}

/// Where the target of a cell-masking task stands.
#[derive(Clone, Copy, Debug)]
pub struct TargetPlan {
    /// Position in the anchor table's records.
    pub position: usize,
    /// No context may show it, not even a known label.
    pub is_removed: bool,
}

/// One task.
#[derive(Clone, Debug)]
pub struct TaskPlan {
    /// Its id.
    pub id: u32,
    /// The table of its own seeds, one past the tables of the database and of earlier tasks (kind table).
    pub table: u32,
    /// Its seeds are the rows of the anchor table, and nothing is asked of them.
    pub is_row: bool,
    /// The link from a seed to its entity.
    pub key: u32,
    /// The table of the entities.
    pub anchor_table: u32,
    /// The target's column id.
    pub target_column: i32,
    /// The target's semantic type.
    pub target_stype: Stype,
    /// The target's place in the anchor table (kind cell), or `None` (kind table).
    pub target: Option<TargetPlan>,
    /// The table whose rows a link task chooses among.
    pub target_table: Option<u32>,
    /// The column id of the observation time (kind table).
    pub time_column: Option<i32>,
    /// Microseconds until a label is known.
    pub horizon: Option<i64>,
    /// Earlier seeds of visited entities are shown.
    pub has_history: bool,
    /// By table id.
    pub tables: Vec<TablePlan>,
}

impl TaskPlan {
    /// Resolves a task.
    ///
    /// # Errors
    /// [`Error::Argument`] when the manifest names a target that its anchor table does not have.
    pub fn new(manifest: &Manifest, task: &TaskManifest, config: &SamplerConfig) -> Result<Self> {
        let anchor = &manifest.tables[task.anchor_table.idx()];
        let target = match task.kind {
            TaskKind::Table => None,
            TaskKind::Cell => Some(TargetPlan {
                position: anchor.columns.iter().position(|column| column.id == task.target_column_id).ok_or_else(
                    || {
                        let (name, column) = (&task.name, &task.target_column);
                        Error::Argument(format!("task `{name}`: table `{}` has no column `{column}`", anchor.name))
                    },
                )?,
                is_removed: task.remove_columns.contains(&task.target_column_id),
            }),
        };
        let table_plan = |table: &TableManifest| {
            let target = target.filter(|_| table.id == task.anchor_table).map(|target| target.position);
            TablePlan::new(manifest, table, &task.remove_columns, target, config)
        };
        Ok(Self {
            id: task.id.0,
            table: task.table_id.0,
            is_row: false,
            key: task.foreign_key_id.map_or(u32::MAX, |key| key.0),
            anchor_table: task.anchor_table.0,
            target_column: task.target_column_id.0 as i32,
            target_stype: task.target_stype,
            target,
            target_table: task.target_table.map(|table| table.0),
            time_column: task.time_column_id.filter(|id| !task.remove_columns.contains(id)).map(|id| id.0 as i32),
            horizon: task.horizon_us,
            // what a list named is in the tables themselves; that there was one says nothing
            has_history: config.history && task.kind == TaskKind::Table && task.target_table.is_none(),
            tables: manifest.tables.iter().map(table_plan).collect(),
        })
    }

    /// The rows of a table as seeds, without a target.
    fn of_table(manifest: &Manifest, table: &TableManifest, config: &SamplerConfig) -> Self {
        Self {
            id: manifest.tasks.len() as u32 + table.id.0,
            table: u32::MAX,
            is_row: true,
            key: u32::MAX,
            anchor_table: table.id.0,
            target_column: -1,
            target_stype: Stype::Identifier,
            target: None,
            target_table: None,
            time_column: None,
            horizon: None,
            has_history: false,
            tables: manifest.tables.iter().map(|table| TablePlan::new(manifest, table, &[], None, config)).collect(),
        }
    }
}

/// The plans of a sampler by task id, those of tables as tasks after them.
///
/// # Errors
/// As [`TaskPlan::new`].
pub fn plans(manifest: &Manifest, config: &SamplerConfig) -> Result<Vec<Option<TaskPlan>>> {
    let of_task = |task: &TaskManifest| {
        let is_asked = config.tasks.contains(&task.name);
        is_asked.then(|| TaskPlan::new(manifest, task, config)).transpose()
    };
    let of_table = |table: &TableManifest| {
        let is_asked = config.tables.contains(&table.name);
        Ok(is_asked.then(|| TaskPlan::of_table(manifest, table, config)))
    };
    manifest.tasks.iter().map(of_task).chain(manifest.tables.iter().map(of_table)).collect()
}

/// How many children are drawn, by foreign key (those of tasks included) and hop.
#[derive(Clone, Debug)]
pub struct Quotas(Vec<PerHop>);

impl Quotas {
    /// Resolves the names of foreign keys.
    ///
    /// # Errors
    /// [`Error::Argument`] when no foreign key has the name.
    pub fn new(manifest: &Manifest, config: &SamplerConfig) -> Result<Self> {
        let names = key_names(manifest);
        let by_key = match &config.num_neighbors {
            NumNeighbors::Every(numbers) => return Ok(Self(vec![numbers.clone(); names.len()])),
            NumNeighbors::ByKey(by_key) => by_key,
        };
        if let Some(unknown) = by_key.keys().find(|name| *name != "*" && !names.contains(name)) {
            let near = suggestion(unknown, names.iter().map(String::as_str));
            let near = if near.is_empty() { format!("; the keys are: {}", names.join(", ")) } else { near };
            return Err(Error::Argument(format!("num_neighbors: unknown foreign key `{unknown}`{near}")));
        }
        let other = by_key.get("*").cloned().unwrap_or(PerHop::Same(NumNeighbors::DEFAULT));
        Ok(Self(names.iter().map(|name| by_key.get(name).unwrap_or(&other).clone()).collect()))
    }

    /// Children drawn of a list, which are found at `hop`.
    #[inline]
    pub fn get(&self, key: u32, hop: u32) -> usize {
        match &self.0[key as usize] {
            PerHop::Same(number) => *number,
            PerHop::Each(each) => each[(hop as usize).min(each.len()) - 1],
        }
    }
}

/// `table.column` of every foreign key, then `task.column` of the link from each task's seeds to their entities.
pub fn key_names(manifest: &Manifest) -> Vec<String> {
    let keys = manifest.foreign_keys().map(|(table, key)| format!("{}.{}", table.name, key.column));
    let tasks = manifest.tasks.iter().map(|task| {
        let column = task.anchor_key.as_deref().unwrap_or("entity");
        format!("{}.{column}", task.name)
    });
    keys.chain(tasks).collect()
}

impl TablePlan {
    fn new(
        manifest: &Manifest,
        table: &TableManifest,
        removed: &[ColumnId],
        target: Option<usize>,
        config: &SamplerConfig,
    ) -> Self {
        let layout = table_layout(manifest, table);
        let column_plan = |(position, column): (usize, &ColumnManifest)| ColumnPlan {
            position,
            place: layout.place(position),
            id: column.id.0 as i32,
            stype: column.stype,
        };
        let columns: Vec<ColumnPlan> = table.columns.iter().enumerate().map(column_plan).collect();
        let (mut shown, mut spare) = (vec![0; bitmap::words(columns.len())], vec![]);
        for (plan, column) in columns.iter().zip(&table.columns) {
            if Some(plan.position) != target && removed.contains(&column.id) {
                continue;
            }
            if config.identifiers == Identifiers::Needed && column.stype == Stype::Identifier {
                spare.push(*plan);
            } else {
                bitmap::set(&mut shown, plan.position, true);
            }
        }
        let parents = table.foreign_keys.iter().enumerate();
        let children = manifest.foreign_keys().filter(|(_, key)| key.parent_table == table.id).enumerate();
        Self {
            row: if config.null_cells { None } else { RowPlan::new(&columns, &shown, layout.is_nullable()) },
            columns,
            shown,
            spare_identifiers: spare,
            parents: parents.map(|(slot, key)| LinkPlan { slot, key: key.id.0, table: key.parent_table.0 }).collect(),
            children: children
                .map(|(slot, (child, key))| LinkPlan { slot, key: key.id.0, table: child.id.0 })
                .collect(),
        }
    }
}
