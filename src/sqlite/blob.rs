//! Clips and vectors as rows: bytes and checksums.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::rows::damaged;
use crate::store::{ClipRecord, StoreError};
use crate::types::{ClipId, Embedding, TimeSpan};

/// Bytes of a vector (f32, little-endian) and the checksum stored with them. The checksum covers the row id,
/// so that bytes in a wrong row are detected too.
pub fn encode(row: i64, vector: &Embedding) -> (Vec<u8>, i64) {
    let bytes: Vec<u8> = vector.as_slice().iter().flat_map(|v| v.to_le_bytes()).collect();
    let crc = checksum(row, &bytes);
    (bytes, crc)
}

/// Decodes the vector of a row; `None` if the bytes do not match the checksum.
pub fn decode(row: i64, bytes: &[u8], crc: i64) -> Option<Embedding> {
    if crc != checksum(row, bytes) || !bytes.len().is_multiple_of(4) {
        return None;
    }
    let values: Vec<f32> =
        bytes.chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect();
    let dim = values.len();
    Embedding::new(values, dim).ok()
}

/// Decodes the vector of a row with `id`, `crc` and `data`; `None` if it is damaged.
pub fn of_row(row: &SqliteRow) -> Option<Embedding> {
    let (id, crc) = (row.try_get("id").ok()?, row.try_get("crc").ok()?);
    decode(id, row.try_get("data").ok()?, crc)
}

/// Checksum of a clip's row, without its lanes.
pub fn clip_checksum(id: ClipId, asset: i64, span: &TimeSpan, agreement: Option<f32>) -> i64 {
    let mut bytes = Vec::with_capacity(32);
    bytes.extend(asset.to_le_bytes());
    bytes.extend(span.start_secs.to_le_bytes());
    bytes.extend(span.end_secs.to_le_bytes());
    bytes.extend(agreement.map(f32::to_le_bytes).into_iter().flatten());
    checksum(id.0, &bytes)
}

/// The clip of a row, with the id of its asset.
pub(super) fn record(row: &SqliteRow) -> Result<ClipRecord, StoreError> {
    let asset: &str = row.try_get("asset_id")?;
    let (start, end) = (row.try_get("start_secs")?, row.try_get("end_secs")?);
    let clip = ClipRecord {
        id: ClipId(row.try_get("id")?),
        asset: asset.parse().map_err(|_| damaged("asset id", asset))?,
        span: TimeSpan::new(start, end).map_err(|e| damaged("clip", &e.to_string()))?,
        agreement: row.try_get("agreement")?,
    };
    let wanted: Option<i64> = row.try_get("crc")?;
    let found = clip_checksum(clip.id, row.try_get("asset")?, &clip.span, clip.agreement);
    match wanted {
        Some(wanted) if wanted != found => Err(damaged("clip", "its checksum is wrong")),
        _ => Ok(clip),
    }
}

/// Checksum of what indexing found out about an asset.
pub fn outcome_checksum(kind: Option<&str>, duration_secs: f64, width: u32, height: u32) -> i64 {
    let mut bytes = Vec::from(kind.unwrap_or(""));
    bytes.extend(duration_secs.to_le_bytes());
    checksum(i64::from(width) << 32 | i64::from(height), &bytes)
}

fn checksum(row: i64, bytes: &[u8]) -> i64 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&row.to_le_bytes());
    hasher.update(bytes);
    i64::from(hasher.finalize())
}
