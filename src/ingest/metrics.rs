//! Prometheus metrics of the ingest.

use metrics::{counter, histogram};

use super::StageSecs;
use crate::store::AssetRecord;

pub(crate) fn ingested(asset: &AssetRecord, stages: &StageSecs) {
    counter!("triptych_assets_ingested_total", "state" => asset.state.as_str()).increment(1);
    counter!("triptych_clips_ingested_total").increment(asset.clips);
    counter!("triptych_media_ingested_milliseconds_total").increment((asset.duration_secs * 1e3) as u64);
    let parts = [
        ("total", stages.total),
        ("decode", stages.decode),
        ("preprocess", stages.preprocess),
        ("infer", stages.inference),
        ("store", stages.store),
        ("index", stages.index),
    ];
    for (stage, secs) in parts {
        histogram!("triptych_ingest_stage_seconds", "stage" => stage).record(secs);
    }
}

pub(crate) fn item_ended(state: &'static str) {
    counter!("triptych_job_items_total", "state" => state).increment(1);
}

pub(crate) fn deleted(assets: u64, clips: u64) {
    counter!("triptych_assets_deleted_total").increment(assets);
    counter!("triptych_clips_deleted_total").increment(clips);
}
