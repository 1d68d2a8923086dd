//! Admission: how many requests are processed at once. A permit is for work: it is taken when a request's
//! body has arrived, and released when the answer's head is ready, so slow clients occupy none.

mod class;
mod coming;
mod lanes;
pub mod weigh;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::body::Body as _;
use tokio::sync::OwnedSemaphorePermit;

use crate::http_intake::bodies::{self, Shares};
use crate::http_intake::client::Client;
use crate::http_intake::open::is_open;
use crate::http_intake::state::AppState;
use crate::http_kit::error::ApiError;
use crate::http_kit::media_type::{content_type, is_json};
use class::Class;
use weigh::{Admission, Expected, Refusal, Running};

/// Routes whose handlers receive forms themselves, and take their permit when the form is there.
const FORMS: &[&str] = &["/v1/search", "/v1/embeddings", "/v1/assets/{id}/timeline", "/v1/assets"];
/// A larger body (more bits than in a mebibyte) is not refused at once after it has arrived.
const LARGE_BITS: u32 = 20;
const LARGE_WAITS: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long to delay the refusal of a query without media. Clients that retry at once would otherwise be
/// refused so often that refusals take the processors from accepted requests.
const REFUSAL_HELD: Duration = Duration::from_millis(40);

/// A request's share of the server. A handler that receives its own body takes the permit through it.
#[derive(Debug, Clone)]
pub struct Ticket(Arc<TicketState>);

#[derive(Debug)]
struct TicketState {
    admission: Arc<Admission>,
    class: Class,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    expected: Option<Expected>,
    running: Option<Running>,
    shares: Option<Shares>,
    parsing: Option<OwnedSemaphorePermit>,
}

impl Ticket {
    fn new(admission: &Arc<Admission>, class: Class, expected: Option<Expected>) -> Self {
        let admission = Arc::clone(admission);
        let held = Mutex::new(Held { expected, ..Held::default() });
        Self(Arc::new(TicketState { admission, class, held }))
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the permit: the body has arrived, and work begins. A request with a large body waits for a while
    /// instead of being refused, because sending it was expensive.
    ///
    /// # Errors
    /// `too_many_requests`, `overloaded`.
    pub async fn enter(&self) -> Result<(), ApiError> {
        let patience = if self.0.class.size > LARGE_BITS { LARGE_WAITS } else { Duration::ZERO };
        let deadline = Instant::now() + patience;
        loop {
            let expected = self.held().expected.take();
            match self.0.admission.enter(self.0.class.clone(), expected) {
                Ok(running) => {
                    self.held().running = Some(running);
                    return Ok(());
                }
                Err(refusal) if Instant::now() >= deadline => {
                    return Err(refused(refusal, &self.0.class).await);
                }
                Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    }

    /// Holds a share of the body budget until the request ends.
    pub fn keep(&self, shares: Shares) {
        self.held().shares = Some(shares);
    }

    fn end(&self, succeeded: bool) {
        let mut held = std::mem::take(&mut *self.held());
        if let Some(running) = &mut held.running {
            running.succeeded = succeeded;
        }
    }
}

/// Middleware: receives the request's body, then takes its permit, then runs the handler.
pub async fn limit(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if is_open(path) || path == "/metrics" {
        return next.run(request).await;
    }
    let declared = request.headers().get(header::CONTENT_LENGTH);
    let length = declared.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let class = Class::of(&request, length.unwrap_or(0));
    match prepare(&state, request, class, length).await {
        Ok((request, ticket)) => {
            let response = next.run(request).await;
            ticket.end(response.status().is_success());
            response
        }
        Err(error) => error.into_response(),
    }
}

/// The answer to a refused request, delayed for light queries.
async fn refused(refusal: Refusal, class: &Class) -> ApiError {
    if class.is_light_query() {
        tokio::time::sleep(REFUSAL_HELD).await;
    }
    refusal.into()
}

async fn prepare(
    state: &AppState,
    mut request: Request,
    mut class: Class,
    length: Option<u64>,
) -> Result<(Request, Ticket), ApiError> {
    let from =
        request.extensions().get::<Client>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |one| one.address);
    let expected = match state.admission.expect(&class, from) {
        Ok(expected) => expected,
        Err(refusal) => return Err(refused(refusal, &class).await),
    };
    let max_bytes = state.config.max_body_bytes;
    let form = content_type(request.headers()) == "multipart/form-data" && FORMS.contains(&&*class.route);
    let json = is_json(request.headers());
    // Uploads have a larger limit, which their handler enforces.
    if length.is_some_and(|length| length > max_bytes as u64) && !(form && class.route == "/v1/assets") {
        return Err(ApiError::of_status(StatusCode::PAYLOAD_TOO_LARGE));
    }
    if form {
        state.bodies.check_room(length.unwrap_or(0))?;
        let ticket = Ticket::new(&state.admission, class, expected);
        request.extensions_mut().insert(ticket.clone());
        return Ok((request, ticket));
    }
    if !json {
        let ticket = Ticket::new(&state.admission, class, expected);
        ticket.enter().await?;
        return Ok((request, ticket));
    }
    if !request.body().is_end_stream() {
        state.bodies.check_room(length.unwrap_or(0))?;
    }
    let body = std::mem::replace(request.body_mut(), Body::empty());
    let received = bodies::receive(state, body, max_bytes).await?;
    class.media |= class.is_query() && received.has_media();
    let parsing = match received.is_large() {
        true => state.bodies.parsing(received.json_bytes()).await,
        false => None,
    };
    let (parcel, shares) = received.pack();
    request.extensions_mut().insert(parcel);
    let ticket = Ticket::new(&state.admission, class, expected);
    ticket.keep(shares);
    ticket.held().parsing = parsing;
    ticket.enter().await?;
    Ok((request, ticket))
}
