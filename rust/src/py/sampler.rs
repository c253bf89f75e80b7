//! The Python class `Sampler`: options in, batches of numpy arrays out.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use numpy::ndarray::ArrayD;
use numpy::{Element, PyArrayDyn, PyReadonlyArray1};
use pyo3::exceptions::{PyStopIteration, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::database::{PyDatabase, find_task};
use super::detach;
use crate::database::Database;
use crate::error::{Error, Result};
use crate::prefetch::Next;
use crate::sampler::{Array, Batch, MaskRate, NumNeighbors, PerHop, Questions, Sampler, SamplerConfig, Share, Weights};

/// How long a wait lasts before signals are looked at.
const PATIENCE: Duration = Duration::from_millis(50);

/// Draws batches from a database. It can be shared between threads.
#[pyclass(frozen, name = "Sampler", module = "tributary._headwater")]
pub(super) struct PySampler(Sampler);

#[pymethods]
impl PySampler {
    #[new]
    #[pyo3(signature = (
        database, tasks, *, tables=vec![], task_weights=None, split="train", seeds=None, batch_size=32, seq_len=1024, max_rows=None,
        num_neighbors=None, strategy="uniform", max_hops=None, null_cells=false, identifiers="all",
        strict_time=false, database_cutoff=None, lookback=None, max_lag=None, history=true, mask_rate=None, mask_columns=0.0,
        walk_features=0, num_links=0, examples=0, example_choice="similar", example_share=0.5, example_walks=128,
        example_walk_length=8,
        shuffle=true, rng_seed=0, rank=0, world_size=1, threads=0, prefetch=2
    ))]
    #[allow(clippy::too_many_arguments, clippy::fn_params_excessive_bools, clippy::needless_pass_by_value)]
    fn new(
        py: Python<'_>,
        database: PyRef<'_, PyDatabase>,
        tasks: Vec<String>,
        tables: Vec<String>,
        task_weights: Option<Vec<f64>>,
        split: &str,
        seeds: Option<(PyReadonlyArray1<'_, i64>, Option<PyReadonlyArray1<'_, i64>>)>,
        batch_size: i64,
        seq_len: i64,
        max_rows: Option<i64>,
        num_neighbors: Option<Bound<'_, PyAny>>,
        strategy: &str,
        max_hops: Option<i64>,
        null_cells: bool,
        identifiers: &str,
        strict_time: bool,
        database_cutoff: Option<i64>,
        lookback: Option<i64>,
        max_lag: Option<i64>,
        history: bool,
        mask_rate: Option<Bound<'_, PyAny>>,
        mask_columns: f64,
        walk_features: i64,
        num_links: i64,
        examples: i64,
        example_choice: &str,
        example_share: f64,
        example_walks: i64,
        example_walk_length: i64,
        shuffle: bool,
        rng_seed: i128,
        rank: i64,
        world_size: i64,
        threads: i64,
        prefetch: i64,
    ) -> PyResult<Self> {
        let database = database.inner().clone();
        let config = SamplerConfig {
            seeds: seeds.map(|(rows, times)| questions(&database, &tasks, &rows, times.as_ref())).transpose()?,
            tasks,
            tables,
            task_weights: task_weights.map(Weights),
            split: split.parse()?,
            batch_size: count("batch_size", batch_size)?,
            seq_len: count("seq_len", seq_len)?,
            max_rows: max_rows.map(|rows| count("max_rows", rows)).transpose()?,
            num_neighbors: match num_neighbors {
                Some(numbers) => neighbors(&numbers)?,
                None => NumNeighbors::DEFAULT.into(),
            },
            strategy: strategy.parse()?,
            max_hops: max_hops.map(|hops| count("max_hops", hops)).transpose()?,
            null_cells,
            identifiers: identifiers.parse()?,
            strict_time,
            database_cutoff,
            lookback,
            max_lag,
            history,
            mask_rate: mask_rate.map_or(Ok(MaskRate::Every(0.0)), |rates| masks(&rates))?,
            mask_columns,
            walk_features: count("walk_features", walk_features)?,
            num_links: count("num_links", num_links)?,
            examples: count("examples", examples)?,
            example_choice: example_choice.parse()?,
            example_share: Share(example_share),
            example_walks: count("example_walks", example_walks)?,
            example_walk_length: count("example_walk_length", example_walk_length)?,
            shuffle,
            rng_seed: count("rng_seed", rng_seed)?,
            rank: count("rank", rank)?,
            world_size: count("world_size", world_size)?,
            threads: count("threads", threads)?,
            prefetch: count("prefetch", prefetch)?,
        };
        detach(py, || Sampler::new(&database, config)).map(Self)
    }

    /// Seeds per epoch, over all processes.
    #[getter]
    fn num_seeds(&self) -> u64 {
        self.0.num_seeds()
    }

    /// Steps after which every seed was sampled at least once; the length of a pass in fixed order.
    #[getter]
    fn steps_per_epoch(&self) -> u64 {
        self.0.steps_per_epoch()
    }

    /// The options, as JSON.
    #[getter]
    fn config(&self) -> PyResult<String> {
        to_json(self.0.config())
    }

    /// The batch of a step, made by the calling thread.
    fn batch<'py>(&self, py: Python<'py>, step: i64) -> PyResult<Bound<'py, PyDict>> {
        let step = count("step", step)?;
        let batch = interruptible(py, |is_unwanted| self.0.batch_unless(step, is_unwanted))?;
        arrays(py, batch)
    }

    /// The next batch in order; raises `StopIteration` behind the last one of a fixed order.
    fn next_batch<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        loop {
            // a signal that arrives during the wait must not lose a batch: it is raised before asking again
            match interruptible(py, |is_unwanted| self.0.poll_unless(PATIENCE, is_unwanted))? {
                Next::Ready(batch) => return arrays(py, batch),
                Next::End => return Err(PyStopIteration::new_err("every seed of the pass was handed out")),
                Next::Pending => py.check_signals()?,
            }
        }
    }

    /// Where `next_batch` stands, as JSON.
    fn get_state(&self, py: Python<'_>) -> PyResult<String> {
        detach(py, || self.0.state())
    }

    /// Continues where another sampler of the same database and options stood.
    fn set_state(&self, py: Python<'_>, state: &str) -> PyResult<()> {
        detach(py, || self.0.restore(state))
    }

    /// Ends the worker threads; can be repeated.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.0.close());
    }

    /// The context at a position of the order of seeds, decoded, as JSON.
    fn explain(&self, py: Python<'_>, position: i64) -> PyResult<String> {
        let position = count("position", position)?;
        let explanation = detach(py, || self.0.explain(position))?;
        to_json(&explanation)
    }

    /// The context of a seed of a task, or of a row of a table, decoded, as JSON.
    fn explain_seed(&self, py: Python<'_>, source: &str, index: i64) -> PyResult<String> {
        let index = count("index", index)?;
        let explanation = detach(py, || self.0.explain_seed(source, index))?;
        to_json(&explanation)
    }
}

/// Runs `work` without the GIL. What it is given says whether a signal handler raised meanwhile; that is raised then.
fn interruptible<T: Send>(py: Python<'_>, work: impl FnOnce(&dyn Fn() -> bool) -> Result<T> + Send) -> PyResult<T> {
    py.detach(|| {
        let (looked, raised) = (Cell::new(Instant::now()), Cell::new(None));
        let is_unwanted = || {
            if looked.get().elapsed() < PATIENCE {
                return false;
            }
            looked.set(Instant::now());
            let signal = Python::try_attach(|py| py.check_signals().err()).flatten();
            let is_raised = signal.is_some();
            raised.set(signal);
            is_raised
        };
        let result = work(&is_unwanted);
        raised.into_inner().map_or_else(|| Ok(result?), Err)
    })
}

/// Children drawn per row and foreign key: a number, one per hop, or either by foreign key.
fn neighbors(numbers: &Bound<'_, PyAny>) -> PyResult<NumNeighbors> {
    if let Ok(by_key) = numbers.extract::<BTreeMap<String, Bound<'_, PyAny>>>() {
        let per_hop = by_key.into_iter().map(|(key, numbers)| Ok((key, per_hop(&numbers)?)));
        return per_hop.collect::<PyResult<_>>().map(NumNeighbors::ByKey);
    }
    per_hop(numbers).map(NumNeighbors::Every)
}

/// Probability that a cell is masked: a number, or a mapping of stypes to numbers.
fn masks(rates: &Bound<'_, PyAny>) -> PyResult<MaskRate> {
    if let Ok(rate) = rates.extract() {
        return Ok(MaskRate::Every(rate));
    }
    rates.extract().map(MaskRate::ByStype).map_err(|_| {
        PyTypeError::new_err(format!(
            "mask_rate: expected a probability, or a mapping of stypes to probabilities, found {rates}"
        ))
    })
}

fn per_hop(numbers: &Bound<'_, PyAny>) -> PyResult<PerHop> {
    let number = |number| count("num_neighbors", number);
    if let Ok(same) = numbers.extract::<i64>() {
        return Ok(PerHop::Same(number(same)?));
    }
    let each: Vec<i64> = numbers.extract().map_err(|_| {
        PyTypeError::new_err(format!(
            "num_neighbors: expected a number, a list with a number per hop, or a mapping of foreign keys \
             (`table.column`, `*` for all others) to either, found {numbers}"
        ))
    })?;
    Ok(PerHop::Each(each.into_iter().map(number).collect::<Result<_>>()?))
}

/// Rows and times of the caller's own seeds.
fn questions(
    database: &Database,
    tasks: &[String],
    rows: &PyReadonlyArray1<'_, i64>,
    times: Option<&PyReadonlyArray1<'_, i64>>,
) -> PyResult<Questions> {
    let name = tasks.first().map_or("", String::as_str);
    let task = find_task(database, name)?.id;
    let times = times.map(PyReadonlyArray1::as_slice).transpose()?;
    Ok(Questions::new(database, task, rows.as_slice()?, times)?)
}

/// An argument that must not be negative.
fn count<N, T>(name: &str, found: N) -> Result<T>
where
    N: Copy + std::fmt::Display,
    T: TryFrom<N>,
{
    T::try_from(found).map_err(|_| Error::Argument(format!("{name} is out of range, found {found}")))
}

fn to_json(value: &impl serde::Serialize) -> PyResult<String> {
    serde_json::to_string(value).map_err(|error| PyValueError::new_err(error.to_string()))
}

/// The arrays of a batch by name; no value is copied.
fn arrays(py: Python<'_>, batch: Batch) -> PyResult<Bound<'_, PyDict>> {
    let shape = batch.shape;
    let fields = PyDict::new(py);
    for (field, array) in batch.into_arrays() {
        let axes: Vec<usize> = field.axes.iter().map(|&axis| shape.axis(axis)).collect();
        let array = match array {
            Array::Bool(values) => shaped(py, &axes, values)?,
            Array::Int8(values) => shaped(py, &axes, values)?,
            Array::Int16(values) => shaped(py, &axes, values)?,
            Array::Int32(values) => shaped(py, &axes, values)?,
            Array::Int64(values) => shaped(py, &axes, values)?,
            Array::Float32(values) => shaped(py, &axes, values)?,
        };
        fields.set_item(field.name, array)?;
    }
    Ok(fields)
}

fn shaped<'py, T: Element>(py: Python<'py>, axes: &[usize], values: Vec<T>) -> PyResult<Bound<'py, PyAny>> {
    let array = ArrayD::from_shape_vec(axes, values).map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok(PyArrayDyn::from_owned_array(py, array).into_any())
}
