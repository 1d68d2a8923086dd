//! A query as it is stored, to be embedded again for another model.

use super::bodies::GivenMedia;
use super::data_uri;
use super::error::ApiError;
use super::query::{self, MAX_PARTS, QueryBody, QueryInput};
use crate::library::{Given, GivenPart, LibraryError, MAX_GIVEN_BYTES, StandingError};
use crate::types::Modality;

/// The parts as they are kept, each with the name of its field.
pub async fn parts_of(input: QueryInput) -> Result<(Vec<GivenPart>, Vec<String>), ApiError> {
    let bodies = match input {
        QueryInput::Words(text) => {
            query::check_text(&text, "query")?;
            let part = GivenPart { given: Given::Text(text), weight: 1.0 };
            return Ok((vec![part], vec!["query".to_owned()]));
        }
        QueryInput::One(body) => vec![(body, "query".to_owned())],
        QueryInput::Several(bodies) => {
            bodies.into_iter().enumerate().map(|(n, body)| (body, format!("query[{n}]"))).collect()
        }
    };
    if bodies.is_empty() || bodies.len() > MAX_PARTS {
        return Err(ApiError::invalid("query", format!("expected 1 to {MAX_PARTS} query parts")));
    }
    let (mut parts, mut params) = (Vec::new(), Vec::new());
    for (body, param) in bodies {
        let weight = query::checked_weight(body.weight.unwrap_or(1.0), &format!("{param}.weight"))?;
        let (given, param) = given(body, param).await?;
        parts.push(GivenPart { given, weight });
        params.push(param);
    }
    Ok((parts, params))
}

async fn given(body: QueryBody, param: String) -> Result<(Given, String), ApiError> {
    let media = [(Modality::Image, body.image), (Modality::Audio, body.audio), (Modality::Video, body.video)];
    let mut media: Vec<_> = media.into_iter().filter_map(|(m, uri)| uri.map(|uri| (m, uri))).collect();
    match (body.text, media.pop(), body.asset) {
        (Some(text), None, None) => {
            let param = format!("{param}.text");
            query::check_text(&text, &param)?;
            Ok((Given::Text(text), param))
        }
        (None, Some((modality, uri)), None) if media.is_empty() => {
            let param = format!("{param}.{modality}");
            let (media_type, bytes) = decoded(uri, modality, &param).await?;
            Ok((Given::Media { modality, media_type, bytes }, param))
        }
        (None, None, Some(asset)) => {
            query::span_of(asset.start_secs, asset.end_secs, &format!("{param}.asset.start_secs"))?;
            let (start_secs, end_secs) = (asset.start_secs, asset.end_secs);
            let given = Given::Asset { id: asset.id, start_secs, end_secs, track: asset.track };
            Ok((given, format!("{param}.asset")))
        }
        _ => {
            let message = "expected exactly one of text, image, audio, video or asset in a query part";
            Err(ApiError::invalid(param, message))
        }
    }
}

/// Type and bytes of a `data:` URI; they are kept in the store, and few.
async fn decoded(media: GivenMedia, modality: Modality, param: &str) -> Result<(String, Vec<u8>), ApiError> {
    match media {
        GivenMedia::Written(uri) => {
            let bytes = data_uri::decode(&uri, modality, param)?;
            let head = uri.split(',').next().unwrap_or("");
            Ok((data_uri::check(head, modality, param)?, bytes))
        }
        GivenMedia::Large(large) => {
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
