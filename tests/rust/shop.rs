//! A small shop as parquet files, and its staged database: what the task and inspect tests start from.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use headwater::preprocess::{EncodeOptions, TaskReport, encode, write_task};
use parquet::arrow::ArrowWriter;
use tempfile::TempDir;

pub const DAY: i64 = 86_400_000_000;

const TABLES: &str = r#""name": "shop", "tables": {
  "customers": {"primary_key": "id", "columns": {
    "id": {"stype": "identifier"}, "name": {"stype": "text", "description": "how to call them"}}},
  "orders": {"primary_key": "id", "temporal_column": "ts", "columns": {
    "id": {"stype": "identifier"},
    "customer_id": {"stype": "identifier", "foreign_key": "customers.id"},
    "ts": {"stype": "timestamp"},
    "amount": {"stype": "numerical"},
    "is_gift": {"stype": "boolean"},
    "status": {"stype": "categorical"}}}}"#;

/// Input and staging folder, gone with the value.
pub struct Shop {
    folder: TempDir,
    metadata: String,
}

pub fn write_parquet(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let columns = columns.into_iter().map(|(name, array)| (name, array, true));
    let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

pub fn ints(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

pub fn floats(values: &[Option<f64>]) -> ArrayRef {
    Arc::new(Float64Array::from(values.to_vec()))
}

pub fn flags(values: &[Option<bool>]) -> ArrayRef {
    Arc::new(BooleanArray::from(values.to_vec()))
}

pub fn strings(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

/// Days since 1970-01-01.
pub fn days(values: &[Option<i64>]) -> ArrayRef {
    let micros = values.iter().map(|day| day.map(|day| day * DAY));
    Arc::new(TimestampMicrosecondArray::from(micros.collect::<Vec<_>>()))
}

impl Shop {
    /// Three customers (keys 10, 20, 30), six orders on days 1 to 6 with the last one's time unknown, and these tasks.
    pub fn new(tasks: &str) -> Self {
        let shop =
            Self { folder: tempfile::tempdir().unwrap(), metadata: format!("{{{TABLES}, \"tasks\": {{{tasks}}}}}") };
        let input = shop.folder.path().join("input");
        std::fs::create_dir_all(&input).unwrap();
        std::fs::create_dir_all(shop.staging()).unwrap();
        std::fs::write(input.join("metadata.json"), &shop.metadata).unwrap();
        let names = strings(&[Some("Ada"), Some("Bo"), Some("Ada")]);
        write_parquet(&input.join("customers.parquet"), vec![("id", ints(&[10, 20, 30])), ("name", names)]);
        let orders = vec![
            ("id", ints(&[1, 2, 3, 4, 5, 6])),
            ("customer_id", ints(&[10, 10, 20, 10, 99, 20])),
            ("ts", days(&[Some(1), Some(2), Some(3), Some(4), Some(5), None])),
            ("amount", floats(&[Some(1.0), Some(2.0), Some(3.0), None, Some(5.0), Some(f64::NAN)])),
            ("is_gift", flags(&[Some(true), None, Some(false), Some(true), Some(true), Some(false)])),
            ("status", strings(&[Some("paid"), Some("open"), Some("paid"), None, Some("paid"), Some("open")])),
        ];
        write_parquet(&input.join("orders.parquet"), orders);
        encode(&input, &shop.staging(), &EncodeOptions::default(), &|_, _, _| Ok(())).unwrap();
        shop
    }

    pub fn staging(&self) -> PathBuf {
        self.folder.path().join("staging")
    }

    /// Writes a task whose labels have these columns.
    pub fn label(&self, task: &str, columns: Vec<(&str, ArrayRef)>) -> headwater::Result<TaskReport> {
        let path = self.folder.path().join("labels.parquet");
        write_parquet(&path, columns);
        write_task(&self.staging(), task, Some(&path), &self.metadata)
    }

    /// Writes a task that fills in a column.
    pub fn fill(&self, task: &str) -> headwater::Result<TaskReport> {
        write_task(&self.staging(), task, None, &self.metadata)
    }
}
