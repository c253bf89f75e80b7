//! Whole tables: their files, bytes that may not change, and what cannot be read.

use super::*;

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
