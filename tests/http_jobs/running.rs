//! Jobs that are cancelled, paused, killed or retried, and long histories.

use super::*;

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
        // New jobs start while pages are read.
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
