//! Checks on request, and the slow rereading of uploads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Upkeep;
use crate::collection::checks::{Shared, begun, check_asset, check_bytes, check_store, end};
use crate::collection::{CheckOptions, CheckReport, CheckState, DamageCounts, LibraryError};
use crate::types::now_unix_ms;

/// Wait before the first file is read.
const FIRST_REST: Duration = Duration::from_secs(1);

/// Age of the last read after which the bytes of an upload are read again.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(7 * 86_400);

/// Uploads handled in one go, and the pause when none is due.
const READ_AT_ONCE: u32 = 16;

const REST: Duration = Duration::from_secs(60);

/// Minimum time between two comparisons of the folder of uploads with the store, and their maximum share of
/// the time, as a divisor.
const COMPARE_EVERY: Duration = Duration::from_secs(5);
const COMPARE_SHARE: u32 = 100;

/// Notes uploads that disappear, as with an unmounted disk, and those that return.
pub(super) async fn keep_comparing(upkeep: Arc<Upkeep>) {
    loop {
        let began = Instant::now();
        match upkeep.collection.compare_uploads().await {
            Ok(0) => {}
            Ok(missing) => tracing::error!(missing, "uploads are missing: is their disk mounted?"),
            // The next comparison finds it out again.
            Err(error) => tracing::debug!(%error, "could not compare the uploads with the store"),
        }
        let rest = COMPARE_EVERY.max(began.elapsed() * COMPARE_SHARE);
        tokio::select! {
            () = upkeep.collection.life.stop.cancelled() => return,
            () = tokio::time::sleep(rest) => {}
        }
    }
}

/// Reads the bytes of uploads over and over, slowly.
pub(super) async fn keep_reading(upkeep: Arc<Upkeep>) {
    let bytes_per_sec = upkeep.collection.data.config.keep.check_bytes_per_sec;
    if bytes_per_sec == 0 {
        return;
    }
    let again_ms = i64::try_from(READ_AGAIN_AFTER.as_millis()).unwrap_or(i64::MAX);
    // Findings go to the store; the public report belongs to requested checks.
    let (report, mut rest) = (Shared::default(), FIRST_REST);
    loop {
        tokio::select! {
            () = upkeep.collection.life.stop.cancelled() => return,
            () = tokio::time::sleep(rest) => {}
        }
        if !upkeep.collection.data.disk.writable(&upkeep.collection.life.stop).await {
            return;
        }
        let due = upkeep.collection.store.unchecked_assets(now_unix_ms() - again_ms, READ_AT_ONCE).await;
        rest = if due.as_ref().is_ok_and(|due| !due.is_empty()) { Duration::ZERO } else { REST };
        for asset in due.unwrap_or_default() {
            let read = check_asset(
                upkeep.collection.store.as_ref(),
                &report,
                &asset,
                bytes_per_sec,
                &upkeep.collection.life.stop,
            )
            .await;
            if let Err(error) = read {
                tracing::debug!(%error, asset = %asset.id, "could not read an upload");
                rest = REST;
            }
        }
    }
}

impl Upkeep {
    /// Counts of known damage.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn damage(&self) -> Result<DamageCounts, LibraryError> {
        let mut clips = self.checker.damaged_clips();
        clips.extend(self.collection.searched.index.damaged());
        Ok(DamageCounts {
            rows: self.collection.store.damaged_rows().len() as u64,
            clips: clips.len() as u64,
            assets: self.collection.store.damaged_assets(0).await?.1,
        })
    }

    /// The report of the running check, or of the last one.
    #[must_use]
    pub fn check_report(&self) -> CheckReport {
        self.checker.report.now()
    }

    /// Starts a check in the background.
    ///
    /// # Errors
    /// [`LibraryError::CheckRunning`], [`LibraryError::Stopping`].
    pub fn start_check(self: &Arc<Self>, options: CheckOptions) -> Result<CheckReport, LibraryError> {
        let report = self.begin_check(options)?;
        let upkeep = Arc::clone(self);
        self.collection.life.tasks.spawn(async move { upkeep.run_check(options).await });
        Ok(report)
    }

    /// Runs a check to its end.
    ///
    /// # Errors
    /// As [`Upkeep::start_check`].
    pub async fn check(&self, options: CheckOptions) -> Result<CheckReport, LibraryError> {
        self.begin_check(options)?;
        self.run_check(options).await;
        Ok(self.check_report())
    }

    fn begin_check(&self, options: CheckOptions) -> Result<CheckReport, LibraryError> {
        if self.collection.life.stop.is_cancelled() {
            return Err(LibraryError::Stopping);
        }
        self.checker.report.change(|report| {
            if report.state == CheckState::Running {
                return Err(LibraryError::CheckRunning);
            }
            *report = begun(options);
            Ok(report.clone())
        })
    }

    async fn run_check(&self, options: CheckOptions) {
        let checked = async {
            let vectors = check_store(self.collection.store.as_ref(), &self.checker.report).await?;
            *self.checker.clips() = vectors.clips.iter().copied().collect();
            if options.bytes {
                check_bytes(self.collection.store.as_ref(), &self.checker.report, &self.collection.life.stop)
                    .await?;
            }
            if options.repair {
                self.repair(&vectors).await?;
            }
            Ok(())
        };
        let outcome: Result<(), LibraryError> = checked.await;
        if let Err(error) = &outcome {
            tracing::error!(code = error.code(), %error, "a check did not finish");
        }
        end(&self.checker.report, &outcome);
        let report = self.check_report();
        let (clean, clips, assets) = (report.is_clean(), report.damaged_clips, report.damaged_assets_total);
        tracing::info!(clean, clips, assets, "finished a check");
    }
}
