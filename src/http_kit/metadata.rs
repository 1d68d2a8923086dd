//! Metadata that a request brings.

use serde_json::Value;

use super::error::ApiError;
use crate::library::MAX_METADATA_BYTES;

/// Metadata is an object of bounded size; absent is an empty one.
pub fn checked_metadata(metadata: Value) -> Result<Value, ApiError> {
    match metadata {
        Value::Null => Ok(serde_json::json!({})),
        Value::Object(_) if metadata.to_string().len() <= MAX_METADATA_BYTES => Ok(metadata),
        Value::Object(_) => Err(ApiError::invalid(
            "metadata",
            format!("`metadata` must be at most {MAX_METADATA_BYTES} bytes"),
        )),
        _ => Err(ApiError::invalid("metadata", "`metadata` must be a JSON object")),
    }
}
