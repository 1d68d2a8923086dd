//! Stored queries, which can be embedded again for another model.

use super::{Input, Part, span_of};
use crate::collection::ask::check_text;
use crate::http_intake::bodies::MediaField;
use crate::http_kit::data_uri;
use crate::http_kit::error::ApiError;
use crate::library::{LibraryError, MAX_GIVEN_BYTES, StandingError, StandingInput, StandingPart};
use crate::types::Modality;

/// The parts as they are stored.
pub async fn stored_parts(parts: Vec<Part>) -> Result<Vec<StandingPart>, ApiError> {
    let mut stored = Vec::with_capacity(parts.len());
    for Part { input, weight, at } in parts {
        let given = match input {
            Input::Text(text) => {
                check_text(&text, &at)?;
                StandingInput::Text(text)
            }
            Input::Media(modality, uri) => {
                let (media_type, bytes) = decoded(uri, modality, &at).await?;
                StandingInput::Media { modality, media_type, bytes }
            }
            Input::Asset(asset) => {
                span_of(asset.start_secs, asset.end_secs, &format!("{at}.start_secs"))?;
                let (start_secs, end_secs) = (asset.start_secs, asset.end_secs);
                StandingInput::Asset { id: asset.id, start_secs, end_secs, track: asset.track }
            }
        };
        stored.push(StandingPart { given, weight, at });
    }
    Ok(stored)
}

/// Type and bytes of a `data:` URI; they are kept in the store, and few.
async fn decoded(media: MediaField, modality: Modality, param: &str) -> Result<(String, Vec<u8>), ApiError> {
    match media {
        MediaField::Written(uri) => {
            let bytes = data_uri::decode(&uri, modality, param)?;
            let head = uri.split(',').next().unwrap_or("");
            Ok((data_uri::check(head, modality, param)?, bytes))
        }
        MediaField::Large(large) => {
            let media_type = data_uri::check(&large.head, modality, param)?;
            let upload = large.bytes.map_err(|problem| data_uri::not_base64(&problem, param))?;
            if upload.content.size_bytes > MAX_GIVEN_BYTES as u64 {
                return Err(LibraryError::from(StandingError::TooLarge).into());
            }
            let bytes = tokio::fs::read(&upload.path).await.map_err(LibraryError::from)?;
            Ok((media_type, bytes))
        }
    }
}
