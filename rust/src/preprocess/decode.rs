//! Arrow arrays of every type -> the few forms in which cells are encoded.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type,
    DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType, DurationSecondType, Float16Type,
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, Time32MillisecondType, Time32SecondType,
    Time64MicrosecondType, Time64NanosecondType, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, PrimitiveArray};
use arrow_schema::{DataType, TimeUnit};

use super::vocabulary::{BatchTexts, NO_TEXT};
use crate::timestamp::{self, DAY_US};

/// A moment that is not there.
pub(super) const NO_TIME: i64 = i64::MAX;
/// A boolean that is not there.
pub(super) const NO_BOOLEAN: u8 = 2;

/// A cell that cannot be read: its row in the batch and what is wrong.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadCell {
    pub(super) row: usize,
    pub(super) message: String,
}

type Decoded<T> = Result<T, BadCell>;

/// What was read, and the cells that count as null although the file holds something.
#[derive(Debug, PartialEq)]
pub(super) struct Column<T> {
    /// One value per row.
    pub(super) values: Vec<T>,
    /// NaN, infinities and moments outside of the range of microseconds.
    pub(super) unusable: u64,
}

fn unexpected(array: &dyn Array) -> BadCell {
    BadCell { row: 0, message: format!("cannot read {}", array.data_type()) }
}

/// Calls `emit` with every value, or `None` for a null.
#[inline]
fn each<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>, mut emit: impl FnMut(Option<T::Native>)) {
    if array.null_count() == 0 {
        array.values().iter().for_each(|&value| emit(Some(value)));
    } else {
        array.iter().for_each(emit);
    }
}

/// Matches a numeric array and runs `$visit(array, to_f64)` for its type.
macro_rules! visit_numbers {
    ($array:expr, $visit:ident, $else:expr) => {
        match $array.data_type() {
            DataType::Int8 => $visit($array.as_primitive::<Int8Type>(), f64::from),
            DataType::Int16 => $visit($array.as_primitive::<Int16Type>(), f64::from),
            DataType::Int32 => $visit($array.as_primitive::<Int32Type>(), f64::from),
            DataType::Int64 => $visit($array.as_primitive::<Int64Type>(), |value| value as f64),
            DataType::UInt8 => $visit($array.as_primitive::<UInt8Type>(), f64::from),
            DataType::UInt16 => $visit($array.as_primitive::<UInt16Type>(), f64::from),
            DataType::UInt32 => $visit($array.as_primitive::<UInt32Type>(), f64::from),
            DataType::UInt64 => $visit($array.as_primitive::<UInt64Type>(), |value| value as f64),
            DataType::Float16 => $visit($array.as_primitive::<Float16Type>(), |value| value.to_f64()),
            DataType::Float32 => $visit($array.as_primitive::<Float32Type>(), f64::from),
            DataType::Float64 => $visit($array.as_primitive::<Float64Type>(), |value| value),
            DataType::Decimal32(_, scale) => {
                let unit = 10f64.powi(i32::from(*scale));
                $visit($array.as_primitive::<Decimal32Type>(), move |value| f64::from(value) / unit)
            }
            DataType::Decimal64(_, scale) => {
                let unit = 10f64.powi(i32::from(*scale));
                $visit($array.as_primitive::<Decimal64Type>(), move |value| value as f64 / unit)
            }
            DataType::Decimal128(_, scale) => {
                let unit = 10f64.powi(i32::from(*scale));
                $visit($array.as_primitive::<Decimal128Type>(), move |value| value as f64 / unit)
            }
            DataType::Decimal256(_, scale) => {
                let scale = *scale;
                $visit($array.as_primitive::<Decimal256Type>(), move |value| {
                    format!("{value}e{}", -i32::from(scale)).parse().unwrap_or(f64::NAN)
                })
            }
            DataType::Time32(TimeUnit::Second) => $visit($array.as_primitive::<Time32SecondType>(), f64::from),
            DataType::Time32(_) => {
                $visit($array.as_primitive::<Time32MillisecondType>(), |value| f64::from(value) / 1e3)
            }
            DataType::Time64(TimeUnit::Microsecond) => {
                $visit($array.as_primitive::<Time64MicrosecondType>(), |value| value as f64 / 1e6)
            }
            DataType::Time64(_) => $visit($array.as_primitive::<Time64NanosecondType>(), |value| value as f64 / 1e9),
            DataType::Duration(TimeUnit::Second) => {
                $visit($array.as_primitive::<DurationSecondType>(), |value| value as f64)
            }
            DataType::Duration(TimeUnit::Millisecond) => {
                $visit($array.as_primitive::<DurationMillisecondType>(), |value| value as f64 / 1e3)
            }
            DataType::Duration(TimeUnit::Microsecond) => {
                $visit($array.as_primitive::<DurationMicrosecondType>(), |value| value as f64 / 1e6)
            }
            DataType::Duration(TimeUnit::Nanosecond) => {
                $visit($array.as_primitive::<DurationNanosecondType>(), |value| value as f64 / 1e9)
            }
            _ => $else,
        }
    };
}

/// Numbers as f64, times of day and durations in seconds, booleans as 0 and 1; NaN where there is no finite number.
pub(super) fn numbers(array: &dyn Array) -> Decoded<Column<f64>> {
    fn read<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>, to_f64: impl Fn(T::Native) -> f64) -> Column<f64> {
        let mut values = Vec::with_capacity(array.len());
        let mut unusable = 0;
        each(array, |value| {
            let number = value.map_or(f64::NAN, &to_f64);
            unusable += u64::from(value.is_some() && !number.is_finite());
            values.push(if number.is_finite() { number } else { f64::NAN });
        });
        Column { values, unusable }
    }
    Ok(visit_numbers!(
        array,
        read,
        match array.data_type() {
            DataType::Boolean => {
                let values = array.as_boolean().iter();
                let values = values.map(|value| value.map_or(f64::NAN, |value| f64::from(u8::from(value))));
                Column { values: values.collect(), unusable: 0 }
            }
            DataType::Null => Column { values: vec![f64::NAN; array.len()], unusable: 0 },
            _ => return Err(unexpected(array)),
        }
    ))
}

/// Booleans, or numbers that are 0 or 1, as 0 and 1; [`NO_BOOLEAN`] for null and NaN.
pub(super) fn booleans(array: &dyn Array) -> Decoded<Column<u8>> {
    if let Some(values) = array.as_boolean_opt() {
        let values = values.iter().map(|value| value.map_or(NO_BOOLEAN, u8::from)).collect();
        return Ok(Column { values, unusable: 0 });
    }
    let Column { values, unusable } = numbers(array)?;
    let of = |(row, &value): (usize, &f64)| match value {
        0.0 => Ok(0),
        1.0 => Ok(1),
        value if value.is_nan() => Ok(NO_BOOLEAN),
        value => Err(BadCell { row, message: format!("{value} is not a boolean; expected 0, 1, false or true") }),
    };
    let values = values.iter().enumerate().map(of).collect::<Decoded<_>>()?;
    Ok(Column { values, unusable })
}

/// Moments as microseconds since 1970-01-01 UTC; [`NO_TIME`] where there is none.
///
/// Dates are midnight UTC; digits below a microsecond are cut off downwards; strings are ISO 8601. Moments that do not
/// fit are unusable, never wrapped.
pub(super) fn moments(array: &dyn Array) -> Decoded<Column<i64>> {
    fn read<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>, to_us: impl Fn(T::Native) -> Option<i64>) -> Column<i64> {
        let mut values = Vec::with_capacity(array.len());
        let mut unusable = 0;
        each(array, |value| {
            // The two ends of the range stand for rows that are always and never visible.
            let time = value.and_then(&to_us).filter(|&time| time != i64::MIN && time != NO_TIME);
            unusable += u64::from(value.is_some() && time.is_none());
            values.push(time.unwrap_or(NO_TIME));
        });
        Column { values, unusable }
    }
    Ok(match array.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => {
            read(array.as_primitive::<TimestampSecondType>(), |value| value.checked_mul(1_000_000))
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            read(array.as_primitive::<TimestampMillisecondType>(), |value| value.checked_mul(1000))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => read(array.as_primitive::<TimestampMicrosecondType>(), Some),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            read(array.as_primitive::<TimestampNanosecondType>(), |value| Some(value.div_euclid(1000)))
        }
        DataType::Date32 => read(array.as_primitive::<Date32Type>(), |value| i64::from(value).checked_mul(DAY_US)),
        DataType::Date64 => read(array.as_primitive::<Date64Type>(), |value| value.checked_mul(1000)),
        DataType::Utf8View | DataType::BinaryView => {
            let mut values = Vec::with_capacity(array.len());
            each_text(array, |text| {
                let Some(text) = text else {
                    values.push(NO_TIME);
                    return Ok(());
                };
                let time = timestamp::parse(text).ok_or_else(|| {
                    let expected = "expected a date or time as 2020-01-31 or 2020-01-31 12:00:00";
                    format!("`{}` is not a timestamp; {expected}", shorten(text))
                })?;
                values.push(time);
                Ok(())
            })?;
            Column { values, unusable: 0 }
        }
        DataType::Null => Column { values: vec![NO_TIME; array.len()], unusable: 0 },
        _ => return Err(unexpected(array)),
    })
}

/// Calls `emit` with every string, or `None` for a null; bytes must be UTF-8.
fn each_text(array: &dyn Array, mut emit: impl FnMut(Option<&str>) -> Result<(), String>) -> Decoded<()> {
    let at = |row| move |message| BadCell { row, message };
    if let Some(texts) = array.as_string_view_opt() {
        return texts.iter().enumerate().try_for_each(|(row, text)| emit(text).map_err(at(row)));
    }
    let bytes = array.as_binary_view_opt().ok_or_else(|| unexpected(array))?;
    bytes.iter().enumerate().try_for_each(|(row, bytes)| {
        let text = bytes.map(utf8).transpose().map_err(at(row))?;
        emit(text).map_err(at(row))
    })
}

/// Bytes as the string they must be.
pub(super) fn utf8(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| "bytes that are not UTF-8; write the column as UTF-8 strings".to_owned())
}

/// A user's text in a message, cut to a bearable length.
pub(super) fn shorten(text: &str) -> String {
    let mut shown: String = text.chars().take(60).collect::<String>().escape_debug().collect();
    if text.chars().nth(60).is_some() {
        shown.push('…');
    }
    shown
}

/// Free texts as they are, the empty one included.
pub(super) fn texts(array: &dyn Array) -> Decoded<BatchTexts> {
    let mut found = BatchTexts::new(String::new(), array.len());
    match array.data_type() {
        DataType::Null => found.ids.resize(array.len(), NO_TEXT),
        _ => intern_all(array, &mut found)?,
    }
    found.seal();
    Ok(found)
}

fn intern_all(array: &dyn Array, found: &mut BatchTexts) -> Decoded<()> {
    each_text(array, |text| {
        let id = text.map_or(NO_TEXT, |text| found.intern(text.as_bytes()));
        found.ids.push(id);
        Ok(())
    })
}

/// Categories as `<column> is <value>`; numbers in their shortest form, so that 1 and 1.0 are one category.
pub(super) fn categories(array: &dyn Array, column: &str) -> Decoded<(BatchTexts, u64)> {
    let mut found = BatchTexts::new(format!("{column} is "), array.len());
    let unusable = match array.data_type() {
        DataType::Dictionary(..) => categories_of_dictionary(array, &mut found)?,
        DataType::Utf8View | DataType::BinaryView => {
            intern_all(array, &mut found)?;
            0
        }
        DataType::Boolean => {
            for value in array.as_boolean() {
                let id = value.map_or(NO_TEXT, |value| found.intern(if value { b"true" } else { b"false" }));
                found.ids.push(id);
            }
            0
        }
        DataType::Decimal32(_, scale) => exact(array.as_primitive::<Decimal32Type>(), *scale, &mut found),
        DataType::Decimal64(_, scale) => exact(array.as_primitive::<Decimal64Type>(), *scale, &mut found),
        DataType::Decimal128(_, scale) => exact(array.as_primitive::<Decimal128Type>(), *scale, &mut found),
        DataType::Decimal256(_, scale) => exact(array.as_primitive::<Decimal256Type>(), *scale, &mut found),
        DataType::Int64 => exact(array.as_primitive::<Int64Type>(), 0, &mut found),
        DataType::UInt64 => exact(array.as_primitive::<UInt64Type>(), 0, &mut found),
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => {
            let times = moments(array)?;
            remembered(
                times.values.into_iter().map(|time| (time != NO_TIME).then_some(time)),
                timestamp::format,
                &mut found,
            );
            times.unusable
        }
        DataType::FixedSizeBinary(_) => {
            for value in array.as_fixed_size_binary() {
                let id = value.map_or(NO_TEXT, |value| found.intern(hex(value).as_bytes()));
                found.ids.push(id);
            }
            0
        }
        DataType::Float32 => {
            let values = array.as_primitive::<Float32Type>();
            let usable = |value: Option<f32>| value.filter(|value| value.is_finite()).map(f32::to_bits);
            remembered(values.iter().map(usable), |bits| shortest(&f32::from_bits(bits)), &mut found);
            values.iter().flatten().filter(|value| !value.is_finite()).count() as u64
        }
        _ => {
            let numbers = numbers(array)?;
            let usable = |value: f64| (!value.is_nan()).then_some(value.to_bits());
            let format = |bits| shortest(&f64::from_bits(bits));
            remembered(numbers.values.into_iter().map(usable), format, &mut found);
            numbers.unusable
        }
    };
    found.seal();
    Ok((found, unusable))
}

/// The shortest text that reads back as the same float, without `-0`, `.0` and long rows of zeros.
fn shortest<T: std::fmt::Display + std::fmt::LowerExp>(value: &T) -> String {
    let text = value.to_string();
    match text.as_str() {
        "-0" => "0".into(),
        _ if text.len() > 24 => format!("{value:e}"),
        _ => text,
    }
}

/// Lower-case hexadecimal, grouped as a UUID where it has its 16 bytes.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(2 * bytes.len() + 4);
    for (position, byte) in bytes.iter().enumerate() {
        if bytes.len() == 16 && matches!(position, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        write!(text, "{byte:02x}").expect("a string takes every text");
    }
    text
}

/// Integers and decimals, digit by digit, without trailing zeros behind the point.
fn exact<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>, scale: i8, found: &mut BatchTexts) -> u64
where
    T::Native: std::fmt::Display + std::hash::Hash + Eq,
{
    remembered(array.iter(), |value| decimal(&value.to_string(), scale), found);
    0
}

/// Digits with a point `scale` places from their end.
fn decimal(digits: &str, scale: i8) -> String {
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |digits| ("-", digits));
    if scale <= 0 {
        let zeros = if digits == "0" { 0 } else { usize::from(scale.unsigned_abs()) };
        return format!("{sign}{digits}{}", "0".repeat(zeros));
    }
    let places = scale.unsigned_abs() as usize;
    let padded = format!("{digits:0>width$}", width = places + 1);
    let (whole, fraction) = padded.split_at(padded.len() - places);
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

/// Formats each distinct value once.
fn remembered<V: std::hash::Hash + Eq + Copy>(
    values: impl Iterator<Item = Option<V>>,
    format: impl Fn(V) -> String,
    found: &mut BatchTexts,
) {
    let mut known: hashbrown::HashMap<V, u32> = hashbrown::HashMap::new();
    for value in values {
        let id = value
            .map_or(NO_TEXT, |value| *known.entry(value).or_insert_with(|| found.intern(format(value).as_bytes())));
        found.ids.push(id);
    }
}

/// Takes the indices of a dictionary over; its texts are looked at once each, in the order of the rows.
fn categories_of_dictionary(array: &dyn Array, found: &mut BatchTexts) -> Decoded<u64> {
    let dictionary = array.as_dictionary_opt::<Int32Type>().ok_or_else(|| unexpected(array))?;
    let texts = dictionary.values().as_string_opt::<i32>().ok_or_else(|| unexpected(array))?;
    let mut ids = vec![NO_TEXT; texts.len()];
    each(dictionary.keys(), |key| {
        let id = match key.map(|key| key as usize) {
            Some(key) if texts.is_valid(key) => {
                if ids[key] == NO_TEXT {
                    ids[key] = found.intern(texts.value(key).as_bytes());
                }
                ids[key]
            }
            _ => NO_TEXT,
        };
        found.ids.push(id);
    });
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{
        ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int64Array, NullArray,
        StringViewArray, TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray, UInt64Array,
    };
    use std::sync::Arc;

    fn category_texts(array: &dyn Array) -> Vec<Option<String>> {
        let (found, _) = categories(array, "c").unwrap();
        let text = |id: u32| String::from_utf8(found.text(id as usize).to_vec()).unwrap();
        found.ids.iter().map(|&id| (id != NO_TEXT).then(|| text(id))).collect()
    }

    #[test]
    fn numbers_of_every_kind() {
        let extremes = numbers(&Int64Array::from(vec![Some(i64::MIN), None, Some(i64::MAX)])).unwrap();
        assert_eq!((extremes.values[0], extremes.values[1].is_nan()), (-9_223_372_036_854_775_808.0, true));
        assert_eq!(numbers(&UInt64Array::from(vec![u64::MAX])).unwrap().values, [18_446_744_073_709_551_615.0]);
        let odd = numbers(&Float64Array::from(vec![1.5, f64::NAN, f64::NEG_INFINITY])).unwrap();
        assert_eq!((odd.unusable, odd.values[0], odd.values[2].is_nan()), (2, 1.5, true));
        let decimals = Decimal128Array::from(vec![12345, -1]).with_precision_and_scale(10, 2).unwrap();
        assert_eq!(numbers(&decimals).unwrap().values, [123.45, -0.01]);
        assert!(numbers(&StringViewArray::from(vec!["1"])).is_err());
        assert!(numbers(&NullArray::new(2)).unwrap().values.iter().all(|value| value.is_nan()));
    }

    #[test]
    fn booleans_are_0_and_1_only() {
        assert_eq!(booleans(&BooleanArray::from(vec![Some(true), None])).unwrap().values, [1, NO_BOOLEAN]);
        assert_eq!(booleans(&Float64Array::from(vec![0.0, 1.0, f64::NAN])).unwrap().values, [0, 1, NO_BOOLEAN]);
        let bad = booleans(&Int64Array::from(vec![0, 1, 2])).unwrap_err();
        assert_eq!((bad.row, bad.message.contains('2')), (2, true));
    }

    #[test]
    fn moments_keep_their_instant_or_are_counted() {
        assert_eq!(
            moments(&TimestampSecondArray::from(vec![1, i64::MAX])).unwrap(),
            Column { values: vec![1_000_000, NO_TIME], unusable: 1 }
        );
        assert_eq!(moments(&TimestampMillisecondArray::from(vec![-1])).unwrap().values, [-1000]);
        assert_eq!(moments(&TimestampNanosecondArray::from(vec![-1, 1999])).unwrap().values, [-1, 1]);
        assert_eq!(
            moments(&Date32Array::from(vec![1, i32::MAX])).unwrap(),
            Column { values: vec![DAY_US, NO_TIME], unusable: 1 }
        );
        assert_eq!(moments(&StringViewArray::from(vec![Some("1970-01-02"), None])).unwrap().values, [DAY_US, NO_TIME]);
        assert_eq!(moments(&StringViewArray::from(vec!["x"])).unwrap_err().row, 0);
    }

    #[test]
    fn categories_have_one_text_per_value() {
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![1.0, -0.0, 0.0, f64::NAN, 1e300, 0.1]));
        let expected = ["c is 1", "c is 0", "c is 0", "-", "c is 1e300", "c is 0.1"];
        let found = category_texts(&floats);
        assert_eq!(found.iter().map(|text| text.as_deref().unwrap_or("-")).collect::<Vec<_>>(), expected);
        assert_eq!(category_texts(&Float32Array::from(vec![0.1])), [Some("c is 0.1".into())]);
        assert_eq!(category_texts(&Int64Array::from(vec![i64::MIN])), [Some("c is -9223372036854775808".into())]);
        assert_eq!(category_texts(&BooleanArray::from(vec![Some(true), None])), [Some("c is true".into()), None]);
        let texts = category_texts(&StringViewArray::from(vec!["", " ", "a\0b"]));
        assert_eq!(texts, [Some("c is ".into()), Some("c is  ".into()), Some("c is a\0b".into())]);
        assert_eq!(
            (decimal("-5", 2), decimal("1500", 2), decimal("7", -2)),
            ("-0.05".into(), "15".into(), "700".into())
        );
        assert_eq!(hex(&[0xab; 16]), "abababab-abab-abab-abab-abababababab");
    }
}
