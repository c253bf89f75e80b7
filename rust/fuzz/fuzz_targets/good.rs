//! A good database that the targets damage: the shop of the tests, with a task of each kind and vectors.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use half::f16;
use headwater::inspect::{Options, answer, page, row};
use headwater::preprocess::{publish, write_embeddings};
use headwater::sampler::{Sampler, SamplerConfig, Split};
use headwater::{Database, MANIFEST_FILE, RowId, Vectors};
use tempfile::TempDir;
use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_128};

#[path = "../../../tests/rust/shop.rs"]
#[allow(dead_code, missing_docs, unreachable_pub)]
mod shop;

const TASKS: &str = r#"
"churn": {"table": "labels.parquet", "anchor_table": "customers", "anchor_key": "id", "target_column": "churn",
          "target_stype": "boolean", "observation_time_column": "at", "horizon": "1 day"},
"status": {"anchor_table": "orders", "target_column": "status"}"#;
const DIMENSION: usize = 8;
const HEADER_LEN: usize = 64;
const ENTRY_LEN: usize = 32;

/// The database: its folder, and every file as it was published.
pub struct Good {
    _folder: TempDir,
    pub root: PathBuf,
    /// Paths within the database, the manifest last.
    pub files: Vec<(String, Vec<u8>)>,
}

/// Made once per process; panics that the library itself turns into errors are silent from here on, all others still
/// end the process. With `FUZZ_SAY_PANICS` set every panic ends it, and says where it was.
pub fn good() -> &'static Good {
    static GOOD: OnceLock<Good> = OnceLock::new();
    GOOD.get_or_init(|| {
        let good = make();
        if std::env::var_os("FUZZ_SAY_PANICS").is_none() {
            std::panic::set_hook(Box::new(|_| {}));
        }
        good
    })
}

fn make() -> Good {
    use shop::{Shop, days, flags, ints};
    let shop = Shop::new(TASKS);
    let labels = vec![
        ("id", ints(&[10, 20, 30, 10, 20])),
        ("at", days(&[Some(2), Some(3), Some(3), Some(4), Some(6)])),
        ("churn", flags(&[Some(true), Some(false), None, Some(true), Some(false)])),
    ];
    shop.label("churn", labels).unwrap();
    shop.fill("status").unwrap();
    let staging = shop.staging();
    let texts = headwater::preprocess::vocab_texts(&staging).unwrap().len();
    let columns = headwater::preprocess::column_phrases(&staging).unwrap().len();
    for (which, number) in [(Vectors::Vocabulary, texts), (Vectors::Column, columns)] {
        let values = vec![f16::from_f32(0.25); number * DIMENSION];
        write_embeddings(&staging, which, &values, DIMENSION, r#"{"name":"constant"}"#).unwrap();
    }
    publish(&staging).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("database");
    let database = Database::open(&staging).unwrap();
    let names = database.manifest().files.keys().cloned().chain([MANIFEST_FILE.to_owned()]);
    let files: Vec<_> = names.map(|name| (name.clone(), fs::read(staging.join(&name)).unwrap())).collect();
    for (name, bytes) in &files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    Database::open(&root).unwrap().verify().unwrap();
    Good { _folder: folder, root, files }
}

impl Good {
    /// Puts other bytes into a file while `look` looks; the file is a new one, so nothing mapped changes.
    pub fn with<T>(&self, changed: &[(&str, Vec<u8>)], look: impl FnOnce(&Path) -> T) -> T {
        let put = |name: &str, bytes: &[u8]| {
            let path = self.root.join(name);
            fs::remove_file(&path).unwrap();
            fs::write(&path, bytes).unwrap();
        };
        changed.iter().for_each(|(name, bytes)| put(name, bytes));
        let seen = look(&self.root);
        for (name, _) in changed {
            let (name, bytes) = self.files.iter().find(|(known, _)| known == name).unwrap();
            put(name, bytes);
        }
        seen
    }

    /// The manifest that vouches for `bytes` as the content of a file.
    pub fn manifest_for(&self, name: &str, bytes: &[u8]) -> Vec<u8> {
        let (_, manifest) = self.files.last().unwrap();
        let mut value: serde_json::Value = serde_json::from_slice(manifest).unwrap();
        value["files"][name] = serde_json::json!({"bytes": bytes.len(), "xxh3": format!("{:032x}", xxh3_128(bytes))});
        with_checksum(&serde_json::to_vec(&value).unwrap())
    }
}

/// A manifest with its checksum made right, where there is one to be seen.
pub fn with_checksum(bytes: &[u8]) -> Vec<u8> {
    let key = b"\"checksum\"";
    let quoted = |from: usize| bytes[from..].iter().position(|&byte| byte == b'"').map(|at| from + at + 1);
    let Some(at) = bytes.windows(key.len()).position(|window| window == key) else { return bytes.to_vec() };
    let Some(start) = quoted(at + key.len()).filter(|start| start + 32 <= bytes.len()) else { return bytes.to_vec() };
    let mut repaired = bytes.to_vec();
    repaired[start..start + 32].fill(b'0');
    let checksum = format!("{:032x}", xxh3_128(&repaired));
    repaired[start..start + 32].copy_from_slice(checksum.as_bytes());
    repaired
}

/// A binary file with the hashes of its sections and the checksum of its header made right, as far as they lie inside.
pub fn with_hashes(bytes: &[u8]) -> Vec<u8> {
    let mut repaired = bytes.to_vec();
    if repaired.len() < HEADER_LEN {
        return repaired;
    }
    let word = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let sections = u32::from_le_bytes(repaired[40..44].try_into().unwrap()) as usize;
    let table = HEADER_LEN..HEADER_LEN.saturating_add(sections.saturating_mul(ENTRY_LEN)).min(repaired.len());
    for at in table.clone().step_by(ENTRY_LEN).filter(|at| at + ENTRY_LEN <= table.end) {
        let (offset, len) = (word(&repaired, at + 8) as usize, word(&repaired, at + 16) as usize);
        if let Some(section) = offset.checked_add(len).and_then(|end| repaired.get(offset..end)) {
            let hash = xxh3_64(section);
            repaired[at + 24..at + 32].copy_from_slice(&hash.to_le_bytes());
        }
    }
    let mut hasher = Xxh3::new();
    repaired[48..56].fill(0);
    hasher.update(&repaired[..HEADER_LEN]);
    hasher.update(&repaired[table]);
    let checksum = hasher.digest();
    repaired[48..56].copy_from_slice(&checksum.to_le_bytes());
    repaired
}

/// Everything a reader does with an opened database, errors welcome.
pub fn use_all(database: &Database) {
    let _ = page(database, true);
    let _ = answer(database, &Options::default());
    for table in &database.manifest().tables {
        for number in 0..table.num_rows.min(8) {
            let _ = row(database, table.id, RowId(number));
        }
    }
    for id in 0..database.manifest().vocabulary.num_texts.min(32) {
        let _ = database.text(id);
    }
    for which in [Vectors::Vocabulary, Vectors::Column] {
        let _ = database.vectors(which).map(|vectors| vectors.values().len());
    }
    for task in &database.manifest().tasks {
        let config = SamplerConfig {
            tasks: vec![task.name.clone()],
            split: Split::All,
            batch_size: 4,
            seq_len: 24,
            threads: 0,
            prefetch: 0,
            ..SamplerConfig::default()
        };
        if let Ok(sampler) = Sampler::new(database, config) {
            for step in 0..2 {
                let _ = sampler.batch(step);
            }
            let _ = sampler.explain(0).map(|explanation| explanation.render());
        }
    }
}
