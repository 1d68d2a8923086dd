//! Bodies, query strings and path ids, with errors of our own shape and stable codes.

use std::str::FromStr;

use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;

use super::bodies::Parcel;
use super::error::ApiError;

/// A JSON body; it has come already (`admission`).
pub struct ApiJson<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for ApiJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        match request.extensions().get::<Parcel>() {
            Some(parcel) => parcel.parse().await.map(ApiJson),
            None => Err(unsupported("application/json")),
        }
    }
}

/// 415 with what would do.
pub fn unsupported(wanted: &str) -> ApiError {
    let message = format!("expected a body of type {wanted}; set the Content-Type header to match");
    ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
}

/// The media type of a body, without parameters, in lower case.
pub fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    value.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
}

/// Whether a body is declared as JSON.
pub fn is_json(headers: &HeaderMap) -> bool {
    content_type(headers) == "application/json"
}

/// Parses a JSON object; the error names the field.
pub fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    // Serde would take a list for an object whose fields it gives in their order.
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
        return Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "invalid_value",
            "the body must be a JSON object",
        ));
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        json_error(&path, error.inner().classify(), &error.inner().to_string())
    })?;
    json.end().map_err(|error| json_error(".", error.classify(), &error.to_string()))?;
    Ok(value)
}

fn json_error(path: &str, class: serde_json::error::Category, text: &str) -> ApiError {
    use serde_json::error::Category;
    match class {
        Category::Data => field_error(path, text),
        Category::Io | Category::Syntax | Category::Eof => ApiError::new(
            StatusCode::BAD_REQUEST,
            "invalid_json",
            format!("the body is not valid JSON: {text}"),
        ),
    }
}

/// Maps serde's message to one of our codes; the field it quotes belongs to the path.
fn field_error(path: &str, text: &str) -> ApiError {
    let quoted = text.split('`').nth(1).unwrap_or("");
    let (code, field) = if text.starts_with("unknown field") {
        ("unknown_field", quoted)
    } else if text.starts_with("missing field") {
        ("missing_field", quoted)
    } else {
        ("invalid_value", "")
    };
    let parent = match path {
        "." => "",
        // The path of an unknown field ends with the field itself.
        path if !field.is_empty() => path.strip_suffix(field).map_or(path, |rest| rest.trim_end_matches('.')),
        path => path,
    };
    let param = if parent.is_empty() || field.is_empty() {
        format!("{parent}{field}")
    } else {
        format!("{parent}.{field}")
    };
    let error = ApiError::new(StatusCode::BAD_REQUEST, code, text);
    if param.is_empty() { error } else { error.with_param(param) }
}

/// A query string.
pub struct ApiQuery<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for ApiQuery<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        query.map(|query| Self(query.0)).map_err(|rejection| {
            let text = std::error::Error::source(&rejection)
                .map_or_else(|| rejection.body_text(), std::string::ToString::to_string);
            let (path, text) = match text.split_once(": ") {
                Some((path, rest)) if !path.contains([' ', '`']) => (path, rest),
                _ => (".", text.as_str()),
            };
            field_error(path, text)
        })
    }
}

/// The id in the path.
pub struct IdPath<T>(pub T);

impl<T, S> FromRequestParts<S> for IdPath<T>
where
    T: FromStr<Err = crate::types::TypeError>,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| ApiError::invalid("id", "the id in the path is not valid UTF-8"))?;
        text.parse()
            .map(Self)
            .map_err(|error: crate::types::TypeError| ApiError::invalid("id", error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Outer {
        inner: Inner,
        #[serde(default)]
        list: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Inner {
        count: u32,
    }

    fn code_and_param(body: &str) -> (String, Option<String>) {
        let error = parse_json::<Outer>(body.as_bytes()).unwrap_err();
        let text = format!("{:?}", error.into_response().extensions().get::<ApiError>().unwrap());
        let between = |from: &str, to: &str| {
            text.split_once(from).and_then(|(_, rest)| rest.split_once(to)).map(|(found, _)| found.to_owned())
        };
        (between("code: \"", "\"").unwrap(), between("param: Some(\"", "\""))
    }

    #[test]
    fn json_errors_name_code_and_field() {
        let cases = [
            ("{", "invalid_json", None),
            ("", "invalid_json", None),
            (r#" [{"count":1}]"#, "invalid_value", None),
            (r#"{"inner":{"count":1}} x"#, "invalid_json", None),
            (r#"{"inner":{"count":1},"extra":1}"#, "unknown_field", Some("extra")),
            (r#"{"inner":{"count":1,"extra":1}}"#, "unknown_field", Some("inner.extra")),
            (r#"{"inner":{}}"#, "missing_field", Some("inner.count")),
            ("{}", "missing_field", Some("inner")),
            (r#"{"inner":{"count":"x"}}"#, "invalid_value", Some("inner.count")),
            (r#"{"inner":{"count":1},"list":[{"count":-1}]}"#, "invalid_value", Some("list[0].count")),
        ];
        for (body, code, param) in cases {
            assert_eq!(code_and_param(body), (code.to_owned(), param.map(str::to_owned)), "{body}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(code_and_param(&deep).0, "invalid_value");
    }
}
