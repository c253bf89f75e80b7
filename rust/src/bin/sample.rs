//! `sample DIR --task T --seed-index I`: one context as a tree of rows and cells, without Python.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use headwater::sampler::{Sampler, SamplerConfig, Split};
use headwater::{Database, Error, Result};

/// Draws one context and shows its rows, its cells, and what stayed hidden.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The processed database.
    directory: PathBuf,
    /// The task.
    #[arg(long)]
    task: String,
    /// Position among all seeds of the task, counted from 0.
    #[arg(long, default_value_t = 0)]
    seed_index: u32,
    /// Cells of the context.
    #[arg(long, default_value_t = 256)]
    seq_len: usize,
    /// Children drawn per row and foreign key.
    #[arg(long, default_value_t = 16)]
    num_neighbors: usize,
    /// `uniform` or `recent` children.
    #[arg(long, default_value = "uniform")]
    strategy: String,
    /// Labelled examples of other entities.
    #[arg(long, default_value_t = 0)]
    examples: usize,
    /// `similar`, `recent` or `random` examples.
    #[arg(long, default_value = "similar")]
    example_choice: String,
    /// Links walked from the seed's row.
    #[arg(long)]
    max_hops: Option<usize>,
    /// Seed of every random number.
    #[arg(long, default_value_t = 0)]
    rng_seed: u64,
    /// Print JSON, for scripts.
    #[arg(long)]
    json: bool,
}

fn text(arguments: &Arguments) -> Result<String> {
    let database = Database::open(&arguments.directory)?;
    let config = SamplerConfig {
        tasks: vec![arguments.task.clone()],
        split: Split::All,
        batch_size: 1,
        seq_len: arguments.seq_len,
        num_neighbors: arguments.num_neighbors.into(),
        strategy: arguments.strategy.parse()?,
        examples: arguments.examples,
        example_choice: arguments.example_choice.parse()?,
        max_hops: arguments.max_hops,
        rng_seed: arguments.rng_seed,
        shuffle: false,
        prefetch: 0,
        ..SamplerConfig::default()
    };
    let explanation = Sampler::new(&database, config)?.explain_seed(&arguments.task, arguments.seed_index)?;
    if arguments.json {
        let json = serde_json::to_string(&explanation).map_err(|error| Error::Argument(error.to_string()))?;
        return Ok(json + "\n");
    }
    Ok(explanation.render())
}

fn main() -> ExitCode {
    headwater::cli::finish(text(&Arguments::parse()))
}
