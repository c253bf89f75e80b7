//! Contexts per CPU-second:
//! `cargo bench --bench sampler -- DATABASE TASK [seq_len] [num_neighbors] [seconds] [mapped|memory] [batches]`.
//!
//! Prints one line per number of threads: contexts made, per second of wall clock and per second of CPU time, the
//! mean number of cells and rows per context, and the bytes of a batch. With a number of batches it prints instead a hash
//! of every field over them, by which two builds are compared.

use std::io::Write;
use std::time::{Duration, Instant};

use headwater::format::Residence;
use headwater::prefetch::Next;
use headwater::sampler::{Array, BATCH_FIELDS, Batch, Sampler, SamplerConfig};
use headwater::{Database, Error, Result};
use xxhash_rust::xxh3::Xxh3;

/// As in the Python module.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// CPU time of this process, user and system, in seconds (Linux: in ticks of 10 ms).
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn bytes(batch: &Batch) -> usize {
    let shape = batch.shape;
    BATCH_FIELDS
        .iter()
        .map(|field| field.axes.iter().map(|&axis| shape.axis(axis)).product::<usize>() * field.dtype.size())
        .sum()
}

fn measure(database: &Database, config: &SamplerConfig, seconds: f64) -> Result<String> {
    let sampler = Sampler::new(database, config.clone())?;
    let mut contexts = 0;
    let (mut cells, mut rows, mut batch_bytes) = (0, 0, 0);
    let mut next = |contexts: &mut usize| -> Result<()> {
        loop {
            match sampler.poll(Duration::from_secs(1))? {
                Next::Ready(batch) => {
                    if *contexts == 0 {
                        cells = batch.cell_is_padding.iter().filter(|&&is| !is).count() / batch.shape.contexts;
                        rows = batch.row_table.iter().filter(|&&table| table >= 0).count() / batch.shape.contexts;
                        batch_bytes = bytes(&batch);
                    }
                    *contexts += batch.shape.contexts;
                    return Ok(());
                }
                Next::End => return Err(Error::Argument("the stream ended".into())),
                Next::Pending => {}
            }
        }
    };
    for _ in 0..200 {
        next(&mut contexts)?; // warm: pages mapped, buffers grown
    }
    let mut contexts = 1;
    let (began, cpu) = (Instant::now(), cpu_seconds());
    while began.elapsed().as_secs_f64() < seconds {
        next(&mut contexts)?;
    }
    let (wall, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    Ok(format!(
        "threads {:2}  {:9.0} contexts/s  {:9.0} contexts/CPU-s  ({cells} cells, {rows} rows each; {:.2} MB a batch)",
        config.workers(),
        contexts as f64 / wall,
        contexts as f64 / cpu,
        batch_bytes as f64 / 1e6,
    ))
}

/// A hash per field over the first `batches`, to compare two builds: same input, same bytes.
fn digest(database: &Database, config: SamplerConfig, batches: u64) -> Result<String> {
    let sampler = Sampler::new(database, config)?;
    let mut hashes: Vec<Xxh3> = vec![Xxh3::new(); BATCH_FIELDS.len()];
    for step in 0..batches {
        for (hash, (_, array)) in hashes.iter_mut().zip(sampler.batch(step)?.into_arrays()) {
            match array {
                Array::Bool(values) => hash.update(bytemuck::cast_slice(&values)),
                Array::Int8(values) => hash.update(bytemuck::cast_slice(&values)),
                Array::Int16(values) => hash.update(bytemuck::cast_slice(&values)),
                Array::Int32(values) => hash.update(bytemuck::cast_slice(&values)),
                Array::Int64(values) => hash.update(bytemuck::cast_slice(&values)),
                Array::Float32(values) => hash.update(bytemuck::cast_slice(&values)),
            }
        }
    }
    let lines = BATCH_FIELDS.iter().zip(hashes).map(|(field, hash)| format!("{:016x}  {}", hash.digest(), field.name));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

fn run() -> Result<String> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [path, task, ..] = arguments.as_slice() else {
        return Ok(
            "usage: cargo bench --bench sampler -- DATABASE TASK [seq_len] [num_neighbors] [seconds] [mapped|memory] \
             [batches]"
                .into(),
        );
    };
    let number = |at: usize, default: usize| arguments.get(at).and_then(|text| text.parse().ok()).unwrap_or(default);
    let in_memory = arguments.get(5).is_some_and(|text| text == "memory");
    let database = Database::open_in(path, if in_memory { Residence::Memory } else { Residence::Mapped })?;
    let config = SamplerConfig {
        tasks: vec![task.clone()],
        seq_len: number(2, 1024),
        num_neighbors: number(3, 16).into(),
        ..SamplerConfig::default()
    };
    let seconds = number(4, 3) as f64;
    if let Some(batches) = arguments.get(6).and_then(|text| text.parse().ok()) {
        return digest(&database, config, batches);
    }
    let lines: Vec<String> = [(0, 0), (1, 2), (2, 4)]
        .into_iter()
        .map(|(threads, prefetch)| measure(&database, &SamplerConfig { threads, prefetch, ..config.clone() }, seconds))
        .collect::<Result<_>>()?;
    Ok(lines.join("\n"))
}

fn main() -> std::process::ExitCode {
    let text = match run() {
        Ok(text) => text,
        Err(error) => format!("error: {error}"),
    };
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(_) => std::process::ExitCode::FAILURE,
    }
}
