//! Matches every asset that has become searchable against the standing queries.
//!
//! The transaction that makes an asset searchable also lists it as pending; the one that stores its matches
//! removes it from the list. Whenever the process ends, no match is lost and none is reported twice.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::{Entry, StandingQueries};
use crate::catalog::AssetEntry;
use crate::collection::{LibraryError, blocking};
use crate::search::{Corpus, Verdict, ask};
use crate::store::{MatchedMoment, NewMatch, PendingAsset, PendingEnd, Settled, StoreError};
use crate::types::{AssetId, MatchId, Space, StandingId, rfc3339_millis};

/// Assets read per round.
const BATCH: u32 = 64;
/// Maximum number of matches per transaction.
const MATCHES_AT_ONCE: usize = 256;
/// How often to check whether confidence is calibrated yet.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How soon to check again for an asset that is just being finished.
const SOON: Duration = Duration::from_millis(20);
/// Pause after a failure of the store.
const PAUSE: Duration = Duration::from_secs(1);

/// A library with fewer clips may be too small to calibrate confidence: its assets wait until it can.
const YOUNG_CLIPS: usize = 1000;

/// The result of one round.
#[derive(Default)]
struct Round {
    settled: usize,
    /// Number of assets whose indexing has not quite ended.
    unready: usize,
    /// Number of assets that wait for confidence to be calibrated.
    waiting: usize,
}

/// Matches assets while the library is open.
pub(super) async fn run(standing: Arc<StandingQueries>) {
    let renew = || standing.renew_all();
    if let Err(error) =
        standing.collection.data.disk.once_there_is_room(&standing.collection.life.stop, renew).await
    {
        tracing::error!(%error, "could not update the vectors of standing queries");
    }
    // Assets may have been waiting since before startup.
    let mut waiting = true;
    // Number of clips at the calibration after which waiting assets were last matched.
    let mut asked_at = None;
    while standing.collection.data.disk.writable(&standing.collection.life.stop).await {
        let measured = Some(standing.collection.calibrated_clips()).filter(|_| standing.is_measured());
        if waiting && measured.is_some() && measured != asked_at {
            match standing.collection.store.wake_pending().await {
                Ok(_) => (waiting, asked_at) = (false, measured),
                Err(StoreError::StorageFull(full)) => standing.collection.data.disk.refuse(full),
                Err(error) => tracing::error!(%error, "could not resume matching of waiting assets"),
            }
        }
        let pause = match round(&standing).await {
            Ok(round) => {
                waiting |= round.waiting > 0;
                match round {
                    Round { unready: 0, settled: 0, .. } => None,
                    Round { settled: 0, .. } => Some(SOON),
                    _ => Some(Duration::ZERO),
                }
            }
            Err(error) if standing.collection.data.disk.refuses(&error) => Some(PAUSE),
            Err(error) => {
                tracing::error!(%error, "could not match assets against standing queries");
                Some(PAUSE)
            }
        };
        tokio::select! {
            () = standing.collection.life.stop.cancelled() => return,
            () = standing.collection.life.searchable.notified(), if pause.is_none() => {}
            () = tokio::time::sleep(pause.unwrap_or(LOOK_EVERY)), if waiting || pause.is_some() => {}
        }
    }
}

async fn round(standing: &Arc<StandingQueries>) -> Result<Round, LibraryError> {
    let mut pending = standing.collection.store.pending_assets(BATCH).await?;
    let found = pending.len();
    // Such an asset is between the commit that makes it searchable and its update in the catalog.
    pending.retain(|pending| standing.ingest.active.by_id(pending.asset).is_none());
    let unready = found - pending.len();
    if pending.is_empty() {
        return Ok(Round { unready, ..Round::default() });
    }
    // After reading the list, not before: every query that the list names is in the store, but may not be in
    // memory yet.
    let entries = standing.entries.settled().await;
    // Read this before the corpus, so that the corpus has the same calibration or a later one.
    let hopeless = standing.is_measured() && standing.collection.searched.catalog.len().1 >= YOUNG_CLIPS;
    let corpus = standing.collection.searched.clone();
    let content_url = standing.collection.data.config.content_url;
    let settled: Vec<Settled> = blocking(move || {
        Ok(pending
            .into_iter()
            .map(|pending| settle(&corpus, &entries, pending, hopeless, content_url))
            .collect())
    })
    .await?;
    let count = settled.len();
    let waiting = settled.iter().filter(|one| one.end == PendingEnd::Waits).count();
    for part in transactions(settled) {
        let matches = standing.collection.store.settle(&part).await?;
        metrics::counter!("triptych_standing_matches_total").increment(matches);
    }
    Ok(Round { settled: count, unready, waiting })
}

/// Splits the results into transactions of at most `MATCHES_AT_ONCE` matches, so that other writers need not
/// wait long. An asset stays on the list until the last part of its matches is stored.
fn transactions(settled: Vec<Settled>) -> Vec<Vec<Settled>> {
    let (mut parts, mut part) = (Vec::new(), Vec::new());
    let mut room = MATCHES_AT_ONCE;
    for mut one in settled {
        while one.matches.len() > room {
            let rest = one.matches.split_off(room);
            let first = std::mem::replace(&mut one.matches, rest);
            part.push(Settled {
                ticket: one.ticket,
                asset: one.asset,
                matches: first,
                end: PendingEnd::Stays,
            });
            parts.push(std::mem::take(&mut part));
            room = MATCHES_AT_ONCE;
        }
        room -= one.matches.len();
        part.push(one);
    }
    parts.push(part);
    parts
}

impl StandingQueries {
    /// Whether confidence was calibrated with the current clips of the library.
    fn is_measured(&self) -> bool {
        self.collection.calibrated_clips() == self.collection.searched.catalog.len().1
    }
}

/// Matches one asset; `hopeless`: waiting for a calibration is of no use.
fn settle(
    corpus: &Corpus,
    entries: &[Arc<Entry>],
    pending: PendingAsset,
    hopeless: bool,
    content_url: fn(AssetId) -> String,
) -> Settled {
    let (ticket, asset) = (pending.ticket, pending.asset);
    let mut settled = Settled { ticket, asset, matches: Vec::new(), end: PendingEnd::Done };
    let Some(asset) = corpus.catalog.asset(pending.asset) else { return settled };
    let meant = |entry: &&Arc<Entry>| entry.enabled && pending.query.is_none_or(|only| only == entry.id);
    let asked: Vec<_> = entries
        .iter()
        .filter(meant)
        .filter_map(|entry| entry.query.as_ref().map(|query| (entry.as_ref(), query)))
        .collect();
    let verdicts = ask(corpus, &asset, asked.iter().map(|(_, query)| *query));
    for ((entry, query), verdict) in asked.into_iter().zip(verdicts) {
        match verdict {
            Verdict::Matches(moments) => {
                let id = MatchId::generate();
                let best = moments.first().and_then(|moment| query.space_of(moment.matched));
                let space = best.cloned().unwrap_or_else(|| Space::new(""));
                let body = if entry.has_webhook {
                    event_body(entry, &asset, content_url, id, &space, &moments)
                } else {
                    String::new()
                };
                settled.matches.push(NewMatch { id, query: entry.id, space, moments, body });
            }
            Verdict::No => {}
            Verdict::Unknown if hopeless => {}
            Verdict::Unknown => settled.end = PendingEnd::Waits,
        }
    }
    settled
}

/// Body of the webhook for a match.
#[derive(Serialize)]
struct MatchedBody<'a> {
    #[serde(rename = "type")]
    event: &'static str,
    timestamp: String,
    data: MatchedEvent<'a>,
}

#[derive(Serialize)]
struct MatchedEvent<'a> {
    id: MatchId,
    standing_query_id: StandingId,
    standing_query_name: Option<&'a str>,
    metadata: &'a serde_json::Value,
    asset_id: AssetId,
    asset_name: &'a str,
    asset_metadata: &'a serde_json::Value,
    content_url: String,
    space: &'a Space,
    /// The best moment; its fields are inlined.
    #[serde(flatten)]
    best: Option<&'a MatchedMoment>,
    moments: &'a [MatchedMoment],
}

fn event_body(
    entry: &Entry,
    asset: &AssetEntry,
    content_url: fn(AssetId) -> String,
    id: MatchId,
    space: &Space,
    moments: &[MatchedMoment],
) -> String {
    let body = MatchedBody {
        event: "query.matched",
        timestamp: rfc3339_millis(crate::types::now_unix_ms()),
        data: MatchedEvent {
            id,
            standing_query_id: entry.id,
            standing_query_name: entry.name.as_deref(),
            metadata: &entry.metadata,
            asset_id: asset.id,
            asset_name: &asset.name,
            asset_metadata: &asset.metadata,
            content_url: content_url(asset.id),
            space,
            best: moments.first(),
            moments,
        },
    };
    // Names, numbers and the user's JSON: serialization cannot fail.
    serde_json::to_string(&body).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_matches_are_stored_in_parts_and_the_last_one_ends_an_asset() {
        let found = |query| NewMatch {
            id: MatchId::generate(),
            query,
            space: Space::new("s"),
            moments: Vec::new(),
            body: String::new(),
        };
        let settled = |ticket, matches, end| Settled {
            ticket,
            asset: AssetId::generate(),
            matches: (0..matches).map(|_| found(StandingId::generate())).collect(),
            end,
        };
        let (done, waits) = (PendingEnd::Done, PendingEnd::Waits);
        let all = vec![settled(1, 3, done), settled(2, 600, waits), settled(3, 0, done)];
        let ids = |settled: &[Settled]| {
            settled.iter().flat_map(|one| one.matches.iter().map(|found| found.id)).collect::<Vec<_>>()
        };
        let wanted = ids(&all);
        let parts = transactions(all);
        assert_eq!(parts.iter().flat_map(|part| ids(part)).collect::<Vec<_>>(), wanted);
        assert!(parts.iter().all(|part| ids(part).len() <= MATCHES_AT_ONCE));
        let ends: Vec<_> = parts.iter().flatten().map(|one| (one.ticket, one.end)).collect();
        let stays = PendingEnd::Stays;
        assert_eq!(ends, [(1, done), (2, stays), (2, stays), (2, waits), (3, done)]);
    }
}
