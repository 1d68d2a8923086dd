//! Deletion by filter, retention and compaction over HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::path::Path;

use common::{Options, Server, error_of, eventually, ok_json, picture, tone, video};
use reqwest::blocking::multipart;
use serde_json::{Value, json};

fn add(server: &Server, file: &Path, metadata: &Value) -> Value {
    let form = multipart::Form::new().text("metadata", metadata.to_string()).file("file", file).unwrap();
    ok_json(server.post_form("/v1/assets?wait=true", form))
}

fn put(server: &Server, body: &Value) -> reqwest::blocking::Response {
    server.request("PUT", "/v1/retention").json(body).send().unwrap()
}

fn kept_files(data: &Path) -> usize {
    let folders = std::fs::read_dir(data.join("uploads")).unwrap();
    folders.map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap().count()).sum()
}

/// Four sounds on two shelves.
fn library(server: &Server) -> Vec<Value> {
    let of = |n: u32| {
        let metadata = json!({"shelf": if n < 3 { "a" } else { "b" }, "shot_at": format!("20{n}0-05-01")});
        add(server, &tone(&format!("s{n}.wav"), 3.2, 300 + 200 * n), &metadata)
    };
    (0..4).map(|n| of(n + 1)).collect()
}

#[test]
fn assets_go_by_filter() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(Options::default().data(&data));
    let assets = library(&server);
    let shelf = |name: &str| json!({"must": [{"key": "metadata.shelf", "eq": name}]});

    for (body, status, code) in [
        (json!({}), 400, "filter_required"),
        (json!({"filter": {}, "dry_run": true}), 400, "filter_required"),
        (json!({"filter": {"must": [{"filter": {}}]}}), 400, "filter_required"),
        (json!({"filter": {"must": [{"key": "start_secs", "gte": 1}]}}), 400, "invalid_value"),
        (json!({"filter": {"must": [{"key": "nonsense", "eq": 1}]}}), 400, "invalid_value"),
        (json!({"filter": shelf("a"), "force": true}), 400, "unknown_field"),
        (json!({"filter": {"asset_ids": ["nonsense"]}}), 400, "invalid_value"),
    ] {
        let found = error_of(server.post("/v1/assets/delete", &body));
        assert_eq!(found.0, status, "{body}");
        assert_eq!(found.1, code, "{body}");
    }
    assert_eq!(server.get_json("/v1/stats")["assets"], json!(4));

    let dry = server.post_json("/v1/assets/delete", &json!({"filter": shelf("a"), "dry_run": true}));
    assert_eq!((&dry["assets"], &dry["clips"], &dry["dry_run"]), (&json!(2), &json!(2), &json!(true)));
    assert_eq!(dry["asset_ids"], json!([assets[0]["id"], assets[1]["id"]]));
    assert_eq!(server.get_json("/v1/stats")["assets"], json!(4));

    let gone = server.post_json("/v1/assets/delete", &json!({"filter": shelf("a")}));
    assert_eq!((&gone["assets"], &gone["clips"], &gone["dry_run"]), (&json!(2), &json!(2), &json!(false)));
    assert_eq!(server.get(&format!("/v1/assets/{}", assets[0]["id"].as_str().unwrap())).status(), 404);
    assert_eq!((server.get_json("/v1/stats")["clips"].clone(), kept_files(&data)), (json!(2), 2));
    let again = server.post_json("/v1/assets/delete", &json!({"filter": shelf("a")}));
    assert_eq!(again["assets"], json!(0));
    let query = json!({"query": {"text": "a red circle"}, "targets": ["audio"], "params": {"exact": true}});
    assert!(server.search(&query).iter().all(|hit| hit["metadata"]["shelf"] == "b"));

    // By id, those that are gone passed over; then everything.
    let ids = json!({"filter": {"asset_ids": [assets[0]["id"], assets[2]["id"]]}});
    assert_eq!(server.post_json("/v1/assets/delete", &ids)["asset_ids"], json!([assets[2]["id"]]));
    assert_eq!(server.post_json("/v1/assets/delete", &json!({"all": true}))["assets"], json!(1));
    assert_eq!((server.get_json("/v1/stats")["assets"].clone(), kept_files(&data)), (json!(0), 0));
    server.stop();
    // Deleted assets stay deleted, also after a restart.
    let server = Server::start(Options::default().data(&data));
    assert_eq!(server.get_json("/v1/stats")["assets"], json!(0));
    server.stop();
}

#[test]
fn metadata_of_many_assets_change_by_filter() {
    let server = Server::start(Options::default());
    let assets = library(&server);
    let shelf = |name: &str| json!({"must": [{"key": "metadata.shelf", "eq": name}]});
    for (body, code) in [
        (json!({"metadata": {"x": 1}}), "filter_required"),
        (json!({"filter": {"must": [{"key": "end_secs", "gte": 1}]}, "metadata": {}}), "invalid_value"),
        (json!({"filter": shelf("a")}), "missing_field"),
        (json!({"filter": shelf("a"), "metadata": 5}), "invalid_value"),
        (json!({"filter": shelf("a"), "metadata": {}, "name": "x"}), "unknown_field"),
        (json!({"filter": shelf("a"), "metadata": {"long": "x".repeat(65 << 10)}}), "invalid_value"),
    ] {
        assert_eq!(error_of(server.post("/v1/assets/update", &body)), (400, code.to_owned()), "{code}");
    }
    let patch = json!({"shelf": "c", "shot_at": null, "reviewed": true});
    let dry = json!({"filter": shelf("a"), "metadata": patch, "dry_run": true});
    let meant = json!([assets[0]["id"], assets[1]["id"]]);
    let answer = server.post_json("/v1/assets/update", &dry);
    assert_eq!(
        (&answer["dry_run"], &answer["assets"], &answer["asset_ids"]),
        (&json!(true), &json!(2), &meant)
    );
    let body = json!({"filter": shelf("a"), "metadata": patch});
    let answer = server.post_json("/v1/assets/update", &body);
    assert_eq!(
        (&answer["dry_run"], &answer["assets"], &answer["asset_ids"]),
        (&json!(false), &json!(2), &meant)
    );
    assert_eq!(server.post_json("/v1/assets/update", &body)["assets"], json!(0));
    let metadata_of = |n: usize| {
        server.get_json(&format!("/v1/assets/{}", assets[n]["id"].as_str().unwrap()))["metadata"].clone()
    };
    for n in [0, 1] {
        assert_eq!(metadata_of(n), json!({"shelf": "c", "reviewed": true}));
    }
    assert_eq!(metadata_of(2), assets[2]["metadata"]);
    let query = json!({"query": "a red circle", "targets": ["audio"], "filter": {
        "must": [{"key": "metadata.reviewed", "eq": true}]}});
    assert_eq!(server.search(&query).len(), 2);
    let emptied = server.post_json("/v1/assets/update", &json!({"all": true, "metadata": null}));
    assert_eq!((&emptied["assets"], metadata_of(3)), (&json!(4), json!({})));
    server.stop();
}

#[test]
fn what_is_being_indexed_goes_too() {
    let server = Server::start(Options::default().args(&["--ingest-workers", "1"]));
    let long = std::fs::read(tone("long.wav", 600.0, 440)).unwrap();
    for n in 0..3_u32 {
        server.upload_bytes("l.wav", [&long[..], &n.to_le_bytes()].concat(), "");
    }
    eventually("the first is being indexed", || (server.get_json("/v1/stats")["clips"] != 0).then_some(()));
    let gone = server.post_json("/v1/assets/delete", &json!({"all": true}));
    assert_eq!(gone["assets"], json!(3));
    let stats = server.get_json("/v1/stats");
    assert_eq!(
        (&stats["assets"], &stats["clips"], &stats["ingest_active"]),
        (&json!(0), &json!(0), &json!(0))
    );
    server.stop();
}

#[test]
fn rules_of_retention_are_checked_kept_and_applied() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    // Nothing happens by itself within this test.
    let start = || Server::start(Options::default().data(&data).args(&["--retention-every-secs", "3600"]));
    let server = start();
    let assets = library(&server);
    assert_eq!(
        server.get_json("/v1/retention"),
        json!({"object": "retention", "rules": [], "due": [], "runs": []})
    );

    let rule = |name: &str, by: &str, secs: u64| json!({"name": name, "by": by, "older_than_secs": secs});
    for (rules, param) in [
        (json!([rule("", "created", 5)]), "rules[0].name"),
        (json!([rule("a", "created", 5), rule("a", "created", 6)]), "rules[1].name"),
        (json!([rule("a", "created", 0)]), "rules[0].older_than_secs"),
        (json!([rule("a", "updated", 5)]), "rules[0].by"),
        (json!([rule("a", "metadata.", 5)]), "rules[0].by"),
        (
            json!([{"name": "a", "older_than_secs": 5, "filter": {"must": [{"key": "end_secs", "lt": 5}]}}]),
            "rules[0].filter.must[0].key",
        ),
        (
            json!([{"name": "a", "older_than_secs": 5, "filter": {"must": [{"key": "name"}]}}]),
            "rules[0].filter.must[0]",
        ),
        (json!((0..101).map(|n| rule(&n.to_string(), "created", 5)).collect::<Vec<_>>()), "rules"),
    ] {
        let response = put(&server, &json!({"rules": rules}));
        assert_eq!(response.status(), 400, "{rules}");
        let body: Value = response.json().unwrap();
        assert_eq!(
            (&body["error"]["code"], &body["error"]["param"]),
            (&json!("invalid_value"), &json!(param)),
            "{rules}"
        );
    }

    // 2010 and 2020 are long ago, 2030 and 2040 are not; only shelf a.
    let year = 365 * 86_400;
    let rules = json!({"rules": [
        {"name": "shot long ago", "by": "metadata.shot_at", "older_than_secs": 10 * year,
         "filter": {"must": [{"key": "metadata.shelf", "eq": "a"}]}},
        {"name": "shot some time ago", "by": "metadata.shot_at", "older_than_secs": year},
        {"name": "added long ago", "older_than_secs": 1000},
    ]});
    let view = ok_json(put(&server, &rules));
    assert_eq!(view["rules"].as_array().unwrap().len(), 3);
    assert_eq!(view["rules"][2]["by"], json!("created"));
    let due = |view: &Value| {
        view.as_array().unwrap().iter().map(|rule| rule["assets"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(due(&view["due"]), [1, 1, 0]);
    server.kill9();

    let server = start();
    assert_eq!(server.get_json("/v1/retention")["rules"], view["rules"]);
    let dry = server.post_json("/v1/retention/apply", &json!({"dry_run": true}));
    assert_eq!((&dry["assets"], &dry["clips"], due(&dry["rules"])), (&json!(2), &json!(2), vec![1, 1, 0]));
    assert_eq!(dry["asset_ids"], json!([assets[0]["id"], assets[1]["id"]]));
    assert_eq!(server.get_json("/v1/stats")["assets"], json!(4));
    let done = server.post_json("/v1/retention/apply", &json!({}));
    assert_eq!(
        (&done["assets"], &done["dry_run"], due(&done["rules"])),
        (&json!(2), &json!(false), vec![1, 1, 0])
    );
    let left = server.get_json("/v1/assets")["data"].as_array().unwrap().clone();
    assert_eq!(json!([left[0]["id"], left[1]["id"]]), json!([assets[3]["id"], assets[2]["id"]]));
    let runs = server.get_json("/v1/retention")["runs"].clone();
    assert_eq!(
        (&runs[0]["assets"], &runs[0]["clips"], runs.as_array().unwrap().len()),
        (&json!(2), &json!(2), 1)
    );
    assert_eq!(runs[0]["by_rule"], json!({"shot long ago": 1, "shot some time ago": 1}));
    assert!(runs[0]["ended_at"].is_string());
    // Nothing to do leaves no trace.
    assert_eq!(server.post_json("/v1/retention/apply", &json!({}))["assets"], json!(0));
    assert_eq!(server.get_json("/v1/retention")["runs"].as_array().unwrap().len(), 1);
    assert_eq!(ok_json(put(&server, &json!({"rules": []})))["rules"], json!([]));
    server.stop();
}

#[test]
fn the_background_applies_the_rules() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(Options::default().data(&data).args(&["--retention-every-secs", "0.3"]));
    library(&server);
    let rules = json!({"rules": [{"name": "a", "older_than_secs": 1, "filter": {"must": [{"key": "metadata.shelf", "eq": "a"}]}}]});
    ok_json(put(&server, &rules));
    eventually("shelf a is empty", || (server.get_json("/v1/stats")["assets"] == 2).then_some(()));
    let runs = eventually("the runs have ended", || {
        let runs = server.get_json("/v1/retention")["runs"].as_array().unwrap().clone();
        runs.iter().all(|run| run["ended_at"].is_string()).then_some(runs)
    });
    // The two get old enough at different times.
    let deleted: u64 = runs.iter().map(|run| run["by_rule"]["a"].as_u64().unwrap()).sum();
    assert_eq!(deleted, 2, "{runs:?}");
    server.stop();
}

/// Memory of cached thumbnails, from the metrics.
fn thumbnail_bytes(server: &Server) -> u64 {
    let metrics = server.get("/metrics").text().unwrap();
    let line = metrics.lines().find_map(|line| line.strip_prefix("triptych_thumbnail_bytes "));
    line.unwrap().parse().unwrap()
}

#[test]
fn thumbnails_go_with_their_assets_whoever_deletes_them() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(Options::default().data(&data).args(&["--retention-every-secs", "0.3"]));
    let shown = |name: &str| {
        let asset = add(&server, &picture("shown.png"), &json!({"shelf": name}));
        let thumbnail = asset["thumbnail_url"].as_str().unwrap().to_owned();
        assert_eq!(server.get(&thumbnail).status(), 200);
        assert!(thumbnail_bytes(&server) > 0, "{name}");
        (asset, thumbnail)
    };
    let gone = |thumbnail: &str, by: &str| {
        assert_eq!(error_of(server.get(thumbnail)), (404, "not_found".to_owned()), "{by}");
        assert_eq!(thumbnail_bytes(&server), 0, "{by}");
    };

    let (asset, thumbnail) = shown("one");
    assert_eq!(server.delete(&format!("/v1/assets/{}", asset["id"].as_str().unwrap())).status(), 204);
    gone(&thumbnail, "a request");

    let (_, thumbnail) = shown("many");
    assert_eq!(server.post_json("/v1/assets/delete", &json!({"all": true}))["assets"], json!(1));
    gone(&thumbnail, "a request by filter");

    let (_, thumbnail) = shown("old");
    let filter = json!({"must": [{"key": "metadata.shelf", "eq": "old"}]});
    ok_json(put(&server, &json!({"rules": [{"name": "old", "older_than_secs": 1, "filter": filter}]})));
    eventually("retention deletes it", || (server.get_json("/v1/stats")["assets"] == 0).then_some(()));
    gone(&thumbnail, "the background");
    server.stop();
}

#[test]
fn compaction_gives_space_back() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(Options::default().data(&data));
    for n in 0..2 {
        add(&server, &tone(&format!("c{n}.wav"), 300.0, 300 + n), &json!({}));
    }
    let kept = server.add(&video("first.mp4", 6.4, 300));
    let query =
        json!({"query": {"text": "a red circle"}, "targets": ["video", "audio"], "params": {"exact": true}});
    server.post_json("/v1/assets/delete", &json!({"filter": {"must": [{"key": "kind", "eq": "audio"}]}}));
    // Their confidence may be calibrated again at any moment: the library has just become smaller.
    let search = |server: &Server| {
        let mut hits = server.search(&query);
        hits.iter_mut().for_each(|hit| drop(hit.as_object_mut().unwrap().remove("confidence")));
        hits
    };
    let before = search(&server);
    assert!(before.iter().all(|hit| hit["asset_id"] == kept["id"]));

    let done = server.post_json("/v1/compactions", &json!({}));
    assert_eq!((&done["object"], &done["rewritten"]), (&json!("compaction"), &json!(false)));
    let bytes = |key: &str| done[key].as_u64().unwrap();
    assert!(bytes("store_bytes_after") < bytes("store_bytes_before"), "{done}");
    assert_eq!(search(&server), before);
    let full = server.post_json("/v1/compactions", &json!({"full": true}));
    assert_eq!(full["rewritten"], json!(true));
    assert!(full["store_bytes_after"].as_u64() <= Some(bytes("store_bytes_after")), "{full}");
    assert_eq!(search(&server), before);
    server.stop();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_triptych"))
        .args(["compact", "--json", "--data", data.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let server = Server::start(Options::default().data(&data));
    assert_eq!(search(&server), before);
    server.stop();
}

#[test]
fn retention_killed_half_way_leaves_whole_assets_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let start = || Server::start(Options::default().data(&data).args(&["--retention-every-secs", "3600"]));
    let server = start();
    let sound = std::fs::read(tone("short.wav", 3.2, 440)).unwrap();
    for n in 0..130_u32 {
        // Trailing bytes after the RIFF chunk make it another file.
        server.upload_bytes("s.wav", [&sound[..], &n.to_le_bytes()].concat(), "");
    }
    eventually("all are indexed", || (server.get_json("/v1/stats")["ingest_active"] == 0).then_some(()));
    std::thread::sleep(std::time::Duration::from_millis(1100));
    ok_json(put(&server, &json!({"rules": [{"name": "all", "older_than_secs": 1}]})));
    std::thread::scope(|scope| {
        let (url, client) = (format!("{}/v1/retention/apply", server.url()), server.client.clone());
        scope.spawn(move || drop(client.post(url).json(&json!({})).send()));
        eventually("some are gone", || (server.get_json("/v1/stats")["assets"] != 130).then_some(()));
        server.kill9();
    });

    let server = start();
    let assets = server.get_json("/v1/assets?limit=1000")["data"].as_array().unwrap().clone();
    for asset in &assets {
        let content = server.get(asset["content_url"].as_str().unwrap());
        // The run may have gone on by now; a row without its file would be `content_missing`.
        assert!(content.status() == 200 || error_of(content).1 == "not_found", "{asset}");
    }
    // Interrupted or not, the server completes what was begun.
    eventually("all are gone", || (server.get_json("/v1/stats")["assets"] == 0).then_some(()));
    let runs = eventually("the run has ended", || {
        let runs = server.get_json("/v1/retention")["runs"].as_array().unwrap().clone();
        runs.first().is_some_and(|run| !run["ended_at"].is_null()).then_some(runs)
    });
    let deleted: u64 = runs.iter().map(|run| run["assets"].as_u64().unwrap()).sum();
    // A transaction that was not noted any more is not counted.
    assert!((130 - 64..=130).contains(&deleted), "{runs:?}");
    eventually("their files too", || (kept_files(&data) == 0).then_some(()));
    server.stop();
}
