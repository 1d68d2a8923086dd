//! Bodies received in files give the same answers as others.

use reqwest::blocking::{Body, multipart};
use serde_json::{Value, json};

use crate::common::{Options, Server, data_uri, error_of, ok_json, sound_of, video};

fn found(answer: &Value) -> Vec<(String, f64)> {
    let hit = |hit: &Value| (hit["start_secs"].to_string(), hit["score"].as_f64().unwrap());
    answer["data"].as_array().unwrap().iter().map(hit).collect()
}

#[test]
fn large_media_in_json_are_found_as_in_forms() {
    let server = Server::start(Options::default());
    let file = video("spooled.mp4", 9.6, 500);
    server.add(&file);
    let sound = sound_of("spooled.wav", &file, 3.2, 6.4);
    let bytes = std::fs::read(&sound).unwrap();
    assert!(bytes.len() > 200_000);
    let part = multipart::Part::bytes(bytes).file_name("query.wav");
    let form = multipart::Form::new()
        .text("modality", "audio")
        .text("request", r#"{"targets":["audio"]}"#)
        .part("file", part);
    let by_form = found(&ok_json(server.post_form("/v1/search", form)));
    assert!(!by_form.is_empty());
    let uri = data_uri("audio/wav", &sound);
    let body = json!({"query": {"audio": uri}, "targets": ["audio"]});
    assert_eq!(found(&server.post_json("/v1/search", &body)), by_form);
    // Slashes escaped, as PHP writes them, and of unknown length.
    let escaped = body.to_string().replace('/', "\\/");
    let chunked = server
        .request("POST", "/v1/search")
        .header("content-type", "application/json")
        .body(Body::new(std::io::Cursor::new(escaped)))
        .send()
        .unwrap();
    assert_eq!(found(&ok_json(chunked)), by_form);

    let one = server.post_json("/v1/embeddings", &json!({"modality": "audio", "input": uri}));
    let two = server.post_json("/v1/embeddings", &json!({"modality": "audio", "input": [uri, uri]}));
    let (one, two) = (one["data"].as_array().unwrap(), two["data"].as_array().unwrap());
    assert_eq!(two.len(), 2 * one.len());
    for (n, view) in two.iter().enumerate() {
        assert_eq!(view["embedding"], one[n % one.len()]["embedding"]);
    }
    let standing = json!({"query": {"audio": uri}, "targets": ["audio"], "min_score": 0.9});
    assert_eq!(server.post("/v1/standing-queries", &standing).status(), 201);
}

#[test]
fn large_media_that_are_wrong_are_named_as_small_ones_are() {
    let server = Server::start(Options::default());
    let large = "QUJD".repeat(60_000);
    let uri = |media_type: &str, tail: &str| format!("data:{media_type};base64,{large}{tail}");
    let cases = [
        (json!({"query": {"audio": uri("audio/wav", "!")}}), 400, "invalid_value", "query.audio"),
        (json!({"query": {"audio": uri("image/png", "")}}), 400, "media_type_mismatch", "query.audio"),
        (json!({"query": {"text": uri("audio/wav", "")}}), 400, "invalid_value", ""),
        (json!({"query": {"text": "red"}, "extra": uri("audio/wav", "")}), 400, "unknown_field", "extra"),
        (
            json!({"query": [{"text": "red"}, {"audio": uri("audio/wav", "")}]}),
            422,
            "unsupported_media",
            "query[1].audio",
        ),
    ];
    for (body, status, code, param) in cases {
        let answer: Value = {
            let response = server.post("/v1/search", &body);
            assert_eq!(response.status(), status, "{code} {param}");
            response.json().unwrap()
        };
        assert_eq!(answer["error"]["code"], code);
        assert_eq!(answer["error"]["param"].as_str().unwrap_or(""), param);
    }
    let metadata = json!({"path": "/x", "metadata": {"picture": uri("image/png", "")}});
    assert_eq!(error_of(server.post("/v1/assets", &metadata)), (400, "invalid_value".to_owned()));
    // A JSON text of some size without media.
    let ids: Vec<String> = (0..8000).map(|n| format!("ast_{n:032x}")).collect();
    let body = json!({"query": "red", "filter": {"asset_ids": ids}});
    assert_eq!(server.post_json("/v1/search", &body)["data"], json!([]));
    // Nothing stays behind.
    let metrics = server.get("/metrics").text().unwrap();
    for pool in ["disk", "memory"] {
        let line = format!("triptych_http_body_bytes{{held_in=\"{pool}\"}} 0");
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
}
