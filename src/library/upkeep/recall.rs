//! Measures recall in quiet moments: answers sampled searches again, exactly.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Upkeep;
use crate::collection::recall::SampledQuery;
use crate::collection::{LibraryError, blocking};
use crate::search::SearchError;

/// A server that is never quiet is measured nevertheless, after this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often to check whether the server is idle enough.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Lowest CPU priority: the measurement uses only idle time.
const NICENESS: i32 = 19;

/// Measures from now on, with at most this share of one core.
pub(super) async fn keep_measuring(upkeep: Arc<Upkeep>, share: f64) {
    // A thread of its own, so that the exact scan is not spread over the cores.
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .thread_name(|_| "triptych-recall".into())
        .start_handler(|_| {
            if let Err(error) = rustix::process::nice(NICENESS) {
                tracing::debug!(%error, "could not lower the priority of the recall measurement");
            }
        })
        .build();
    let pool = match pool {
        Ok(pool) => Arc::new(pool),
        Err(error) => return tracing::error!(%error, "could not start a thread to measure recall"),
    };
    loop {
        tokio::select! {
            () = upkeep.collection.life.stop.cancelled() => return,
            () = upkeep.collection.recall.wake.notified() => {}
        }
        while let Some(asked) = next_asked(&upkeep).await {
            let begun = Instant::now();
            if let Err(error) = measure_one(&pool, asked).await {
                tracing::warn!(%error, "could not repeat a search exactly to measure recall");
            }
            let pause = begun.elapsed().mul_f64(1.0 / share - 1.0);
            tokio::select! {
                () = upkeep.collection.life.stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

/// Waits for a quiet moment, then takes a query.
async fn next_asked(upkeep: &Upkeep) -> Option<SampledQuery> {
    let begun = Instant::now();
    while !(upkeep.collection.recall.is_quiet() && upkeep.ingest.is_idle()) && begun.elapsed() < PATIENCE {
        tokio::select! {
            () = upkeep.collection.life.stop.cancelled() => return None,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
    upkeep.collection.recall.take()
}

async fn measure_one(pool: &Arc<rayon::ThreadPool>, asked: SampledQuery) -> Result<(), LibraryError> {
    let pool = Arc::clone(pool);
    blocking(move || {
        let probed = pool.install(|| asked.answer()).map_err(SearchError::from)?;
        if probed.is_some() {
            let (target, space) = (asked.target.as_str(), asked.space.to_string());
            metrics::counter!("triptych_index_recall_probes_total", "space" => space, "target" => target)
                .increment(1);
        }
        Ok(())
    })
    .await
}
