//! The assets that a standing query matches.

use super::*;

#[test]
fn a_query_fires_for_what_it_is_about_and_for_nothing_else() {
    let receiver = Receiver::start(&[]);
    let server = Server::start(Options::default().args(&["--allow-webhook-host", &receiver.rule()]));
    let star = create(
        &server,
        json!({"name": "star", "query": {"video": data_uri("video/mp4", &sample("clip-09.mp4"))}, "min_score": 0.95,
               "metadata": {"team": 7}, "webhook": {"url": receiver.url("/star")}}),
    );
    let secret = star["webhook"]["secret"].as_str().unwrap().to_owned();
    assert_eq!((&star["object"], &star["enabled"]), (&json!("standing_query"), &json!(true)));
    assert_eq!((&star["min_score"], &star["min_confidence"]), (&json!(0.95), &Value::Null));
    let size = std::fs::metadata(sample("clip-09.mp4")).unwrap().len();
    assert_eq!(star["query"][0]["video"], json!({"media_type": "video/mp4", "size_bytes": size}));
    let witness = Witness::new(&server);
    let other = add_with(&server, "clip-12.mp4", &json!({}));
    let same = add_with(&server, "clip-09.mp4", &json!({"shelf": 3}));
    witness.saw(&server, &["clip-09.mp4", "clip-12.mp4"]);

    let found = matches(&server, &star);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((&found[0]["asset_id"], &found[0]["matched"]), (&same["id"], &json!("video")));
    assert!(found[0]["score"].as_f64().unwrap() > 0.99, "{found:?}");
    // The same moment that the asset's timeline names.
    let timeline = server.post_json(
        &format!("/v1/assets/{}/timeline", id(&same)),
        &json!({"query": {"video": data_uri("video/mp4", &sample("clip-09.mp4"))}}),
    );
    for key in ["start_secs", "end_secs", "peak_secs", "score"] {
        assert_eq!(found[0][key], timeline["moments"][0][key], "{key}");
        assert_eq!(found[0][key], found[0]["moments"][0][key], "{key}");
    }
    assert_eq!(found[0]["space"], timeline["space"]);
    let told = eventually("it is told", || receiver.accepted().first().cloned());
    assert!(told.is_signed_with(&secret), "{told:?}");
    let body = told.body();
    assert_eq!((&body["type"], &body["data"]["asset_id"]), (&json!("query.matched"), &same["id"]));
    assert_eq!((&body["data"]["id"], &body["data"]["standing_query_id"]), (&found[0]["id"], &star["id"]));
    assert_eq!(
        (&body["data"]["metadata"]["team"], &body["data"]["asset_metadata"]["shelf"]),
        (&json!(7), &json!(3))
    );
    assert_eq!(
        (&body["data"]["score"], &body["data"]["moments"]),
        (&found[0]["score"], &found[0]["moments"])
    );

    let shown = server.get_json(&format!("{PATH}/{}", id(&star)));
    assert_eq!(
        (&shown["match_count"], &shown["webhook"]),
        (&json!(1), &json!({"url": receiver.url("/star")}))
    );
    assert!(!server.get(PATH).text().unwrap().contains("whsec_"));
    // Pages join, and an asset takes its matches with it.
    let first = server.get_json(&format!("{PATH}/{}/matches?limit=1", id(&witness.0)));
    let after = first["next"].as_str().unwrap();
    let second = server.get_json(&format!("{PATH}/{}/matches?limit=1&after={after}", id(&witness.0)));
    assert_eq!((&first["data"][0]["asset_id"], &second["data"][0]["asset_id"]), (&same["id"], &other["id"]));
    assert_eq!(server.delete(&format!("/v1/assets/{}", id(&same))).status(), 204);
    assert_eq!(matches(&server, &star), Vec::<Value>::new());
    assert_eq!(receiver.heard().len(), 1);
    let metrics = server.get("/metrics").text().unwrap();
    assert!(metrics.contains("triptych_standing_matches_total 3"), "{metrics}");

    assert_eq!(server.delete(&format!("{PATH}/{}", id(&star))).status(), 204);
    assert_eq!(error_of(server.get(&format!("{PATH}/{}", id(&star)))), (404, "not_found".to_owned()));
    assert_eq!(server.get_json("/v1/webhooks/deliveries")["data"], json!([]));
}

#[test]
fn pauses_thresholds_filters_and_what_was_there_before() {
    let server = Server::start(Options::default());
    let before = add_with(&server, "clip-11.mp4", &json!({"camera": "north"}));
    let everything = json!({"query": {"text": "a star"}, "min_score": -1});
    let with = |more: Value| {
        let mut body = everything.clone();
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        create(&server, body)
    };
    let paused = with(json!({"enabled": false}));
    let strict = with(json!({"min_score": 1}));
    let filter = |value: &str| json!({"filter": {"must": [{"key": "metadata.camera", "eq": value}]}});
    let north = with(filter("north"));
    let late = with(json!({"filter": {"must": [{"key": "start_secs", "gte": 3}]}}));
    let kind = with(
        json!({"filter": {"must": [{"key": "kind", "eq": "video"}, {"key": "duration_secs", "gt": 1}]}}),
    );
    let backfilled = with(json!({"backfill": true}));
    let itself = with(json!({"query": {"asset": {"id": before["id"]}}, "backfill": true}));
    let witness = Witness::new(&server);
    add_with(&server, "clip-09.mp4", &json!({"camera": "north"}));
    add_with(&server, "clip-12.mp4", &json!({"camera": "south"}));
    add_with(&server, "reel-08.mp4", &json!({}));
    witness.saw(&server, &["clip-09.mp4", "clip-12.mp4", "reel-08.mp4"]);

    let names = |query: &Value| matched(&server, query).into_iter().collect::<Vec<_>>();
    assert_eq!(names(&paused), Vec::<String>::new());
    assert_eq!(names(&strict), Vec::<String>::new());
    assert_eq!(names(&north), ["clip-09.mp4"]);
    assert_eq!(names(&late), ["reel-08.mp4"]);
    assert!(matches(&server, &late)[0]["start_secs"].as_f64().unwrap() >= 3.0);
    assert_eq!(names(&kind), ["clip-09.mp4", "clip-12.mp4", "reel-08.mp4"]);
    assert_eq!(names(&backfilled), ["clip-09.mp4", "clip-11.mp4", "clip-12.mp4", "reel-08.mp4"]);
    assert_eq!(names(&itself), ["clip-09.mp4", "clip-12.mp4", "reel-08.mp4"], "no answer to itself");

    let change = |query: &Value, body: Value| {
        ok_json(server.request("PATCH", &format!("{PATH}/{}", id(query))).json(&body).send().unwrap())
    };
    let on = change(&paused, json!({"enabled": true, "name": "on"}));
    assert_eq!((&on["enabled"], &on["name"], &on["min_score"]), (&json!(true), &json!("on"), &json!(-1.0)));
    let eased = change(&strict, json!({"min_score": -1, "backfill": true}));
    assert_eq!(eased["min_score"], json!(-1.0));
    change(&north, json!({"enabled": false}));
    add_with(&server, "clip-10.webm", &json!({"camera": "north"}));
    witness.saw(&server, &["clip-09.mp4", "clip-10.webm", "clip-12.mp4", "reel-08.mp4"]);
    assert_eq!(names(&paused), ["clip-10.webm"], "what came while it was paused stays unasked");
    assert_eq!(names(&strict), ["clip-09.mp4", "clip-10.webm", "clip-11.mp4", "clip-12.mp4", "reel-08.mp4"]);
    assert_eq!(names(&north), ["clip-09.mp4"]);
    // Asked again it matches nothing twice.
    change(&backfilled, json!({"backfill": true}));
    eventually("it was asked again", || {
        let after = create(&server, json!({"query": {"text": "red"}, "min_score": -1, "backfill": true}));
        eventually("backfilled", || (matched(&server, &after).len() == 5).then_some(()));
        Some(())
    });
    assert_eq!(matches(&server, &backfilled).len(), 5);
    let list = server.get_json(&format!("{PATH}?limit=3"));
    assert_eq!((list["data"].as_array().unwrap().len(), list["next"].is_string()), (3, true));
}

/// A query is stored before it is in memory. Assets that arrive in between wait.
#[test]
fn a_query_just_made_misses_nothing() {
    let server = Server::start(Options::default().env("FAILPOINTS", "standing-committed=sleep(400)"));
    add_with(&server, "clip-11.mp4", &json!({}));
    // Its making wakes nobody in time: the next upload does, while the query is half made.
    let asked = json!({"query": {"text": "a star"}, "min_score": -1, "backfill": true});
    let query = std::thread::scope(|scope| {
        let query = scope.spawn(|| create(&server, asked));
        for name in ["clip-09.mp4", "clip-12.mp4"] {
            add_with(&server, name, &json!({}));
        }
        query.join().unwrap()
    });
    let all = ["clip-09.mp4", "clip-11.mp4", "clip-12.mp4"].map(str::to_owned).into();
    eventually("it was asked about everything", || (matched(&server, &query) == all).then_some(()));
}

/// By confidence: matched once the library is calibrated, including earlier assets.
#[test]
fn a_new_library_is_asked_once_it_can_tell() {
    let server = Server::start(Options::default().root(&sample("").canonicalize().unwrap()));
    let text = "a big blue triangle moving left";
    let by_confidence = create(&server, json!({"query": {"text": text}}));
    assert_eq!((&by_confidence["min_confidence"], &by_confidence["can_match"]), (&json!(0.9), &json!(false)));
    let never =
        create(&server, json!({"query": {"text": "thanks for watching everyone"}, "min_confidence": 0.99}));
    let folder = sample("").canonicalize().unwrap();
    let job = ok_json(server.post("/v1/jobs", &json!({"type": "index", "path": folder.to_str().unwrap()})));
    server.finished_job(id(&job));
    // The same assets that a search by moments is sure of; they are matched one after the other.
    let search = json!({"query": {"text": text}, "group_by": "moment", "min_confidence": 0.9, "limit": 1000});
    let sure = || -> BTreeSet<String> {
        let hits = server.search(&search);
        hits.iter().map(|hit| hit["asset_name"].as_str().unwrap().to_owned()).collect()
    };
    let names = eventually("it fires for all of them", || {
        Some(matched(&server, &by_confidence)).filter(|names| !names.is_empty() && *names == sure())
    });
    let hits = server.search(&search);
    assert!(names.contains("reel-01.mp4"), "{names:?}");
    for found in matches(&server, &by_confidence) {
        let best = hits.iter().find(|hit| hit["asset_id"] == found["asset_id"]).unwrap();
        for key in ["start_secs", "end_secs", "score", "confidence"] {
            assert_eq!(found[key], best[key], "{key}");
        }
    }
    assert_eq!(server.get_json(&format!("{PATH}/{}", id(&by_confidence)))["can_match"], true);
    assert_eq!(matches(&server, &never), Vec::<Value>::new());
}
