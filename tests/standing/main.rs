//! Standing queries over HTTP: what fires, what does not, and what a crash leaves of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
mod receiver;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use common::{Options, Server, data_uri, error_of, eventually, manifest_dir, ok_json, tone};
use receiver::Receiver;
use reqwest::blocking::multipart;
use serde_json::{Value, json};

const PATH: &str = "/v1/standing-queries";

fn sample(name: &str) -> PathBuf {
    manifest_dir().join("models/small-world/samples/clips").join(name)
}

fn create(server: &Server, body: Value) -> Value {
    let response = server.post(PATH, &body);
    let status = response.status();
    let location = response.headers().get("location").map(|value| value.to_str().unwrap().to_owned());
    let query = ok_json(response);
    assert_eq!((status.as_u16(), location), (201, Some(format!("{PATH}/{}", id(&query)))));
    query
}

fn id(object: &Value) -> &str {
    object["id"].as_str().unwrap()
}

fn matches(server: &Server, query: &Value) -> Vec<Value> {
    let list = server.get_json(&format!("{PATH}/{}/matches?limit=1000", id(query)));
    list["data"].as_array().unwrap().clone()
}

fn matched(server: &Server, query: &Value) -> BTreeSet<String> {
    matches(server, query).iter().map(|found| found["asset_name"].as_str().unwrap().to_owned()).collect()
}

fn add_with(server: &Server, name: &str, metadata: &Value) -> Value {
    let part = multipart::Part::bytes(std::fs::read(sample(name)).unwrap()).file_name(name.to_owned());
    let form = multipart::Form::new().text("metadata", metadata.to_string()).part("file", part);
    ok_json(server.post_form("/v1/assets?wait=true", form))
}

/// Waits until everything that is searchable was asked about: a query that anything matches tells.
struct Witness(Value);

impl Witness {
    fn new(server: &Server) -> Self {
        Self(create(
            server,
            json!({"query": {"text": "red"}, "targets": ["video", "audio"], "min_score": -1}),
        ))
    }

    fn saw(&self, server: &Server, names: &[&str]) {
        let wanted: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
        eventually("all were looked at", || (matched(server, &self.0) == wanted).then_some(()));
    }
}

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

/// The store knows a query before memory does. What is asked in between waits for memory.
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

/// By confidence: asked once it is known what scores mean, also about what came before that.
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

/// Killed again and again while a folder is indexed: every asset matches once, and is told at least once.
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

/// Vectors that are of another model, or damaged, are made anew from what was given.
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
