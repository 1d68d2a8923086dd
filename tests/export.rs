//! Vectors out: page by page of one asset, and all of a library as Parquet, over HTTP and by the command line.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;

use bytes::Bytes;
use common::{Options, Server, error_of, ok_json, picture, tone, video};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, RowAccessor};
use serde_json::{Value, json};

/// Asset, clip, track and space, then seconds and vector.
type Rows = BTreeMap<(String, i64, String, String), (f64, f64, Vec<f32>)>;

fn rows_of(file: Vec<u8>) -> (Rows, BTreeMap<String, String>) {
    let reader = SerializedFileReader::new(Bytes::from(file)).unwrap();
    let facts = reader.metadata().file_metadata().key_value_metadata().unwrap();
    let facts = facts.iter().map(|kv| (kv.key.clone(), kv.value.clone().unwrap())).collect();
    let mut rows = Rows::new();
    for row in reader.get_row_iter(None).unwrap() {
        let row = row.unwrap();
        let text = |at: usize| row.get_string(at).unwrap().clone();
        let values = row.get_list(10).unwrap();
        let vector = values.elements().iter().map(|value| match value {
            Field::Float(value) => *value,
            other => panic!("{other:?}"),
        });
        let key = (text(0), row.get_long(4).unwrap(), text(7), text(8));
        let found = (row.get_double(5).unwrap(), row.get_double(6).unwrap(), vector.collect());
        assert!(rows.insert(key, found).is_none(), "no row comes twice");
    }
    (rows, facts)
}

/// The same by the pages of each asset.
fn pages_of(server: &Server, limit: usize, more: &str) -> Rows {
    let mut rows = Rows::new();
    for asset in server.get_json("/v1/assets?limit=1000")["data"].as_array().unwrap() {
        let id = asset["id"].as_str().unwrap();
        let mut after = String::new();
        loop {
            let page = server.get_json(&format!("/v1/assets/{id}/embeddings?limit={limit}{more}{after}"));
            assert_eq!((&page["object"], &page["asset_id"]), (&json!("list"), &json!(id)));
            for row in page["data"].as_array().unwrap() {
                let text = |key: &str| row[key].as_str().unwrap().to_owned();
                let numbers = row["embedding"].as_array().unwrap();
                let vector = numbers.iter().map(|value| value.as_f64().unwrap() as f32).collect();
                let key = (id.to_owned(), row["clip_id"].as_i64().unwrap(), text("track"), text("space"));
                let secs = |key: &str| row[key].as_f64().unwrap();
                rows.insert(key, (secs("start_secs"), secs("end_secs"), vector));
            }
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => break,
            }
        }
    }
    rows
}

#[test]
fn a_library_is_exported_as_it_is_searched() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(Options::default().data(&data));
    let film = server.add(&video("first.mp4", 9.6, 300));
    server.add(&tone("tone-0.wav", 4.0, 200));
    server.add(&picture("shown.png"));
    let answer = server.get("/v1/export");
    assert_eq!(answer.headers()["content-type"], "application/vnd.apache.parquet");
    let (rows, facts) = rows_of(answer.bytes().unwrap().to_vec());
    let model = server.get_json("/v1/models")["data"][0].clone();
    assert_eq!(
        (&json!(facts["triptych.model_name"]), facts["triptych.left_out"].as_str()),
        (&model["id"], "0")
    );
    // Three clips of film with picture and sound in two spaces or more, one of sound or two, one of a picture.
    let of_film = rows.keys().filter(|(asset, ..)| *asset == film["id"].as_str().unwrap()).count();
    assert!(of_film >= 9 && rows.len() > of_film + 2, "{of_film} of {}", rows.len());
    for (key, (start, end, vector)) in &rows {
        let norm: f32 = vector.iter().map(|value| value * value).sum();
        assert!((norm - 1.0).abs() < 1e-4 && start < end, "{key:?}");
    }
    assert_eq!(pages_of(&server, 2, ""), rows);
    assert_eq!(pages_of(&server, 1000, ""), rows);

    // An exported vector finds its own clip.
    let fine: Rows = rows
        .iter()
        .filter(|(key, _)| key.2 == "video" && key.3 == "fine")
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    let some = server.get("/v1/export?track=video&space=fine").bytes().unwrap().to_vec();
    assert_eq!(rows_of(some).0, fine);
    assert_eq!(pages_of(&server, 9, "&track=video&space=fine"), fine);

    let page = format!("/v1/assets/{}/embeddings", film["id"].as_str().unwrap());
    let coded = server.get_json(&format!("{page}?encoding_format=base64&limit=1"));
    assert!(coded["data"][0]["embedding"].is_string() && coded["next"].is_string());
    for (path, status, code) in [
        ("/v1/export?space=none".to_owned(), 400, "bad_space"),
        (format!("{page}?limit=0"), 400, "invalid_value"),
        (format!("{page}?track=smell"), 400, "invalid_value"),
        ("/v1/assets/ast_00000000000000000000000000000000/embeddings".to_owned(), 404, "not_found"),
        ("/v1/export?model=other".to_owned(), 404, "model_not_found"),
    ] {
        assert_eq!(error_of(server.get(&path)), (status, code.to_owned()), "{path}");
    }
    // Read while assets come and go: each file is whole.
    let name = film["id"].as_str().unwrap().to_owned();
    std::thread::scope(|scope| {
        let server = &server;
        let reading = scope.spawn(move || {
            (0..8).map(|_| rows_of(server.get("/v1/export").bytes().unwrap().to_vec()).0).collect::<Vec<_>>()
        });
        for n in 0..4 {
            server.add(&tone(&format!("tone-{}.wav", n + 1), 4.0, 300 + 40 * n));
        }
        assert_eq!(server.delete(&format!("/v1/assets/{name}")).status(), 204);
        for read in reading.join().unwrap() {
            let of_film = read.keys().filter(|(asset, ..)| *asset == name).count();
            assert!(of_film == 0 || of_film == rows.keys().filter(|(asset, ..)| *asset == name).count());
        }
    });
    let last = rows_of(server.get("/v1/export").bytes().unwrap().to_vec()).0;
    server.stop();

    let out = dir.path().join("all.parquet");
    let (data, file) = (data.to_str().unwrap(), out.to_str().unwrap());
    let output = common::run(&["export", "--data", data, "--out", file]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(rows_of(std::fs::read(&out).unwrap()).0, last);
    let piped = common::run(&["export", "--data", data, "-o", "-", "--track", "audio"]);
    let sounds = rows_of(piped.stdout).0;
    assert!(!sounds.is_empty() && sounds.iter().all(|(key, value)| key.2 == "audio" && last[key] == *value));
    let none = common::run(&["export", "--data", dir.path().join("none").to_str().unwrap(), "--out", file]);
    assert_eq!(none.status.code(), Some(1));
    assert_eq!(rows_of(std::fs::read(&out).unwrap()).0, last, "what failed has replaced nothing");
}

#[test]
fn an_empty_library_is_a_file_without_rows() {
    let server = Server::start(Options::default());
    let (rows, facts) = rows_of(server.get("/v1/export").bytes().unwrap().to_vec());
    assert!(rows.is_empty() && facts["triptych.model"].len() == 64);
}

/// Names and metadata of assets that were stored in one of Unicode's forms are found by the other.
#[test]
fn texts_are_compared_in_one_form() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let (composed, decomposed) = ("gr\u{fc}n.wav", "gru\u{308}n.wav");
    let server = Server::start(Options::default().root(&root));
    std::fs::create_dir(root.join("in")).unwrap();
    std::fs::copy(tone("tone-0.wav", 4.0, 200), root.join("in").join(decomposed)).unwrap();
    let started = json!({"type": "index", "path": root.join("in"), "include": ["gr\u{fc}n*"],
        "metadata": {"sta\u{308}dte": ["Ko\u{308}ln"]}});
    let job = ok_json(server.post("/v1/jobs", &started));
    assert_eq!(server.finished_job(job["id"].as_str().unwrap())["items_done"], 1);
    let bytes = std::fs::read(tone("tone-1.wav", 4.0, 240)).unwrap();
    let other = ok_json(server.upload_bytes(composed, bytes, "?wait=true"));
    let patch = json!({"metadata": {"st\u{e4}dte": ["K\u{f6}ln"]}});
    ok_json(
        server
            .request("PATCH", &format!("/v1/assets/{}", other["id"].as_str().unwrap()))
            .json(&patch)
            .send()
            .unwrap(),
    );
    let names: Vec<Value> = server.get_json("/v1/assets")["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|asset| asset["name"].clone())
        .collect();
    assert_eq!(names, [json!(composed), json!(decomposed)], "names stay as they came");
    for (key, value) in [
        ("name", composed),
        ("name", decomposed),
        ("metadata.st\u{e4}dte", "K\u{f6}ln"),
        ("metadata.sta\u{308}dte", "Ko\u{308}ln"),
        ("metadata.st\u{e4}dte", "Ko\u{308}ln"),
    ] {
        for filter in [
            json!({"must": [{"key": key, "eq": value}]}),
            json!({"should": [{"key": key, "in": ["x", value]}]}),
        ] {
            let found = server.search(&json!({"query": {"text": "a red circle"}, "targets": ["audio"],
                "group_by": "asset", "filter": filter}));
            assert_eq!(found.len(), 2, "{filter}");
        }
        let none = json!({"must_not": [{"key": key, "eq": value}]});
        let query = json!({"query": {"text": "a red circle"}, "targets": ["audio"], "filter": none});
        assert!(server.search(&query).is_empty(), "{key} {value}");
    }
}
