//! `data:` URIs: media inside a JSON body.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::error::ApiError;
use crate::types::Modality;

/// The bytes of `data:<type>;base64,<bytes>`; the type must fit the modality. For a sound, a video is
/// accepted, and its sound is used.
pub fn decode(uri: &str, modality: Modality, param: &str) -> Result<Vec<u8>, ApiError> {
    let Some((head, payload)) = uri.split_once(',').filter(|_| uri.starts_with("data:")) else {
        check(uri, modality, param)?;
        return Err(ApiError::invalid(param, "expected a comma before the data of the data: URI"));
    };
    check(head, modality, param)?;
    STANDARD.decode(payload.trim()).map_err(|error| not_base64(&error.to_string(), param))
}

/// Answer to bytes that are not base64.
pub fn not_base64(problem: &str, param: &str) -> ApiError {
    ApiError::invalid(param, format!("the data: URI is not valid base64: {problem}"))
}

/// The media type in what stands before the comma, which must fit the modality.
pub fn check(head: &str, modality: Modality, param: &str) -> Result<String, ApiError> {
    let refused = |message: &str| ApiError::invalid(param, message);
    let Some(head) = head.strip_prefix("data:") else {
        return Err(refused("expected media as a data: URI, such as data:audio/wav;base64,UklGR..."));
    };
    let mut parts = head.split(';');
    let media_type = parts.next().unwrap_or("").trim().to_ascii_lowercase();
    if !parts.any(|part| part.trim().eq_ignore_ascii_case("base64")) {
        return Err(refused("the data: URI must be base64"));
    }
    let top = media_type.split('/').next().unwrap_or("");
    let fits = match modality {
        Modality::Image => top == "image",
        Modality::Video => top == "video",
        Modality::Audio => top == "audio" || top == "video",
        Modality::Text => false,
    };
    // Some browsers do not know a container's type; the bytes decide in any case.
    if fits || media_type == "application/octet-stream" {
        return Ok(media_type);
    }
    let message = format!("expected a data: URI of {modality}, got `{media_type}`");
    Err(ApiError::new(axum::http::StatusCode::BAD_REQUEST, "media_type_mismatch", message).with_param(param))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_uris_are_checked() {
        let good = |uri: &str, modality| decode(uri, modality, "query").unwrap();
        assert_eq!(good("data:audio/wav;base64,aGk=", Modality::Audio), b"hi");
        assert_eq!(good("data:video/webm;codecs=vp9;base64,aGk=", Modality::Audio), b"hi");
        assert_eq!(good("data:application/octet-stream;base64,aGk=", Modality::Video), b"hi");
        for (uri, modality) in [
            ("aGk=", Modality::Audio),
            ("data:audio/wav,hi", Modality::Audio),
            ("data:audio/wav;base64", Modality::Audio),
            ("data:audio/wav;base64,a?", Modality::Audio),
            ("data:audio/wav;base64,aGk=", Modality::Image),
            ("data:text/html;base64,aGk=", Modality::Video),
            ("file:///etc/passwd", Modality::Video),
        ] {
            assert!(decode(uri, modality, "query").is_err(), "{uri}");
        }
    }
}
