//! Files in, moments out, over HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod adding;
mod reading;

use common::{
    Options, Server, data_uri, error_of, eventually, media, ok_json, picture, sound_of, tone, video,
};
use reqwest::blocking::multipart;
use serde_json::{Value, json};

fn spans(clips: &Value) -> Vec<(f64, f64)> {
    let of = |clip: &Value| (clip["start_secs"].as_f64().unwrap(), clip["end_secs"].as_f64().unwrap());
    clips.as_array().unwrap().iter().map(of).collect()
}
