//! The encode stage through its front door: parquet files in, an opened database out.
#![allow(clippy::from_iter_instead_of_collect)] // the array's type leads the line

mod keys;
mod tables;
mod values;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::types::{Float16Type, Int32Type};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Date64Array, Decimal128Array, Decimal256Array,
    DictionaryArray, DurationMillisecondArray, FixedSizeBinaryArray, Float32Array, Float64Array, Int8Array, Int16Array,
    Int32Array, Int64Array, LargeStringArray, ListArray, NullArray, PrimitiveArray, RecordBatch, StringArray,
    StringViewArray, Time64MicrosecondArray, TimestampMicrosecondArray, TimestampMillisecondArray,
    TimestampNanosecondArray, TimestampSecondArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};
use arrow_buffer::i256;
use headwater::format::hash_file;
use headwater::format::record::{ALWAYS_VISIBLE, Cell, NEVER_VISIBLE};
use headwater::preprocess::{EncodeOptions, EncodeReport, encode, encode_fingerprint, publish};
use headwater::{Database, Error, Key, KeyKind, RowId, TableId};
use parquet::arrow::ArrowWriter;
use parquet::data_type::{Int96, Int96Type};
use parquet::file::metadata::{FileMetaData, ParquetMetaData, ParquetMetaDataReader, ParquetMetaDataWriter};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use proptest::prelude::*;
use tempfile::TempDir;

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

type Columns = Vec<(&'static str, ArrayRef)>;

/// An input folder, gone with the value.
struct Input {
    folder: TempDir,
}

fn array<T: Array + 'static>(array: T) -> ArrayRef {
    Arc::new(array)
}

fn ints(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    array(Int64Array::from_iter_values(values))
}

fn strings(values: &[&str]) -> ArrayRef {
    array(StringArray::from(values.to_vec()))
}

fn write_parquet(path: &Path, columns: Columns, row_group: usize) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let columns = columns.into_iter().map(|(name, array)| (name, array, true));
    let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(row_group)).build();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

impl Input {
    /// `tables` is the inside of the `tables` object.
    fn new(tables: &str) -> Self {
        let input = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir_all(input.path()).unwrap();
        let metadata = format!("{{\"name\": \"test\", \"tables\": {{{tables}}}}}");
        std::fs::write(input.path().join("metadata.json"), metadata).unwrap();
        input
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("input")
    }

    fn with(self, file: &str, columns: Columns) -> Self {
        self.with_groups(file, columns, 1 << 20)
    }

    fn with_groups(self, file: &str, columns: Columns, row_group: usize) -> Self {
        write_parquet(&self.path().join(file), columns, row_group);
        self
    }

    /// Encodes into a new folder of the given name.
    fn run(&self, output: &str, options: &EncodeOptions) -> Result<EncodeReport, Error> {
        let output = self.folder.path().join(output);
        std::fs::create_dir_all(&output).unwrap();
        encode(&self.path(), &output, options, &|_, _, _| Ok(()))
    }

    fn encode_with(&self, options: &EncodeOptions) -> (Database, EncodeReport) {
        let report = self.run("output", options).unwrap();
        publish(&self.folder.path().join("output")).unwrap();
        let database = Database::open(self.folder.path().join("output")).unwrap();
        database.verify().unwrap();
        (database, report)
    }

    fn encode(&self) -> (Database, EncodeReport) {
        self.encode_with(&EncodeOptions::default())
    }

    fn error(&self) -> String {
        self.run("failed", &EncodeOptions::default()).unwrap_err().to_string()
    }

    /// Every file of an encoded folder with its hash.
    fn digests(&self, output: &str, options: &EncodeOptions) -> BTreeMap<String, String> {
        self.run(output, options).unwrap();
        let root = self.folder.path().join(output);
        let names = ["graph.bin", "vocab.bin", "encode.json"].map(str::to_owned).into_iter();
        let tables = std::fs::read_dir(root.join("tables")).unwrap();
        let tables = tables.map(|entry| format!("tables/{}", entry.unwrap().file_name().to_str().unwrap()));
        names.chain(tables).map(|name| (name.clone(), hash_file(&root.join(name)).unwrap())).collect()
    }
}

/// One table `t` with one column `x`.
fn single(stype: &str, values: ArrayRef) -> Input {
    Input::new(&format!(r#""t": {{"columns": {{"x": {{"stype": "{stype}"}}}}}}"#))
        .with("t.parquet", vec![("x", values)])
}

fn cells(database: &Database, table: u32, column: usize) -> Vec<Option<Cell>> {
    let view = database.table(TableId(table));
    (0..view.num_rows()).map(|row| view.record(RowId::from(row)).cell(column)).collect()
}

/// The numbers of a column as its statistics give them back.
fn numbers(database: &Database) -> Vec<Option<f64>> {
    let statistics = &database.manifest().tables[0].columns[0].statistics;
    let (mean, std) = (statistics.mean.unwrap(), statistics.std.unwrap());
    let number = |cell| match cell {
        Some(Cell::Numerical(z)) => Some(f64::from(z) * std + mean),
        None => None,
        other => panic!("{other:?}"),
    };
    cells(database, 0, 0).into_iter().map(number).collect()
}

fn moments(values: ArrayRef) -> Vec<Option<i64>> {
    let (database, _) = single("timestamp", values).encode();
    let moment = |cell| match cell {
        Some(Cell::Timestamp(time)) => Some(time),
        None => None,
        other => panic!("{other:?}"),
    };
    cells(&database, 0, 0).into_iter().map(moment).collect()
}

fn texts(database: &Database, column: usize) -> Vec<Option<String>> {
    let text = |cell| match cell {
        Some(Cell::Categorical(id) | Cell::Text(id)) => Some(database.text(id).unwrap()),
        None => None,
        other => panic!("{other:?}"),
    };
    cells(database, 0, column).into_iter().map(text).collect()
}

fn categories(values: ArrayRef) -> Vec<String> {
    let (database, _) = single("categorical", values).encode();
    let text = |text: Option<String>| text.map_or("-".into(), |text| text.strip_prefix("x is ").unwrap().to_owned());
    texts(&database, 0).into_iter().map(text).collect()
}

const KEYED: &str = r#"
  "parents": {"primary_key": "id", "columns": {"id": {"stype": "identifier"}}},
  "children": {"columns": {"parent": {"stype": "identifier", "foreign_key": "parents.id"}}}"#;

fn keyed(parents: ArrayRef, children: ArrayRef) -> Input {
    Input::new(KEYED)
        .with("parents.parquet", vec![("id", parents)])
        .with("children.parquet", vec![("parent", children)])
}
