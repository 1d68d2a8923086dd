//! Stored queries: validation, crashes, other models.

use super::*;

#[test]
fn a_target_named_twice_counts_once() {
    let server = Server::start(Options::default());
    let body = json!({"query": "red", "targets": ["video", "video"], "fuse": "mean", "min_confidence": 0.5});
    assert_eq!(create(&server, body)["targets"], json!(["video"]));
}

#[test]
fn bad_standing_queries_are_refused() {
    let server = Server::start(Options::default());
    for (body, status, code, param) in [
        (json!({}), 400, "missing_field", "query"),
        (json!({"query": {}}), 400, "invalid_value", "query"),
        (json!({"query": []}), 400, "invalid_value", "query"),
        (json!({"query": {"text": "red", "image": "data:"}}), 400, "invalid_value", "query"),
        (json!({"query": {"text": " "}}), 400, "invalid_value", "query.text"),
        (json!({"query": " "}), 400, "invalid_value", "query"),
        (json!({"query": "xyzzy", "min_score": 0}), 422, "no_known_words", "query"),
        (
            json!({"query": [{"text": "red"}, {"text": "xyzzy"}], "min_score": 0}),
            422,
            "no_known_words",
            "query[1].text",
        ),
        (json!({"query": {"image": "data:image/png;base64,aGk="}}), 422, "unsupported_media", "query.image"),
        (json!({"query": {"text": "red", "weight": 0}}), 400, "invalid_value", "query.weight"),
        (json!({"query": {"text": "red"}, "targets": []}), 400, "invalid_value", "targets"),
        // Before any part is embedded, or the word that nobody knows would be told first.
        (
            json!({"query": [{"text": "xyzzy"}, {"text": "red"}], "min_confidence": 2}),
            400,
            "invalid_value",
            "min_confidence",
        ),
        (json!({"query": {"text": "red"}, "space": "x"}), 400, "bad_space", "space"),
        (json!({"query": {"text": "red"}, "min_score": 2}), 400, "invalid_value", "min_score"),
        (json!({"query": {"text": "red"}, "min_confidence": 2}), 400, "invalid_value", "min_confidence"),
        (
            json!({"query": {"text": "red"}, "min_confidence": 0.5, "min_score": 0.5}),
            400,
            "invalid_value",
            "min_score",
        ),
        (
            json!({"query": {"text": "red"}, "filter": {"must": [{"key": "x"}]}}),
            400,
            "invalid_value",
            "filter.must[0].key",
        ),
        (
            json!({"query": {"text": "red"}, "webhook": {"url": "http://a/"}}),
            403,
            "webhooks_disabled",
            "webhook",
        ),
        (json!({"query": {"text": "red"}, "limit": 3}), 400, "unknown_field", "limit"),
        (
            json!({"query": {"asset": {"id": format!("ast_{}", "0".repeat(32))}}}),
            404,
            "not_found",
            "query.asset.id",
        ),
    ] {
        let response = server.post(PATH, &body);
        let found = response.status().as_u16();
        let error = response.json::<Value>().unwrap()["error"].clone();
        assert_eq!((found, &error["code"], &error["param"]), (status, &json!(code), &json!(param)), "{body}");
    }
    // Several parts may ask for a confidence, too.
    let parts = json!([{"text": "red"}, {"text": "circle", "weight": -0.5}]);
    let both = create(&server, json!({"query": parts, "min_score": 0.3}));
    let patched =
        server.request("PATCH", &format!("{PATH}/{}", id(&both))).json(&json!({"min_confidence": 0.5}));
    let patched: Value = patched.send().unwrap().json().unwrap();
    assert_eq!((&patched["min_confidence"], &patched["min_score"]), (&json!(0.5), &Value::Null));
    assert_eq!(server.get_json(PATH)["data"].as_array().unwrap().len(), 1);
    let missing = format!("{PATH}/stq_{}", "0".repeat(32));
    for response in [server.get(&missing), server.delete(&missing), server.get(&format!("{missing}/matches"))]
    {
        assert_eq!(error_of(response), (404, "not_found".to_owned()));
    }
}

/// Killed again and again while a folder is indexed: every asset matches once, and is delivered at least
/// once.
#[test]
fn a_crash_neither_loses_nor_repeats_a_match() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap().join("media");
    std::fs::create_dir_all(&root).unwrap();
    for n in 0..40 {
        let name = format!("tone-{n}.wav");
        std::fs::copy(tone(&name, 4.0, 200 + 17 * n), root.join(&name)).unwrap();
    }
    let receiver = Receiver::start(&[]);
    let data = dir.path().join("data");
    let options =
        || Options::default().root(&root).data(&data).args(&["--allow-webhook-host", &receiver.rule()]);
    let mut server = Server::start(options());
    let body = json!({"query": {"text": "red"}, "targets": ["audio"], "min_score": -1,
                      "webhook": {"url": receiver.url("/")}});
    let query = create(&server, body);
    let job = ok_json(server.post("/v1/jobs", &json!({"type": "index", "path": root.to_str().unwrap()})));
    for wanted in [3, 12, 25] {
        eventually("some matched", || (matches(&server, &query).len() >= wanted).then_some(()));
        server.kill9();
        server = Server::start(options());
    }
    let job = server.finished_job(id(&job));
    assert_eq!((&job["state"], &job["items_done"]), (&json!("done"), &json!(40)));
    eventually("all matched", || (matches(&server, &query).len() == 40).then_some(()));
    let told: BTreeMap<String, String> = eventually("all are told", || {
        let told: BTreeMap<String, String> = receiver
            .accepted()
            .iter()
            .map(|heard| (heard.id.clone(), heard.body()["data"]["asset_id"].as_str().unwrap().to_owned()))
            .collect();
        (told.len() >= 40).then_some(told)
    });
    let assets: BTreeSet<String> =
        matches(&server, &query).iter().map(|found| found["asset_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(assets.len(), 40);
    // By its id a receiver knows what it has heard before: one id for each asset.
    assert_eq!(told.len(), 40);
    assert_eq!(told.into_values().collect::<BTreeSet<_>>(), assets);
    server.stop();
}

/// Damaged vectors, and those of another model, are recomputed from the stored query.
#[test]
fn vectors_are_made_anew_for_the_model_that_runs() {
    use sqlx::Connection;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(Options::default().data(&data));
    let asset = add_with(&server, "reel-08.mp4", &json!({}));
    let star = json!({"video": data_uri("video/mp4", &sample("clip-09.mp4"))});
    let sound = json!({"audio": data_uri("video/mp4", &sample("clip-09.mp4"))});
    let queries: Vec<Value> = [
        json!({"query": star, "min_score": 0.95}),
        json!({"query": sound, "targets": ["audio"], "min_score": 0.95}),
        json!({"query": [{"text": "star", "weight": 2}, {"text": "circle", "weight": -1}], "min_score": -1}),
        json!({"query": {"asset": {"id": asset["id"], "start_secs": 0, "end_secs": 3.2}}, "min_score": -1}),
        json!({"query": {"asset": {"id": asset["id"]}}, "min_score": -1}),
    ]
    .into_iter()
    .map(|body| create(&server, body))
    .collect();
    server.stop();
    let change = |sql: &'static str| {
        let url = format!("sqlite://{}", data.join("triptych.db").display());
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let mut db = sqlx::SqliteConnection::connect(&url).await.unwrap();
            sqlx::query(sql).execute(&mut db).await.unwrap();
            db.close().await.unwrap();
        });
    };
    change("UPDATE standing_queries SET model = 'other' WHERE n <> 2");
    change("UPDATE standing_queries SET vectors = x'00' WHERE n = 2");
    // The asset that the last one is made of is gone: nothing can be made of it.
    change("UPDATE standing_queries SET source = replace(source, 'ast_', 'ast_0') WHERE n = 5");
    let server = Server::start(Options::default().data(&data));
    let witness = Witness::new(&server);
    add_with(&server, "clip-09.mp4", &json!({}));
    witness.saw(&server, &["clip-09.mp4"]);
    for query in &queries[..4] {
        assert_eq!(matched(&server, query), BTreeSet::from(["clip-09.mp4".to_owned()]), "{query}");
        assert!(server.get_json(&format!("{PATH}/{}", id(query)))["error"].is_null());
    }
    let broken = server.get_json(&format!("{PATH}/{}", id(&queries[4])));
    assert_eq!(
        (&broken["error"]["code"], &broken["can_match"]),
        (&json!("standing_query_damaged"), &json!(false))
    );
    assert_eq!(matches(&server, &queries[4]), Vec::<Value>::new());
}
