//! Health of each part of the server. The parts are checked in parallel, each with a short time limit, so
//! that a hanging part does not hold up the answer.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Upkeep;
use crate::embed::EmbedError;
use crate::model::{ModelError, Priority};
use crate::types::Modality;

/// Time limit for one part.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the towers' answer stays valid: checking them costs time that queries need.
const TOWERS_HOLD: Duration = Duration::from_secs(5);
/// A decoder that answers late counts as healthy for this long after its last good answer.
const DECODER_HOLDS: Duration = Duration::from_secs(60);

/// Health of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PartState {
    /// Fully working.
    Ok,
    /// It works in part, and nothing acknowledged is lost.
    Degraded,
    /// It does not work.
    Failed,
}

/// One part of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartHealth {
    /// Name of the part, such as `store`.
    pub part: &'static str,
    /// Health of the part.
    pub state: PartState,
    /// Human-readable details; null if there are none.
    pub detail: Option<String>,
}

/// Cached state of the parts that are not checked on every request.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    towers: Mutex<Option<(Instant, Found)>>,
    decoder: Mutex<Option<Instant>>,
}

impl Pulse {
    /// The finding if the decoder does not answer in time: it starts programs, which takes a while on a busy
    /// machine.
    fn decoder_is_late(&self) -> Found {
        let last_good = *self.decoder.lock().unwrap_or_else(PoisonError::into_inner);
        if last_good.is_some_and(|at| at.elapsed() < DECODER_HOLDS) {
            return OK;
        }
        degraded("the decoder does not answer within a second")
    }
}

type Found = (PartState, Option<String>);

const OK: Found = (PartState::Ok, None);

fn degraded(detail: impl Into<String>) -> Found {
    (PartState::Degraded, Some(detail.into()))
}

fn failed(detail: impl Into<String>) -> Found {
    (PartState::Failed, Some(detail.into()))
}

async fn in_time(late: Found, look: impl Future<Output = Found>) -> Found {
    tokio::time::timeout(PATIENCE, look).await.unwrap_or(late)
}

impl Upkeep {
    /// Checks every part, and updates the metrics.
    pub async fn health(&self) -> Vec<PartHealth> {
        let (store, content, towers, decoder) = tokio::join!(
            in_time(failed("the store does not answer in time"), self.store_health()),
            in_time(OK, self.content_health()),
            in_time(degraded("the model does not answer within a second"), self.towers_health()),
            in_time(self.pulse.decoder_is_late(), self.decoder_part()),
        );
        let found = [
            ("store", store),
            ("disk", self.collection.data.disk.refusal().map_or(OK, |full| degraded(full.to_string()))),
            ("towers", towers),
            ("decoder", decoder),
            ("index", self.index_health()),
            ("webhooks", self.webhooks_health()),
            ("content", content),
        ];
        let part = |(part, (state, detail)): (&'static str, Found)| {
            let level = match state {
                PartState::Ok => 1.0,
                PartState::Degraded => 0.5,
                PartState::Failed => 0.0,
            };
            metrics::gauge!("triptych_ready_part", "part" => part).set(level);
            PartHealth { part, state, detail }
        };
        found.into_iter().map(part).collect()
    }

    async fn store_health(&self) -> Found {
        if let Err(error) = self.collection.store.sequence().await {
            tracing::debug!(%error, "the store does not answer");
            return failed("the store does not answer");
        }
        match self.collection.store.damaged_rows().len() {
            0 => OK,
            rows => degraded(format!("{rows} damaged rows of the store are left out")),
        }
    }

    async fn content_health(&self) -> Found {
        match self.collection.store.damaged_assets(0).await {
            Ok((_, assets)) if assets > 0 => degraded(format!("{assets} uploads are damaged or missing")),
            // The check of the store reports its own failures.
            _ => OK,
        }
    }

    fn index_health(&self) -> Found {
        let mut clips = self.checker.damaged_clips();
        clips.extend(self.collection.searched.index.damaged());
        match clips.len() {
            0 => OK,
            clips => degraded(format!("{clips} clips have damaged vectors")),
        }
    }

    fn webhooks_health(&self) -> Found {
        if !self.collection.data.webhooks.is_on() {
            return OK;
        }
        if self.collection.data.disk.refusal().is_some() {
            return degraded("webhooks are waiting for free disk space");
        }
        if self.collection.data.webhooks.is_stuck() {
            return degraded("the webhook sender is stuck");
        }
        OK
    }

    /// Whether the model embeds a word of its own vocabulary.
    async fn towers_health(&self) -> Found {
        let known = self.pulse.towers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((at, found)) =
            known.filter(|(at, found)| at.elapsed() < TOWERS_HOLD && found.0 == PartState::Ok)
        {
            tracing::trace!(age_ms = at.elapsed().as_millis(), "the model answered recently");
            return found;
        }
        if !self.collection.embedder.bundle().has_tower(Modality::Text) {
            return OK;
        }
        let Some(word) = self.collection.embedder.towers.probe_text() else { return OK };
        let found = match self.collection.embedder.text(&word, Priority::Interactive).await {
            Ok(_) => OK,
            Err(EmbedError::Model(ModelError::Overloaded { .. })) => degraded("the model is overloaded"),
            // It responded with a valid answer.
            Err(EmbedError::Model(ModelError::NoKnownWords { .. } | ModelError::TextTooLong { .. })) => OK,
            Err(error) => {
                tracing::debug!(%error, "the model does not answer");
                failed("the model does not answer")
            }
        };
        *self.pulse.towers.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((Instant::now(), found.clone()));
        found
    }

    /// Whether files can be decoded. The reason goes to the log only, as it may name paths.
    async fn decoder_part(&self) -> Found {
        if self.collection.decoder_health().await.ok {
            *self.pulse.decoder.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            OK
        } else {
            failed("cannot decode files: ffmpeg or the decode worker does not start")
        }
    }
}
