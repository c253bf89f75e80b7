//! `preprocess INPUT OUTPUT`: parquet tables to a processed database, without Python.
//!
//! It runs the encode stage, materialises cell tasks and tasks with ready labels, and publishes. Tasks with SQL and
//! the embedding vectors need `tributary preprocess`.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use headwater::preprocess::{EncodeOptions, encode, publish, write_task};
use headwater::schema::Schema;
use headwater::{Error, Manifest, Result, timestamp};

/// Turns parquet tables described by a metadata.json into a processed database.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The folder with metadata.json and the parquet files.
    input: PathBuf,
    /// The processed database to make.
    output: PathBuf,
    /// The description, when it is not metadata.json in the input folder.
    #[arg(long)]
    metadata: Option<PathBuf>,
    /// Worker threads, 0 for one per core; the output does not depend on it.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Make a dangling foreign key an error.
    #[arg(long)]
    strict: bool,
    /// Take means and deviations only from rows before this date or time.
    #[arg(long)]
    stats_until: Option<String>,
    /// Memory for keys, links, times and texts, as 4GiB or 500MB, before they go to scratch files beside the output; a
    /// quarter of what is available when left out. The output does not depend on it.
    #[arg(long, value_parser = bytes)]
    memory: Option<u64>,
    /// Replace an older processed database once the new one is complete.
    #[arg(long)]
    force: bool,
}

/// A number of bytes, with or without a unit.
fn bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 9] = [
        ("", 1),
        ("B", 1),
        ("KB", 1000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("KIB", 1 << 10),
        ("MIB", 1 << 20),
        ("GIB", 1 << 30),
    ];
    let expected = || "expected a size as 4GiB, 500MB or a number of bytes".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..digits], text[digits..].trim().to_ascii_uppercase());
    let unit = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(expected)?.1;
    let number = number.parse::<f64>().map_err(|_| expected())?;
    Ok((number * unit as f64) as u64)
}

fn run(arguments: &Arguments) -> Result<()> {
    let output = &arguments.output;
    if output.exists() {
        if !arguments.force {
            return Err(Error::Argument(format!("{} exists; use --force to replace it", output.display())));
        }
        // only what is a processed database is ever replaced
        Manifest::read(output)?;
    }
    let staging = sibling(output, "staging")?;
    std::fs::create_dir(&staging).map_err(|source| Error::io(&staging, source))?;
    let made = make(arguments, &staging).and_then(|()| replace(&staging, output));
    if made.is_err() {
        // the error that is reported is the one that came first
        let _ = std::fs::remove_dir_all(&staging);
    }
    made
}

/// Runs every stage that needs no Python.
fn make(arguments: &Arguments, staging: &Path) -> Result<()> {
    let until = |text: &String| {
        let expected = "expected a date or time as 2020-01-31";
        timestamp::parse(text).ok_or_else(|| Error::Argument(format!("--stats-until is `{text}`, {expected}")))
    };
    let options = EncodeOptions {
        metadata: arguments.metadata.clone(),
        threads: arguments.threads,
        strict: arguments.strict,
        stats_until: arguments.stats_until.as_ref().map(until).transpose()?,
        memory: arguments.memory,
    };
    let report = encode(&arguments.input, staging, &options, &|_, _, _| Ok(()))?;
    report.warnings.iter().for_each(|warning| say(&format!("warning: {warning}")));
    let schema = Schema::read(arguments.metadata.as_deref().unwrap_or(&arguments.input))?;
    let normalised = schema.normalised();
    for task in &schema.tasks {
        if task.query.is_some() {
            say(&format!("warning: task `{}` needs SQL and is left out; run `tributary preprocess`", task.name));
            continue;
        }
        let labels = task.table.as_ref().map(|table| arguments.input.join(table));
        let report = write_task(staging, &task.name, labels.as_deref(), &normalised)?;
        report.warnings.iter().for_each(|warning| say(&format!("warning: task `{}`: {warning}", task.name)));
    }
    publish(staging)?;
    for table in &report.tables {
        say(&format!("{}: {} rows, {} columns", table.name, table.num_rows, table.columns.len()));
    }
    say(&format!("{} texts; embedding vectors need `tributary preprocess`", report.num_encoded));
    Ok(())
}

/// Puts the complete staging folder in the place of the output.
fn replace(staging: &Path, output: &Path) -> Result<()> {
    let rename = |from: &Path, to: &Path| std::fs::rename(from, to).map_err(|source| Error::io(to, source));
    if !output.exists() {
        return rename(staging, output);
    }
    let old = sibling(output, "old")?;
    rename(output, &old)?;
    rename(staging, output)?;
    std::fs::remove_dir_all(&old).map_err(|source| Error::io(&old, source))
}

/// A hidden folder beside the output, this process's own.
fn sibling(output: &Path, purpose: &str) -> Result<PathBuf> {
    let name = output.file_name().ok_or_else(|| Error::Argument(format!("{} has no name", output.display())))?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{purpose}-{}", std::process::id()));
    Ok(output.with_file_name(hidden))
}

fn say(line: &str) {
    // a message that cannot be written has no other place to go
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error}"));
            ExitCode::from(2)
        }
    }
}
