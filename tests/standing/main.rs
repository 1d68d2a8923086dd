//! Standing queries over HTTP: matches, validation and crashes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../receiver/mod.rs"]
mod receiver;

mod matching;
mod stored;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use common::{Options, Server, data_uri, error_of, eventually, manifest_dir, ok_json, tone};
use receiver::Receiver;
use reqwest::blocking::multipart;
use serde_json::{Value, json};

const PATH: &str = "/v1/standing-queries";

fn sample(name: &str) -> PathBuf {
    manifest_dir().join("models/small-world/samples/clips").join(name)
}

fn create(server: &Server, body: Value) -> Value {
    let response = server.post(PATH, &body);
    let status = response.status();
    let location = response.headers().get("location").map(|value| value.to_str().unwrap().to_owned());
    let query = ok_json(response);
    assert_eq!((status.as_u16(), location), (201, Some(format!("{PATH}/{}", id(&query)))));
    query
}

fn id(object: &Value) -> &str {
    object["id"].as_str().unwrap()
}

fn matches(server: &Server, query: &Value) -> Vec<Value> {
    let list = server.get_json(&format!("{PATH}/{}/matches?limit=1000", id(query)));
    list["data"].as_array().unwrap().clone()
}

fn matched(server: &Server, query: &Value) -> BTreeSet<String> {
    matches(server, query).iter().map(|found| found["asset_name"].as_str().unwrap().to_owned()).collect()
}

fn add_with(server: &Server, name: &str, metadata: &Value) -> Value {
    let part = multipart::Part::bytes(std::fs::read(sample(name)).unwrap()).file_name(name.to_owned());
    let form = multipart::Form::new().text("metadata", metadata.to_string()).part("file", part);
    ok_json(server.post_form("/v1/assets?wait=true", form))
}

/// Waits until all searchable assets have been matched, by means of a query that matches anything.
struct Witness(Value);

impl Witness {
    fn new(server: &Server) -> Self {
        Self(create(
            server,
            json!({"query": {"text": "red"}, "targets": ["video", "audio"], "min_score": -1}),
        ))
    }

    fn saw(&self, server: &Server, names: &[&str]) {
        let wanted: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
        eventually("all were looked at", || (matched(server, &self.0) == wanted).then_some(()));
    }
}
