//! Around every request: its id, its time, its metrics, the shape of its error, safe headers.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::Semaphore;

use crate::connections::{Alarm, Conn, Cut};
use crate::http_kit::error::ApiError;

/// Longest id of a request that a client may choose.
const MAX_ID_BYTES: usize = 128;

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TOTAL_TIME: HeaderName = HeaderName::from_static("x-total-time-ms");
const QUEUE_TIME: HeaderName = HeaderName::from_static("x-queue-time-ms");
const INFERENCE_TIME: HeaderName = HeaderName::from_static("x-inference-time-ms");

/// Nothing of an API answer may run, be framed or be sniffed; the page sets its own policy.
const API_POLICY: HeaderValue =
    HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'; sandbox");

/// Where the time of a query went; a handler attaches it to its response.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timing {
    /// Seconds of waiting for a tower.
    pub queue_secs: f64,
    /// Seconds of decoding and inside the towers.
    pub inference_secs: f64,
}

/// The id of a request, in its extensions.
#[derive(Clone)]
pub struct RequestId(pub String);

/// The outermost layer that can answer.
pub async fn outer(request: Request, next: Next) -> Response {
    let began = Instant::now();
    let id = request_id(request.headers());
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    let method = known_method(request.method());
    let in_flight = metrics::gauge!("triptych_http_in_flight");
    in_flight.increment(1);

    let expects = request.headers().contains_key(header::EXPECT);
    let (mut parts, body) = request.into_parts();
    parts.extensions.insert(RequestId(id.clone()));
    let rest = SharedBody::new(body, parts.extensions.get::<Arc<Conn>>().cloned());
    let request = Request::from_parts(parts, Body::new(rest.clone()));
    let caught = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let response =
        caught.unwrap_or_else(|_| ApiError::of_status(StatusCode::INTERNAL_SERVER_ERROR).into_response());
    let refused = response.status().is_client_error() || response.status().is_server_error();
    let response = if rest.was_too_slow() {
        // Whatever the handler made of a body that broke off.
        ApiError::of_status(StatusCode::REQUEST_TIMEOUT).into_response()
    } else {
        if refused && !(expects && rest.untouched()) {
            rest.drain().await;
        }
        response
    };
    let mut response = shape_error(response, &id);
    in_flight.decrement(1);

    let secs = began.elapsed().as_secs_f64();
    let status = response.status();
    let label = status.as_str().to_owned();
    metrics::counter!("triptych_http_requests_total", "route" => route.clone(), "method" => method, "status" => label)
        .increment(1);
    metrics::histogram!("triptych_http_request_seconds", "route" => route.clone()).record(secs);
    tracing::debug!(request_id = %id, method, route, status = status.as_u16(), ms = secs * 1e3, "answered");
    set_headers(&mut response, &id, secs);
    response
}

/// An error of ours is written out; any other one (a 405 of the router) gets the same shape.
fn shape_error(mut response: Response, id: &str) -> Response {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let error = response.extensions_mut().remove::<ApiError>().unwrap_or_else(|| ApiError::of_status(status));
    metrics::counter!("triptych_http_refused_total", "code" => error.code().to_owned()).increment(1);
    let mut shaped = error.render(id);
    for name in [header::ALLOW, header::CONTENT_RANGE, header::ACCEPT_RANGES] {
        if let Some(value) = response.headers_mut().remove(&name) {
            shaped.headers_mut().insert(name, value);
        }
    }
    if let Some(timing) = response.extensions_mut().remove::<Timing>() {
        shaped.extensions_mut().insert(timing);
    }
    shaped
}

fn set_headers(response: &mut Response, id: &str, secs: f64) {
    let timing = response.extensions_mut().remove::<Timing>();
    let headers = response.headers_mut();
    let mut millis = |name: HeaderName, secs: f64| {
        if let Ok(value) = HeaderValue::try_from(format!("{:.3}", secs * 1e3)) {
            headers.insert(name, value);
        }
    };
    millis(TOTAL_TIME, secs);
    if let Some(timing) = timing {
        millis(QUEUE_TIME, timing.queue_secs);
        millis(INFERENCE_TIME, timing.inference_secs);
    }
    if let Ok(value) = HeaderValue::try_from(id) {
        headers.insert(REQUEST_ID, value);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    );
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(API_POLICY);
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

/// The client's id if it is well-formed, so that its log and ours can be compared; otherwise a new one.
fn request_id(headers: &HeaderMap) -> String {
    let sane = |id: &&str| {
        !id.is_empty()
            && id.len() <= MAX_ID_BYTES
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(sane);
    given.map_or_else(|| format!("req_{}", uuid::Uuid::now_v7().simple()), str::to_owned)
}

/// Labels of metrics must not be the client's choice.
pub fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}

/// The rest of a refused body is always read if it is at most this long, in bytes.
const SHORT_REST_BYTES: u64 = 1 << 20;
/// Number of longer rests that are read at a time.
static LONG_RESTS: Semaphore = Semaphore::const_new(16);
/// How often the rest of a short body is looked for before the answer. As a rule it came with the head, and
/// connections whose bodies are there need not be closed.
const LOOKS: usize = 3;
/// No more than this of a rest is taken in.
const LONGEST_REST_BYTES: usize = 64 << 20;
/// How long the rest of a body is waited for.
const REST_TIMEOUT: Duration = Duration::from_secs(3);

/// A request's body that outlives the handler: a client that is still sending when it is refused
/// would otherwise see a reset connection instead of the answer.
#[derive(Clone)]
struct SharedBody(Arc<Mutex<Held>>);

struct Held {
    body: Body,
    touched: bool,
    too_slow: bool,
    alarm: Alarm,
    conn: Option<Arc<Conn>>,
}

impl SharedBody {
    fn new(body: Body, conn: Option<Arc<Conn>>) -> Self {
        let held = Held { body, touched: false, too_slow: false, alarm: Alarm::default(), conn };
        Self(Arc::new(Mutex::new(held)))
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn untouched(&self) -> bool {
        !self.held().touched
    }

    fn was_too_slow(&self) -> bool {
        self.held().too_slow
    }

    /// Reads the rest of a body, for a limited time.
    async fn drain(mut self) {
        if self.is_end_stream() {
            return;
        }
        let short = self.size_hint().upper().is_some_and(|left| left <= SHORT_REST_BYTES);
        // This task must not read a long rest: that would delay the answer.
        for _ in 0..if short { LOOKS } else { 0 } {
            while let Some(Some(Ok(_))) = self.frame().now_or_never() {}
            if self.is_end_stream() {
                return;
            }
            // The connection continues to read in the background.
            tokio::task::yield_now().await;
        }
        tokio::spawn(async move {
            let drained = async {
                // Until its turn, the client's own full buffers stop it; the answer is already being sent.
                let _turn = if short { None } else { LONG_RESTS.acquire().await.ok() };
                let mut left = LONGEST_REST_BYTES;
                while let Some(Ok(frame)) = self.frame().await {
                    left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
                    if left == 0 {
                        return;
                    }
                }
            };
            let _ = tokio::time::timeout(REST_TIMEOUT, drained).await;
        });
    }
}

impl Held {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        self.touched = true;
        let poll = Pin::new(&mut self.body).poll_frame(context);
        let Some(conn) = &self.conn else { return poll.map_err(Into::into) };
        match &poll {
            Poll::Ready(Some(Ok(frame))) => {
                conn.body_moved(Instant::now(), frame.data_ref().map_or(0, Bytes::len));
                if self.body.is_end_stream() {
                    conn.body_ended(Instant::now());
                }
            }
            Poll::Ready(ended) => {
                conn.body_ended(Instant::now());
                // Where the connection is dropped in the middle, its body just ends: a part must not pass for the
                // whole with those who work on without the connection.
                if ended.is_none() && self.body.size_hint().lower() > 0 {
                    return Poll::Ready(Some(Err("the connection ended before the body did".into())));
                }
            }
            Poll::Pending => {
                // Twice: a window that ended well has another one behind it.
                for _ in 0..2 {
                    let deadline = conn.wait_for_body(Instant::now());
                    if !deadline.is_some_and(|deadline| self.alarm.poll(deadline, context)) {
                        break;
                    }
                    if conn.body_is_too_slow(Instant::now()) {
                        metrics::counter!("triptych_http_slow_clients_total", "waiting_for" => Cut::Body.as_str())
                            .increment(1);
                        self.too_slow = true;
                        return Poll::Ready(Some(Err("the client sends the body too slowly".into())));
                    }
                }
            }
        }
        poll.map_err(Into::into)
    }
}

impl HttpBody for SharedBody {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        self.held().poll(context)
    }

    fn is_end_stream(&self) -> bool {
        self.held().body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.held().body.size_hint()
    }
}
