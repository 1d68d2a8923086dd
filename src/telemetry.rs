//! Logs and metrics, and traces with the feature `otlp`.

#[cfg(feature = "otlp")]
mod otlp;

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
    #[cfg(feature = "otlp")]
    if verbosity == Verbosity::Notices && init_traced(json, default) {
        return;
    }
    // A second call (tests) finds the first one's subscriber: nothing to do.
    let _ = if json { logs.json().try_init() } else { logs.try_init() };
}

/// Logs as [`init_logging`] does, and sends traces; false where no collector is named.
#[cfg(feature = "otlp")]
fn init_traced(json: bool, default: &str) -> bool {
    use tracing_subscriber::prelude::*;
    let Some(traces) = otlp::layer() else { return false };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let logs = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let logs = if json { logs.json().boxed() } else { logs.boxed() };
    let _ = tracing_subscriber::registry().with(traces).with(logs.with_filter(filter)).try_init();
    true
}

/// Sends what is still to be sent before the process ends.
pub fn flush() {
    #[cfg(feature = "otlp")]
    otlp::flush();
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
    describe_counter!(
        "triptych_http_refused_total",
        "Requests answered with an error, by its code: refused, or failed"
    );
    describe_counter!("triptych_wrong_keys_total", "Requests with a key that nobody has");
    describe_counter!("triptych_keys_unreadable_total", "Changes of the keys' file that could not be read");
    describe_counter!("triptych_audit_failed_total", "Changes that could not be written into the audit log");
    describe_counter!(
        "triptych_http_connections_evicted_total",
        "Connections given up for others, by what was awaited of them: idle, head, body, answer"
    );
    describe_counter!(
        "triptych_http_slow_clients_total",
        "Clients cut off because they were too slow, by what was awaited of them: idle, head, body, answer"
    );
    describe_gauge!(
        "triptych_http_body_bytes",
        Unit::Bytes,
        "Bodies being received or worked on, by where they are held: memory, disk"
    );
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
    describe_gauge!("triptych_decodes_running", "Decoders running, by lane: interactive or bulk");
    describe_gauge!("triptych_decodes_waiting", "Files waiting for a decoder or for its memory, by lane");
    describe_gauge!(
        "triptych_decode_memory_reserved_bytes",
        Unit::Bytes,
        "Memory set aside for the decoders that run"
    );
    describe_counter!(
        "triptych_decodes_refused_total",
        "Files that were not decoded because others were: queue_full, no_worker, no_memory, thumbnails"
    );
    describe_counter!("triptych_standing_matches_total", "Matches of standing queries");
    describe_counter!("triptych_webhook_deliveries_total", "Attempts to deliver a webhook, by outcome");
    describe_counter!("triptych_snapshots_total", "Snapshots that ended, ready or failed");
    describe_counter!("triptych_assets_deleted_total", "Assets deleted, by people and by rules of retention");
    describe_counter!("triptych_clips_deleted_total", "Clips deleted with them");
    describe_counter!("triptych_quarantined_total", "Files and folders moved to quarantine since the start");
    describe_gauge!("triptych_quarantine_files", "Files that were in quarantine at the start");
    describe_gauge!("triptych_quarantine_bytes", Unit::Bytes, "Bytes that were in quarantine at the start");
    describe_counter!(
        "triptych_ingest_put_off_total",
        "Files that are tried again because a part of the server failed, by code"
    );
    describe_gauge!(
        "triptych_decoder_ok",
        "1 while files can be decoded, 0 while ffmpeg or its sandbox fails"
    );
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
