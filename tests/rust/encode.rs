//! The encode stage through its front door: parquet files in, an opened database out.
#![allow(clippy::from_iter_instead_of_collect)] // the array's type leads the line

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

#[test]
fn numbers_of_every_type() {
    let decimal = Decimal128Array::from(vec![Some(0), None, Some(200)]).with_precision_and_scale(9, 2).unwrap();
    let wide = [Some(i256::from_i128(0)), None, Some(i256::from_i128(20))];
    let wide = Decimal256Array::from(wide.to_vec()).with_precision_and_scale(60, 1).unwrap();
    let half = PrimitiveArray::<Float16Type>::from_iter([Some(half::f16::ZERO), None, Some(half::f16::from_f32(2.0))]);
    let arrays: Vec<ArrayRef> = vec![
        array(Int8Array::from(vec![Some(0), None, Some(2)])),
        array(Int16Array::from(vec![Some(0), None, Some(2)])),
        array(Int32Array::from(vec![Some(0), None, Some(2)])),
        array(Int64Array::from(vec![Some(0), None, Some(2)])),
        array(UInt8Array::from(vec![Some(0), None, Some(2)])),
        array(UInt16Array::from(vec![Some(0), None, Some(2)])),
        array(UInt32Array::from(vec![Some(0), None, Some(2)])),
        array(UInt64Array::from(vec![Some(0), None, Some(2)])),
        array(half),
        array(Float32Array::from(vec![Some(0.0), None, Some(2.0)])),
        array(Float64Array::from(vec![Some(0.0), Some(f64::NAN), Some(2.0)])),
        array(decimal),
        array(wide),
        array(DurationMillisecondArray::from(vec![Some(0), None, Some(2000)])),
        array(Time64MicrosecondArray::from(vec![Some(0), None, Some(2_000_000)])),
    ];
    for values in arrays {
        let shown = values.data_type().to_string();
        let (database, _) = single("numerical", values).encode();
        assert_eq!(numbers(&database), [Some(0.0), None, Some(2.0)], "{shown}");
        let statistics = &database.manifest().tables[0].columns[0].statistics;
        assert_eq!((statistics.mean, statistics.std, statistics.nulls), (Some(1.0), Some(1.0), 1), "{shown}");
        assert_eq!((statistics.min, statistics.max), (Some(0.0), Some(2.0)), "{shown}");
    }
    let (database, _) = single("numerical", array(BooleanArray::from(vec![true, false]))).encode();
    assert_eq!(numbers(&database), [Some(1.0), Some(0.0)]);
    let (database, _) = single("numerical", array(NullArray::new(2))).encode();
    assert_eq!(numbers(&database), [None, None]);
}

#[test]
fn extremes_constants_and_non_finite_numbers() {
    let (database, _) = single("numerical", ints([i64::MIN, i64::MAX, 0])).encode();
    assert!(cells(&database, 0, 0).iter().all(|cell| matches!(cell, Some(Cell::Numerical(z)) if z.abs() < 2.0)));
    let (database, _) = single("numerical", array(Float64Array::from(vec![0.1; 1000]))).encode();
    assert!(cells(&database, 0, 0).iter().all(|cell| *cell == Some(Cell::Numerical(0.0))));
    assert_eq!(database.manifest().tables[0].columns[0].statistics.std, Some(0.0));
    let odd = vec![1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, -f64::MAX];
    let (database, report) = single("numerical", array(Float64Array::from(odd))).encode();
    let statistics = &database.manifest().tables[0].columns[0].statistics;
    assert_eq!((statistics.nulls, statistics.non_finite), (3, Some(3)));
    assert!(statistics.std.unwrap().is_finite());
    assert!(report.warnings[0].contains("column `x`: 3 values that are NaN, infinite"), "{:?}", report.warnings);
}

#[test]
fn moments_of_every_type_keep_their_instant() {
    let expected = [Some(DAY), None, Some(-DAY)];
    let zoned = TimestampMillisecondArray::from(vec![Some(86_400_000), None, Some(-86_400_000)]);
    let arrays: Vec<ArrayRef> = vec![
        array(TimestampSecondArray::from(vec![Some(86_400), None, Some(-86_400)])),
        array(zoned.clone()),
        array(zoned.with_timezone("+02:00")),
        array(TimestampMicrosecondArray::from(vec![Some(DAY), None, Some(-DAY)])),
        array(TimestampNanosecondArray::from(vec![Some(DAY * 1000 + 999), None, Some(-DAY * 1000 + 1)])),
        array(Date32Array::from(vec![Some(1), None, Some(-1)])),
        array(Date64Array::from(vec![Some(86_400_000), None, Some(-86_400_000)])),
        array(StringArray::from(vec![Some("1970-01-02"), None, Some("1969-12-31T02:00:00+02:00")])),
    ];
    for values in arrays {
        let shown = values.data_type().to_string();
        assert_eq!(moments(values), expected, "{shown}");
    }
}

#[test]
fn moments_that_do_not_fit_are_counted_never_wrapped() {
    let values = TimestampSecondArray::from(vec![Some(i64::MAX), Some(i64::MIN), Some(1)]);
    let (database, report) = single("timestamp", array(values)).encode();
    assert_eq!(cells(&database, 0, 0), [None, None, Some(Cell::Timestamp(SECOND))]);
    assert!(report.warnings[0].contains("2 moments beyond the range"), "{:?}", report.warnings);
    assert_eq!(moments(array(TimestampMicrosecondArray::from(vec![i64::MAX, i64::MIN]))), [None, None]);
    assert_eq!(moments(array(Date32Array::from(vec![i32::MAX]))), [None]);
}

/// One table with one INT96 column: a millisecond after midnight of these days since 1970-01-01.
fn int96(days: &[i64]) -> Input {
    let input = Input::new(r#""t": {"columns": {"x": {"stype": "timestamp"}}}"#);
    let schema = Arc::new(parquet::schema::parser::parse_message_type("message schema { required int96 x; }").unwrap());
    let file = File::create(input.path().join("t.parquet")).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let moment = |&days: &i64| {
        let mut value = Int96::new();
        value.set_data(1_000_000, 0, (2_440_588 + days) as u32);
        value
    };
    let moments: Vec<Int96> = days.iter().map(moment).collect();
    column.typed::<Int96Type>().write_batch(&moments, None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    input
}

#[test]
fn int96_reaches_beyond_nanoseconds_but_never_wraps() {
    let (database, _) = int96(&[0, 2_932_896]).encode();
    let expected = [1000, 2_932_896 * DAY + 1000].map(|time| Some(Cell::Timestamp(time)));
    assert_eq!(cells(&database, 0, 0), expected, "1970-01-01 and 9999-12-31");
    let error = int96(&[0, 107_000_000]).error();
    assert!(error.contains("column `x`, file `t.parquet`: row 1: a moment beyond the range"), "{error}");
}

#[test]
fn booleans_of_every_type() {
    let arrays: Vec<ArrayRef> = vec![
        array(BooleanArray::from(vec![Some(true), None, Some(false)])),
        array(Int8Array::from(vec![Some(1), None, Some(0)])),
        array(UInt64Array::from(vec![Some(1), None, Some(0)])),
        array(Float64Array::from(vec![Some(1.0), Some(f64::NAN), Some(0.0)])),
    ];
    for values in arrays {
        let (database, _) = single("boolean", values).encode();
        assert_eq!(cells(&database, 0, 0), [Some(Cell::Boolean(true)), None, Some(Cell::Boolean(false))]);
        assert_eq!(database.manifest().tables[0].columns[0].statistics.true_count, Some(1));
    }
    let error = single("boolean", ints([0, 1, 2])).error();
    assert!(error.contains("column `x`: row 2: 2 is not a boolean"), "{error}");
}

#[test]
fn categories_of_every_type() {
    let dictionary: DictionaryArray<Int32Type> = vec![Some("b"), None, Some("a"), Some("b")].into_iter().collect();
    assert_eq!(categories(array(dictionary)), ["b", "-", "a", "b"]);
    assert_eq!(categories(array(LargeStringArray::from(vec!["", " ", "a\0b"]))), ["", " ", "a\0b"]);
    assert_eq!(categories(array(StringViewArray::from(vec!["long enough for a view", "x"]))).len(), 2);
    assert_eq!(categories(ints([i64::MIN, 7, 7])), ["-9223372036854775808", "7", "7"]);
    assert_eq!(categories(array(Float64Array::from(vec![1.0, -0.0, f64::NAN, 0.1]))), ["1", "0", "-", "0.1"]);
    assert_eq!(categories(array(BooleanArray::from(vec![Some(true), None]))), ["true", "-"]);
    assert_eq!(categories(array(Date32Array::from(vec![0]))), ["1970-01-01"]);
    let decimal = Decimal128Array::from(vec![150, -5]).with_precision_and_scale(9, 2).unwrap();
    assert_eq!(categories(array(decimal)), ["1.5", "-0.05"]);
    let binary = FixedSizeBinaryArray::try_from_iter([[0xffu8, 1]].into_iter()).unwrap();
    assert_eq!(categories(array(binary)), ["ff01"]);
    assert_eq!(categories(array(BinaryArray::from(vec![b"utf8".as_slice()]))), ["utf8"]);
    assert_eq!(categories(array(NullArray::new(1))), ["-"]);
}

#[test]
fn the_encoding_of_a_column_does_not_change_the_output() {
    let values = ["b", "a", "b", "c", "a"];
    let dictionary: DictionaryArray<Int32Type> = values.iter().map(|value| Some(*value)).collect();
    let tables = |values| single("categorical", values).digests("out", &EncodeOptions::default());
    let plain = tables(strings(&values));
    let read = tables(array(dictionary));
    // The build id differs with the bytes of the input; the sizes of what was made do not.
    assert_eq!(plain.keys().collect::<Vec<_>>(), read.keys().collect::<Vec<_>>());
    assert_eq!(categories(strings(&values)), values);
}

#[test]
fn texts_are_kept_byte_by_byte_and_shared() {
    let huge = "é".repeat(4 << 20);
    let odd = ["", "   ", "nul\0", "\u{202e}rtl", "e\u{301}", huge.as_str(), "", "   "];
    let input = Input::new(r#""t": {"columns": {"x": {"stype": "text"}, "y": {"stype": "text"}}}"#)
        .with("t.parquet", vec![("x", strings(&odd)), ("y", array(LargeStringArray::from(vec![Some(""); 8])))]);
    let (database, report) = input.encode();
    assert_eq!(texts(&database, 0), odd.map(|text| Some(text.to_owned())));
    assert_eq!(texts(&database, 1), [const { Some(String::new()) }; 8]);
    assert_eq!(report.num_encoded, 6);
    let statistics = &database.manifest().tables[0].columns[0].statistics;
    assert_eq!((statistics.distinct, statistics.nulls), (Some(6), 0));
}

const KEYED: &str = r#"
  "parents": {"primary_key": "id", "columns": {"id": {"stype": "identifier"}}},
  "children": {"columns": {"parent": {"stype": "identifier", "foreign_key": "parents.id"}}}"#;

fn keyed(parents: ArrayRef, children: ArrayRef) -> Input {
    Input::new(KEYED)
        .with("parents.parquet", vec![("id", parents)])
        .with("children.parquet", vec![("parent", children)])
}

fn parent_rows(database: &Database, table: u32, slot: usize) -> Vec<Option<u32>> {
    let view = database.table(TableId(table));
    (0..view.num_rows()).map(|row| view.record(RowId::from(row)).parent(slot)).collect()
}

#[test]
fn integer_keys_of_every_width_match_exactly() {
    let parents: Vec<ArrayRef> = vec![
        ints([7, -1, 3]),
        array(Int32Array::from(vec![7, -1, 3])),
        array(Int8Array::from(vec![7, -1, 3])),
        array(Float64Array::from(vec![7.0, -1.0, 3.0])),
        array(Decimal128Array::from(vec![7, -1, 3]).with_precision_and_scale(38, 0).unwrap()),
    ];
    let children: Vec<ArrayRef> = vec![
        array(Int64Array::from(vec![Some(3), None, Some(-1), Some(4)])),
        array(Int16Array::from(vec![Some(3), None, Some(-1), Some(4)])),
        array(Float32Array::from(vec![Some(3.0), None, Some(-1.0), Some(4.5)])),
        array(Float64Array::from(vec![3.0, f64::NAN, -1.0, f64::INFINITY])),
        array(
            Decimal128Array::from(vec![Some(300), None, Some(-100), Some(1)]).with_precision_and_scale(9, 2).unwrap(),
        ),
    ];
    for parent in &parents {
        for child in &children {
            let (database, report) = keyed(parent.clone(), child.clone()).encode();
            let shown = format!("{} <- {}", parent.data_type(), child.data_type());
            assert_eq!(parent_rows(&database, 1, 0), [Some(2), None, Some(1), None], "{shown}");
            let key = &report.tables[1].foreign_keys[0];
            assert_eq!((key.edges, key.dangling, key.null), (2, 1, 1), "{shown}");
            let present = cells(&database, 1, 0).iter().map(Option::is_some).collect::<Vec<_>>();
            assert_eq!(present, [true, false, true, true], "a dangling key is a cell without an edge: {shown}");
        }
    }
}

#[test]
fn unsigned_keys_above_the_signed_range() {
    let (database, report) = keyed(
        array(UInt64Array::from(vec![u64::MAX, 0, 1 << 63])),
        array(UInt64Array::from(vec![1 << 63, u64::MAX, 5])),
    )
    .encode();
    assert_eq!(
        (report.tables[0].key_kind, parent_rows(&database, 1, 0)),
        (KeyKind::Uint, vec![Some(2), Some(0), None])
    );
    for (row, key) in [u64::MAX, 0, 1 << 63].into_iter().enumerate() {
        assert_eq!(database.find(TableId(0), &Key::Uint(key)).unwrap(), Some(RowId::from(row)));
        assert_eq!(database.key(TableId(0), RowId::from(row)).unwrap(), Some(Key::Uint(key)));
    }
}

#[test]
fn string_keys_differ_by_every_byte() {
    let tricky = ["", " ", "a", "A", "a ", " a", "a\0", "\0a", "é", "e\u{301}", "0", "00", "null"];
    let reversed: Vec<&str> = tricky.iter().rev().copied().collect();
    let expected: Vec<_> = (0..tricky.len() as u32).rev().map(Some).collect();
    let dictionary: DictionaryArray<Int32Type> = reversed.iter().map(|value| Some(*value)).collect();
    let bytes = BinaryArray::from(reversed.iter().map(|text| text.as_bytes()).collect::<Vec<_>>());
    let children: Vec<ArrayRef> = vec![
        strings(&reversed),
        array(LargeStringArray::from(reversed.clone())),
        array(StringViewArray::from(reversed.clone())),
        array(dictionary),
        array(bytes),
    ];
    for child in children {
        let shown = child.data_type().to_string();
        let (database, _) = keyed(strings(&tricky), child).encode();
        assert_eq!(parent_rows(&database, 1, 0), expected, "{shown}");
        for (row, key) in tricky.iter().enumerate() {
            assert_eq!(database.find(TableId(0), &Key::String((*key).into())).unwrap(), Some(RowId::from(row)));
        }
        assert_eq!(database.find(TableId(0), &Key::String("b".into())).unwrap(), None);
    }
}

#[test]
fn keys_that_cannot_be_are_errors_that_say_where() {
    for (parents, children, expected) in [
        (ints([1, 2, 1]), ints([]), "table `parents`, column `id`: the primary key 1 occurs in the rows 0 and 2"),
        (strings(&["a", "a"]), ints([]), "the primary key \"a\" occurs in the rows 0 and 1"),
        (array(Int64Array::from(vec![Some(1), None])), ints([]), "the primary key of row 1 is null"),
        (array(Float64Array::from(vec![1.0, 1.5])), ints([]), "the primary key of row 1 is 1.5"),
        (
            ints([1]),
            strings(&["1"]),
            "column `parent`: the foreign key holds strings, but the primary key `id` of `parents` holds numbers",
        ),
        (strings(&["1"]), ints([1]), "holds numbers, but the primary key `id` of `parents` holds strings"),
        (ints([1]), array(BinaryArray::from(vec![b"\xff".as_slice()])), "the foreign key holds strings"),
        (array(BinaryArray::from(vec![b"\xff".as_slice()])), ints([]), "not UTF-8"),
        (array(BooleanArray::from(vec![true])), ints([1]), "booleans cannot be keys"),
        (array(Date32Array::from(vec![1])), ints([1]), "dates or timestamps cannot be keys"),
    ] {
        let error = keyed(parents, children).error();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn dangling_keys_are_counted_or_refused() {
    let input = keyed(ints([1]), ints([1, 9, 8]));
    let (_, report) = input.encode();
    let expected =
        "table `children`, column `parent`: 2 of 3 foreign keys name no row of `parents`, the first is 9 in row 1";
    assert!(report.warnings[0].starts_with(expected), "{:?}", report.warnings);
    let strict = EncodeOptions { strict: true, ..EncodeOptions::default() };
    let error = input.run("strict", &strict).unwrap_err().to_string();
    assert!(error.starts_with(expected) && error.contains("without --strict"), "{error}");
}

#[test]
fn self_references_cycles_and_two_keys_to_one_table() {
    let tables = r#"
      "staff": {"primary_key": "id", "columns": {"id": {"stype": "identifier"},
        "boss": {"stype": "identifier", "foreign_key": "staff.id"},
        "team": {"stype": "identifier", "foreign_key": "teams.name"}}},
      "teams": {"primary_key": "name", "columns": {"name": {"stype": "identifier"},
        "lead": {"stype": "identifier", "foreign_key": "staff.id"},
        "deputy": {"stype": "identifier", "foreign_key": "staff.id"}}}"#;
    let staff = vec![
        ("id", ints([1, 2, 3])),
        ("boss", array(Int64Array::from(vec![Some(1), Some(1), Some(2)]))),
        ("team", strings(&["x", "y", "x"])),
    ];
    let teams = vec![("name", strings(&["x", "y"])), ("lead", ints([1, 2])), ("deputy", ints([3, 3]))];
    let (database, _) = Input::new(tables).with("staff.parquet", staff).with("teams.parquet", teams).encode();
    assert_eq!(parent_rows(&database, 0, 0), [Some(0), Some(0), Some(1)]);
    assert_eq!(parent_rows(&database, 0, 1), [Some(0), Some(1), Some(0)]);
    assert_eq!(parent_rows(&database, 1, 1), [Some(2), Some(2)]);
    let view = database.view();
    let third = database.table(TableId(0)).record(RowId(2));
    assert!(view.children[3].indices.range(third.children(2)).eq([0, 1]));
    assert!(view.children[0].indices.range(database.table(TableId(0)).record(RowId(0)).children(0)).eq([0, 1]));
}

const TIMED: &str = r#"
  "hubs": {"primary_key": "id", "columns": {"id": {"stype": "identifier"}}},
  "events": {"file": "events*.parquet", "temporal_column": "at", "null_time_visible": NULLS, "columns": {
    "at": {"stype": "timestamp"}, "hub": {"stype": "identifier", "foreign_key": "hubs.id"}}}"#;

#[test]
fn null_times_are_never_or_always_visible() {
    for (visible, expected) in [("false", NEVER_VISIBLE), ("true", ALWAYS_VISIBLE)] {
        let at = array(TimestampMicrosecondArray::from(vec![Some(5), None, Some(3)]));
        let (database, report) = Input::new(&TIMED.replace("NULLS", visible))
            .with("hubs.parquet", vec![("id", ints([1]))])
            .with("events.parquet", vec![("at", at), ("hub", ints([1, 1, 1]))])
            .encode();
        let events = database.table(TableId(1));
        let times: Vec<i64> = (0..3).map(|row| events.record(RowId(row)).time()).collect();
        assert_eq!(times, [5, expected, 3]);
        assert_eq!(cells(&database, 1, 0), [Some(Cell::Timestamp(5)), None, Some(Cell::Timestamp(3))]);
        assert!(report.warnings[0].contains("1 rows without a time"), "{:?}", report.warnings);
        let expected = if visible == "true" { [1, 2, 0] } else { [2, 0, 1] };
        assert!(database.view().children[0].indices.iter().eq(expected));
    }
}

#[test]
fn a_hub_has_all_its_children_in_time_order() {
    let rows = 20_000i64;
    let at = array(TimestampMicrosecondArray::from_iter_values((0..rows).map(|row| row * 7919 % 1000)));
    let (database, report) = Input::new(&TIMED.replace("NULLS", "false"))
        .with("hubs.parquet", vec![("id", ints([5, 6]))])
        .with_groups("events-1.parquet", vec![("at", at), ("hub", ints((0..rows).map(|_| 6)))], 3000)
        .encode();
    assert_eq!(report.tables[1].foreign_keys[0].edges, rows as u64);
    let hub = database.table(TableId(0)).record(RowId(1));
    assert_eq!(hub.children(0), 0..rows as usize);
    let view = database.view();
    assert!(view.children[0].times.range(0..rows as usize).is_sorted());
}

#[test]
fn parts_and_row_groups_make_one_table() {
    let tables = r#""t": {"file": ["b.parquet", "parts/*.parquet"], "primary_key": "id", "columns": {
        "id": {"stype": "identifier"}, "x": {"stype": "numerical"}, "c": {"stype": "categorical"}}}"#;
    let part = |first: i32, x: ArrayRef, c: ArrayRef| -> Columns {
        vec![("c", c), ("id", array(Int32Array::from_iter_values(first..first + 3))), ("x", x)]
    };
    let input = Input::new(tables)
        .with_groups("b.parquet", part(0, ints([0, 1, 2]), strings(&["u", "v", "u"])), 2)
        .with("parts/2.parquet", part(6, array(NullArray::new(3)), array(NullArray::new(3))))
        .with_groups(
            "parts/1.parquet",
            part(3, array(Float32Array::from(vec![3.0, 4.0, 5.0])), strings(&["w", "v", "u"])),
            1,
        );
    let (database, _) = input.encode();
    let keys: Vec<_> = (0..9).map(|row| database.key(TableId(0), RowId(row)).unwrap().unwrap()).collect();
    assert_eq!(keys, (0..9).map(Key::Int).collect::<Vec<_>>());
    let statistics = &database.manifest().tables[0].columns[1].statistics;
    assert_eq!((statistics.mean, statistics.nulls, statistics.max), (Some(2.5), 3, Some(5.0)));
    let found: Vec<_> = texts(&database, 2).into_iter().flatten().collect();
    assert_eq!(found, ["u", "v", "u", "w", "v", "u"].map(|value| format!("c is {value}")));
    let error = input.with("parts/3.parquet", part(9, strings(&["1", "2", "3"]), strings(&["u", "u", "u"]))).error();
    assert!(error.contains("cannot read Utf8View as numerical in file `parts/3.parquet`"), "{error}");
}

#[test]
fn parts_must_agree_on_the_kind_of_values() {
    let error = Input::new(r#""t": {"file": "*.parquet", "columns": {"x": {"stype": "categorical"}}}"#)
        .with("1.parquet", vec![("x", ints([1]))])
        .with("2.parquet", vec![("x", strings(&["1"]))])
        .error();
    assert!(error.contains("file `2.parquet` holds strings, but file `1.parquet` holds numbers"), "{error}");
}

#[test]
fn empty_tables_nested_ignored_columns_and_many_columns() {
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1)])]);
    let tables =
        |stype: &str| format!(r#""t": {{"columns": {{"x": {{"stype": "numerical"}}, "l": {{"stype": "{stype}"}}}}}}"#);
    let columns: Columns = vec![("l", array(list.clone())), ("x", ints([4]))];
    let (database, _) = Input::new(&tables("ignored")).with("t.parquet", columns.clone()).encode();
    assert_eq!(numbers(&database), [Some(4.0)]);
    let error = Input::new(&tables("text")).with("t.parquet", columns).error();
    assert!(error.contains("column `l`: cannot read List") && error.contains("set its stype to ignored"), "{error}");

    let (database, _) = keyed(array(NullArray::new(0)), array(NullArray::new(0))).encode();
    assert_eq!((database.table(TableId(0)).num_rows(), database.view().children[0].indices.len()), (0, 0));
    let (database, _) = keyed(strings(&[]), ints([])).encode();
    assert_eq!(database.table(TableId(1)).num_rows(), 0);

    let described: Vec<String> = (0..700).map(|column| format!(r#""c{column}": {{"stype": "numerical"}}"#)).collect();
    let path = tempfile::tempdir().unwrap();
    let wide = Input::new(&format!(r#""t": {{"columns": {{{}}}}}"#, described.join(", ")));
    let names: Vec<String> = (0..700).rev().map(|column| format!("c{column}")).collect();
    let batch = names.iter().enumerate().map(|(at, name)| (name, ints([699 - at as i64, 0]), true));
    let batch = RecordBatch::try_from_iter_with_nullable(batch).unwrap();
    let mut writer =
        ArrowWriter::try_new(File::create(wide.path().join("t.parquet")).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let (database, _) = wide.encode();
    let maxima = database.manifest().tables[0].columns.iter().map(|column| column.statistics.max.unwrap());
    assert!(maxima.eq((0..700).map(f64::from)));
    drop(path);
}

/// Two linked tables of every stype, in small row groups.
fn everything(rows: usize) -> Input {
    let tables = r#"
      "a": {"primary_key": "id", "temporal_column": "at", "columns": {"id": {"stype": "identifier"},
        "at": {"stype": "timestamp"}, "n": {"stype": "numerical"}, "c": {"stype": "categorical"}}},
      "b": {"columns": {"a": {"stype": "identifier", "foreign_key": "a.id"}, "t": {"stype": "text"},
        "f": {"stype": "boolean"}, "when": {"stype": "timestamp"}, "other": {"stype": "identifier"},
        "c": {"stype": "categorical"}}}"#;
    let count = rows as i64;
    let noise = |row: i64, modulus: i64| (row * 7919 + row * row % 131) % modulus;
    let some = |row: i64, value: i64| (row % 7 != 3).then_some(value);
    let texts: Vec<String> = (0..count).map(|row| format!("text {}", noise(row, 97))).collect();
    let categories: Vec<Option<String>> =
        (0..count).map(|row| some(row, noise(row, 5)).map(|v| v.to_string())).collect();
    let a: Columns = vec![
        ("id", array(StringArray::from_iter_values((0..count).map(|row| format!("k{row}"))))),
        ("at", array(TimestampMicrosecondArray::from_iter((0..count).map(|row| some(row, noise(row, 50) * DAY))))),
        (
            "n",
            array(Float64Array::from_iter((0..count).map(|row| some(row, noise(row, 1000)).map(|v| v as f64 / 7.0)))),
        ),
        ("c", array(StringArray::from(categories.clone()))),
    ];
    let b: Columns = vec![
        ("a", array(StringArray::from_iter((0..count).map(|row| Some(format!("k{}", noise(row, count + 9))))))),
        ("t", array(StringArray::from(texts))),
        ("f", array(BooleanArray::from_iter((0..count).map(|row| some(row, row).map(|v| v % 2 == 0))))),
        ("when", array(Date32Array::from_iter((0..count).map(|row| some(row, row).map(|v| v as i32))))),
        ("other", array(Int64Array::from_iter((0..count).map(|row| some(row, row))))),
        ("c", array(StringArray::from(categories))),
    ];
    Input::new(tables).with_groups("a.parquet", a, 64).with_groups("b.parquet", b, 100)
}

#[test]
fn threads_do_not_change_a_byte() {
    let input = everything(1000);
    let run = |threads| {
        let options = EncodeOptions { threads, ..EncodeOptions::default() };
        input.digests(&format!("threads-{threads}"), &options)
    };
    let one = run(1);
    assert_eq!((run(2), run(4)), (one.clone(), one));
}

#[test]
fn memory_does_not_change_a_byte() {
    // strings, dense and sparse integers as keys; times in order, out of order and missing
    let tables = r#"
      "s": {"primary_key": "id", "columns": {"id": {"stype": "identifier"}, "t": {"stype": "text"}}},
      "d": {"primary_key": "id", "columns": {"id": {"stype": "identifier"}}, "temporal_column": "at"},
      "n": {"primary_key": "id", "columns": {"id": {"stype": "identifier"}}},
      "c": {"temporal_column": "at", "columns": {"at": {"stype": "timestamp"}, "t": {"stype": "text"},
        "s": {"stype": "identifier", "foreign_key": "s.id"}, "d": {"stype": "identifier", "foreign_key": "d.id"},
        "n": {"stype": "identifier", "foreign_key": "n.id"}, "m": {"stype": "identifier", "foreign_key": "n.id"}}}"#;
    let tables = tables.replace(
        r#"{"id": {"stype": "identifier"}}, "temporal"#,
        r#"{"id": {"stype": "identifier"}, "at": {"stype": "timestamp"}}, "temporal"#,
    );
    let (parents, rows) = (3000i64, 80_000i64);
    let key = |row: i64| format!("key {}", row * 31);
    let noise = |row: i64| row.wrapping_mul(2_654_435_761).rem_euclid(100_003);
    let parent = move |row: i64, salt: i64| noise(row * salt + 7) % (parents + 3);
    let times = |values: Vec<i64>| array(TimestampMicrosecondArray::from(values));
    let input = Input::new(&tables)
        .with_groups(
            "s.parquet",
            vec![
                ("id", array(StringArray::from_iter_values((0..parents).map(key)))),
                (
                    "t",
                    array(StringArray::from_iter_values((0..parents).map(|row| format!("a text of {}", row % 1700)))),
                ),
            ],
            700,
        )
        .with_groups(
            "d.parquet",
            vec![("id", ints((0..parents).rev())), ("at", times((0..parents).map(|row| row * DAY).collect()))],
            900,
        )
        .with("n.parquet", vec![("id", ints((0..parents).map(|row| row * row * 1_000_003)))])
        .with_groups(
            "c.parquet",
            vec![
                ("at", times((0..rows).map(|row| noise(row) * SECOND).collect())),
                (
                    "t",
                    array(StringArray::from_iter_values((0..rows).map(|row| format!("text {}", noise(row) % 30_000)))),
                ),
                ("s", array(StringArray::from_iter_values((0..rows).map(|row| key(parent(row, 3)))))),
                ("d", ints((0..rows).map(|row| parent(row, 5)))),
                ("n", ints((0..rows).map(|row| parent(row, 11).pow(2) * 1_000_003))),
                ("m", ints((0..rows).map(|_| 0))),
            ],
            17_000,
        );
    let run = |memory: Option<u64>| {
        let name = format!("memory-{memory:?}");
        let digests = input.digests(&name, &EncodeOptions { memory, ..EncodeOptions::default() });
        let left = std::fs::read_dir(input.folder.path().join(&name)).unwrap();
        assert!(left.map(|entry| entry.unwrap().file_name()).all(|name| !name.to_str().unwrap().starts_with('.')));
        digests
    };
    let plenty = run(None);
    for memory in [0, 100_000, 2_000_000, 40_000_000] {
        assert_eq!(run(Some(memory)), plenty, "{memory} bytes");
    }
    input.encode_with(&EncodeOptions { memory: Some(0), ..EncodeOptions::default() });
}

#[test]
fn statistics_may_end_before_a_time() {
    let columns: Columns = vec![
        ("at", array(TimestampMicrosecondArray::from(vec![Some(DAY), Some(2 * DAY), Some(3 * DAY), None]))),
        ("x", ints([1, 3, 1000, 1000])),
    ];
    let tables =
        r#""t": {"temporal_column": "at", "columns": {"x": {"stype": "numerical"}, "at": {"stype": "timestamp"}}}"#;
    let options = EncodeOptions { stats_until: Some(3 * DAY), ..EncodeOptions::default() };
    let (database, report) = Input::new(tables).with("t.parquet", columns).encode_with(&options);
    let statistics = &report.tables[0].columns[0].statistics;
    assert_eq!((statistics.mean, statistics.std, statistics.max), (Some(2.0), Some(1.0), Some(1000.0)));
    assert_eq!((report.time.mean_us, report.time.std_us), (1.5 * DAY as f64, 0.5 * DAY as f64));
    assert_eq!(database.manifest().stats_until_us, Some(3 * DAY));
    assert_eq!(cells(&database, 0, 0)[2], Some(Cell::Numerical(998.0)));
}

#[test]
fn the_fingerprint_follows_everything_that_matters() {
    let print = |input: &Input, options: &EncodeOptions| encode_fingerprint(&input.path(), options).unwrap();
    let plain = EncodeOptions::default();
    let input = single("numerical", ints([1, 2]));
    let first = print(&input, &plain);
    assert_eq!(print(&input, &EncodeOptions { threads: 3, ..plain.clone() }), first);
    assert_ne!(print(&input, &EncodeOptions { strict: true, ..plain.clone() }), first);
    assert_ne!(print(&input, &EncodeOptions { stats_until: Some(0), ..plain.clone() }), first);
    assert_ne!(print(&single("categorical", ints([1, 2])), &plain), first);
    assert_ne!(print(&single("numerical", ints([1, 3])), &plain), first);
    assert_eq!(input.encode().1.build_id, first[..16]);
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let tables = r#""t": {"columns": {"x": {"stype": "numerical"}}}"#;
    for (bytes, expected) in [
        (b"".as_slice(), "file `t.parquet`: the file is empty (0 bytes)"),
        (b"a,b\n1,2\n", "not a parquet file; convert it to parquet"),
        (b"PAR1 cut off", "the parquet file is cut off"),
        (b"PAR1        PARE", "the parquet file is encrypted"),
    ] {
        let input = Input::new(tables);
        std::fs::write(input.path().join("t.parquet"), bytes).unwrap();
        let error = input.error();
        assert!(error.contains(expected), "{error}");
    }
    let error = Input::new(tables).with("tt.parquet", vec![("x", ints([1]))]).error();
    assert!(error.contains("t.parquet") && error.contains("did you mean `tt.parquet`"), "{error}");
    let error = Input::new(tables).with("t.parquet", vec![("X1", ints([1]))]).error();
    assert!(error.contains("column `x` is missing in the file; did you mean `X1`"), "{error}");
    let error = single("numerical", strings(&["1"])).error();
    assert!(
        error.contains("column `x`: cannot read Utf8View as numerical in file `t.parquet`; set its stype to"),
        "{error}"
    );
    let error = single("text", ints([1])).error();
    assert!(error.contains("cannot read Int64 as text"), "{error}");
    let error = single("timestamp", strings(&["2020-01-01", "yesterday"])).error();
    assert!(error.contains("column `x`: row 1: `yesterday` is not a timestamp"), "{error}");
    for stype in ["text", "categorical", "timestamp"] {
        let error = single(stype, array(BinaryArray::from(vec![b"2020-01-01".as_slice(), b"\xff"]))).error();
        assert!(error.contains("column `x`: row 1: bytes that are not UTF-8"), "{error}");
    }
}

#[test]
fn a_footer_that_claims_billions_of_rows_is_not_believed() {
    let input = single("numerical", ints(0..100));
    let path = input.path().join("t.parquet");
    let bytes = std::fs::read(&path).unwrap();
    let footer = ParquetMetaDataReader::new().parse_and_finish(&File::open(&path).unwrap()).unwrap();
    let data = bytes.len() - 8 - u32::from_le_bytes(bytes[bytes.len() - 8..][..4].try_into().unwrap()) as usize;
    let rows = 3_000_000_000;
    let described = footer.file_metadata();
    let forged = FileMetaData::new(
        described.version(),
        rows,
        None,
        described.key_value_metadata().cloned(),
        described.schema_descr_ptr(),
        described.column_orders().cloned(),
    );
    let group = footer.row_group(0).clone().into_builder().set_num_rows(rows).build().unwrap();
    let forged = ParquetMetaData::new(forged, vec![group]);
    let mut file = bytes[..data].to_vec();
    ParquetMetaDataWriter::new(&mut file, &forged).finish().unwrap();
    std::fs::write(&path, file).unwrap();
    let error = input.error();
    assert!(error.contains("claims 3000000000 rows, but the pages of column `x` hold 100"), "{error}");
}

#[test]
fn negative_keys_beside_unsigned_ones_are_refused() {
    let input = Input::new(r#""t": {"primary_key": "x", "columns": {"x": {"stype": "identifier"}}}"#);
    let keys = Decimal128Array::from(vec![-1, i128::from(u64::MAX)]).with_precision_and_scale(30, 0).unwrap();
    let error = input.with("t.parquet", vec![("x", array(keys))]).error();
    assert!(error.contains("negative keys beside keys above"), "{error}");
}

#[test]
fn a_folder_is_no_file_and_links_are_followed() {
    let input = single("numerical", ints([1]));
    std::fs::rename(input.path().join("t.parquet"), input.folder.path().join("elsewhere.parquet")).unwrap();
    std::fs::create_dir(input.path().join("t.parquet")).unwrap();
    assert!(input.error().contains("`t.parquet` is a folder"));
    std::fs::remove_dir(input.path().join("t.parquet")).unwrap();
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(input.folder.path().join("elsewhere.parquet"), input.path().join("t.parquet"))
            .unwrap();
        assert_eq!(input.encode().1.tables[0].num_rows, 1);
    }
}

#[test]
fn what_is_not_described_is_told() {
    let (_, report) = single("numerical", ints([1]))
        .with("t.parquet", vec![("x", ints([1])), ("extra", ints([1]))])
        .with("stray.parquet", vec![("x", ints([1]))])
        .encode();
    assert!(report.warnings[0].contains("column `extra` of file `t.parquet` is not described"));
    assert!(report.warnings[1].contains("file `stray.parquet` belongs to no table"));
}

#[test]
fn an_error_of_the_progress_ends_the_stage() {
    let input = single("numerical", ints([1]));
    let output = input.folder.path().join("stopped");
    std::fs::create_dir(&output).unwrap();
    let stop = |_: &str, _, _| Err(Error::Closed("stopped".into()));
    assert!(matches!(encode(&input.path(), &output, &EncodeOptions::default(), &stop), Err(Error::Closed(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_is_encoded_is_decoded(
        rows in prop::collection::vec((
            prop::option::of(-1e9f64..1e9),
            prop::option::of(any::<i64>()),
            prop::option::of(any::<bool>()),
            prop::option::of("[a-c\0é ]{0,3}"),
            prop::option::of("[a-c]{0,2}"),
        ), 0..200),
        row_group in 1usize..70,
    ) {
        let tables = r#""t": {"columns": {"n": {"stype": "numerical"}, "m": {"stype": "timestamp"},
            "b": {"stype": "boolean"}, "t": {"stype": "text"}, "c": {"stype": "categorical"}}}"#;
        let columns: Columns = vec![
            ("n", array(Float64Array::from_iter(rows.iter().map(|row| row.0)))),
            ("m", array(TimestampMicrosecondArray::from_iter(rows.iter().map(|row| row.1)))),
            ("b", array(BooleanArray::from_iter(rows.iter().map(|row| row.2)))),
            ("t", array(StringArray::from_iter(rows.iter().map(|row| row.3.as_deref())))),
            ("c", array(StringArray::from_iter(rows.iter().map(|row| row.4.as_deref())))),
        ];
        let (database, _) = Input::new(tables).with_groups("t.parquet", columns, row_group).encode();
        let std = database.manifest().tables[0].columns[0].statistics.std.unwrap();
        for (found, row) in numbers(&database).into_iter().zip(&rows) {
            prop_assert_eq!(found.is_some(), row.0.is_some());
            prop_assert!((found.unwrap_or(0.0) - row.0.unwrap_or(0.0)).abs() <= 1e-5 * std.max(1.0));
        }
        for (found, row) in cells(&database, 0, 1).into_iter().zip(&rows) {
            prop_assert_eq!(found, row.1.filter(|&time| time != i64::MIN && time != i64::MAX).map(Cell::Timestamp));
        }
        for (found, row) in cells(&database, 0, 2).into_iter().zip(&rows) {
            prop_assert_eq!(found, row.2.map(Cell::Boolean));
        }
        let categories = texts(&database, 4).into_iter().map(|text| text.map(|text| text[5..].to_owned()));
        prop_assert!(texts(&database, 3).into_iter().eq(rows.iter().map(|row| row.3.clone())));
        prop_assert!(categories.eq(rows.iter().map(|row| row.4.clone())));
    }
}
