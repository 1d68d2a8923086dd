//! Bodies, query strings and path ids, with errors of our own shape and stable codes.

use std::str::FromStr;

use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::bodies::Parcel;
use crate::http_kit::error::ApiError;
use crate::http_kit::json::field_error;
use crate::http_kit::media_type::unsupported;

/// A JSON body, which has already arrived (see `admission`).
pub struct ApiJson<T>(pub T);

impl<T: DeserializeOwned + Send + 'static, S: Send + Sync> FromRequest<S> for ApiJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        match request.extensions().get::<Parcel>() {
            Some(parcel) => parcel.parse().await.map(ApiJson),
            None => Err(unsupported("application/json")),
        }
    }
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
