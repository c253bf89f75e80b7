//! Names in `metadata.json` -> regular files of the input folder.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::schema::{Schema, TableSchema};

/// One part file of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PartFile {
    /// Its path relative to the input folder, as messages show it.
    pub(super) name: String,
    /// Where it is.
    pub(super) path: PathBuf,
}

/// The part files of a table: the listed names in their order, those of a pattern sorted by name.
///
/// # Errors
/// [`Error::Schema`] when a file is missing, no regular file or listed twice, or a pattern matches nothing.
pub(super) fn part_files(input: &Path, table: &TableSchema) -> Result<Vec<PartFile>> {
    let place = format!("table `{}`", table.name);
    let mut names: Vec<String> = Vec::new();
    for pattern in &table.files {
        if is_pattern(pattern) && !input.join(pattern).exists() {
            let matched = expand(input, pattern)?;
            if matched.is_empty() {
                return Err(Error::schema(place, format!("no file in {} matches `{pattern}`", input.display())));
            }
            names.extend(matched);
        } else {
            names.push(pattern.clone());
        }
    }
    let mut seen = BTreeSet::new();
    names
        .into_iter()
        .map(|name| {
            let path = input.join(&name);
            if !seen.insert(name.clone()) {
                return Err(Error::schema(place.clone(), format!("file `{name}` is listed twice; list it once")));
            }
            let found = std::fs::metadata(&path).map_err(|error| {
                let listed = nearest(input, &name);
                Error::schema(place.clone(), format!("file `{}`: {error}{listed}", path.display()))
            })?;
            if found.is_file() {
                Ok(PartFile { name, path })
            } else {
                let message =
                    format!("file `{name}` is a folder or device; expected a parquet file or a pattern of them");
                Err(Error::schema(place.clone(), message))
            }
        })
        .collect()
}

/// Parquet files of the folder that neither a table nor a task names.
pub(super) fn unlisted(input: &Path, schema: &Schema, used: &BTreeSet<String>) -> Result<Vec<String>> {
    let labels: BTreeSet<&str> = schema.tasks.iter().filter_map(|task| task.table.as_deref()).collect();
    let mut names = expand(input, "*.parquet")?;
    names.retain(|name| !used.contains(name) && !labels.contains(name.as_str()));
    Ok(names)
}

fn nearest(input: &Path, name: &str) -> String {
    let known = expand(input, "*.parquet").unwrap_or_default();
    crate::error::suggestion(name, known.iter().map(String::as_str))
}

fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?'])
}

/// Names below `input` that match `pattern`, sorted; hidden ones must be named.
fn expand(input: &Path, pattern: &str) -> Result<Vec<String>> {
    let mut names = vec![String::new()];
    for part in pattern.split('/').filter(|part| !part.is_empty() && *part != ".") {
        let mut longer = Vec::new();
        for name in names {
            let join = |part: &str| if name.is_empty() { part.to_owned() } else { format!("{name}/{part}") };
            if !is_pattern(part) {
                if input.join(join(part)).exists() {
                    longer.push(join(part));
                }
                continue;
            }
            let folder = input.join(&name);
            if !folder.is_dir() {
                continue;
            }
            for entry in std::fs::read_dir(&folder).map_err(|source| Error::io(&folder, source))? {
                let entry = entry.map_err(|source| Error::io(&folder, source))?.file_name();
                if let Some(entry) = entry.to_str().filter(|entry| matches(part, entry)) {
                    longer.push(join(entry));
                }
            }
        }
        names = longer;
    }
    names.sort_unstable();
    Ok(names)
}

/// Whether a name matches a pattern of `*` (any characters) and `?` (one character).
fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut next, mut star) = (0, 0, None);
    while next < name.len() {
        if at < pattern.len() && pattern[at] == '*' {
            star = Some((at, next));
            at += 1;
        } else if at < pattern.len() && (pattern[at] == '?' || pattern[at] == name[next]) {
            at += 1;
            next += 1;
        } else if let Some((star_at, star_next)) = star {
            star = Some((star_at, star_next + 1));
            (at, next) = (star_at + 1, star_next + 1);
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|&rest| rest == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_within_a_name() {
        for (pattern, name, expected) in [
            ("*.parquet", "a.parquet", true),
            ("*.parquet", ".a.parquet", false),
            ("part-?.parquet", "part-1.parquet", true),
            ("part-?.parquet", "part-12.parquet", false),
            ("*", "", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXcYb", false),
            ("é?*", "éü", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn patterns_expand_sorted_and_through_folders() {
        let root = tempfile::tempdir().unwrap();
        for name in ["b/2.parquet", "b/1.parquet", "a/9.parquet", "c.parquet"] {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"").unwrap();
        }
        assert_eq!(expand(root.path(), "*/*.parquet").unwrap(), ["a/9.parquet", "b/1.parquet", "b/2.parquet"]);
        assert_eq!(expand(root.path(), "b/?.parquet").unwrap(), ["b/1.parquet", "b/2.parquet"]);
        assert_eq!(expand(root.path(), "x/*.parquet").unwrap(), Vec::<String>::new());
    }
}
