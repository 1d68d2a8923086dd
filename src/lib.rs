//! Triptych: search video by text, by sound, by image or by another clip.
//!
//! The flow, and the only direction imports may take:
//! `types, native, telemetry, fail_points, own_files → outbound → structure → formats → ffmpeg → decode_child → media → preprocess → model → embed → ledger, store → sqlite → files → catalog → codes → index → search → jobs →
//! {webhooks, backup} → collection → ingest → standing → library → access → connections, http_kit → http_intake → {http, config} → cli → main`. `tests/layers` holds it.

pub mod access;
pub mod backup;
pub mod catalog;
pub mod cli;
pub mod codes;
pub mod collection;
pub mod config;
mod connections;
mod decode_child;
pub mod embed;
pub mod fail_points;
mod ffmpeg;
pub mod files;
mod formats;
#[cfg(test)]
mod fuzz;
pub mod http;
mod http_intake;
mod http_kit;
pub mod index;
pub mod ingest;
pub mod jobs;
pub mod ledger;
pub mod library;
mod manifest;
pub mod media;
pub mod model;
pub mod native;
pub mod outbound;
mod own_files;
pub mod preprocess;
pub mod search;
pub mod sqlite;
pub mod standing;
pub mod store;
mod structure;
pub mod telemetry;
pub mod types;
pub mod webhooks;
