//! Several models over HTTP: beside each other, and one taking over from another.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
mod receiver;

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::{Options, Server, error_of, eventually, manifest_dir, ok_json, other_bundle, tone, video};
use receiver::Receiver;
use serde_json::{Value, json};

fn models(server: &Server) -> Vec<Value> {
    server.get_json("/v1/models")["data"].as_array().unwrap().clone()
}

fn caught_up(server: &Server, assets: u64) {
    eventually("the model beside has caught up", || {
        let all = models(server);
        assert_eq!(all[1]["error"], Value::Null);
        (all[1]["caught_up"] == true && all[1]["assets"] == assets).then_some(())
    });
}

fn load(server: &Server, bundle: &Path) -> reqwest::blocking::Response {
    server.post("/v1/models", &json!({"path": bundle.to_str().unwrap()}))
}

/// Ids and scores of an answer, and which model gave it.
fn asked(server: &Server, model: Option<&str>) -> (Vec<(Value, Value)>, String) {
    let answer = server.post_json(
        "/v1/search",
        &json!({"query": {"text": "a red circle"}, "targets": ["video", "audio"], "model": model}),
    );
    let hits = answer["data"].as_array().unwrap();
    let hits = hits.iter().map(|hit| (hit["asset_id"].clone(), hit["score"].clone())).collect();
    (hits, answer["model"].as_str().unwrap().to_owned())
}

#[test]
fn a_model_beside_follows_answers_by_name_and_takes_over() {
    let dir = tempfile::tempdir().unwrap();
    let (bundle, data) = (other_bundle(dir.path()), dir.path().join("data"));
    let options = || {
        let options = Options::default().data(&data);
        options.args(&["--model-root", dir.path().to_str().unwrap()])
    };
    let server = Server::start(options());
    let first = server.add(&video("first.mp4", 6.4, 300));
    server.add(&tone("tone-1.wav", 4.0, 440));
    let before = asked(&server, None);

    assert_eq!(error_of(load(&server, &manifest_dir().join("models/small-world"))).1, "path_not_allowed");
    let missing = server.post("/v1/models", &json!({"path": dir.path().canonicalize().unwrap()}));
    assert_eq!(error_of(missing), (422, "model_missing".to_owned()));
    let loaded = load(&server, &bundle);
    assert_eq!(loaded.status(), 202);
    let loaded = ok_json(loaded);
    assert_eq!((&loaded["id"], &loaded["role"]), (&json!("other-world"), &json!("beside")));
    assert_eq!(error_of(load(&server, &bundle)), (409, "model_loaded".to_owned()));
    caught_up(&server, 2);
    assert_eq!(asked(&server, Some("other-world")), (before.0.clone(), "other-world".to_owned()));
    let digest = loaded["digest"].as_str().unwrap();
    assert_eq!(asked(&server, Some(digest)).1, "other-world");
    assert_eq!(asked(&server, None), before);
    let unknown = server.post("/v1/search", &json!({"query": {"text": "a star"}, "model": "none"}));
    assert_eq!(error_of(unknown), (404, "model_not_found".to_owned()));
    for (path, body) in [
        ("/v1/embeddings", json!({"modality": "text", "input": "a star", "model": "other-world"})),
        (
            "/v1/evaluations",
            json!({"pairs": [{"text": "a star", "asset": "first.mp4"}], "model": "other-world"}),
        ),
    ] {
        assert_eq!(server.post_json(path, &body)["model"], "other-world", "{path}");
    }

    // Changes of metadata reach the other model too.
    let patched = server.request("PATCH", &format!("/v1/assets/{}", first["id"].as_str().unwrap()));
    ok_json(patched.json(&json!({"name": "renamed.mp4", "metadata": {"shelf": 7}})).send().unwrap());
    eventually("the model beside has heard of it", || {
        let shelf =
            json!({"must": [{"key": "metadata.shelf", "eq": 7}, {"key": "name", "eq": "renamed.mp4"}]});
        let query = json!({"query": "a red circle", "model": "other-world", "filter": shelf});
        (server.search(&query).len() == 2).then_some(())
    });

    // Additions and deletions reach the other model too.
    let second = server.add(&video("second.mp4", 3.2, 500));
    caught_up(&server, 3);
    assert_eq!(server.delete(&format!("/v1/assets/{}", second["id"].as_str().unwrap())).status(), 204);
    caught_up(&server, 2);

    assert_eq!(error_of(server.delete("/v1/models/small-world")), (409, "model_serves".to_owned()));
    assert_eq!(error_of(server.post("/v1/models/none/promote", &json!({}))).1, "model_not_found");
    let promoted = server.post_json("/v1/models/other-world/promote", &json!({}));
    assert_eq!((&promoted["id"], &promoted["role"]), (&json!("other-world"), &json!("serving")));
    assert_eq!(models(&server).len(), 1);
    assert_eq!(asked(&server, None), (before.0.clone(), "other-world".to_owned()));
    assert_eq!(
        error_of(server.post("/v1/search", &json!({"query": {"text": "x"}, "model": "small-world"}))).0,
        404
    );
    let path = format!("/v1/assets/{}", first["id"].as_str().unwrap());
    let kept = server.get_json(&path);
    assert_eq!((&kept["created_at"], &kept["name"]), (&first["created_at"], &json!("renamed.mp4")));
    assert_eq!(kept["metadata"], json!({"shelf": 7}));
    server.add(&video("third.mp4", 3.2, 600));
    server.stop();

    // The configured bundle is the earlier one; the promoted model serves.
    let server = Server::start(options());
    assert_eq!(asked(&server, None).1, "other-world");
    assert_eq!(server.get_json("/v1/assets")["data"].as_array().unwrap().len(), 3);
    assert_eq!(server.get(&format!("{path}/content")).status(), 200);
    assert_eq!(server.delete(&path).status(), 204);
    let uploads = || {
        let folders = std::fs::read_dir(data.join("uploads")).unwrap();
        folders.map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap().count()).sum::<usize>()
    };
    assert_eq!(uploads(), 2);
    server.stop();
}

#[test]
fn jobs_and_uploads_go_on_with_the_model_that_takes_over() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = other_bundle(dir.path());
    let root = dir.path().canonicalize().unwrap().join("media");
    std::fs::create_dir_all(&root).unwrap();
    for n in 0..40 {
        let name = format!("tone-{n}.wav");
        std::fs::copy(tone(&name, 4.0, 200 + 37 * n), root.join(&name)).unwrap();
    }
    let options = || {
        let options = Options::default().data(&dir.path().join("data")).root(&root);
        options.args(&["--model-root", dir.path().to_str().unwrap()])
    };
    let server = Server::start(options());
    for n in 40..44 {
        server.add(&tone(&format!("tone-{n}.wav"), 4.0, 200 + 37 * n));
    }
    let body = json!({"path": bundle.to_str().unwrap(), "promote_when_ready": true});
    assert_eq!(server.post("/v1/models", &body).status(), 202);
    let job = server.post_json("/v1/jobs", &json!({"type": "index", "path": root.to_str().unwrap()}));
    let id = job["id"].as_str().unwrap();

    // Searches and uploads all the while: none may fail, and none may be answered by two models.
    let (switched, asked_for) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !switched.load(Ordering::Relaxed) {
                    let (hits, model) = asked(&server, None);
                    assert!(["small-world", "other-world"].contains(&model.as_str()) && !hits.is_empty());
                    asked_for.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        scope.spawn(|| {
            eventually("another model serves", || (models(&server)[0]["id"] == "other-world").then_some(()));
            switched.store(true, Ordering::Relaxed);
        });
    });
    assert!(asked_for.load(Ordering::Relaxed) > 0);
    let job = server.finished_job(id);
    assert_eq!((&job["state"], &job["items_done"]), (&json!("done"), &json!(40)), "{job}");
    let assets = server.get_json("/v1/assets?limit=1000")["data"].as_array().unwrap().clone();
    let hashes: HashSet<&str> = assets.iter().map(|asset| asset["sha256"].as_str().unwrap()).collect();
    assert_eq!((assets.len(), hashes.len()), (44, 44));
    assert!(assets.iter().all(|asset| asset["state"] == "ready"), "{assets:?}");
    server.stop();

    // The earlier model is loaded beside again, with its old vectors.
    let roots = manifest_dir().join("models");
    let server = Server::start(options().args(&["--model-root", roots.to_str().unwrap()]));
    assert_eq!(load(&server, &roots.join("small-world")).status(), 202);
    caught_up(&server, 44);
    server.kill9();
    let server = Server::start(options());
    assert_eq!(models(&server).len(), 2);
    caught_up(&server, 44);
    assert_eq!(server.delete("/v1/models/small-world").status(), 204);
    assert!(!dir.path().join("data/triptych.db").exists());
    assert_eq!(asked(&server, None).1, "other-world");
    server.stop();
    let server = Server::start(Options::default().data(&dir.path().join("data")).args(&[]));
    assert_eq!(models(&server)[0]["id"], "other-world");
}

#[test]
fn what_people_set_up_goes_on_with_the_model_that_takes_over() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = other_bundle(dir.path());
    let (data, inbox) = (dir.path().join("data"), dir.path().canonicalize().unwrap().join("inbox"));
    std::fs::create_dir_all(&inbox).unwrap();
    let drop_in = |name: &str, hz: u32| std::fs::copy(tone(name, 4.0, hz), inbox.join(name)).unwrap();
    let receiver = Receiver::start(&[]);
    let options = || {
        let options = Options::default().data(&data);
        let root = dir.path().to_str().unwrap();
        options.args(&["--model-root", root, "--allow-root", root, "--allow-webhook-host", &receiver.rule()])
    };
    let server = Server::start(options());
    let watch = server.post_json("/v1/watches", &json!({"path": inbox, "poll_secs": 1}));
    let standing = server.post_json(
        "/v1/standing-queries",
        &json!({"query": {"text": "red"}, "targets": ["audio"], "min_score": -1,
                "webhook": {"url": receiver.url("/match")}}),
    );
    let secret = standing["webhook"]["secret"].as_str().unwrap().to_owned();
    let path = format!("/v1/standing-queries/{}/matches", standing["id"].as_str().unwrap());
    let matched = |server: &Server, wanted: &[&str]| {
        eventually("the matches are stored", || {
            let found = server.get_json(&path)["data"].as_array().unwrap().clone();
            let names: Vec<&str> = found.iter().map(|one| one["asset_name"].as_str().unwrap()).collect();
            (names == wanted).then_some(found)
        })
    };
    // Told of nothing until the other model serves.
    receiver.always(Some(503));
    drop_in("first.wav", 300);
    let before = matched(&server, &["first.wav"]);
    assert_eq!(load(&server, &bundle).status(), 202);
    caught_up(&server, 1);
    server.post_json("/v1/models/other-world/promote", &json!({}));

    let shown = server.get_json(&format!("/v1/standing-queries/{}", standing["id"].as_str().unwrap()));
    assert_eq!((&shown["error"], &shown["match_count"]), (&Value::Null, &json!(1)), "{shown}");
    assert_eq!(matched(&server, &["first.wav"])[0]["id"], before[0]["id"]);
    drop_in("second.wav", 500);
    matched(&server, &["second.wav", "first.wav"]);
    let now = server.get_json(&format!("/v1/watches/{}", watch["id"].as_str().unwrap()));
    assert_eq!(now["created_at"], watch["created_at"]);
    receiver.always(None);
    let told = eventually("both matches are told", || {
        let told = receiver.accepted();
        (told.len() == 2).then_some(told)
    });
    let about: HashSet<String> =
        told.iter().map(|one| one.body()["data"]["asset_name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(about, HashSet::from(["first.wav".to_owned(), "second.wav".to_owned()]));
    assert!(told.iter().all(|one| one.is_signed_with(&secret)), "{told:?}");
    // What was accepted but not yet noted would be sent again after the kill.
    eventually("both deliveries are noted", || {
        let noted = server.get_json("/v1/webhooks/deliveries?state=delivered");
        (noted["data"].as_array().unwrap().len() == 2).then_some(())
    });
    server.kill9();

    // The next startup sends or matches nothing twice.
    let server = Server::start(options());
    assert_eq!(models(&server)[0]["id"], "other-world");
    drop_in("third.wav", 700);
    matched(&server, &["third.wav", "second.wav", "first.wav"]);
    eventually("the third is told", || (receiver.accepted().len() == 3).then_some(()));
    let ids: HashSet<String> = receiver.accepted().into_iter().map(|one| one.id).collect();
    assert_eq!(ids.len(), 3);
}
