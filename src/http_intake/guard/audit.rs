//! Entries of the audit log: who requested which change, and its outcome.

use axum::extract::MatchedPath;
use axum::http::header;
use axum::http::request::Parts;
use axum::response::Response;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::access::{AuditLog, Caller, Holder};
use crate::http_intake::client::Client;
use crate::http_intake::middleware::RequestId;
use crate::http_kit::error::ApiError;
use crate::types::{now_unix_ms, rfc3339_millis};

/// Longest logged piece of a path, in bytes.
const MAX_TARGET: usize = 128;

/// The id of a created object, in the extensions of an answer without `Location`.
#[derive(Clone)]
pub struct Made(pub String);

/// A change under way. It is written down when it ends, which it does even if the client disconnects before.
pub struct Entry {
    log: AuditLog,
    /// Taken when it is written.
    line: Option<Value>,
}

impl Entry {
    /// Begins the entry of a change. It never reads bodies, query strings or keys.
    pub fn begin(log: AuditLog, request: &Parts, caller: Option<&Caller>) -> Self {
        let extensions = &request.extensions;
        let route = extensions.get::<MatchedPath>().map(MatchedPath::as_str);
        let key_id = caller.and_then(|caller| match caller.holder() {
            Holder::Key(id) => Some(id),
            Holder::Fixed => None,
        });
        let line = json!({
            "time": null,
            "request_id": extensions.get::<RequestId>().map(|id| id.0.as_str()),
            "key_id": key_id,
            "key_name": caller.map(Caller::name),
            "client": extensions.get::<Client>().map(|client| client.address),
            "method": request.method.as_str(),
            "route": route,
            "target": route.and_then(|route| target(route, request.uri.path())),
            "status": null,
            "code": null,
        });
        Self { log, line: Some(line) }
    }

    /// Completes the entry of an answered change; resolves when it is written.
    pub fn end(mut self, response: &Response) -> Option<JoinHandle<()>> {
        let mut line = self.line.take()?;
        line["status"] = json!(response.status().as_u16());
        line["code"] = json!(response.extensions().get::<ApiError>().map(ApiError::code));
        let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        let made = response.extensions().get::<Made>().map(|made| made.0.as_str());
        if let Some(made) = made.or_else(|| location.and_then(|path| path.rsplit('/').next())) {
            line["target"] = json!(made);
        }
        write(&self.log, line)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(line) = self.line.take() {
            // Without a status: the change panicked, or the server stopped before its end.
            write(&self.log, line);
        }
    }
}

/// Writes on a thread that may wait for the disk.
fn write(log: &AuditLog, mut line: Value) -> Option<JoinHandle<()>> {
    line["time"] = json!(rfc3339_millis(now_unix_ms()));
    let log = log.clone();
    let runtime = tokio::runtime::Handle::try_current().ok()?;
    Some(runtime.spawn_blocking(move || log.write(&line)))
}

/// The part of the path where the route has its parameter.
fn target(route: &str, path: &str) -> Option<String> {
    let mut parts = route.split('/').zip(path.split('/'));
    let (_, given) = parts.find(|(named, _)| named.starts_with('{'))?;
    Some(given.chars().take(MAX_TARGET).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_come_from_the_path() {
        assert_eq!(target("/v1/jobs/{id}/retry", "/v1/jobs/job_1/retry").as_deref(), Some("job_1"));
        assert_eq!(target("/v1/search", "/v1/search"), None);
        assert_eq!(
            target("/v1/jobs/{id}", &format!("/v1/jobs/{}", "x".repeat(999))).unwrap().len(),
            MAX_TARGET
        );
    }
}
