//! The Python class `Database`: whole columns, keys and seeds of a processed database as numpy arrays.
#![allow(clippy::needless_pass_by_value)] // arguments arrive converted, as values

use std::ffi::OsString;
use std::path::PathBuf;

use half::f16;
use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::{detach, to_json};
use crate::database::{Database, Key, TableView, Vectors};
use crate::error::{Error, Result, suggestion};
use crate::format::Residence;
use crate::format::record::Cell;
use crate::ids::{ForeignKeyId, RowId};
use crate::inspect::{self, Options, Summary, find_table};
use crate::manifest::{ColumnManifest, KeyKind, TableManifest, TaskManifest};
use crate::stype::Stype;

/// An array of integers that Python owns.
type Integers<'py> = Bound<'py, PyArray1<i64>>;

/// A processed database, open for reading. It can be shared between threads.
#[pyclass(frozen, name = "Database", module = "tributary._headwater")]
pub(super) struct PyDatabase(Database);

/// A primary key on its way in or out.
#[derive(FromPyObject, IntoPyObject)]
enum PyKey {
    Int(i64),
    Uint(u64),
    String(String),
}

impl PyDatabase {
    /// The database itself, for the other native classes.
    pub(super) fn inner(&self) -> &Database {
        &self.0
    }

    fn table(&self, name: &str) -> Result<(&TableManifest, TableView<'_>)> {
        let table = find_table(&self.0, name)?;
        Ok((table, self.0.table(table.id)))
    }
}

/// The task of a name.
pub(super) fn find_task<'a>(database: &'a Database, name: &str) -> Result<&'a TaskManifest> {
    let manifest = database.manifest();
    manifest.task(name).ok_or_else(|| {
        let near = suggestion(name, manifest.tasks.iter().map(|task| task.name.as_str()));
        Error::Argument(format!("unknown task `{name}`{near}"))
    })
}

#[pymethods]
impl PyDatabase {
    #[new]
    #[pyo3(signature = (path, *, in_memory=false))]
    fn new(py: Python<'_>, path: PathBuf, in_memory: bool) -> PyResult<Self> {
        let residence = if in_memory { Residence::Memory } else { Residence::Mapped };
        detach(py, || Database::open_in(path, residence)).map(Self)
    }

    /// The folder it was opened from.
    #[getter]
    fn path(&self) -> OsString {
        self.0.path().as_os_str().to_owned()
    }

    /// Identity of the encoded content, in hex.
    #[getter]
    fn build_id(&self) -> &str {
        &self.0.manifest().build_id
    }

    /// What the database says of itself, as JSON.
    #[getter]
    fn manifest(&self) -> PyResult<String> {
        to_json(self.0.manifest())
    }

    /// Primary keys of rows of a table.
    fn row_keys(&self, py: Python<'_>, table: &str, rows: PyReadonlyArray1<'_, i64>) -> PyResult<Vec<PyKey>> {
        let (table, view) = self.table(table)?;
        let rows = rows.as_array().to_vec();
        detach(py, || {
            rows.into_iter()
                .map(|row| {
                    let row = row_id(table, view.num_rows(), row)?;
                    match self.0.key(table.id, row)? {
                        Some(Key::Int(key)) => Ok(PyKey::Int(key)),
                        Some(Key::Uint(key)) => Ok(PyKey::Uint(key)),
                        Some(Key::String(key)) => Ok(PyKey::String(key)),
                        None => Err(no_keys(table)),
                    }
                })
                .collect()
        })
    }

    /// Rows of primary keys; -1 where there is no such row.
    fn find_rows<'py>(&self, py: Python<'py>, table: &str, keys: Vec<PyKey>) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let (table, _) = self.table(table)?;
        let rows = detach(py, || keys.into_iter().map(|key| self.find_row(table, key)).collect::<Result<Vec<_>>>())?;
        Ok(rows.into_pyarray(py))
    }

    /// The vectors of the vocabulary or of the columns.
    fn embeddings<'py>(&self, py: Python<'py>, which: &str) -> PyResult<Bound<'py, PyArray2<f16>>> {
        let which = vectors_of(which)?;
        let file = detach(py, || self.0.vectors(which))?;
        let array = PyArray2::zeros(py, [file.number, file.dimension], false);
        array.readwrite().as_slice_mut()?.copy_from_slice(file.values());
        Ok(array)
    }

    /// The seeds of a task, field by field.
    fn task_seeds<'py>(&self, py: Python<'py>, task: &str) -> PyResult<Bound<'py, PyDict>> {
        let task = self.0.task(find_task(&self.0, task)?.id);
        let seeds = PyDict::new(py);
        seeds.set_item("row", task.rows.iter().map(|&row| i64::from(row)).collect::<Vec<_>>().into_pyarray(py))?;
        seeds.set_item("time", PyArray1::from_slice(py, task.times))?;
        seeds.set_item("split", task.splits.iter().map(|&split| split as i8).collect::<Vec<_>>().into_pyarray(py))?;
        seeds.set_item("value", PyArray1::from_slice(py, task.values))?;
        seeds.set_item("vocab", task.vocab.iter().map(|&id| id as i32).collect::<Vec<_>>().into_pyarray(py))?;
        seeds.set_item("is_null", task.is_null.iter().map(|&null| null != 0).collect::<Vec<_>>().into_pyarray(py))?;
        Ok(seeds)
    }

    /// The rows that the seeds of a link task name: where the list of each seed lies, and all lists.
    fn task_targets<'py>(&self, py: Python<'py>, task: &str) -> PyResult<(Integers<'py>, Integers<'py>)> {
        let described = find_task(&self.0, task)?;
        if described.target_table.is_none() {
            return Err(Error::Argument(format!("task `{task}` is no link task; its labels are in task_seeds")).into());
        }
        let seeds = self.0.task(described.id);
        let wide = |numbers: &[u32]| numbers.iter().map(|&number| i64::from(number)).collect::<Vec<_>>();
        Ok((wide(seeds.target_indptr).into_pyarray(py), wide(seeds.targets).into_pyarray(py)))
    }

    /// One row with its cells decoded, its parents and the number of its children, as JSON.
    fn rows(&self, py: Python<'_>, table: &str, row: i64) -> PyResult<String> {
        let (table, view) = self.table(table)?;
        let row = row_id(table, view.num_rows(), row)?;
        to_json(&detach(py, || inspect::row(&self.0, table.id, row))?)
    }

    /// What there is to say of the database, with time ranges, fan-outs and base rates, as JSON.
    fn summary(&self, py: Python<'_>) -> PyResult<String> {
        to_json(&detach(py, || Summary::of(&self.0, true))?)
    }

    /// What `tributary inspect` prints: the whole database, or the one thing that is asked for.
    #[pyo3(signature = (*, table=None, column=None, row=None, task=None, vocabulary=false, pattern=None, limit=None,
                        full=false, json=false))]
    #[allow(clippy::too_many_arguments, clippy::fn_params_excessive_bools)] // the options of the command
    fn inspect(
        &self,
        py: Python<'_>,
        table: Option<String>,
        column: Option<String>,
        row: Option<(String, String)>,
        task: Option<String>,
        vocabulary: bool,
        pattern: Option<String>,
        limit: Option<usize>,
        full: bool,
        json: bool,
    ) -> PyResult<String> {
        let options = Options { table, column, row, task, vocabulary, pattern, limit, full, json };
        detach(py, || inspect::answer(&self.0, &options))
    }

    /// The whole database as one HTML page.
    #[pyo3(signature = (*, full=false))]
    fn page(&self, py: Python<'_>, full: bool) -> PyResult<String> {
        detach(py, || inspect::page(&self.0, full))
    }

    /// Texts of the vocabulary.
    fn vocab(&self, py: Python<'_>, ids: Vec<i64>) -> PyResult<Vec<String>> {
        detach(py, || {
            ids.into_iter()
                .map(|id| {
                    let known = u32::try_from(id).map_err(|_| {
                        Error::Argument(format!("vocabulary id {id} is out of range; ids count from 0"))
                    })?;
                    self.0.text(known)
                })
                .collect()
        })
    }

    /// The values of a column and which of them are there.
    fn column<'py>(
        &self,
        py: Python<'py>,
        table: &str,
        column: &str,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyArray1<bool>>)> {
        let (table, view) = self.table(table)?;
        let idx = table.columns.iter().position(|known| known.name == column).ok_or_else(|| {
            let near = suggestion(column, table.columns.iter().map(|known| known.name.as_str()));
            Error::Argument(format!("table `{}` has no encoded column `{column}`{near}", table.name))
        })?;
        let (values, is_valid) = py.detach(|| column_values(view, &table.columns[idx], idx));
        let values = match values {
            ColumnValues::Float64(values) => values.into_pyarray(py).into_any(),
            ColumnValues::Int64(values) => values.into_pyarray(py).into_any(),
            ColumnValues::Int32(values) => values.into_pyarray(py).into_any(),
            ColumnValues::Bool(values) => values.into_pyarray(py).into_any(),
        };
        Ok((values, is_valid.into_pyarray(py)))
    }

    /// The time of each row of a table.
    fn row_times<'py>(&self, py: Python<'py>, table: &str) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let (_, view) = self.table(table)?;
        let times: Vec<i64> =
            py.detach(|| (0..view.num_rows()).map(|row| view.record(RowId::from(row)).time()).collect());
        Ok(times.into_pyarray(py))
    }

    /// The parent row of each row of the table that holds a foreign key; -1 for none.
    fn parents<'py>(&self, py: Python<'py>, foreign_key: u32) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let manifest = self.0.manifest();
        let (table, _) = manifest.foreign_keys().nth(foreign_key as usize).ok_or_else(|| {
            Error::Argument(format!(
                "foreign key {foreign_key} is out of range; the database has {}",
                manifest.num_foreign_keys
            ))
        })?;
        let slot = table.foreign_keys.iter().position(|key| key.id == ForeignKeyId(foreign_key));
        let (slot, view) = (slot.unwrap_or_default(), self.0.table(table.id));
        let parents: Vec<i64> = py.detach(|| {
            (0..view.num_rows()).map(|row| view.record(RowId::from(row)).parent(slot).map_or(-1, i64::from)).collect()
        });
        Ok(parents.into_pyarray(py))
    }
}

impl PyDatabase {
    fn find_row(&self, table: &TableManifest, key: PyKey) -> Result<i64> {
        let is_string = matches!(key, PyKey::String(_));
        let key = match key {
            PyKey::Int(key) => Key::Int(key),
            PyKey::Uint(key) => Key::Uint(key),
            PyKey::String(key) => Key::String(key),
        };
        match table.key_kind {
            KeyKind::None => return Err(no_keys(table)),
            KeyKind::Int | KeyKind::Uint if is_string => {
                return Err(Error::Argument(format!("the keys of table `{}` are integers, found {key:?}", table.name)));
            }
            KeyKind::String if !is_string => {
                return Err(Error::Argument(format!("the keys of table `{}` are strings, found {key:?}", table.name)));
            }
            KeyKind::Int | KeyKind::Uint | KeyKind::String => {}
        }
        Ok(self.0.find(table.id, &key)?.map_or(-1, |row| i64::from(row.0)))
    }
}

/// A column decoded to the user's units.
enum ColumnValues {
    Float64(Vec<f64>),
    Int64(Vec<i64>),
    Int32(Vec<i32>),
    Bool(Vec<bool>),
}

fn column_values(view: TableView<'_>, column: &ColumnManifest, idx: usize) -> (ColumnValues, Vec<bool>) {
    let cells = || (0..view.num_rows()).map(|row| view.record(RowId::from(row)).cell(idx));
    let values = match column.stype {
        Stype::Numerical => {
            let (mean, std) = (column.statistics.mean.unwrap_or(0.0), column.statistics.std.unwrap_or(1.0));
            let decode = |cell| match cell {
                Some(Cell::Numerical(z)) => f64::from(z) * std + mean,
                _ => f64::NAN,
            };
            ColumnValues::Float64(cells().map(decode).collect())
        }
        Stype::Timestamp => {
            let decode = |cell| if let Some(Cell::Timestamp(time_us)) = cell { time_us } else { 0 };
            ColumnValues::Int64(cells().map(decode).collect())
        }
        Stype::Categorical | Stype::Text => {
            let decode = |cell| match cell {
                Some(Cell::Categorical(id) | Cell::Text(id)) => id as i32,
                _ => -1,
            };
            ColumnValues::Int32(cells().map(decode).collect())
        }
        Stype::Boolean => {
            let decode = |cell| matches!(cell, Some(Cell::Boolean(true)));
            ColumnValues::Bool(cells().map(decode).collect())
        }
        Stype::Identifier => ColumnValues::Bool(cells().map(|cell| cell.is_some()).collect()),
    };
    (values, cells().map(|cell| cell.is_some()).collect())
}

fn row_id(table: &TableManifest, num_rows: usize, row: i64) -> Result<RowId> {
    u32::try_from(row)
        .ok()
        .filter(|&row| (row as usize) < num_rows)
        .map(RowId)
        .ok_or_else(|| Error::Argument(format!("table `{}` has {num_rows} rows, row {row} was asked for", table.name)))
}

fn no_keys(table: &TableManifest) -> Error {
    Error::Argument(format!("table `{}` has no primary key", table.name))
}

/// The file of vectors of a name.
pub(super) fn vectors_of(which: &str) -> Result<Vectors> {
    match which {
        "vocab" => Ok(Vectors::Vocabulary),
        "column" => Ok(Vectors::Column),
        _ => Err(Error::Argument(format!("unknown vectors `{which}`; expected `vocab` or `column`"))),
    }
}
