//! Uploads, paths and bytes that are known.

use super::*;

#[test]
fn one_file_in_one_moment_out() {
    let server = Server::start(Options::default());
    let file = video("ten.mp4", 9.6, 300);
    let form = multipart::Form::new()
        .text("metadata", r#"{"shelf":"a"}"#)
        .text("name", "../ten \u{1b}.mp4")
        .file("file", &file)
        .unwrap();
    let response = server.post_form("/v1/assets?wait=true", form);
    assert_eq!(response.status(), 201);
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let asset = ok_json(response);
    let id = asset["id"].as_str().unwrap();
    assert_eq!(location, format!("/v1/assets/{id}"));
    assert_eq!((&asset["state"], &asset["kind"]), (&json!("ready"), &json!("video")));
    assert_eq!((&asset["name"], &asset["metadata"]), (&json!("ten .mp4"), &json!({"shelf": "a"})));
    assert_eq!(spans(&asset["clips"]), [(0.0, 3.2), (3.2, 6.4), (6.4, 9.6)]);
    assert!(
        asset["clips"].as_array().unwrap().iter().all(|clip| clip["tracks"] == json!(["video", "audio"]))
    );
    let other = server.add(&video("other.mp4", 6.4, 1700));

    // By sound, through JSON and through a form: the very moment, with a cosine near 1.
    let query = sound_of("ten-second.wav", &file, 3.2, 6.4);
    let by_json = json!({"query": {"audio": data_uri("audio/wav", &query)}, "targets": ["audio"]});
    let hit = &server.search(&by_json)[0];
    assert_eq!(
        (&hit["asset_id"], &hit["start_secs"], &hit["end_secs"]),
        (&json!(id), &json!(3.2), &json!(6.4))
    );
    assert!(hit["score"].as_f64().unwrap() > 0.9, "{hit}");
    assert_eq!((&hit["matched"], &hit["space"], &hit["rank"]), (&json!("audio"), &json!("fine"), &json!(1)));
    assert_eq!(hit["metadata"], json!({"shelf": "a"}));
    let form = multipart::Form::new()
        .text("request", r#"{"targets":["audio"],"limit":1}"#)
        .text("modality", "audio")
        .file("file", &query)
        .unwrap();
    let response = server.post_form("/v1/search", form);
    assert!(response.headers().contains_key("x-inference-time-ms"));
    let by_form = ok_json(response);
    assert_eq!(by_form["data"][0]["score"], hit["score"]);

    // By the same video's second clip, by text, by a picture, by a stored clip.
    let part = |modality: &str, start: &str, end: &str| {
        let form = multipart::Form::new().text("modality", modality.to_owned()).file("file", &file).unwrap();
        let form = form.text("start_secs", start.to_owned()).text("end_secs", end.to_owned());
        ok_json(server.post_form("/v1/search", form))["data"][0].clone()
    };
    let hit = part("video", "3.2", "6.4");
    assert_eq!((&hit["asset_id"], &hit["start_secs"]), (&json!(id), &json!(3.2)));
    assert!(hit["score"].as_f64().unwrap() > 0.9999, "{hit}");
    let hits = server.search(&json!({"query": {"text": "a red circle"}, "targets": ["video", "audio"]}));
    assert_eq!(hits.len(), 5);
    assert!(hits.windows(2).all(|pair| pair[0]["score"].as_f64() >= pair[1]["score"].as_f64()));
    assert_eq!(hits[0]["space"], json!("coarse"));
    let still = media("ten-still.png", &["-i", file.to_str().unwrap(), "-frames:v", "1", "-update", "1"]);
    assert_eq!(server.search(&json!({"query": {"image": data_uri("image/png", &still)}})).len(), 5);
    let stored = json!({"query": {"asset": {"id": id, "start_secs": 3.2, "end_secs": 6.4}}});
    let hits = server.search(&stored);
    assert!(!hits.is_empty() && hits.iter().all(|hit| hit["asset_id"] == other["id"]), "no answer to itself");

    // One hit an asset; only in some assets; pages; exact.
    let grouped = json!({"query": {"text": "a red circle"}, "group_by": "asset"});
    assert_eq!(server.search(&grouped).len(), 2);
    let only = json!({"query": {"text": "red"}, "filter": {"asset_ids": [other["id"]]}});
    assert!(server.search(&only).iter().all(|hit| hit["asset_id"] == other["id"]));
    let page = |offset: usize| json!({"query": {"text": "red"}, "offset": offset, "limit": 2, "params": {"exact": true}});
    let all = server.search(&json!({"query": {"text": "red"}}));
    assert_eq!(server.search(&page(2)), all[2..4]);

    // Deleted: gone from everywhere.
    assert_eq!(server.delete(&location).status(), 204);
    assert_eq!(error_of(server.get(&location)), (404, "not_found".to_owned()));
    assert_eq!(error_of(server.delete(&location)), (404, "not_found".to_owned()));
    let left = server.search(&by_json);
    assert!(!left.is_empty() && left.iter().all(|hit| hit["asset_id"] == other["id"]));
    assert_eq!(server.get_json("/v1/stats")["assets"], json!(1));
    server.stop();
}

#[test]
fn uploads_are_kept_once_and_survive_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(Options::default().data(&data));
    let (first, second) = (video("first.mp4", 6.4, 300), tone("second.wav", 4.0, 900));

    // 202, then searchable on its own.
    let response = server.upload_bytes("first.mp4", std::fs::read(&first).unwrap(), "");
    assert_eq!(response.status(), 202);
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let ready = eventually("the asset is ready", || {
        let asset = server.get_json(&location);
        (asset["state"] != "indexing").then_some(asset)
    });
    assert_eq!((&ready["state"], &ready["clip_count"]), (&json!("ready"), &json!(2)));

    // The same bytes again, under another name: the same asset.
    let again = server.upload_bytes("again.mp4", std::fs::read(&first).unwrap(), "?wait=true");
    assert_eq!(again.status(), 200);
    assert_eq!(ok_json(again)["id"], ready["id"]);
    let again = server.upload_bytes("again.mp4", std::fs::read(&first).unwrap(), "");
    assert_eq!(again.status(), 200);
    let sound = server.add(&second);
    assert_eq!((&sound["kind"], &sound["thumbnail_url"]), (&json!("audio"), &Value::Null));
    let shown = server.add(&picture("shown.png"));
    assert_eq!((&shown["kind"], &shown["clip_count"]), (&json!("image"), &json!(1)));

    // The same bytes at once, several times: still one asset.
    let third = std::fs::read(video("third.mp4", 6.4, 500)).unwrap();
    let ids: Vec<Value> = std::thread::scope(|scope| {
        let upload = |n: usize| {
            ok_json(server.upload_bytes(&format!("{n}.mp4"), third.clone(), "?wait=true"))["id"].clone()
        };
        let running: Vec<_> = (0..4).map(|n| scope.spawn(move || upload(n))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");

    // Pages, newest first.
    let page = server.get_json("/v1/assets?limit=3");
    assert_eq!(page["data"].as_array().unwrap().len(), 3);
    let next = page["next"].as_str().unwrap();
    let last = server.get_json(&format!("/v1/assets?limit=3&after={next}"));
    assert_eq!((&last["data"][0]["id"], &last["next"]), (&ready["id"], &Value::Null));

    let query =
        json!({"query": {"text": "a blue square"}, "targets": ["video", "audio"], "params": {"exact": true}});
    let answer = |server: &Server| {
        let mut hits = server.search(&query);
        // Their confidence may be calibrated at any moment.
        hits.iter_mut().for_each(|hit| hit["confidence"] = Value::Null);
        hits
    };
    let before = answer(&server);
    assert_eq!(before.len(), 7);
    server.stop();
    let server = Server::start(Options::default().data(&data));
    assert_eq!(answer(&server), before, "after a clean stop");
    server.kill9();
    std::fs::create_dir_all(data.join("uploads/ab")).unwrap();
    std::fs::write(data.join("uploads/ab/orphan"), "x").unwrap();
    let server = Server::start(Options::default().data(&data));
    assert_eq!(answer(&server), before, "after kill -9");
    assert!(!data.join("uploads/ab/orphan").exists(), "what nobody was told about goes");
    let bytes = server.get(&format!("{location}/content")).bytes().unwrap();
    assert_eq!(bytes, std::fs::read(&first).unwrap());
    server.delete(&location);
    assert_eq!(walk(&data.join("uploads")), 3, "an upload goes with its asset");
}

/// Whoever waits for bytes that are queued does the work itself. When workers only waited for the
/// queue, two of them that resumed a job could wait for ever: nobody was left to work it off.
#[test]
fn bytes_that_wait_in_the_queue_are_taken_up_by_whoever_needs_them() {
    let server = Server::start(Options::default().args(&["--ingest-workers", "1"]));
    let long = std::fs::read(tone("half-hour.wav", 1800.0, 550)).unwrap();
    let long = ok_json(server.upload_bytes("half-hour.wav", long, ""));
    let bytes = std::fs::read(tone("short.wav", 4.0, 730)).unwrap();
    let queued = ok_json(server.upload_bytes("short.wav", bytes.clone(), ""));
    assert_eq!(queued["state"], "indexing");
    let ready = ok_json(server.upload_bytes("short.wav", bytes, "?wait=true"));
    assert_eq!((&ready["id"], &ready["state"]), (&queued["id"], &json!("ready")));
    let url = format!("/v1/assets/{}", long["id"].as_str().unwrap());
    assert_eq!(server.get_json(&url)["state"], "indexing", "the long file was too quick for this test");
    assert_eq!(server.delete(&url).status(), 204);
}

fn walk(folder: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { walk(&path) } else { 1 }).sum()
}

#[test]
fn paths_lie_beneath_a_root() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap().join("root");
    std::fs::create_dir(&root).unwrap();
    std::fs::copy(tone("second.wav", 4.0, 900), root.join("in.wav")).unwrap();
    std::fs::copy(tone("secret.wav", 4.0, 901), dir.path().join("secret.wav")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("secret.wav"), root.join("link.wav")).unwrap();
    let server = Server::start(Options::default().root(&root));
    let add =
        |path: String| server.post("/v1/assets?wait=true", &json!({"path": path, "metadata": {"n": 1}}));
    let at = |name: &str| root.join(name).to_str().unwrap().to_owned();

    let asset = ok_json(add(at("in.wav")));
    assert_eq!(
        (&asset["name"], &asset["state"], &asset["metadata"]["n"]),
        (&json!("in.wav"), &json!("ready"), &json!(1))
    );
    for refused in
        [at("../secret.wav"), at("link.wav"), "/etc/passwd".to_owned(), "in.wav".to_owned(), at("../none")]
    {
        assert_eq!(error_of(add(refused.clone())), (403, "path_not_allowed".to_owned()), "{refused}");
    }
    assert_eq!(error_of(add(at("none.wav"))), (404, "path_missing".to_owned()));
    assert_eq!(error_of(add(root.to_str().unwrap().to_owned())), (400, "path_kind".to_owned()));
    // A file that a link has taken the place of is not served any more.
    std::fs::remove_file(root.join("in.wav")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("secret.wav"), root.join("in.wav")).unwrap();
    let content = format!("/v1/assets/{}/content", asset["id"].as_str().unwrap());
    assert_eq!(error_of(server.get(&content)), (403, "path_not_allowed".to_owned()));
    std::fs::remove_file(root.join("in.wav")).unwrap();
    assert_eq!(error_of(server.get(&content)), (404, "content_missing".to_owned()));
    // A path's file stays when its asset goes.
    std::fs::copy(tone("second.wav", 4.0, 900), root.join("in.wav")).unwrap();
    assert_eq!(server.delete(&content.replace("/content", "")).status(), 204);
    assert!(root.join("in.wav").exists());
}
