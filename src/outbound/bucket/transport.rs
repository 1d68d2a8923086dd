//! HTTP transport for the bucket client.

use std::time::Duration;

use async_trait::async_trait;
use http_body_util::{BodyExt, Limited};
use hyper::Request;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService,
};
use tokio::time::Instant;
use tower_http::timeout::TimeoutBody;

use crate::outbound::{Outbound, OutboundError};

/// Time limit for an answer; it comes only after a whole part has been sent.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// Longest text of an error answer, in bytes.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// Sends the bucket client's requests through the guarded client.
#[derive(Debug, Clone)]
pub(super) struct Transport(pub(super) Outbound);

impl HttpConnector for Transport {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Transport {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let host = request.uri().host().unwrap_or("").to_owned();
        let (parts, body) = request.into_parts();
        let uri = parts.uri.clone();
        let request = Request::from_parts(parts, body.map_err(Into::into).boxed_unsync());
        let sent = self.0.send(&host, request, Instant::now() + ANSWER_TIMEOUT).await;
        let (parts, body) = sent.map_err(http_error)?.into_parts();
        // Report these here: for a listing, the bucket client would hide the status and retry.
        let listing = uri.query().is_some_and(|query| query.contains("list-type="));
        let reason = match parts.status.as_u16() {
            401 | 403 => {
                Some("denies access to this server; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
            }
            404 if listing => Some("has no such bucket"),
            301 | 302 | 307 | 308 => Some("reports that the bucket is in another region; check AWS_REGION"),
            _ => None,
        };
        if let Some(reason) = reason {
            return Err(http_error(OutboundError::refused(&host, reason)));
        }
        // The bucket client reads the whole text of an error, and quotes it.
        let most = if parts.status.is_success() { usize::MAX } else { MAX_ERROR_BYTES };
        let body = Limited::new(body, most);
        let body = TimeoutBody::new(self.0.idle_timeout, body)
            .map_err(move |error| http_error(OutboundError::within(&host, error.as_ref())));
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)))
    }
}

fn http_error(error: OutboundError) -> HttpError {
    let kind = match &error {
        OutboundError::Timeout { .. } => HttpErrorKind::Timeout,
        OutboundError::Failed { .. } => HttpErrorKind::Interrupted,
        _ => HttpErrorKind::Unknown,
    };
    HttpError::new(kind, error)
}
