//! What the values of a column are, whatever their width and encoding, and which stypes they can carry.

use arrow_schema::DataType;

use crate::stype::Stype;

/// A family of Arrow types that are read alike; the parts of a table may differ within one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValueKind {
    /// No values at all; agrees with every other kind.
    Null,
    /// True and false.
    Boolean,
    /// Integers, floats and decimals of every width.
    Number,
    /// Dates and timestamps of every unit and zone.
    Moment,
    /// Times of day and durations.
    Clock,
    /// Strings of every layout, and bytes that must be UTF-8 (read as `BinaryView`).
    Text,
    /// Other bytes.
    Bytes,
    /// Lists, structs, maps and what else has no single value.
    Nested,
}

impl ValueKind {
    pub(super) fn of(data_type: &DataType) -> Self {
        match data_type {
            DataType::Null => Self::Null,
            DataType::Boolean => Self::Boolean,
            DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::UInt8
            | DataType::UInt16
            | DataType::UInt32
            | DataType::UInt64
            | DataType::Float16
            | DataType::Float32
            | DataType::Float64
            | DataType::Decimal32(..)
            | DataType::Decimal64(..)
            | DataType::Decimal128(..)
            | DataType::Decimal256(..) => Self::Number,
            DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => Self::Moment,
            DataType::Time32(_) | DataType::Time64(_) | DataType::Duration(_) => Self::Clock,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::BinaryView => Self::Text,
            DataType::FixedSizeBinary(_) | DataType::Binary | DataType::LargeBinary => Self::Bytes,
            DataType::Dictionary(_, value) => Self::of(value),
            DataType::Interval(_)
            | DataType::List(_)
            | DataType::ListView(_)
            | DataType::FixedSizeList(..)
            | DataType::LargeList(_)
            | DataType::LargeListView(_)
            | DataType::Struct(_)
            | DataType::Union(..)
            | DataType::Map(..)
            | DataType::RunEndEncoded(..) => Self::Nested,
        }
    }

    /// Whether a column of this kind can have the stype.
    pub(super) fn carries(self, stype: Stype) -> bool {
        match stype {
            Stype::Identifier | Stype::Categorical => self != Self::Nested,
            Stype::Numerical => matches!(self, Self::Null | Self::Boolean | Self::Number | Self::Clock),
            Stype::Timestamp => matches!(self, Self::Null | Self::Moment | Self::Text),
            Stype::Boolean => matches!(self, Self::Null | Self::Boolean | Self::Number),
            Stype::Text => matches!(self, Self::Null | Self::Text),
        }
    }

    /// What messages call the values.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Null => "no values",
            Self::Boolean => "booleans",
            Self::Number => "numbers",
            Self::Moment => "dates or timestamps",
            Self::Clock => "times of day or durations",
            Self::Text => "strings",
            Self::Bytes => "bytes",
            Self::Nested => "nested values",
        }
    }

    /// What to do when a stype does not fit.
    pub(super) fn remedy(self) -> &'static str {
        match self {
            Self::Boolean => "set its stype to boolean, numerical, categorical or ignored",
            Self::Number | Self::Clock => "set its stype to numerical, categorical or ignored",
            Self::Moment => "set its stype to timestamp, categorical or ignored",
            Self::Text => "set its stype to text, categorical, timestamp (ISO 8601 dates) or ignored",
            Self::Bytes => "set its stype to categorical or ignored",
            Self::Null | Self::Nested => "set its stype to ignored",
        }
    }
}
