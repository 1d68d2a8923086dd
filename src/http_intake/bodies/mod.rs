//! Receives JSON bodies before any work is done for them: small ones into memory, large ones into files.

mod attached;
pub mod budget;
mod condense;

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;

pub use attached::{Attached, MediaField, with_attached};
pub use budget::{Budget, Share};

use crate::files::{Upload, UploadWriter};
use crate::http_intake::state::AppState;
use crate::http_kit::error::ApiError;
use crate::http_kit::json::parse_json;
use crate::library::LibraryError;
use condense::{Condenser, Event};

/// JSON up to this many bytes stays in memory.
const SMALL_BYTES: usize = 128 << 10;

/// A JSON body that has been received completely.
#[derive(Debug)]
pub struct Received {
    json: Json,
    media: Vec<Attached>,
    /// Its shares of the process's budget.
    pub shares: Shares,
}

/// A body's shares of the budget.
#[derive(Debug)]
pub struct Shares {
    /// Share of the memory.
    pub memory: Share,
    /// Share of the disk.
    pub disk: Share,
}

impl Shares {
    pub fn of(budget: &Budget) -> Self {
        Self { memory: budget.memory(), disk: budget.disk() }
    }
}

#[derive(Debug)]
enum Json {
    Memory(Vec<u8>),
    File(Upload),
}

/// A body on its way to the handler that parses it; it can be taken once.
#[derive(Debug, Clone)]
pub struct Parcel(Arc<Mutex<Option<Contents>>>);

/// The JSON, and the media taken out of it.
type Contents = (Json, Vec<Attached>);

impl Received {
    /// Number of bytes of JSON to parse.
    pub fn json_bytes(&self) -> u64 {
        match &self.json {
            Json::Memory(bytes) => bytes.len() as u64,
            Json::File(upload) => upload.content.size_bytes,
        }
    }

    /// Whether the JSON is in a file, so that parsing it needs memory of its own.
    pub const fn is_large(&self) -> bool {
        matches!(self.json, Json::File(_))
    }

    /// Whether the request contains media to decode.
    pub fn has_media(&self) -> bool {
        let marks = |bytes: &[u8]| bytes.windows(6).any(|window| window == b"\"data:");
        !self.media.is_empty() || matches!(&self.json, Json::Memory(bytes) if marks(bytes))
    }

    /// Packs the body for the handler; the shares stay with the caller.
    pub fn pack(self) -> (Parcel, Shares) {
        (Parcel(Arc::new(Mutex::new(Some((self.json, self.media))))), self.shares)
    }
}

impl Parcel {
    /// Parses the body.
    ///
    /// # Errors
    /// 400 with the field's name.
    pub async fn parse<T: DeserializeOwned + Send + 'static>(&self) -> Result<T, ApiError> {
        let broken = || ApiError::of_status(StatusCode::INTERNAL_SERVER_ERROR);
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (json, media) = taken.ok_or_else(broken)?;
        let (parsed, strays) = match json {
            Json::Memory(bytes) => with_attached(media, || parse_json(&bytes)),
            Json::File(upload) => {
                let bytes = tokio::fs::read(&upload.path).await.map_err(LibraryError::from)?;
                // Tens of megabytes take long enough to delay the requests that share the thread.
                let parsed =
                    tokio::task::spawn_blocking(move || with_attached(media, || parse_json::<T>(&bytes)));
                parsed.await.map_err(|_| broken())?
            }
        };
        let parsed = parsed?;
        if strays > 0 {
            let message = "unexpected large data: URI in a field that takes no media";
            return Err(ApiError::new(StatusCode::BAD_REQUEST, "invalid_value", message));
        }
        Ok(parsed)
    }
}

/// Receives a JSON body of at most `max_bytes`.
///
/// # Errors
/// 413, `too_many_bytes`, `incomplete_body`, and those of a full disk.
pub async fn receive(state: &AppState, mut body: Body, max_bytes: usize) -> Result<Received, ApiError> {
    let mut intake = Intake {
        state,
        json: Vec::new(),
        json_file: None,
        media: Vec::new(),
        media_file: None,
        shares: Shares::of(&state.bodies),
    };
    let mut condenser = Condenser::default();
    let mut left = max_bytes;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| incomplete())?.into_data() else { continue };
        left =
            left.checked_sub(data.len()).ok_or_else(|| ApiError::of_status(StatusCode::PAYLOAD_TOO_LARGE))?;
        intake.take(&mut condenser, &data).await?;
    }
    intake.finish(condenser).await
}

/// The answer to a client whose body broke off.
fn incomplete() -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "incomplete_body", "the body is incomplete")
}

/// A body being received.
struct Intake<'a> {
    state: &'a AppState,
    json: Vec<u8>,
    json_file: Option<UploadWriter>,
    media: Vec<Attached>,
    media_file: Option<UploadWriter>,
    shares: Shares,
}

impl Intake<'_> {
    async fn take(&mut self, condenser: &mut Condenser, data: &Bytes) -> Result<(), ApiError> {
        for event in condenser.push(data) {
            match event {
                Event::Open => self.media_file = Some(self.state.library.data().begin_upload(u64::MAX)),
                Event::Bytes(bytes) => {
                    self.shares.disk.grow(bytes.len() as u64)?;
                    if let Some(file) = &mut self.media_file {
                        file.write(&bytes).await?;
                    }
                }
                Event::Close(outcome) => {
                    let Some(file) = self.media_file.take() else { continue };
                    self.media.push(match outcome {
                        Ok(()) => Ok(file.finish_scratch().await?),
                        Err(problem) => Err(problem),
                    });
                }
            }
        }
        let json = condenser.take_json();
        self.add_json(json, condenser.held_bytes()).await
    }

    async fn add_json(&mut self, json: Vec<u8>, held_bytes: usize) -> Result<(), ApiError> {
        if self.json_file.is_none() && self.json.len() + json.len() > SMALL_BYTES {
            let mut file = self.state.library.data().begin_upload(u64::MAX);
            self.shares.disk.grow(self.json.len() as u64)?;
            file.write(&self.json).await?;
            self.json = Vec::new();
            self.json_file = Some(file);
        }
        if let Some(file) = &mut self.json_file {
            self.shares.disk.grow(json.len() as u64)?;
            file.write(&json).await?;
        } else {
            self.json.extend_from_slice(&json);
        }
        let held = (self.json.len() + held_bytes) as u64;
        self.shares.memory.hold(held)
    }

    async fn finish(mut self, condenser: Condenser) -> Result<Received, ApiError> {
        let rest = condenser.finish();
        self.add_json(rest, 0).await?;
        let json = match self.json_file {
            Some(file) => Json::File(file.finish_scratch().await?),
            None => Json::Memory(self.json),
        };
        Ok(Received { json, media: self.media, shares: self.shares })
    }
}
