//! Durable jobs over HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{Options, Server, error_of, eventually, ok_json, picture, tone, video};
use serde_json::{Value, json};

/// A folder of so many different sounds, with a video, a picture, a broken file and things that are no media.
fn folder(dir: &Path, sounds: u32) -> PathBuf {
    let root = dir.canonicalize().unwrap().join("media");
    std::fs::create_dir_all(root.join("deep/.hidden")).unwrap();
    for n in 0..sounds {
        let name = format!("tone-{n}.wav");
        std::fs::copy(tone(&name, 4.0, 200 + 37 * n), root.join(&name)).unwrap();
    }
    std::fs::copy(video("first.mp4", 6.4, 300), root.join("deep/first.mp4")).unwrap();
    std::fs::copy(picture("shown.png"), root.join("deep/shown.png")).unwrap();
    std::fs::copy(picture("shown.png"), root.join("deep/.hidden/no.png")).unwrap();
    std::fs::write(root.join("deep/broken.mp4"), "not a video").unwrap();
    std::fs::write(root.join("notes.txt"), "no media").unwrap();
    root
}

fn start(server: &Server, root: &Path) -> Value {
    let body = json!({"type": "index", "path": root.to_str().unwrap(), "metadata": {"from": "job"}});
    let response = server.post("/v1/jobs", &body);
    assert_eq!(response.status(), 202);
    ok_json(response)
}

fn id(job: &Value) -> &str {
    job["id"].as_str().unwrap()
}

#[test]
fn a_folder_is_indexed_with_a_result_for_each_file() {
    let dir = tempfile::tempdir().unwrap();
    let root = folder(dir.path(), 3);
    std::os::unix::fs::symlink("/etc/hostname", root.join("link.mp4")).unwrap();
    let server = Server::start(Options::default().root(&root));
    let job = start(&server, &root);
    assert_eq!(
        (&job["object"], &job["type"], &job["items_total"]),
        (&json!("job"), &json!("index"), &json!(9))
    );
    let job = server.finished_job(id(&job));
    assert_eq!(
        (&job["state"], &job["items_done"], &job["items_failed"], &job["items_skipped"]),
        (&json!("done"), &json!(5), &json!(2), &json!(2))
    );
    assert!(
        job["media_secs"].as_f64().unwrap() > 18.0 && job["hours_of_media_per_hour"].as_f64().unwrap() > 0.0,
        "{job}"
    );
    assert!(job["ended_at"].is_string() && job["eta_secs"].is_null(), "{job}");

    let items = server.items(id(&job));
    let paths: Vec<&str> = items
        .iter()
        .map(|item| &item["path"].as_str().unwrap()[root.to_str().unwrap().len() + 1..])
        .collect();
    assert_eq!(
        paths,
        [
            "deep/broken.mp4",
            "deep/first.mp4",
            "deep/shown.png",
            "link.mp4",
            "tone-0.wav",
            "tone-1.wav",
            "tone-2.wav",
            "deep/.hidden",
            "notes.txt"
        ]
    );
    let codes: Vec<_> = items.iter().skip(7).map(|item| (&item["state"], &item["error"]["code"])).collect();
    let skipped = json!("skipped");
    assert_eq!(codes, [(&skipped, &json!("hidden")), (&skipped, &json!("not_media"))]);
    assert_eq!(
        (&items[0]["state"], &items[0]["error"]["code"]),
        (&json!("failed"), &json!("unsupported_media"))
    );
    assert_eq!(
        (&items[3]["state"], &items[3]["error"]["code"]),
        (&json!("failed"), &json!("path_not_allowed"))
    );
    assert_eq!(
        (&items[1]["state"], &items[1]["clips"], &items[1]["error"]),
        (&json!("done"), &json!(2), &Value::Null)
    );
    let asset = server.get_json(&format!("/v1/assets/{}", items[1]["asset_id"].as_str().unwrap()));
    assert_eq!((&asset["state"], &asset["metadata"]), (&json!("ready"), &json!({"from": "job"})));

    let failed = server.get_json(&format!("/v1/jobs/{}/items?state=failed&limit=1", id(&job)));
    assert_eq!((&failed["data"][0]["seq"], &failed["next"]), (&json!(0), &json!("0")));
    let rest = server.get_json(&format!("/v1/jobs/{}/items?state=failed&after=0", id(&job)));
    assert_eq!((rest["data"].as_array().unwrap().len(), &rest["next"]), (1, &Value::Null));

    // Again: every file is known, nothing is embedded twice.
    let before = server.get_json("/v1/stats")["clips"].clone();
    let again = server.finished_job(id(&start(&server, &root)));
    assert_eq!((&again["items_done"], &again["clips"]), (&json!(5), &json!(0)));
    assert_eq!(server.get_json("/v1/stats")["clips"], before);
    assert_eq!(server.get_json("/v1/jobs?limit=1")["data"][0]["id"], again["id"]);

    // The same key gives the same job back; events end with it.
    let keyed = |key: &str| {
        let body = json!({"type": "index", "path": root.to_str().unwrap(), "recursive": false});
        ok_json(server.request("POST", "/v1/jobs").header("idempotency-key", key).json(&body).send().unwrap())
    };
    let first = keyed("k1");
    assert_eq!((&first["items_total"], &keyed("k1")["id"]), (&json!(5), &first["id"]));
    assert_ne!(keyed("k2")["id"], first["id"]);
    let events = server.get(&format!("/v1/jobs/{}/events", id(&first)));
    assert_eq!(events.headers()["content-type"], "text/event-stream");
    let last = BufReader::new(events)
        .lines()
        .map_while(Result::ok)
        .filter(|line| line.starts_with("data:"))
        .last()
        .unwrap();
    let last: Value = serde_json::from_str(last.strip_prefix("data:").unwrap()).unwrap();
    assert_eq!((&last["id"], &last["state"]), (&first["id"], &json!("done")));
    let odd = server
        .request("POST", "/v1/jobs")
        .header("idempotency-key", "a b")
        .json(&json!({"type": "index", "path": "/"}));
    assert_eq!(error_of(odd.send().unwrap()), (400, "invalid_value".to_owned()));
}

#[test]
fn a_cancelled_job_stops_at_once_and_leaves_nothing_half_done() {
    let dir = tempfile::tempdir().unwrap();
    let root = folder(dir.path(), 1);
    // Long enough to be caught in the middle.
    std::fs::copy(tone("long.wav", 2400.0, 440), root.join("aaa.wav")).unwrap();
    let server = Server::start(Options::default().root(&root).args(&["--ingest-workers", "1"]));
    let job = start(&server, &root);
    eventually("clips of the long file are searchable", || {
        (server.get_json("/v1/stats")["clips"].as_u64().unwrap() > 0).then_some(())
    });
    let began = Instant::now();
    let job = ok_json(server.delete(&format!("/v1/jobs/{}", id(&job))));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(job["state"], "cancelled");
    let items = server.items(id(&job));
    assert!(
        items
            .iter()
            .all(|item| ["cancelled", "done", "failed", "skipped"].contains(&item["state"].as_str().unwrap())),
        "{items:?}"
    );
    assert_eq!(items[0]["state"], "cancelled");
    let stats = server.get_json("/v1/stats");
    let left: u64 = stats["indexes"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|i| i["track"] == "audio")
        .map(|i| i["vectors"].as_u64().unwrap())
        .sum();
    let clips: u64 = server.get_json("/v1/assets")["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| a["clip_count"].as_u64().unwrap())
        .sum();
    assert!(left <= 2 * clips, "{stats}");
    assert!(
        server.get_json("/v1/assets")["data"]
            .as_array()
            .unwrap()
            .iter()
            .all(|asset| asset["name"] != "aaa.wav")
    );
    // Cancelling again changes nothing.
    assert_eq!(ok_json(server.delete(&format!("/v1/jobs/{}", id(&job))))["state"], "cancelled");
}

#[test]
fn a_job_goes_on_after_kill_9_and_does_every_file_once() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let root = folder(dir.path(), 12);
    let options = || Options::default().data(&data).root(&root);
    let server = Server::start(options());
    let job = start(&server, &root);
    let caught = eventually("the job is in the middle", || {
        let now = server.get_json(&format!("/v1/jobs/{}", id(&job)));
        (now["items_done"].as_u64().unwrap() >= 3).then_some(now)
    });
    server.kill9();
    assert_eq!(caught["state"], "running", "the job was too quick for this test");

    let server = Server::start(options());
    let ended = server.finished_job(id(&job));
    assert_eq!(
        (&ended["state"], &ended["items_done"], &ended["items_failed"]),
        (&json!("done"), &json!(14), &json!(1))
    );
    let items = server.items(id(&job));
    let assets: HashSet<&str> = items.iter().filter_map(|item| item["asset_id"].as_str()).collect();
    assert_eq!(assets.len(), 15, "every file became one asset");
    let listed = server.get_json("/v1/assets?limit=1000");
    let listed = listed["data"].as_array().unwrap();
    assert_eq!(listed.len(), 15);
    let clips: u64 = listed.iter().map(|asset| asset["clip_count"].as_u64().unwrap()).sum();
    assert_eq!(clips, 12 * 2 + 2 + 1);
    assert_eq!(server.get_json("/v1/stats")["clips"], json!(clips));
    assert!(listed.iter().all(|asset| asset["state"] != "indexing"));
    // Every clip is found once.
    let hits = server
        .search(&json!({"query": {"text": "a red circle"}, "targets": ["video", "audio"], "limit": 1000}));
    let distinct: HashSet<_> =
        hits.iter().map(|hit| (hit["asset_id"].to_string(), hit["start_secs"].to_string())).collect();
    assert_eq!((hits.len() as u64, distinct.len() as u64), (clips, clips));
    // Once more, in the middle of an upload that was accepted.
    let long = std::fs::read(tone("minutes.wav", 600.0, 660)).unwrap();
    let asset = ok_json(server.upload_bytes("minutes.wav", long, ""));
    server.kill9();
    let server = Server::start(options());
    let url = format!("/v1/assets/{}", asset["id"].as_str().unwrap());
    let ready = eventually("the upload is finished", || {
        let asset = server.get_json(&url);
        (asset["state"] != "indexing").then_some(asset)
    });
    assert_eq!((&ready["state"], &ready["clip_count"]), (&json!("ready"), &json!(188)));
    assert_eq!(server.get_json("/v1/stats")["clips"], json!(clips + 188));
}

#[test]
fn globs_manifests_and_lists_choose_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let root = folder(dir.path(), 3);
    let server = Server::start(Options::default().root(&root));
    let path = |name: &str| root.join(name).to_str().unwrap().to_owned();
    let run = |mut body: Value| {
        body["type"] = json!("index");
        let response = server.post("/v1/jobs", &body);
        assert_eq!(response.status(), 202, "{body}");
        let job = server.finished_job(id(&ok_json(response)));
        let items = server.items(id(&job));
        (job, items)
    };
    let (job, items) =
        run(json!({"path": path(""), "include": ["*.wav", "*.mp4"], "exclude": ["tone-1*", "deep/b*"]}));
    let names: Vec<&str> = items.iter().map(|item| item["path"].as_str().unwrap()).collect();
    assert_eq!(names, [path("deep/first.mp4"), path("tone-0.wav"), path("tone-2.wav")]);
    assert_eq!((&job["items_done"], &job["items_failed"]), (&json!(3), &json!(0)));

    let lines = "{\"path\": \"tone-1.wav\", \"metadata\": {\"who\": \"me\", \"n\": 1}}\n\n{\"path\": \"/etc/hostname\"}\n{\"path\": \"none.mp4\"}\n";
    std::fs::write(root.join("list.jsonl"), lines).unwrap();
    let (job, items) =
        run(json!({"manifest": path("list.jsonl"), "metadata": {"who": "you", "from": "list"}}));
    assert_eq!(
        (&job["state"], &job["items_done"], &job["items_failed"]),
        (&json!("done"), &json!(1), &json!(2))
    );
    let codes: Vec<&Value> = items.iter().map(|item| &item["error"]["code"]).collect();
    assert_eq!(codes, [&Value::Null, &json!("path_not_allowed"), &json!("path_missing")]);
    let asset = server.get_json(&format!("/v1/assets/{}", items[0]["asset_id"].as_str().unwrap()));
    assert_eq!(asset["metadata"], json!({"who": "me", "n": 1, "from": "list"}));

    let (job, items) =
        run(json!({"files": [{"path": path("deep/shown.png")}, {"path": path("deep/broken.mp4")}]}));
    assert_eq!((items.len(), &job["path"], &job["items_failed"]), (2, &Value::Null, &json!(1)));
    // The file is mended, and what failed is tried again.
    std::fs::copy(root.join("deep/first.mp4"), root.join("deep/broken.mp4")).unwrap();
    ok_json(server.post(&format!("/v1/jobs/{}/retry", id(&job)), &json!({})));
    let job = server.finished_job(id(&job));
    assert_eq!(
        (&job["state"], &job["items_done"], &job["items_failed"]),
        (&json!("done"), &json!(2), &json!(0))
    );

    std::fs::write(root.join("bad.jsonl"), "{\"path\": \"a\"}\nnot json\n").unwrap();
    for (body, code) in [
        (json!({"manifest": path("bad.jsonl")}), "invalid_manifest"),
        (json!({"manifest": "/etc/hostname"}), "path_not_allowed"),
        (json!({"manifest": path("deep")}), "path_kind"),
        (json!({}), "missing_field"),
        (json!({"path": path(""), "files": []}), "invalid_value"),
        (json!({"files": [], "include": ["*"]}), "invalid_value"),
        (json!({"path": path(""), "include": ["["]}), "invalid_value"),
        (json!({"files": [{"path": "a", "meta": 1}]}), "unknown_field"),
    ] {
        let mut whole = body.clone();
        whole["type"] = json!("index");
        let (status, found) = error_of(server.post("/v1/jobs", &whole));
        assert_eq!(found, code, "{body}");
        assert!((400..500).contains(&status), "{body}");
    }
    assert_eq!(
        error_of(server.post("/v1/jobs", &json!({"type": "index", "manifest": path("bad.jsonl")}))).0,
        400
    );
}

#[test]
fn a_paused_job_waits_until_it_is_resumed_also_over_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let root = folder(dir.path(), 20);
    let options = || Options::default().data(&data).root(&root).args(&["--ingest-workers", "1"]);
    let server = Server::start(options());
    let job = start(&server, &root);
    let url = format!("/v1/jobs/{}", id(&job));
    let paused = ok_json(server.post(&format!("{url}/pause"), &json!({})));
    assert_eq!((&paused["state"], &paused["eta_secs"]), (&json!("paused"), &Value::Null));
    let over = |job: &Value| job["items_done"].as_u64().unwrap() + job["items_failed"].as_u64().unwrap();
    let running =
        |server: &Server| server.items(id(&job)).iter().filter(|item| item["state"] == "running").count();
    eventually("what ran has ended", || (running(&server) == 0).then_some(()));
    let before = over(&server.get_json(&url));
    assert!(before < 23, "the job was too quick for this test");
    // Another job is not held up, and a kill does not wake the paused one.
    let other =
        server.post("/v1/jobs", &json!({"type": "index", "files": [{"path": root.join("deep/first.mp4")}]}));
    assert_eq!(server.finished_job(id(&ok_json(other)))["items_done"], 1);
    server.kill9();
    let server = Server::start(options());
    let found = server.get_json(&url);
    assert_eq!((&found["state"], over(&found)), (&json!("paused"), before));
    let resumed = ok_json(server.post(&format!("{url}/resume"), &json!({})));
    assert!(["queued", "running"].contains(&resumed["state"].as_str().unwrap()), "{resumed}");
    let ended = server.finished_job(id(&job));
    assert_eq!(
        (&ended["state"], &ended["items_done"], &ended["items_failed"]),
        (&json!("done"), &json!(22), &json!(1))
    );
    for (what, state) in [("pause", "done"), ("resume", "done")] {
        assert_eq!(ok_json(server.post(&format!("{url}/{what}"), &json!({})))["state"], state);
    }
    let (known, last) = id(&job).split_at(id(&job).len() - 1);
    let unknown = format!("/v1/jobs/{known}{}/pause", if last == "0" { "1" } else { "0" });
    assert_eq!(error_of(server.post(&unknown, &json!({}))).0, 404);
}

/// Reading a process's memory from its start fails with an input/output error: one that may pass.
#[test]
fn a_failure_that_may_pass_is_put_off_and_tried_again() {
    let server = Server::start(Options::default().root(Path::new("/proc")));
    let body = json!({"type": "index", "files": [{"path": "/proc/self/mem"}]});
    let job = ok_json(server.post("/v1/jobs", &body));
    let item = eventually("it is put off", || {
        let item = server.items(id(&job)).remove(0);
        (item["attempts"].as_u64().unwrap() > 0).then_some(item)
    });
    assert_eq!(item["error"]["code"], "io", "{item}");
    if item["state"] == "queued" {
        assert!(item["next_attempt_at"].is_string(), "{item}");
    }
    eventually("it is tried again", || {
        let item = server.items(id(&job)).remove(0);
        (item["attempts"].as_u64().unwrap() > 1).then_some(())
    });
    assert_eq!(ok_json(server.delete(&format!("/v1/jobs/{}", id(&job))))["state"], "cancelled");
    eventually("its item is cancelled", || (server.items(id(&job))[0]["state"] == "cancelled").then_some(()));
}

/// Jobs and items of another time, put into a data folder beside the server.
fn add_history(data: &Path, jobs: u32, items: u32) {
    use sqlx::Connection;
    let url = format!("sqlite://{}", data.join("triptych.db").display());
    let statements = [
        "WITH RECURSIVE many (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM many WHERE i < ?1)
         INSERT INTO jobs (id, kind, request, state, items_total, created_unix_ms, ended_unix_ms)
         SELECT printf('job_0190000000007000800000000%07x', i), 'index',
             json_object('type', 'index', 'path', '/old', 'metadata', json_object('note', printf('%.*c', 400, 'x'))),
             CASE i % 3 WHEN 0 THEN 'failed' WHEN 1 THEN 'done' ELSE 'cancelled' END, 1, 1, 1 FROM many",
        "WITH RECURSIVE many (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM many WHERE i < ?1 - 1)
         INSERT INTO job_items (job, seq, path, metadata, state)
         SELECT 1, i, '/old/' || i, '{}', CASE WHEN i % 200 = 199 THEN 'failed' ELSE 'done' END FROM many",
    ];
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut db = sqlx::SqliteConnection::connect(&url).await.unwrap();
        let mut tx = db.begin().await.unwrap();
        for (sql, count) in statements.into_iter().zip([jobs, items]) {
            sqlx::query(sql).bind(count).execute(&mut *tx).await.unwrap();
        }
        tx.commit().await.unwrap();
        db.close().await.unwrap();
    });
}

#[test]
fn a_long_history_of_jobs_is_counted_whole_and_listed_page_by_page() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let options = || Options::default().data(&data).root(dir.path());
    Server::start(options()).stop();
    add_history(&data, 3000, 20_000);
    let server = Server::start(options());

    assert_eq!(server.get_json("/v1/stats")["jobs"]["failed"], 1000);
    let metrics = server.get("/metrics").text().unwrap();
    for state in ["done", "failed", "cancelled"] {
        assert!(metrics.contains(&format!("triptych_jobs{{state=\"{state}\"}} 1000\n")), "{metrics}");
    }

    let first = server.get_json("/v1/jobs");
    assert_eq!((first["data"].as_array().unwrap().len(), first["next"].is_string()), (50, true));
    let body = json!({"type": "index", "files": [{"path": dir.path().join("none.mp4")}]});
    let mut seen = Vec::new();
    let mut url = "/v1/jobs?limit=400".to_owned();
    loop {
        let page = server.get_json(&url);
        seen.extend(page["data"].as_array().unwrap().iter().map(|job| id(job).to_owned()));
        // New ones come while pages are read.
        assert_eq!(server.post("/v1/jobs", &body).status(), 202);
        let Some(next) = page["next"].as_str() else { break };
        url = format!("/v1/jobs?limit=400&after={next}");
    }
    assert_eq!((seen.len(), seen.iter().collect::<HashSet<_>>().len()), (3000, 3000));
    assert!(seen.is_sorted_by(|a, b| a > b), "newest first");
    let failed = server.get_json("/v1/jobs?state=cancelled&limit=1000");
    assert_eq!((failed["data"].as_array().unwrap().len(), &failed["next"]), (1000, &Value::Null));
    assert!(failed["data"].as_array().unwrap().iter().all(|job| job["state"] == "cancelled"));

    let oldest = seen.last().unwrap();
    let page = |query: &str| server.get_json(&format!("/v1/jobs/{oldest}/items?state=failed&{query}"));
    let items = page("limit=60");
    assert_eq!((items["data"].as_array().unwrap().len(), &items["next"]), (60, &json!("11999")));
    let rest = page("limit=60&after=11999");
    assert_eq!((rest["data"].as_array().unwrap().len(), &rest["next"]), (40, &Value::Null));
    for bad in ["/v1/jobs?limit=0", "/v1/jobs?limit=1001", "/v1/jobs?after=x", "/v1/jobs?state=lost"] {
        assert_eq!(error_of(server.get(bad)).0, 400, "{bad}");
    }
}
