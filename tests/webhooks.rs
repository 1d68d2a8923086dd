//! Signed webhooks: delivered at least once, whatever happens to the receiver or to the server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
mod receiver;

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{Options, Server, error_of, eventually, manifest_dir, ok_json, tone};
use receiver::Receiver;
use serde_json::{Value, json};

/// A folder with one short sound.
fn folder(dir: &Path) -> PathBuf {
    let root = dir.canonicalize().unwrap().join("media");
    std::fs::create_dir_all(&root).unwrap();
    std::fs::copy(tone("told.wav", 4.0, 330), root.join("told.wav")).unwrap();
    root
}

fn options(root: &Path, receiver: &Receiver) -> Options {
    Options::default().root(root).args(&["--allow-webhook-host", &receiver.rule()])
}

fn start(server: &Server, root: &Path, webhook: Value) -> Value {
    let body = json!({"type": "index", "path": root.to_str().unwrap(), "webhook": webhook});
    ok_json(server.post("/v1/jobs", &body))
}

/// The one delivery, once there is one.
fn delivery(server: &Server) -> Option<Value> {
    let list = server.get_json("/v1/webhooks/deliveries");
    assert!(list["data"].as_array().unwrap().len() < 2, "{list}");
    list["data"].get(0).cloned()
}

fn delivered(server: &Server) -> Value {
    eventually("the webhook is delivered", || {
        delivery(server).filter(|delivery| delivery["state"] == "delivered")
    })
}

#[test]
fn the_end_of_a_job_is_told_until_it_is_heard() {
    let dir = tempfile::tempdir().unwrap();
    let root = folder(dir.path());
    let receiver = Receiver::start(&[500, 302]);
    let server = Server::start(options(&root, &receiver));
    let job = start(&server, &root, json!({"url": receiver.url("/hook?x=1")}));
    let secret = job["webhook"]["secret"].as_str().unwrap().to_owned();
    assert_eq!(job["webhook"]["url"], receiver.url("/hook?x=1"));

    let seen = delivered(&server);
    let heard = receiver.heard();
    assert_eq!(heard.iter().map(|heard| heard.status).collect::<Vec<_>>(), [500, 302, 204]);
    let ids: HashSet<&str> = heard.iter().map(|heard| heard.id.as_str()).collect();
    assert_eq!(ids, HashSet::from([seen["id"].as_str().unwrap()]), "one id for all attempts");
    for heard in &heard {
        assert!(heard.is_signed_with(&secret), "{heard:?}");
        assert!(!heard.is_signed_with("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"));
        assert_eq!(heard.path, "/hook?x=1");
    }
    assert!(heard[0].timestamp_secs < heard[2].timestamp_secs, "each attempt is signed anew");
    let told = heard[2].body();
    assert_eq!((&told["type"], &told["data"]["id"]), (&json!("job.done"), &job["id"]));
    assert_eq!((&told["data"]["state"], &told["data"]["items_done"]), (&json!("done"), &json!(1)));
    assert!(told["timestamp"].is_string() && told["data"]["ended_at"].is_string(), "{told}");
    let shown = server.get_json(&format!("/v1/jobs/{}", job["id"].as_str().unwrap()));
    assert_eq!(told["data"], shown, "the job as the API shows it");

    assert_eq!((&seen["attempts"], &seen["last_status"]), (&json!(3), &json!(204)));
    assert_eq!((&seen["event"], &seen["owner"]), (&json!("job.done"), &job["id"]));
    assert!(seen["last_error"].is_null() && seen["next_attempt_at"].is_null(), "{seen}");
    let metrics = server.get("/metrics").text().unwrap();
    for (outcome, count) in [("delivered", 1), ("put_off", 2)] {
        let line = format!("triptych_webhook_deliveries_total{{outcome=\"{outcome}\"}} {count}");
        assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
    }
    // The secret is shown once.
    for path in ["/v1/webhooks/deliveries", &format!("/v1/jobs/{}", job["id"].as_str().unwrap()), "/v1/jobs"]
    {
        assert!(!server.get(path).text().unwrap().contains("whsec_"), "{path}");
    }
    // Once more, under the same id.
    let id = seen["id"].as_str().unwrap();
    let again = server.post_json(&format!("/v1/webhooks/deliveries/{id}/retry"), &json!({}));
    assert_eq!((&again["state"], &again["attempts"]), (&json!("pending"), &json!(0)));
    delivered(&server);
    assert_eq!(receiver.heard()[3].id, id);
}

#[test]
fn webhooks_are_off_unless_their_host_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let root = folder(dir.path());
    let receiver = Receiver::start(&[]);
    let server = Server::start(Options::default().root(&root));
    let body = |webhook: Value| json!({"type": "index", "path": root.to_str().unwrap(), "webhook": webhook});
    let refused = server.post("/v1/jobs", &body(json!({"url": receiver.url("/")})));
    assert_eq!(error_of(refused), (403, "webhooks_disabled".to_owned()));
    assert_eq!(server.get_json("/v1/jobs")["data"], json!([]), "nothing was begun");

    let server = Server::start(options(&root, &receiver));
    for url in [
        "http://127.0.0.1:1/",
        "http://localhost/",
        "ftp://127.0.0.1/",
        "http://user@127.0.0.1/",
        "http://169.254.169.254/latest",
        "not a url",
        "",
    ] {
        let refused = server.post("/v1/jobs", &body(json!({"url": url})));
        assert_eq!(error_of(refused), (403, "webhook_not_allowed".to_owned()), "{url}");
    }
    for secret in ["", "whsec_", "whsec_c2hvcnQ=", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"] {
        let refused = server.post("/v1/jobs", &body(json!({"url": receiver.url("/"), "secret": secret})));
        let text: Value = refused.json().unwrap();
        assert_eq!(text["error"]["code"], "invalid_value");
        assert_eq!(text["error"]["param"], "webhook.secret", "{secret}");
    }
    let refused = server.post("/v1/jobs", &body(json!({"url": receiver.url("/"), "events": []})));
    assert_eq!(error_of(refused), (400, "unknown_field".to_owned()));
    assert_eq!(server.get_json("/v1/jobs")["data"], json!([]));
    assert_eq!(receiver.heard().len(), 0);
}

#[test]
fn what_is_pending_when_the_server_is_killed_is_told_later() {
    let dir = tempfile::tempdir().unwrap();
    let root = folder(dir.path());
    let data = dir.path().join("data");
    let receiver = Receiver::start(&[]);
    receiver.always(Some(503));
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let server = Server::start(options(&root, &receiver).data(&data));
    let given = json!({"url": receiver.url("/"), "secret": secret});
    let job = start(&server, &root, given.clone());
    assert_eq!(job["webhook"], json!({"url": receiver.url("/")}), "a secret that was given is not sent back");
    // A second one, cancelled before it can end by itself.
    std::fs::copy(tone("long.wav", 4000.0, 200), root.join("long.wav")).unwrap();
    let long = start(&server, &root, given);
    let cancelled = ok_json(server.delete(&format!("/v1/jobs/{}", long["id"].as_str().unwrap())));
    assert_eq!(cancelled["state"], "cancelled");
    eventually("both were tried", || {
        let ids: HashSet<String> = receiver.heard().into_iter().map(|heard| heard.id).collect();
        (ids.len() == 2).then_some(())
    });
    server.kill9();

    receiver.always(None);
    // Without an allowed host nothing is sent, and nothing is lost.
    let quiet = Server::start(Options::default().data(&data));
    assert_eq!(quiet.get_json("/v1/webhooks/deliveries?state=pending")["data"].as_array().unwrap().len(), 2);
    quiet.stop();
    let server = Server::start(options(&root, &receiver).data(&data));
    let told = eventually("both are told", || Some(receiver.accepted()).filter(|told| told.len() == 2));
    let tried: HashSet<String> = receiver.heard().into_iter().map(|heard| heard.id).collect();
    assert_eq!(tried.len(), 2, "an id stays over a restart");
    let mut types: Vec<String> =
        told.iter().map(|heard| heard.body()["type"].as_str().unwrap().into()).collect();
    types.sort();
    assert_eq!(types, ["job.cancelled", "job.done"]);
    assert!(told.iter().all(|heard| heard.is_signed_with(secret)));
    eventually("it is known that they were told", || {
        let list = server.get_json("/v1/webhooks/deliveries?state=delivered");
        (list["data"].as_array().unwrap().len() == 2).then_some(())
    });
    // Pages join.
    let first = server.get_json("/v1/webhooks/deliveries?limit=1");
    let next = first["next"].as_str().unwrap();
    let second = server.get_json(&format!("/v1/webhooks/deliveries?limit=1&after={next}"));
    assert_ne!(first["data"][0]["id"], second["data"][0]["id"]);
    assert!(second["next"].is_null());
    let refused = server.get("/v1/webhooks/deliveries?state=lost");
    assert_eq!(error_of(refused), (400, "invalid_value".to_owned()));
}

#[test]
fn a_receiver_that_is_gone_is_not_asked_again() {
    let dir = tempfile::tempdir().unwrap();
    let root = folder(dir.path());
    let receiver = Receiver::start(&[410]);
    let server = Server::start(options(&root, &receiver));
    let body =
        json!({"type": "index", "path": root.to_str().unwrap(), "webhook": {"url": receiver.url("/")}});
    let request = || server.request("POST", "/v1/jobs").header("idempotency-key", "once").json(&body);
    let job = ok_json(request().send().unwrap());
    let same = ok_json(request().send().unwrap());
    assert_eq!(same["id"], job["id"]);
    assert!(same.get("webhook").is_none(), "the first one's secret stays: {same}");
    let failed = eventually("it is given up", || {
        let list = server.get_json("/v1/webhooks/deliveries?state=failed");
        list["data"].get(0).cloned()
    });
    assert_eq!((&failed["attempts"], &failed["last_status"]), (&json!(1), &json!(410)));
    assert!(
        failed["ended_at"].is_string() && failed["last_error"].as_str().unwrap().contains("410"),
        "{failed}"
    );
    let id = failed["id"].as_str().unwrap();
    server.post_json(&format!("/v1/webhooks/deliveries/{id}/retry"), &json!({}));
    delivered(&server);
    assert!(receiver.heard()[1].is_signed_with(job["webhook"]["secret"].as_str().unwrap()));
    let missing = format!("/v1/webhooks/deliveries/msg_{}/retry", "0".repeat(32));
    assert_eq!(error_of(server.post(&missing, &json!({}))), (404, "not_found".to_owned()));
}

/// The receiver that docs/operations/webhooks.md shows.
#[test]
fn the_documented_receiver_verifies() {
    let docs = std::fs::read_to_string(manifest_dir().join("docs/operations/webhooks.md")).unwrap();
    let code = docs.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let run = |secret: &str| {
        let mut python = Command::new("python3");
        python.args(["-c", code]).env("WEBHOOK_SECRET", secret).env("PORT", port.to_string());
        python.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
    };
    let dir = tempfile::tempdir().unwrap();
    let root = folder(dir.path());
    let rule = format!("127.0.0.1:{port}+private");
    let server = Server::start(Options::default().root(&root).args(&["--allow-webhook-host", &rule]));
    // With another secret, it rejects the delivery.
    let mut other = run("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    eventually("it listens", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    start(&server, &root, json!({"url": format!("http://127.0.0.1:{port}/"), "secret": secret}));
    eventually("it refuses", || delivery(&server).filter(|delivery| delivery["last_status"] == 400));
    other.kill().unwrap();
    other.wait().unwrap();
    let mut right = run(secret);
    let line = BufReader::new(right.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    right.kill().unwrap();
    right.wait().unwrap();
    assert_eq!(line, format!("{} job.done", delivery(&server).unwrap()["id"].as_str().unwrap()));
}
