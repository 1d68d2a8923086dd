//! The contract: the OpenAPI document, the shapes of answers, the page, the metrics.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::OnceLock;

use common::{Options, Server, manifest_dir, video};
use serde_json::{Value, json};

fn shared() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start(Options::default()))
}

/// Every call of the document, as `method path`.
fn documented(document: &Value) -> BTreeSet<String> {
    let paths = document["paths"].as_object().unwrap();
    let calls = paths.iter().flat_map(|(path, item)| {
        item.as_object().unwrap().keys().map(move |method| format!("{} {path}", method.to_uppercase()))
    });
    calls.collect()
}

#[test]
fn the_document_is_the_contract() {
    let document = serde_json::to_value(triptych::http::openapi()).unwrap();
    insta::assert_json_snapshot!("openapi", document);
    // Every call has its place in one of the pages of the API.
    let pages = std::fs::read_dir(manifest_dir().join("docs/api")).unwrap();
    let pages: String = pages.map(|page| std::fs::read_to_string(page.unwrap().path()).unwrap()).collect();
    let calls: BTreeSet<String> = documented(&document);
    for call in &calls {
        let (method, path) = call.split_once(' ').unwrap();
        assert!(pages.contains(path), "no page of docs/api/ names {method} {path}");
    }
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, call) in item.as_object().unwrap() {
            assert!(call["summary"].is_string(), "{method} {path} has no summary");
            // Clients are generated from them.
            assert!(ids.insert(call["operationId"].as_str().unwrap()), "{method} {path} has another's id");
        }
    }
}

/// A `routes!(module::a, module::b)` call of the route table gives `module::a`, `module::b`.
fn routed() -> BTreeSet<String> {
    let table = std::fs::read_to_string(manifest_dir().join("src/http/router.rs")).unwrap();
    let calls = table.split("routes!(").skip(1).flat_map(|rest| rest.split(')').next().unwrap().split(','));
    calls.map(|name| name.trim().to_owned()).collect()
}

fn rust_files(dir: &std::path::Path, into: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { rust_files(&path, into) } else { into.push(path) }
    }
}

#[test]
fn every_documented_handler_is_in_the_route_table() {
    let table = routed();
    let mut files = Vec::new();
    rust_files(&manifest_dir().join("src/http"), &mut files);
    let mut found = BTreeSet::new();
    for path in files {
        let named = if path.ends_with("mod.rs") { path.parent().unwrap() } else { &path };
        let module = named.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        for rest in text.split("#[utoipa::path(").skip(1) {
            let name = rest.split("pub async fn ").nth(1).unwrap().split('(').next().unwrap();
            found.insert(format!("{module}::{name}"));
        }
    }
    assert_eq!(found, table);
    assert_eq!(found.len(), documented(&serde_json::to_value(triptych::http::openapi()).unwrap()).len());
}

/// A new call without a role could be open to the wrong callers.
#[test]
fn every_call_has_a_role() {
    let documented = documented(&serde_json::to_value(triptych::http::openapi()).unwrap());
    let pages = ["GET /", "GET /docs", "GET /ui/{*path}"].map(str::to_owned);
    let wanted: BTreeSet<String> = documented.into_iter().chain(pages).collect();
    let table = triptych::http::ROLES;
    let listed: BTreeSet<String> = table.iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    let missing: Vec<_> = wanted.difference(&listed).collect();
    assert!(missing.is_empty(), "say in src/http_intake/guard/roles.rs which role these need: {missing:?}");
    let stale: Vec<_> = listed.difference(&wanted).collect();
    assert!(stale.is_empty(), "src/http_intake/guard/roles.rs names calls that are not there: {stale:?}");
    assert_eq!(table.len(), listed.len(), "a call is listed twice");
    // Calls that change something need more than the role `read`.
    for (method, path, role) in table {
        let reads = ["/v1/search", "/v1/embeddings", "/v1/evaluations", "/v1/session"].contains(path)
            || path.ends_with("/timeline");
        let weak = *role < Some(triptych::access::Role::Write);
        assert!(*method == "GET" || !weak || reads, "{method} {path} changes something as {role:?}");
    }
}

#[test]
fn the_served_document_and_pages_are_whole() {
    let server = shared();
    let document = server.get_json("/openapi.json");
    assert_eq!(document, serde_json::to_value(triptych::http::openapi()).unwrap());
    for (path, content_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/docs", "text/html; charset=utf-8"),
        ("/ui/app.js", "text/javascript; charset=utf-8"),
        ("/ui/heat.js", "text/javascript; charset=utf-8"),
        ("/ui/style.css", "text/css; charset=utf-8"),
        ("/ui/logo.svg", "image/svg+xml"),
        ("/ui/vendor/rapidoc/rapidoc-min.js", "text/javascript; charset=utf-8"),
    ] {
        let response = server.get(path);
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (200, &content_type.parse().unwrap()),
            "{path}"
        );
        assert_eq!(response.headers()["cache-control"], "no-cache");
        let policy = response.headers()["content-security-policy"].to_str().unwrap();
        assert!(
            policy.contains("default-src 'none'") && policy.contains("script-src 'self';"),
            "{path}: {policy}"
        );
        let etag = response.headers()["etag"].clone();
        let again = server.request("GET", path).header("if-none-match", etag).send().unwrap();
        assert_eq!(again.status(), 304, "{path}");
    }
    // Every file that the pages name is there, and nothing is loaded from elsewhere.
    for page in ["ui/index.html", "ui/vendor/docs.html"] {
        let html = std::fs::read_to_string(manifest_dir().join(page)).unwrap();
        for name in html.split(['"', '\'']).filter(|text| text.starts_with("/ui/")) {
            assert!(Path::new(&manifest_dir()).join(&name[1..]).is_file(), "{page} names {name}");
        }
        assert!(!html.contains("src=\"http") && !html.contains("href=\"http"), "{page}");
    }
}

#[test]
fn answers_keep_their_shape() {
    let server = Server::start(Options::default());
    let asset = server.add(&video("first.mp4", 6.4, 300));
    let fixed = |value: &Value| {
        let mut settings = insta::Settings::clone_current();
        settings.set_sort_maps(true);
        let value = value.clone();
        (settings, value)
    };
    let (settings, value) = fixed(&asset);
    settings.bind(|| {
        insta::assert_json_snapshot!("asset", value, {
            ".id" => "[id]", ".created_at" => "[time]", ".updated_at" => "[time]", ".sha256" => "[sha256]",
            ".size_bytes" => "[bytes]", ".content_url" => "[url]", ".thumbnail_url" => "[url]",
        });
    });
    let answer = server.post_json("/v1/search", &json!({"query": {"text": "a red circle"}, "limit": 1}));
    let (settings, value) = fixed(&answer);
    settings.bind(|| {
        insta::assert_json_snapshot!("search", value, {
            ".data[].asset_id" => "[id]", ".data[].score" => "[score]", ".data[].peak_secs" => "[secs]",
            ".data[].agreement" => "[cosine]", ".data[].content_url" => "[url]",
            ".data[].thumbnail_url" => "[url]", ".data[].start_secs" => "[secs]", ".data[].end_secs" => "[secs]",
        });
    });
    let (settings, value) = fixed(&server.get_json("/v1/stats"));
    settings.bind(|| {
        insta::assert_json_snapshot!("stats", value, {
            ".version" => "[version]", ".calibrated_clips" => "[clips]", ".uptime_secs" => "[secs]", ".resident_bytes" => "[bytes]",
            ".indexes[].bytes" => "[bytes]",
        });
    });
    let (settings, value) = fixed(&server.get_json("/v1/models"));
    settings.bind(|| {
        insta::assert_json_snapshot!("models", value, { ".data[].digest" => "[sha256]", ".data[].manifest" => "[manifest]" });
    });
    let (settings, value) = fixed(&ok_error(server, "/v1/search", &json!({"query": {"text": "xyzzy"}})));
    settings.bind(|| insta::assert_json_snapshot!("error", value, { ".error.request_id" => "[id]" }));
}

fn ok_error(server: Server, path: &str, body: &Value) -> Value {
    let response = server.post(path, body);
    assert!(response.status().is_client_error());
    response.json().unwrap()
}

#[test]
fn metrics_cover_every_stage() {
    let server = Server::start(Options::default());
    server.add(&video("first.mp4", 6.4, 300));
    server.search(&json!({"query": {"text": "a red circle"}}));
    server.get("/v1/nothing");
    let text = server.get("/metrics").text().unwrap();
    for line in [
        "triptych_http_requests_total{route=\"/v1/search\",method=\"POST\",status=\"200\"} 1",
        "triptych_http_requests_total{route=\"unmatched\",method=\"GET\",status=\"404\"} 1",
        "triptych_http_request_seconds_bucket{route=\"/v1/assets\",le=\"",
        "triptych_assets_ingested_total{state=\"ready\"} 1",
        "triptych_clips_ingested_total 2",
        "triptych_media_ingested_milliseconds_total 6400",
        "triptych_ingest_stage_seconds_count{stage=\"decode\"} 1",
        "triptych_ingest_stage_seconds_count{stage=\"preprocess\"} 1",
        "triptych_ingest_stage_seconds_count{stage=\"infer\"} 1",
        "triptych_ingest_stage_seconds_count{stage=\"store\"} 1",
        "triptych_ingest_stage_seconds_count{stage=\"index\"} 1",
        "triptych_query_stage_seconds_count{stage=\"queue\"} 1",
        "triptych_query_stage_seconds_count{stage=\"infer\"} 1",
        "triptych_query_stage_seconds_count{stage=\"search\"} 1",
        "triptych_assets 1",
        "triptych_clips 2",
        "triptych_jobs{state=\"running\"} 0",
        "triptych_process_resident_bytes ",
        // So few clips are scanned, and a scan leaves nothing out.
        "triptych_index_recall_at_10{space=\"coarse\",target=\"video\"} 1",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(text.contains("triptych_index_vectors{track=\"video\",space=\"coarse\",engine="), "{text}");
    assert!(text.contains("# HELP triptych_http_requests_total "), "{text}");
    let ours = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    assert!(ours.clone().all(|line| line.starts_with("triptych_")), "{text}");
}
