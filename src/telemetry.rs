//! Logs and metrics.

use std::io::IsTerminal;
use std::sync::OnceLock;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

/// What is logged where `RUST_LOG` says nothing. ONNX Runtime, below a warning, tells every graph
/// optimisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verbosity {
    /// Warnings: for commands whose output a person reads.
    Warnings,
    /// Our own notices too: for servers.
    Notices,
}

/// Logs to standard error, filtered by `RUST_LOG`, as JSON with `TRIPTYCH_LOG_FORMAT=json`. Control
/// characters in names from users come out escaped.
pub fn init_logging(verbosity: Verbosity) {
    let default = match verbosity {
        Verbosity::Warnings => "warn",
        Verbosity::Notices => "warn,triptych=info",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let json = std::env::var("TRIPTYCH_LOG_FORMAT").is_ok_and(|format| format.eq_ignore_ascii_case("json"));
    // A second call (tests) finds the first one's subscriber: nothing to do.
    let _ = if json { logs.json().try_init() } else { logs.try_init() };
}

/// Seconds, from a text query's microseconds to a long file's minutes.
const SECONDS_BUCKETS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0, 60.0, 300.0, 1800.0,
];

/// Starts to collect metrics (once for the process) and gives the handle that renders them as
/// Prometheus text. Names are `triptych_*` in base units.
#[must_use]
pub fn metrics() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let builder = PrometheusBuilder::new();
        let builder = builder
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS_BUCKETS)
            .unwrap_or_else(|_| PrometheusBuilder::new());
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_ok() {
            describe();
        }
        handle
    })
}

fn describe() {
    describe_counter!("triptych_http_requests_total", "Requests answered, by route, method and status");
    describe_histogram!(
        "triptych_http_request_seconds",
        Unit::Seconds,
        "Time to the response's head, by route"
    );
    describe_gauge!("triptych_http_in_flight", "Requests being answered");
    describe_gauge!("triptych_http_connections", "Open connections");
    describe_counter!("triptych_http_refused_total", "Requests refused because too many were running");
    describe_counter!("triptych_assets_ingested_total", "Files indexed, by the state they ended in");
    describe_counter!("triptych_clips_ingested_total", "Clips indexed");
    describe_counter!("triptych_media_ingested_milliseconds_total", "Media indexed");
    describe_histogram!(
        "triptych_ingest_stage_seconds",
        Unit::Seconds,
        "Time of one file's indexing: decode (CPU of the child), preprocess, infer, store, index, total"
    );
    describe_histogram!(
        "triptych_query_stage_seconds",
        Unit::Seconds,
        "Time of a query: queue, infer, search"
    );
    describe_counter!("triptych_job_items_total", "Items of jobs that ended, by state");
    describe_counter!("triptych_standing_matches_total", "Matches of standing queries");
    describe_counter!("triptych_webhook_deliveries_total", "Attempts to deliver a webhook, by outcome");
    describe_counter!("triptych_snapshots_total", "Snapshots that ended, ready or failed");
    describe_counter!("triptych_assets_deleted_total", "Assets deleted, by people and by rules of retention");
    describe_counter!("triptych_clips_deleted_total", "Clips deleted with them");
    describe_gauge!("triptych_assets", "Assets in the library");
    describe_gauge!("triptych_clips", "Clips in the library");
    describe_gauge!(
        "triptych_calibrated_clips",
        "Clips the library had when it was last measured what scores mean"
    );
    describe_gauge!("triptych_media_seconds", "Seconds of media in the library");
    describe_gauge!("triptych_index_vectors", "Vectors in an index, by track, space and engine");
    describe_gauge!("triptych_index_bytes", Unit::Bytes, "Memory of an index");
    describe_gauge!(
        "triptych_index_recall_at_10",
        "Share of the true ten that the last searches found; 1 where the scan answers, NaN where it is not known"
    );
    describe_counter!(
        "triptych_index_recall_probes_total",
        "Searches answered once more, exactly, to measure what is found"
    );
    describe_gauge!("triptych_ingest_active", "Files queued or being indexed");
    describe_gauge!("triptych_ingest_queued", "Uploads waiting to be indexed");
    describe_gauge!("triptych_jobs", "Jobs, by state");
    describe_counter!("triptych_storage_full_total", "Writes refused because the disk takes no more bytes");
    describe_gauge!("triptych_disk_writable", "Whether the disk of the data folder takes bytes: 1, or 0");
    describe_gauge!("triptych_disk_free_bytes", Unit::Bytes, "Free bytes on the disk of the data folder");
    describe_gauge!("triptych_ready_part", "How a part of the server does: 1 ok, 0.5 degraded, 0 failed");
    describe_gauge!("triptych_damaged", "What is known to be damaged: rows of the store, clips, assets");
    describe_counter!("triptych_damaged_rows_total", "Rows of the store that could not be read, by table");
    describe_counter!("triptych_content_damaged_total", "Requests for bytes that are damaged");
    describe_gauge!("triptych_process_resident_bytes", Unit::Bytes, "Resident memory of the server");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_have_buckets() {
        let handle = metrics();
        metrics::histogram!("triptych_test_seconds").record(0.002);
        let text = handle.render();
        assert!(text.contains("triptych_test_seconds_bucket{le=\"0.0025\"} 1"), "{text}");
    }
}
