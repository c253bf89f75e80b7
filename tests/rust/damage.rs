//! Processed files and manifests with some numbers changed and every hash made right, so that only their content can
//! be refused: they are refused or read, never a crash.

use std::path::Path;
use std::sync::OnceLock;

use headwater::inspect::{Summary, row};
use headwater::preprocess::{EncodeOptions, encode, publish, write_task};
use headwater::sampler::{Sampler, SamplerConfig, Split};
use headwater::{Database, Key, MANIFEST_FILE, RowId};
use proptest::prelude::*;
use serde_json::Value;
use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_128};

use crate::shop::{days, flags, floats, ints, strings, write_parquet};

const METADATA: &str = r#"{"name": "odd", "tables": {
  "hubs": {"primary_key": "id", "columns": {"id": {"stype": "identifier"}, "note": {"stype": "text"}}},
  "events": {"primary_key": "id", "temporal_column": "at", "columns": {
    "id": {"stype": "identifier"}, "hub": {"stype": "identifier", "foreign_key": "hubs.id"},
    "at": {"stype": "timestamp"}, "until": {"stype": "timestamp"}, "few": {"stype": "numerical"},
    "many": {"stype": "numerical"}, "kind": {"stype": "categorical"}, "note": {"stype": "text"},
    "is_new": {"stype": "boolean"}}}},
  "tasks": {"kind": {"anchor_table": "events", "target_column": "kind"}}}"#;
const ROWS: i64 = 400;

fn known(texts: &[String]) -> Vec<Option<&str>> {
    texts.iter().map(|text| Some(text.as_str())).collect()
}

fn shown(texts: &[Option<String>]) -> Vec<Option<&str>> {
    texts.iter().map(Option::as_deref).collect()
}

/// Every file of a database with columns of every encoding, the manifest last.
fn good() -> &'static [(String, Vec<u8>)] {
    static GOOD: OnceLock<Vec<(String, Vec<u8>)>> = OnceLock::new();
    GOOD.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let (input, staging) = (folder.path().join("input"), folder.path().join("staging"));
        std::fs::create_dir_all(&input).unwrap();
        std::fs::create_dir_all(&staging).unwrap();
        std::fs::write(input.join("metadata.json"), METADATA).unwrap();
        let names: Vec<String> = (0..30).map(|hub| format!("hub {:02}", hub * 7 % 30)).collect();
        let notes: Vec<String> = (0..30).map(|hub| format!("note {hub} ").repeat(100)).collect();
        let hubs = vec![("id", strings(&known(&names))), ("note", strings(&known(&notes)))];
        write_parquet(&input.join("hubs.parquet"), hubs);
        let rows = || 0..ROWS;
        let some = |row: i64| row % 11 != 3;
        let texts = |texts: &[String], by: i64| -> Vec<Option<String>> {
            rows().map(|row| some(row).then(|| texts[(row * by % 30) as usize].clone())).collect()
        };
        let (hub, kind) = (texts(&names, 17), texts(&notes, 13));
        let events = vec![
            ("id", ints(&rows().map(|row| row * 7919 % ROWS * 1000).collect::<Vec<_>>())),
            ("hub", strings(&shown(&hub))),
            ("at", days(&rows().map(|row| some(row).then_some(row * 31 % 90)).collect::<Vec<_>>())),
            ("until", days(&rows().map(|row| Some(row * 77)).collect::<Vec<_>>())),
            ("few", floats(&rows().map(|row| some(row).then_some((row % 9) as f64)).collect::<Vec<_>>())),
            ("many", floats(&rows().map(|row| Some(row as f64 / 7.0)).collect::<Vec<_>>())),
            ("kind", strings(&shown(&kind))),
            ("note", strings(&shown(&kind))),
            ("is_new", flags(&rows().map(|row| some(row).then_some(row % 2 == 0)).collect::<Vec<_>>())),
        ];
        write_parquet(&input.join("events.parquet"), events);
        encode(&input, &staging, &EncodeOptions::default(), &|_, _, _| Ok(())).unwrap();
        write_task(&staging, "kind", None, METADATA).unwrap();
        publish(&staging).unwrap();
        let database = Database::open(&staging).unwrap();
        database.verify().unwrap();
        let encodings = || database.manifest().tables[1].columns.iter().map(|column| column.encoding);
        assert!(encodings().any(|encoding| encoding.dictionary.is_some()) && encodings().any(|e| e.nullable));
        let names = database.manifest().files.keys().cloned().chain([MANIFEST_FILE.to_owned()]);
        names.map(|name| (name.clone(), std::fs::read(staging.join(name)).unwrap())).collect()
    })
}

/// A binary file with right hashes.
fn repaired(mut bytes: Vec<u8>) -> Vec<u8> {
    let number = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    let sections = u32::from_le_bytes(bytes[40..44].try_into().unwrap()) as usize;
    for at in (0..sections).map(|section| 64 + 32 * section) {
        let (offset, len) = (number(&bytes, at + 8), number(&bytes, at + 16));
        let hash = xxh3_64(&bytes[offset..offset + len]);
        bytes[at + 24..at + 32].copy_from_slice(&hash.to_le_bytes());
    }
    bytes[48..56].fill(0);
    let mut hasher = Xxh3::new();
    hasher.update(&bytes[..64 + 32 * sections]);
    bytes[48..56].copy_from_slice(&hasher.digest().to_le_bytes());
    bytes
}

/// The manifest as text with its right checksum.
fn manifest_text(mut manifest: Value) -> Vec<u8> {
    manifest["checksum"] = "0".repeat(32).into();
    let text = manifest.to_string();
    let checksum = format!("{:032x}", xxh3_128(text.as_bytes()));
    text.replacen(&"0".repeat(32), &checksum, 1).into_bytes()
}

fn write(root: &Path, changed: &str, bytes: &[u8], manifest: &[u8]) {
    for (name, good) in good() {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let bytes = if name == changed { bytes } else { good };
        std::fs::write(path, if name == MANIFEST_FILE { manifest } else { bytes }).unwrap();
    }
}

/// Everything a reader does with a database, errors welcome.
fn use_all(root: &Path) {
    let Ok(database) = Database::open(root) else { return };
    let _ = (database.verify(), Summary::of(&database, true));
    for table in &database.manifest().tables {
        for number in (0..table.num_rows).step_by(19).chain([table.num_rows.saturating_sub(1)]) {
            let _ = row(&database, table.id, RowId(number));
        }
        for key in [Key::Int(i64::MIN), Key::Int(5000), Key::Uint(u64::MAX), Key::String("hub 07".into())] {
            let found = database.find(table.id, &key);
            assert!(found.ok().flatten().is_none_or(|row| row.0 < table.num_rows));
        }
    }
    for id in 0..database.manifest().vocabulary.num_texts.min(100) {
        let _ = database.text(id);
    }
    for null_cells in [false, true] {
        let tasks = vec!["kind".to_owned()];
        let config = SamplerConfig { tasks, split: Split::All, seq_len: 64, null_cells, ..SamplerConfig::default() };
        if let Ok(sampler) = Sampler::new(&database, SamplerConfig { threads: 0, prefetch: 0, ..config }) {
            let _ = sampler.batch(0);
            for position in 0..8 {
                let _ = sampler.explain(position).map(|explanation| explanation.render());
            }
        }
    }
}

/// Every whole number in a JSON value, in order.
fn numbers<'v>(value: &'v mut Value, found: &mut Vec<&'v mut Value>) {
    match value {
        Value::Number(number) if !number.is_f64() => found.push(value),
        Value::Array(values) => values.iter_mut().for_each(|value| numbers(value, found)),
        Value::Object(values) => values.values_mut().for_each(|value| numbers(value, found)),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn changed_content_is_refused_or_read(
        file in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![
            any::<u64>(), 0u64..300, Just(u64::MAX), any::<u64>().prop_map(|number| number << 32)
        ], 1usize..=8), 1..12),
    ) {
        let binary: Vec<_> = good().iter().filter(|(name, bytes)| name != MANIFEST_FILE && bytes.starts_with(b"TRIBUTRY")).collect();
        let (name, original) = file.get(&binary);
        let mut bytes = original.clone();
        let begin = 64 + 32 * u32::from_le_bytes(bytes[40..44].try_into().unwrap()) as usize;
        for (at, number, len) in changes {
            let at = begin + at.index(bytes.len() - begin - 8);
            bytes[at..at + len].copy_from_slice(&number.to_le_bytes()[..len]);
        }
        let bytes = repaired(bytes);
        let mut manifest: Value = serde_json::from_slice(&good().last().unwrap().1).unwrap();
        manifest["files"][name]["xxh3"] = format!("{:032x}", xxh3_128(&bytes)).into();
        let root = tempfile::tempdir().unwrap();
        write(root.path(), name, &bytes, &manifest_text(manifest));
        use_all(root.path());
    }

    #[test]
    fn changed_manifests_are_refused_or_read(
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![
            (0i64..10).prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            prop::sample::select(vec![255u64, 256, 65_536, u64::from(u32::MAX), i64::MAX as u64, u64::MAX]).prop_map(Value::from),
        ]), 1..3),
    ) {
        let mut manifest: Value = serde_json::from_slice(&good().last().unwrap().1).unwrap();
        let mut found = Vec::new();
        numbers(&mut manifest["tables"], &mut found);
        for (at, number) in changes {
            let at = at.index(found.len());
            *found[at] = number;
        }
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "", &[], &manifest_text(manifest));
        use_all(root.path());
    }
}
