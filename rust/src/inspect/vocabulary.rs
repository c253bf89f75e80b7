//! The texts of a database: how many, which column takes how many of them, and which contain a pattern.

use serde::Serialize;

use crate::database::Database;
use crate::error::Result;
use crate::preprocess::text_places;
use crate::stype::Stype;

/// The texts of a database.
#[derive(Clone, Debug, Serialize)]
pub struct Vocabulary {
    /// All texts, those of tasks included.
    pub num_texts: u32,
    /// Texts that only tasks need.
    pub num_of_tasks: u32,
    /// Bytes of all texts, UTF-8.
    pub bytes: u64,
    /// The longest text, in characters.
    pub longest: u64,
    /// Distinct values per categorical or text column.
    pub columns: Vec<ColumnTexts>,
    /// What was searched for, without regard to case.
    pub pattern: Option<String>,
    /// Texts that contain the pattern; all of them without one.
    pub num_matches: u64,
    /// The first of those.
    pub matches: Vec<Match>,
}

/// The texts one column takes.
#[derive(Clone, Debug, Serialize)]
pub struct ColumnTexts {
    /// The column, as `table.column`.
    pub column: String,
    /// Its semantic type.
    pub stype: Stype,
    /// Distinct texts.
    pub distinct: u64,
}

/// A text that was searched for.
#[derive(Clone, Debug, Serialize)]
pub struct Match {
    /// Its vocabulary id.
    pub id: u32,
    /// The text.
    pub text: String,
    /// The columns and labels that take it, as `table.column` or `task.column`; looked up only for a pattern.
    pub columns: Vec<String>,
}

/// Reads every text once and keeps the first `limit` that contain the pattern.
pub(super) fn vocabulary(database: &Database, pattern: Option<&str>, limit: usize) -> Result<Vocabulary> {
    let manifest = database.manifest();
    let sizes = manifest.vocabulary;
    let mut found = Vocabulary {
        num_texts: sizes.num_texts,
        num_of_tasks: sizes.num_texts.saturating_sub(sizes.num_encoded),
        bytes: 0,
        longest: 0,
        columns: Vec::new(),
        pattern: pattern.map(str::to_owned),
        num_matches: 0,
        matches: Vec::new(),
    };
    for table in &manifest.tables {
        for column in table.columns.iter().filter(|column| matches!(column.stype, Stype::Categorical | Stype::Text)) {
            let name = format!("{}.{}", table.name, column.name);
            let distinct = column.statistics.distinct.unwrap_or(0);
            found.columns.push(ColumnTexts { column: name, stype: column.stype, distinct });
        }
    }
    let wanted = pattern.map(str::to_lowercase);
    for id in 0..sizes.num_texts {
        let text = database.text(id)?;
        found.bytes += text.len() as u64;
        found.longest = found.longest.max(text.chars().count() as u64);
        if wanted.as_ref().is_some_and(|wanted| !text.to_lowercase().contains(wanted)) {
            continue;
        }
        found.num_matches += 1;
        if found.matches.len() < limit {
            found.matches.push(Match { id, text, columns: Vec::new() });
        }
    }
    if pattern.is_some() && !found.matches.is_empty() {
        let ids: Vec<u32> = found.matches.iter().map(|found| found.id).collect();
        for place in text_places(database.path(), &ids)? {
            let name = format!("{}.{}", place.table, place.column);
            found
                .matches
                .iter_mut()
                .filter(|found| found.id == place.text)
                .for_each(|found| found.columns.push(name.clone()));
        }
    }
    Ok(found)
}
