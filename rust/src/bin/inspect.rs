//! `inspect DIR`: what is in a processed database, without Python.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use headwater::inspect::{Options, answer, page};
use headwater::{Database, Error, Result};

/// Shows a processed database: its tables, columns, keys, tasks and files, or one of them in detail.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The processed database.
    directory: PathBuf,
    /// With --vocabulary: only texts that contain this, without regard to case.
    pattern: Option<String>,
    /// This table with every column, its keys and their fan-out.
    #[arg(long, value_name = "TABLE")]
    table: Option<String>,
    /// This column with its histogram or most frequent values.
    #[arg(long, value_name = "TABLE.COLUMN")]
    column: Option<String>,
    /// The row of this table with this key, or #N for its number, with its neighbours.
    #[arg(long, num_args = 2, value_names = ["TABLE", "KEY"], allow_hyphen_values = true)]
    row: Option<Vec<String>>,
    /// This task with its splits and labels.
    #[arg(long, value_name = "TASK")]
    task: Option<String>,
    /// The texts of the vocabulary.
    #[arg(long)]
    vocabulary: bool,
    /// How many values, neighbours or texts are listed.
    #[arg(long)]
    limit: Option<usize>,
    /// Read every row of large tables too, instead of a sample.
    #[arg(long)]
    full: bool,
    /// Print JSON, for scripts.
    #[arg(long, conflicts_with = "html")]
    json: bool,
    /// Write one page for a browser, with the schema drawn, to this file.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["table", "column", "row", "task", "vocabulary"])]
    html: Option<PathBuf>,
}

fn text(arguments: Arguments) -> Result<String> {
    let database = Database::open(&arguments.directory)?;
    if let Some(path) = arguments.html {
        let page = page(&database, arguments.full)?;
        std::fs::write(&path, page).map_err(|source| Error::io(&path, source))?;
        return Ok(format!("{}\n", path.display()));
    }
    let options = Options {
        table: arguments.table,
        column: arguments.column,
        row: arguments.row.and_then(|row| <[String; 2]>::try_from(row).ok()).map(<(String, String)>::from),
        task: arguments.task,
        vocabulary: arguments.vocabulary,
        pattern: arguments.pattern,
        limit: arguments.limit,
        full: arguments.full,
        json: arguments.json,
    };
    answer(&database, &options)
}

fn main() -> ExitCode {
    headwater::cli::finish(text(Arguments::parse()))
}
