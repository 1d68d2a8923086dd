//! Multipart bodies: small text fields, and one file that is streamed to disk.

use std::collections::BTreeMap;

use axum::RequestExt;
use axum::extract::Request;
use axum::extract::multipart::{Field, Multipart, MultipartError, MultipartRejection};
use axum::http::StatusCode;

use super::admission::Ticket;
use super::bodies::Shares;
use super::state::AppState;
use crate::files::Upload;
use crate::http_kit::error::ApiError;
use crate::types::{TrackChoice, quoted};

/// Longest text field, bytes.
const MAX_FIELD_BYTES: usize = 1 << 20;
/// Longest stored name of an upload, in characters.
const MAX_NAME_CHARS: usize = 255;

/// A received form.
#[derive(Debug, Default)]
pub struct Form {
    /// The `file` field, with the name its sender gave it.
    pub file: Option<(Upload, String)>,
    fields: BTreeMap<String, String>,
}

impl Form {
    /// Takes a text field.
    pub fn take(&mut self, name: &str) -> Option<String> {
        self.fields.remove(name)
    }

    /// Takes a required field.
    pub fn require(&mut self, name: &str) -> Result<String, ApiError> {
        self.take(name).ok_or_else(|| missing(name))
    }

    /// Takes a field that is a number.
    pub fn number(&mut self, name: &str) -> Result<Option<f64>, ApiError> {
        let parse = |text: String| {
            text.trim().parse().map_err(|_| ApiError::invalid(name, format!("`{name}` must be a number")))
        };
        self.take(name).map(parse).transpose()
    }

    /// Takes a field that is the index of a track.
    fn index(&mut self, name: &str) -> Result<Option<u16>, ApiError> {
        let parse = |text: String| {
            let wanted = format!("`{name}` must be the index of a track: a whole number of at least 0");
            text.trim().parse().map_err(|_| ApiError::invalid(name, wanted))
        };
        self.take(name).map(parse).transpose()
    }

    /// Takes the chosen tracks.
    pub fn choice(&mut self) -> Result<TrackChoice, ApiError> {
        Ok(TrackChoice { video: self.index("video_track")?, audio: self.index("audio_track")? })
    }

    /// Takes the file.
    pub fn require_file(&mut self) -> Result<(Upload, String), ApiError> {
        self.file.take().ok_or_else(|| missing("file"))
    }
}

fn missing(name: &str) -> ApiError {
    let message = format!("missing field `{name}` in the form");
    ApiError::new(StatusCode::BAD_REQUEST, "missing_field", message).with_param(name)
}

/// How to receive a form's file.
#[derive(Debug, Clone, Copy)]
pub struct FileRule {
    /// Largest file, bytes.
    pub max_bytes: u64,
    /// Whether it outlives the request and so must be on disk before it is accepted.
    pub durable: bool,
}

/// Receives a form with these text fields and a `file`, then takes the permit for what follows.
pub async fn receive(
    state: &AppState,
    request: Request,
    known: &[&str],
    rule: FileRule,
) -> Result<Form, ApiError> {
    let ticket = request.extensions().get::<Ticket>().cloned();
    let mut shares = Shares::of(&state.bodies);
    let mut multipart =
        request.extract::<Multipart, _>().await.map_err(|rejection: MultipartRejection| {
            ApiError::new(StatusCode::BAD_REQUEST, "invalid_multipart", rejection.body_text())
        })?;
    let mut form = Form::default();
    while let Some(field) = multipart.next_field().await.map_err(broken)? {
        let name = field.name().unwrap_or("").to_owned();
        if name == "file" {
            if form.file.is_some() {
                return Err(ApiError::invalid("file", "expected one file per request"));
            }
            let shown = shown_name(field.file_name().unwrap_or(""));
            form.file = Some((receive_file(state, field, rule, &mut shares).await?, shown));
        } else if known.contains(&name.as_str()) {
            let text = receive_text(&name, field, &mut shares).await?;
            form.fields.insert(name, text);
        } else {
            let shown = quoted(&name);
            let message = format!("unknown field `{shown}`, expected file or one of: {}", known.join(", "));
            return Err(ApiError::new(StatusCode::BAD_REQUEST, "unknown_field", message).with_param(shown));
        }
    }
    if let Some(ticket) = ticket {
        ticket.keep(shares);
        ticket.enter().await?;
    }
    Ok(form)
}

async fn receive_file(
    state: &AppState,
    mut field: Field<'_>,
    rule: FileRule,
    shares: &mut Shares,
) -> Result<Upload, ApiError> {
    let mut writer = state.library.data().begin_upload(rule.max_bytes);
    while let Some(bytes) = field.chunk().await.map_err(broken)? {
        shares.disk.grow(bytes.len() as u64)?;
        writer.write(&bytes).await?;
    }
    let upload = if rule.durable { writer.finish().await } else { writer.finish_scratch().await };
    Ok(upload?)
}

async fn receive_text(name: &str, mut field: Field<'_>, shares: &mut Shares) -> Result<String, ApiError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = field.chunk().await.map_err(broken)? {
        shares.memory.grow(chunk.len() as u64)?;
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_FIELD_BYTES {
            return Err(ApiError::of_status(StatusCode::PAYLOAD_TOO_LARGE).with_param(name));
        }
    }
    String::from_utf8(bytes).map_err(|_| ApiError::invalid(name, format!("`{name}` must be UTF-8")))
}

fn broken(error: MultipartError) -> ApiError {
    if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return ApiError::of_status(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let message = format!("the multipart body is malformed or incomplete: {}", error.body_text());
    ApiError::new(StatusCode::BAD_REQUEST, "invalid_multipart", message)
}

/// The last part of a name a client gave: for display only, never used as a path.
pub fn shown_name(given: &str) -> String {
    let last = given.rsplit(['/', '\\']).next().unwrap_or("");
    let name: String = last.chars().filter(|c| !c.is_control()).take(MAX_NAME_CHARS).collect();
    if name.trim().is_empty() { "upload".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_only_names() {
        assert_eq!(shown_name("../../etc/passwd"), "passwd");
        assert_eq!(shown_name("C:\\clips\\a.mp4"), "a.mp4");
        assert_eq!(shown_name("a\u{1b}[2J\n.mp4"), "a[2J.mp4");
        assert_eq!(shown_name(""), "upload");
        assert_eq!(shown_name(&"x".repeat(999)).len(), 255);
    }
}
