//! Every type of column, and what its cells become.

use super::*;

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
