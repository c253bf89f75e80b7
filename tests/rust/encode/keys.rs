//! Keys, links and times of rows.

use super::*;

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
