//! The files that a job takes.

use super::*;

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

    // The same key returns the same job; events end with it.
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
