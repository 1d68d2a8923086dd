//! Retries files when the server's own parts fail: ffmpeg is missing, memory runs out, a tower breaks. What
//! was accepted stays accepted.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Ingest;
use super::active::Claim;
use crate::collection::{LibraryError, embedding_message};
use crate::embed::EmbedError;
use crate::media::MediaError;
use crate::model::Priority;
use crate::store::{AssetRecord, StoreError, WorkError};
use crate::types::ErrorCode;

/// How often to try a file on which our parts fail although they work for others.
const MAX_TRIES: u32 = 4;
/// Wait before the second try; each later wait is four times as long.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// How often to check whether files can be decoded again.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Counts the failed tries of one file.
pub(crate) struct Tries {
    patient: bool,
    failed: u32,
}

impl Tries {
    /// Only bulk work waits: a user must not wait until an administrator fixes the server.
    pub(crate) fn new(priority: Priority) -> Self {
        Self { patient: priority == Priority::Bulk, failed: 0 }
    }
}

impl Ingest {
    /// Whether to try the same file again after this failure.
    pub(crate) async fn tries_again(&self, error: &EmbedError, tries: &Tries) -> bool {
        if !ErrorCode::from(error.code()).is_passing() {
            return false;
        }
        if !tries.patient {
            return true;
        }
        // A command that indexes a folder does not run long enough to wait.
        let lives = self.collection.life.started.is_completed() || !self.collection.life.serves();
        lives && (tries.failed + 1 < MAX_TRIES || self.cannot_decode(error).await)
    }

    /// Whether it failed because nothing can be decoded at present.
    async fn cannot_decode(&self, error: &EmbedError) -> bool {
        let ours = matches!(error, EmbedError::Media(error) if error.is_ours());
        ours && !self.collection.decoder_health().await.ok
    }

    /// Waits after a fault of the server: if no file can be decoded, until that works again; otherwise longer
    /// each time.
    pub(crate) async fn wait_after(
        &self,
        error: &EmbedError,
        tries: &mut Tries,
        claim: &Claim,
        cancel: &CancellationToken,
    ) {
        let detail = if let EmbedError::Media(media) = error { media.detail() } else { None };
        let asset = claim.active.id;
        tracing::warn!(%asset, code = error.code(), %error, detail, "retrying a file later, because the server failed on it");
        metrics::counter!("triptych_ingest_put_off_total", "code" => error.code()).increment(1);
        let wait = async {
            if self.cannot_decode(error).await {
                while !self.collection.decoder_health().await.ok {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            } else {
                let wait = FIRST_WAIT * 4_u32.pow(tries.failed.min(MAX_TRIES));
                tries.failed += 1;
                tokio::time::sleep(wait).await;
            }
        };
        tokio::select! {
            () = wait => {}
            () = claim.active.cancel.cancelled() => {}
            () = cancel.cancelled() => {}
        }
    }

    /// After a fault of the server on a file with an interactive caller: removes the asset, as the caller
    /// gets the error. If another caller has been promised since that it will be indexed, queues it instead.
    pub(crate) async fn hand_back(&self, claim: Claim, record: &AssetRecord) -> Result<(), LibraryError> {
        let turn = self.accept.turn().await;
        if claim.active.is_promised() || self.collection.life.stop.is_cancelled() {
            self.collection.drop_clips(record.id).await?;
            // Waiting callers check again and find it in the queue.
            drop(claim);
            if !self.collection.life.stop.is_cancelled() {
                let claim = self.active.claim(record.id, &record.content_key(), &self.collection.life.stop);
                self.work.push(claim, record.clone());
            }
            return Ok(());
        }
        match self.remove_accepted(&turn, record).await {
            Err(LibraryError::Store(StoreError::NotFound(_))) => Ok(()),
            outcome => outcome,
        }
    }
}

/// Code and message of a final failure.
pub(crate) fn last_word(error: &EmbedError) -> WorkError {
    match error {
        // Killed again and again while others are not: it needs more memory than the machine has.
        EmbedError::Media(MediaError::Killed(signal)) => WorkError::new(
            MediaError::DecodeLimit { limit_bytes: 0 }.code(),
            format!(
                "its decoder was repeatedly killed by signal {signal} from outside; it probably needs more memory than the machine has"
            ),
        ),
        error => WorkError::new(error.code(), embedding_message(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Deciding;

    #[test]
    fn a_file_that_gets_every_decoder_killed_is_at_its_limit() {
        let WorkError { code, message } = last_word(&MediaError::Killed(9).into());
        assert_eq!(code.deciding(), Some(Deciding::DecodeLimit));
        assert!(message.contains("signal 9"), "{message}");
    }

    #[test]
    fn paths_of_the_server_stay_in_its_log() {
        let error = EmbedError::from(MediaError::Worker("/opt/secret/ffmpeg: No such file".into()));
        let WorkError { code, message } = last_word(&error);
        assert_eq!(code.deciding(), Some(Deciding::DecodeWorkerFailed));
        assert!(!message.contains('/'), "{message}");
    }
}
