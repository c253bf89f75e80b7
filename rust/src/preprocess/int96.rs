//! INT96 timestamps: days and nanoseconds in 96 bits, of which 64-bit microseconds hold only a part.

use std::fs::File;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMillisecondType;
use arrow_schema::{DataType, TimeUnit};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};

use crate::guard::guarded;

/// Looks for a moment of the column at `root` that does not fit into microseconds; answers its row.
///
/// The parquet crate wraps such moments when it reads microseconds, so they are read in milliseconds here, which hold
/// every INT96.
///
/// # Errors
/// The message of the parquet crate.
pub(super) fn first_beyond(file: File, metadata: &ArrowReaderMetadata, root: usize) -> Result<Option<usize>, String> {
    let milliseconds = DataType::Timestamp(TimeUnit::Millisecond, None);
    let metadata = super::source::with_types(metadata, [(root, milliseconds)]).map_err(|error| error.to_string())?;
    let mask = ProjectionMask::roots(metadata.parquet_schema(), [root]);
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata).with_projection(mask).build();
    let mut reader = reader.map_err(|error| error.to_string())?;
    let mut first_row = 0;
    while let Some(batch) = guarded(|| reader.next()).unwrap_or(None) {
        let batch = batch.map_err(|error| error.to_string())?;
        let times = batch.column(0).as_primitive::<TimestampMillisecondType>();
        let is_beyond = |time: Option<i64>| time.is_some_and(|time| time.checked_mul(1000).is_none());
        if let Some(row) = times.iter().position(is_beyond) {
            return Ok(Some(first_row + row));
        }
        first_row += times.len();
    }
    Ok(None)
}
