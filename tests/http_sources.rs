//! Files on other hosts: URLs and buckets, over HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::path::Path;
use std::process::Command;

use common::s3::{self, Endless, S3};
use common::web::{Page, Web};
use common::{
    Options, Server, error_of, eventually, manifest_dir, native_dir, ok_json, picture, tone, video,
};
use serde_json::{Value, json};

fn file(path: &Path) -> Page {
    Page::File(std::fs::read(path).unwrap())
}

fn run(server: &Server, mut body: Value) -> (Value, Vec<Value>) {
    body["type"] = json!("index");
    let response = server.post("/v1/jobs", &body);
    assert_eq!(response.status(), 202, "{body}");
    let job = ok_json(response);
    let id = job["id"].as_str().unwrap();
    (server.finished_job(id), server.items(id))
}

fn codes(items: &[Value]) -> Vec<&str> {
    items.iter().map(|item| item["error"]["code"].as_str().unwrap_or("")).collect()
}

#[test]
fn nothing_is_fetched_unless_it_is_allowed() {
    let web = Web::start();
    web.put("/a.wav", file(&tone("tone-0.wav", 4.0, 200)));
    let url = web.url("/a.wav");
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    std::fs::write(root.join("list.jsonl"), format!("{{\"url\": \"{url}\"}}\n")).unwrap();
    let off = Server::start(Options::default().root(&root));
    let job = |source: Value| {
        let mut body = source;
        body["type"] = json!("index");
        error_of(off.post("/v1/jobs", &body))
    };
    let refused = (403, "urls_disabled".to_owned());
    assert_eq!(error_of(off.post("/v1/assets", &json!({"url": url}))), refused);
    assert_eq!(job(json!({"urls": [url]})), refused);
    assert_eq!(job(json!({"manifest": root.join("list.jsonl")})), refused);
    assert_eq!(job(json!({"bucket": "s3://films"})), (403, "buckets_disabled".to_owned()));

    // Without the mark a private address is refused, on the list or not.
    let unmarked = web.rule().replace("+private", "");
    let on = Server::start(Options::default().args(&["--allow-url-host", &unmarked]));
    assert_eq!(error_of(on.post("/v1/assets", &json!({"url": url}))), (403, "url_not_allowed".to_owned()));
    assert_eq!(web.hits("/a.wav"), 0);
}

#[test]
fn a_url_becomes_an_asset_of_its_bytes() {
    let web = Web::start();
    let sound = tone("tone-0.wav", 4.0, 200);
    web.put("/a%20b.wav?sig=1", file(&sound));
    web.put("/same.wav", file(&sound));
    web.put("/film.mp4", file(&video("first.mp4", 6.4, 300)));
    web.put("/notes.txt", Page::File(b"no media".to_vec()));
    web.put("/empty", Page::File(Vec::new()));
    web.put("/large", Page::File(vec![0; 3 << 20]));
    let redirect =
        format!("HTTP/1.1 302 Found\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n", web.url("/film.mp4"));
    web.put("/moved", Page::Raw(redirect));
    let elsewhere = Web::start();
    let away =
        format!("HTTP/1.1 302 Found\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n", elsewhere.url("/a"));
    web.put("/away", Page::Raw(away));
    let server = Server::start(Options::default().args(&[
        "--allow-url-host",
        &web.rule(),
        "--max-upload-bytes",
        "2000000",
    ]));
    let add = |path: &str, query: &str| {
        server
            .post(&format!("/v1/assets{query}"), &json!({"url": web.url(path), "metadata": {"from": "url"}}))
    };
    let response = add("/a%20b.wav?sig=1", "?wait=true");
    assert_eq!(response.status(), 201);
    let asset = ok_json(response);
    assert_eq!((&asset["name"], &asset["state"]), (&json!("a b.wav"), &json!("ready")));
    assert_eq!(asset["metadata"], json!({"from": "url"}));
    // It is our own copy: served, and gone when deleted.
    let content = server.get(asset["content_url"].as_str().unwrap()).bytes().unwrap();
    assert_eq!(content, std::fs::read(&sound).unwrap());
    assert_eq!(add("/same.wav", "?wait=true").status(), 200);

    let response = add("/moved", "");
    assert_eq!(response.status(), 202);
    let film = format!("/v1/assets/{}", ok_json(response)["id"].as_str().unwrap());
    let ready = eventually("the film is ready", || {
        let asset = server.get_json(&film);
        (asset["state"] == "ready").then_some(asset)
    });
    assert_eq!((&ready["name"], &ready["kind"]), (&json!("moved"), &json!("video")));

    for (path, status, code) in [
        ("/none", 422, "url_refused"),
        ("/empty", 422, "url_refused"),
        ("/notes.txt", 422, "unsupported_media"),
        ("/large", 413, "url_too_large"),
        ("/away", 403, "url_not_allowed"),
    ] {
        assert_eq!(error_of(add(path, "?wait=true")), (status, code.to_owned()), "{path}");
    }
    assert_eq!(elsewhere.hits("/a"), 0);
    for (body, code) in [
        (json!({}), "missing_field"),
        (json!({"url": "http://a/", "path": "/a"}), "invalid_value"),
        (json!({"url": 5}), "invalid_value"),
    ] {
        assert_eq!(error_of(server.post("/v1/assets", &body)).1, code, "{body}");
    }
    assert_eq!(server.get_json("/v1/assets")["data"].as_array().unwrap().len(), 2);
}

#[test]
fn urls_and_manifests_of_urls_are_jobs() {
    let web = Web::start();
    let sound = tone("tone-1.wav", 4.0, 237);
    web.put("/a.wav", file(&sound));
    web.put("/twin.wav", file(&sound));
    web.put("/shown.png", file(&picture("shown.png")));
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let server = Server::start(Options::default().root(&root).args(&["--allow-url-host", &web.rule()]));
    let (job, items) = run(
        &server,
        json!({"urls": [
            web.url("/a.wav"),
            {"url": web.url("/shown.png"), "name": "Shown", "metadata": {"n": 1}},
            web.url("/none.wav"),
            "http://other.example/a.wav",
        ], "metadata": {"from": "job"}}),
    );
    assert_eq!(
        (&job["items_done"], &job["items_failed"], &job["path"]),
        (&json!(2), &json!(2), &Value::Null)
    );
    assert_eq!(codes(&items), ["", "", "url_refused", "url_not_allowed"]);
    assert_eq!(items[0]["path"], json!(web.url("/a.wav")));
    let shown = server.get_json(&format!("/v1/assets/{}", items[1]["asset_id"].as_str().unwrap()));
    assert_eq!((&shown["name"], &shown["metadata"]), (&json!("Shown"), &json!({"n": 1, "from": "job"})));

    let lines =
        format!("{{\"url\": \"{}\", \"name\": \"T\"}}\n{{\"path\": \"own.wav\"}}\n", web.url("/twin.wav"));
    std::fs::write(root.join("list.jsonl"), lines).unwrap();
    std::fs::copy(tone("tone-2.wav", 4.0, 274), root.join("own.wav")).unwrap();
    let clips = server.get_json("/v1/stats")["clips"].as_u64().unwrap();
    let (job, twins) = run(&server, json!({"manifest": root.join("list.jsonl")}));
    assert_eq!((&job["items_done"], &job["clips"]), (&json!(2), &json!(2)));
    assert_eq!(twins[0]["asset_id"], items[0]["asset_id"], "the same bytes are one asset");
    assert_eq!(server.get_json("/v1/stats")["clips"], json!(clips + 2));

    for body in [
        json!({"urls": ["ftp://a/b"]}),
        json!({"urls": [{"url": "http://a/b", "path": "/c"}]}),
        json!({"urls": [{"uri": "http://a/b"}]}),
        json!({"urls": [], "files": []}),
        json!({"files": [{"path": web.url("/a.wav")}]}),
        json!({"urls": [web.url("/a.wav")], "include": ["*"]}),
    ] {
        let mut whole = body.clone();
        whole["type"] = json!("index");
        assert_eq!(error_of(server.post("/v1/jobs", &whole)), (400, "invalid_value".to_owned()), "{body}");
    }
}

#[test]
fn a_fetch_that_a_kill_cut_is_made_again_and_indexed_once() {
    let web = Web::start();
    web.put("/slow.wav", Page::Gated(std::fs::read(tone("minutes.wav", 60.0, 660)).unwrap()));
    web.put("/quick.wav", file(&tone("tone-0.wav", 4.0, 200)));
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let options =
        || Options::default().data(&data).args(&["--allow-url-host", &web.rule(), "--ingest-workers", "1"]);
    let server = Server::start(options());
    let body = json!({"type": "index", "urls": [web.url("/quick.wav"), web.url("/slow.wav")]});
    let id = ok_json(server.post("/v1/jobs", &body))["id"].as_str().unwrap().to_owned();
    eventually("the second file is being fetched", || (web.hits("/slow.wav") == 1).then_some(()));
    assert_eq!(server.items(&id)[1]["state"], "running");
    server.kill9();
    let server = Server::start(options());
    eventually("it is fetched again", || (web.hits("/slow.wav") == 2).then_some(()));
    web.open_gate();
    let job = server.finished_job(&id);
    assert_eq!((&job["state"], &job["items_done"]), (&json!("done"), &json!(2)));
    assert_eq!((web.hits("/quick.wav"), web.hits("/slow.wav")), (1, 2));
    let assets = server.get_json("/v1/assets")["data"].as_array().unwrap().clone();
    let clips: u64 = assets.iter().map(|asset| asset["clip_count"].as_u64().unwrap()).sum();
    assert_eq!((assets.len(), &server.get_json("/v1/stats")["clips"]), (2, &json!(clips)));
    assert_eq!(std::fs::read_dir(data.join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_host_that_is_down_for_now_is_asked_again() {
    let web = Web::start();
    web.put(
        "/a.wav",
        Page::Raw("HTTP/1.1 503 Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".into()),
    );
    let server = Server::start(Options::default().args(&["--allow-url-host", &web.rule()]));
    let body = json!({"type": "index", "urls": [web.url("/a.wav"), web.url("/none.wav")]});
    let id = ok_json(server.post("/v1/jobs", &body))["id"].as_str().unwrap().to_owned();
    let waiting = eventually("the item was put off", || {
        let item = server.items(&id)[0].clone();
        (item["attempts"] == 1).then_some(item)
    });
    assert_eq!((&waiting["state"], &waiting["error"]["code"]), (&json!("queued"), &json!("url_failed")));
    web.put("/a.wav", file(&tone("tone-0.wav", 4.0, 200)));
    let job = server.finished_job(&id);
    assert_eq!((&job["items_done"], &job["items_failed"]), (&json!(1), &json!(1)));
    let missing = &server.items(&id)[1];
    assert_eq!(
        (&missing["attempts"], web.hits("/none.wav")),
        (&json!(0), 1),
        "what is not there is asked for once"
    );
}

#[test]
fn a_cancelled_job_lets_go_of_a_fetch() {
    let web = Web::start();
    web.put("/slow.wav", Page::Gated(std::fs::read(tone("tone-0.wav", 4.0, 200)).unwrap()));
    let server = Server::start(Options::default().args(&["--allow-url-host", &web.rule()]));
    let body = json!({"type": "index", "urls": [web.url("/slow.wav")]});
    let id = ok_json(server.post("/v1/jobs", &body))["id"].as_str().unwrap().to_owned();
    eventually("it is being fetched", || (web.hits("/slow.wav") == 1).then_some(()));
    ok_json(server.delete(&format!("/v1/jobs/{id}")));
    let job = server.finished_job(&id);
    assert_eq!((&job["state"], &server.items(&id)[0]["state"]), (&json!("cancelled"), &json!("cancelled")));
    assert!(server.get_json("/v1/assets")["data"].as_array().unwrap().is_empty());
}

/// A bucket with media, other files, and a neighbour with the same prefix.
fn bucket() -> S3 {
    let s3 = S3::start();
    for n in 0..3 {
        let name = format!("tone-{n}.wav");
        s3.put(&format!("films/new/{name}"), std::fs::read(tone(&name, 4.0, 200 + 37 * n)).unwrap());
    }
    s3.put("films/new/deep/a b.png", std::fs::read(picture("shown.png")).unwrap());
    s3.put("films/new/.hidden.wav", b"x".to_vec());
    s3.put("films/new/notes.txt", b"x".to_vec());
    s3.put("films/new/broken.mp4", b"x".to_vec());
    s3.put("films/newer/tone.wav", b"x".to_vec());
    s3
}

#[test]
fn keys_that_cannot_be_read_fail_alone_and_endless_listings_end() {
    let s3 = S3::start();
    let sound = std::fs::read(tone("tone-0.wav", 4.0, 200)).unwrap();
    for key in ["good.wav", "a//b.wav", "a/../c.wav", "a/line\nbreak.wav", "a//notes.txt"] {
        s3.put(&format!("films/{key}"), sound.clone());
    }
    let options = Options::default()
        .args(&["--allow-bucket", "s3://films", "--s3-endpoint", &s3.endpoint()])
        .env("AWS_ACCESS_KEY_ID", s3::KEY_ID)
        .env("AWS_SECRET_ACCESS_KEY", s3::SECRET);
    let server = Server::start(options);
    let (job, items) = run(&server, json!({"bucket": "s3://films"}));
    assert_eq!(
        (&job["items_done"], &job["items_failed"], &job["state"]),
        (&json!(1), &json!(4), &json!("done"))
    );
    let mut codes = codes(&items);
    codes.sort_unstable();
    assert_eq!(codes, ["", "url_not_allowed", "url_not_allowed", "url_not_allowed", "url_not_allowed"]);
    s3.list_without_end(Endless::SameToken);
    let answer = server.post("/v1/jobs", &json!({"type": "index", "bucket": "s3://films"}));
    assert_eq!(error_of(answer), (422, "url_refused".to_owned()));
}

#[test]
fn a_bucket_is_indexed_object_by_object() {
    let s3 = bucket();
    let options = Options::default()
        .args(&["--allow-bucket", "s3://films/new", "--s3-endpoint", &s3.endpoint()])
        .env("AWS_ACCESS_KEY_ID", s3::KEY_ID)
        .env("AWS_SECRET_ACCESS_KEY", s3::SECRET);
    let server = Server::start(options);
    let (job, items) = run(&server, json!({"bucket": "s3://films/new", "metadata": {"from": "bucket"}}));
    let paths: Vec<&str> = items.iter().map(|item| item["path"].as_str().unwrap()).collect();
    assert_eq!(
        paths,
        [
            "s3://films/new/.hidden.wav",
            "s3://films/new/broken.mp4",
            "s3://films/new/deep/a b.png",
            "s3://films/new/notes.txt",
            "s3://films/new/tone-0.wav",
            "s3://films/new/tone-1.wav",
            "s3://films/new/tone-2.wav"
        ]
    );
    assert_eq!(
        (&job["items_done"], &job["items_failed"], &job["items_skipped"]),
        (&json!(4), &json!(1), &json!(2))
    );
    assert_eq!(job["path"], "s3://films/new");
    assert_eq!(codes(&items), ["hidden", "unsupported_media", "", "not_media", "", "", ""]);
    let shown = server.get_json(&format!("/v1/assets/{}", items[2]["asset_id"].as_str().unwrap()));
    assert_eq!((&shown["name"], &shown["metadata"]), (&json!("a b.png"), &json!({"from": "bucket"})));
    assert_eq!(server.get(shown["content_url"].as_str().unwrap()).status(), 200);

    let some = json!({"bucket": "s3://films/new/", "include": ["*.wav", "*.txt"], "exclude": ["tone-1*"]});
    let (_, items) = run(&server, some);
    assert_eq!(codes(&items), ["hidden", "not_media", "", ""]);
    let other_track = json!({"bucket": "s3://films/new/", "include": ["tone-0*"], "audio_track": 7});
    assert_eq!(codes(&run(&server, other_track).1), ["unknown_track"]);
    for (place, status, code) in [
        ("s3://films", 403, "bucket_not_allowed"),
        ("s3://films/newer", 403, "bucket_not_allowed"),
        ("s3://other/new", 403, "bucket_not_allowed"),
        ("s3://films/new/../old", 403, "url_not_allowed"),
        ("films/new", 403, "url_not_allowed"),
    ] {
        let answer = server.post("/v1/jobs", &json!({"type": "index", "bucket": place}));
        assert_eq!(error_of(answer), (status, code.to_owned()), "{place}");
    }
    // A URL list cannot smuggle in a place that is not allowed.
    let smuggled = json!({"type": "index", "files": [{"path": "s3://films/newer/tone.wav"}]});
    assert_eq!(error_of(server.post("/v1/jobs", &smuggled)).1, "invalid_value");
    assert!(s3.calls().iter().all(|call| !call.contains("newer")));
}

#[test]
fn a_bucket_that_does_not_let_us_in_says_so() {
    let s3 = bucket();
    let options = Options::default().args(&["--allow-bucket", "s3://films", "--s3-endpoint", &s3.endpoint()]);
    let server = Server::start(options.env("AWS_ACCESS_KEY_ID", "other").env("AWS_SECRET_ACCESS_KEY", "x"));
    let answer = server.post("/v1/jobs", &json!({"type": "index", "bucket": "s3://films"}));
    assert_eq!(error_of(answer), (422, "url_refused".to_owned()));
}

#[test]
fn the_command_line_indexes_a_bucket() {
    let s3 = bucket();
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_triptych"))
        .args(["index", "s3://films/new", "--include", "*.wav", "--json", "--device", "cpu", "--data"])
        .arg(dir.path().join("data"))
        .arg("--model")
        .arg(manifest_dir().join("models/small-world"))
        .env("TRIPTYCH_NATIVE_DIR", native_dir())
        .env("AWS_ENDPOINT_URL", s3.endpoint())
        .env("AWS_ACCESS_KEY_ID", s3::KEY_ID)
        .env("AWS_SECRET_ACCESS_KEY", s3::SECRET)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&printed["job"]["items_done"], &printed["job"]["clips"]), (&json!(3), &json!(6)));
}
