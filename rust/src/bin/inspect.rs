//! `inspect DIR [--json] [--table T --row N]`: what is in a processed database, without Python.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use headwater::inspect::{Summary, find_table, row};
use headwater::{Database, Result, RowId};

/// Shows the tables, columns, keys, tasks and files of a processed database.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The processed database.
    directory: PathBuf,
    /// Print JSON, for scripts.
    #[arg(long)]
    json: bool,
    /// Show one row of this table, decoded, instead of the summary.
    #[arg(long, requires = "row")]
    table: Option<String>,
    /// The number of the row, counted from 0.
    #[arg(long, requires = "table")]
    row: Option<u32>,
}

fn text(arguments: &Arguments) -> Result<String> {
    let database = Database::open(&arguments.directory)?;
    if let (Some(table), Some(idx)) = (&arguments.table, arguments.row) {
        let table = find_table(&database, table)?;
        return Ok(format!("{:#}\n", row(&database, table.id, RowId(idx))?));
    }
    let summary = Summary::of(&database);
    if arguments.json {
        let json = serde_json::to_string(&summary).expect("a summary is plain data");
        return Ok(json + "\n");
    }
    Ok(summary.render())
}

fn main() -> ExitCode {
    let written = match text(&Arguments::parse()) {
        Ok(text) => std::io::stdout().write_all(text.as_bytes()),
        Err(error) => {
            // a message that cannot be written has no other place to go
            let _ = writeln!(std::io::stderr(), "error: {error}");
            return ExitCode::from(2);
        }
    };
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(1) }
}
