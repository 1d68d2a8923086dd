//! Keys of several roles: made, used, limited, revoked; the audit log; proxies; wrong keys.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use common::{Options, Server, error_of, eventually, ok_json, picture, video};
use serde_json::{Value, json};

/// `triptych key …`.
fn key_command(data: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_triptych"));
    command.arg("key").args(arguments).args(["--json", "--data"]).arg(data).output().unwrap()
}

fn key_json(data: &Path, arguments: &[&str]) -> Value {
    let output = key_command(data, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("{field} of {value}"))
}

/// Makes a key on the command line: its id, the key.
fn make(data: &Path, name: &str, role: &str, more: &[&str]) -> (String, String) {
    let made = key_json(data, &[&["create", "--name", name, "--role", role], more].concat());
    (text(&made, "id").to_owned(), text(&made, "key").to_owned())
}

fn audit_lines(data: &Path) -> Vec<Value> {
    let written = std::fs::read_to_string(data.join("audit/audit.jsonl")).unwrap_or_default();
    written.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn refused_total(server: &Server, code: &str) -> u64 {
    let metrics = server.get("/metrics").text().unwrap();
    let name = format!("triptych_http_refused_total{{code=\"{code}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(0)
}

#[test]
fn each_role_opens_what_is_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    // Before the first start, as a container needs it.
    let keys: Vec<_> = ["metrics", "read", "write", "admin"]
        .iter()
        .map(|role| (*role, make(&data, role, role, &[]).1))
        .collect();
    let mut server = Server::start(Options::default().data(&data));
    assert_eq!(error_of(server.get("/v1/assets")), (401, "missing_api_key".to_owned()));
    let calls = [
        ("GET", "/metrics", 0),
        ("GET", "/v1/assets", 1),
        ("GET", "/v1/retention", 1),
        ("POST", "/v1/search", 1),
        ("POST", "/v1/session", 1),
        ("POST", "/v1/assets/delete", 2),
        ("DELETE", "/v1/jobs/job_00000000000000000000000000000000", 2),
        ("PATCH", "/v1/assets/ast_00000000000000000000000000000000", 2),
        ("POST", "/v1/watches", 2),
        ("POST", "/v1/models", 3),
        ("PUT", "/v1/retention", 3),
        ("POST", "/v1/snapshots", 3),
        ("POST", "/v1/compactions", 3),
        ("GET", "/v1/keys", 3),
        ("DELETE", "/v1/keys/key_00000000000000000000000000000000", 3),
    ];
    for (rank, (role, key)) in keys.iter().enumerate() {
        server.key = Some(key.clone());
        for (method, path, needed) in calls {
            let response = server.request(method, path).send().unwrap();
            let status = response.status();
            if rank < needed {
                let message = response.text().unwrap();
                assert_eq!(status, 403, "{role} {method} {path}: {message}");
                // A sentence that the page can show as it stands.
                assert!(
                    message.contains("insufficient_role") && message.contains("needs a key with the role")
                );
            } else {
                assert!(![401, 403].contains(&status.as_u16()), "{role} {method} {path}: {status}");
            }
        }
        assert_eq!(server.get("/nothing").status(), 404);
        assert_eq!(server.get("/readyz").status(), 200);
    }
    assert!(refused_total(&server, "insufficient_role") > 20);
    assert!(refused_total(&server, "missing_api_key") > 0);
}

#[test]
fn keys_are_made_listed_and_revoked_in_two_ways() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut server = Server::start(Options::default().data(&data));
    // Without keys everything is open; the first one shuts the door, so it must be an admin's.
    let body = |name: &str, role: &str| json!({"name": name, "role": role});
    assert_eq!(error_of(server.post("/v1/keys", &body("ci", "read"))), (409, "admin_key_first".to_owned()));
    assert_eq!(server.get("/v1/assets").status(), 200);
    let admin = server.post("/v1/keys", &body("boss", "admin"));
    assert_eq!(admin.status(), 201);
    let admin = ok_json(admin);
    assert_eq!(error_of(server.get("/v1/assets")), (401, "missing_api_key".to_owned()));
    server.key = Some(text(&admin, "key").to_owned());
    let limited = json!({"name": "ci", "role": "read", "rate": {"per_sec": 50.0}});
    let read = server.post_json("/v1/keys", &limited);
    assert_eq!(read["rate"], json!({"per_sec": 50.0, "burst": 50}));
    let soon = chrono::Utc::now() + chrono::Duration::seconds(3);
    let short = json!({"name": "guest", "role": "read", "expires_at": soon.to_rfc3339()});
    let short = server.post_json("/v1/keys", &short);
    for (bad, code) in [
        (json!({"name": "", "role": "read"}), "invalid_value"),
        (json!({"name": "a\u{1b}b", "role": "read"}), "invalid_value"),
        (json!({"name": "x", "role": "root"}), "invalid_value"),
        (json!({"name": "x"}), "missing_field"),
        (json!({"name": "x", "role": "read", "key": "mine"}), "unknown_field"),
        (json!({"name": "x", "role": "read", "expires_at": "2020-01-01T00:00:00Z"}), "invalid_value"),
        (json!({"name": "x", "role": "read", "expires_at": "soon"}), "invalid_value"),
        (json!({"name": "x", "role": "read", "rate": {"per_sec": 0}}), "invalid_value"),
    ] {
        assert_eq!(error_of(server.post("/v1/keys", &bad)), (400, code.to_owned()), "{bad}");
    }

    // The command line sees them, and what it makes beside the running server works there.
    let listed = key_json(&data, &["list"]);
    assert_eq!(listed["data"].as_array().unwrap().len(), 3);
    let (made_id, made) = make(&data, "from the shell", "write", &["--expires-in-days", "3"]);
    let with =
        |key: &str| server.client.get(format!("{}/v1/assets", server.url())).bearer_auth(key).send().unwrap();
    eventually("the server notices the new key", || (with(&made).status() == 200).then_some(()));
    assert_eq!(with(text(&read, "key")).status(), 200);

    // Nothing shows a key again, and no file holds one.
    let listed = server.get_json("/v1/keys");
    let rows = listed["data"].as_array().unwrap();
    assert_eq!(rows.len(), 4);
    assert!(rows.iter().all(|row| row.get("key").is_none()), "{listed}");
    assert!(rows.iter().any(|row| row["id"] == read["id"] && row["last_used_at"].is_string()), "{listed}");
    for file in ["keys.json", "keys.lock"] {
        let written = std::fs::read_to_string(data.join(file)).unwrap();
        for key in [text(&admin, "key"), text(&read, "key"), &made] {
            assert!(!written.contains(&key[3..]), "{file} holds a key");
        }
    }

    // Revoked by the API: at once. From the command line: at the next look.
    let path = format!("/v1/keys/{}", text(&read, "id"));
    assert_eq!(server.delete(&path).status(), 204);
    assert_eq!(error_of(with(text(&read, "key"))), (401, "revoked_api_key".to_owned()));
    assert_eq!(server.delete(&path).status(), 204, "revoked stays revoked");
    let unknown = "key_00000000000000000000000000000000";
    assert_eq!(error_of(server.delete(&format!("/v1/keys/{unknown}"))), (404, "not_found".to_owned()));
    assert_eq!(key_command(&data, &["revoke", unknown]).status.code(), Some(2));
    key_json(&data, &["revoke", &made_id]);
    let began = Instant::now();
    eventually("the server notices", || (with(&made).status() == 401).then_some(()));
    assert!(began.elapsed() < Duration::from_secs(5));
    eventually("the key ends", || (with(text(&short, "key")).status() == 401).then_some(()));
    assert_eq!(error_of(with(text(&short, "key"))), (401, "expired_api_key".to_owned()));

    let lines = audit_lines(&data);
    let asked = |line: &&Value| line["status"].as_u64().is_some_and(|status| status < 400);
    let changes: Vec<_> = lines.iter().filter(asked).collect();
    let commands: Vec<_> =
        lines.iter().filter_map(|line| Some((line.get("command")?, &line["target"]))).collect();
    assert!(commands.iter().any(|(command, _)| **command == "key create"), "{commands:?}");
    assert!(commands.contains(&(&json!("key revoke"), &json!(made_id))), "{commands:?}");
    assert_eq!(changes[0]["target"], admin["id"]);
    assert_eq!((&changes[0]["key_id"], &changes[1]["key_id"]), (&Value::Null, &admin["id"]));
    assert_eq!(changes[1]["target"], read["id"]);

    // Acknowledged keys and revocations outlive the process.
    let admin_key = server.key.clone();
    server.kill9();
    let mut server = Server::start(Options::default().data(&data));
    assert_eq!(error_of(server.get("/v1/assets")).0, 401);
    server.key = admin_key;
    let rows = server.get_json("/v1/keys");
    assert_eq!(
        rows["data"].as_array().unwrap().iter().filter(|row| row["revoked_at"].is_string()).count(),
        2
    );
}

#[test]
fn a_damaged_or_missing_file_of_keys_opens_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    make(&data, "a", "admin", &[]);
    let serve = |listen: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_triptych"));
        let output = command.args(["serve", "--listen", listen, "--data"]).arg(&data).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // An address that this machine does not have: with a key it is tried, without one it is not.
    let (_, message) = serve("192.0.2.1:0");
    assert!(message.contains("error[listen_failed]"), "{message}");
    let good = std::fs::read(data.join("keys.json")).unwrap();
    std::fs::write(data.join("keys.json"), &good[..good.len() / 2]).unwrap();
    let (started, message) = serve("127.0.0.1:0");
    assert!(!started && message.contains("error[keys_damaged]"), "{message}");
    std::fs::remove_file(data.join("keys.json")).unwrap();
    let (started, message) = serve("127.0.0.1:0");
    assert!(!started && message.contains("error[keys_missing]"), "{message}");
    std::fs::remove_file(data.join("keys.lock")).unwrap();
    let (_, message) = serve("192.0.2.1:0");
    assert!(message.contains("error[api_key_required]"), "{message}");
}

#[test]
fn a_killed_command_leaves_whole_keys() {
    let dir = tempfile::tempdir().unwrap();
    let mut told = Vec::new();
    for n in 0..40 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_triptych"));
        command.args(["key", "create", "--name", "k", "--role", "read", "--json", "--data"]).arg(dir.path());
        let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(n % 20 * 4));
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        told.extend(serde_json::from_slice::<Value>(&output.stdout).map(|made| made["id"].clone()));
        let listed = key_json(dir.path(), &["list"]);
        let ids: Vec<&Value> = listed["data"].as_array().unwrap().iter().map(|row| &row["id"]).collect();
        assert!(told.iter().all(|id| ids.contains(&id)), "a key that was told is lost");
    }
    assert!((1..40).contains(&told.len()), "{} of 40 came to an end: the times say nothing", told.len());
}

#[test]
fn a_limited_key_is_refused_before_its_body_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (_, key) = make(&data, "slow", "write", &["--rate-per-sec", "0.5", "--burst", "4"]);
    let (_, other) = make(&data, "other", "read", &[]);
    let mut server = Server::start(Options::default().data(&data));
    server.key = Some(key.clone());
    for _ in 0..4 {
        assert_eq!(server.get("/v1/assets").status(), 200);
    }
    let refused = server.get("/v1/assets");
    let wait: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=2).contains(&wait), "{wait}");
    assert_eq!(error_of(refused), (429, "rate_limited".to_owned()));
    let head = format!(
        "POST /v1/assets HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 99999\r\n\r\n"
    );
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 429");
    // Others are not held back, and what was waited for is given.
    server.key = Some(other.clone());
    for _ in 0..20 {
        assert_eq!(server.get("/v1/assets").status(), 200);
    }
    std::thread::sleep(Duration::from_secs(wait));
    server.key = Some(key);
    assert_eq!(server.get("/v1/assets").status(), 200);
    server.key = Some(other);
    assert!(refused_total(&server, "rate_limited") >= 2);
}

#[test]
fn wrong_keys_are_slowed_and_right_ones_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (_, key) = make(&data, "right", "read", &[]);
    let server = Server::start(Options::default().data(&data).args(&["--api-key", "s3cret"]));
    let ask = |key: &str| {
        let began = Instant::now();
        let url = format!("{}/v1/assets", server.url());
        let response = server.client.get(url).bearer_auth(key).send().unwrap();
        (response.status().as_u16(), began.elapsed())
    };
    let times: Vec<Duration> = (0..9)
        .map(|n| {
            let (status, took) = ask(&format!("wrong-{n}"));
            assert_eq!(status, 401);
            took
        })
        .collect();
    assert!(times[8] > Duration::from_millis(350) && times[0] < Duration::from_millis(300), "{times:?}");
    for right in ["s3cret", &key] {
        let (status, took) = ask(right);
        assert!(status == 200 && took < Duration::from_millis(300), "{status} {took:?}");
    }
    // Whoever does not wait for the answer waits nevertheless.
    for n in 0..10 {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        let head = format!("GET /v1/assets HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer gone-{n}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(ask("another").0, 429);
    // Side by side, too: most are told to come later, and right ones still pass.
    std::thread::scope(|scope| {
        let ask = &ask;
        let wrong: Vec<_> = (0..24).map(|n| scope.spawn(move || ask(&format!("guess-{n}")).0)).collect();
        std::thread::sleep(Duration::from_millis(200));
        for right in ["s3cret", &key] {
            assert_eq!(ask(right).0, 200);
        }
        let statuses: Vec<u16> = wrong.into_iter().map(|asked| asked.join().unwrap()).collect();
        assert!(statuses.iter().all(|status| [401, 429].contains(status)), "{statuses:?}");
        assert!(statuses.contains(&429), "{statuses:?}");
    });
    let metrics = server.request("GET", "/metrics").bearer_auth("s3cret").send().unwrap().text().unwrap();
    assert!(metrics.lines().any(|line| line.starts_with("triptych_wrong_keys_total ")), "{metrics}");
}

#[test]
fn changes_are_written_down_and_cookies_end_with_their_key() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (boss_id, boss) = make(&data, "boss \"}\u{2028}", "admin", &[]);
    let (read_id, read) = make(&data, "viewer", "read", &[]);
    let mut server = Server::start(Options::default().data(&data).args(&["--trusted-proxy", "127.0.0.0/8"]));
    server.key = Some(boss.clone());
    let asset = server.add(&picture("shown.png"));
    let asset_path = format!("/v1/assets/{}", text(&asset, "id"));
    let behind = |request: reqwest::blocking::RequestBuilder| {
        request.header("x-forwarded-for", "203.0.113.9, 192.0.2.7").header("x-forwarded-proto", "https")
    };
    let change = json!({"metadata": {"secret": "in the body"}});
    let changed =
        behind(server.request("PATCH", &asset_path)).header("x-request-id", "mine-1").json(&change).send();
    assert_eq!(changed.unwrap().status(), 200);
    assert_eq!(server.post("/v1/search", &json!({"query": {"text": "red"}})).status(), 200);
    assert_eq!(error_of(server.delete("/v1/jobs/job_00000000000000000000000000000000")).0, 404);
    let job = server.post("/v1/jobs", &json!({"type": "index", "path": "/nowhere"}));
    assert_eq!(error_of(job), (403, "path_not_allowed".to_owned()));

    let mut lines = audit_lines(&data);
    lines.retain(|line| line.get("command").is_none());
    let brief: Vec<_> = lines
        .iter()
        .map(|line| {
            (
                text(line, "method"),
                text(line, "route"),
                line["status"].as_u64().unwrap(),
                line["code"].as_str(),
            )
        })
        .collect();
    assert_eq!(
        brief,
        [
            ("POST", "/v1/assets", 201, None),
            ("PATCH", "/v1/assets/{id}", 200, None),
            ("DELETE", "/v1/jobs/{id}", 404, Some("not_found")),
            ("POST", "/v1/jobs", 403, Some("path_not_allowed")),
        ]
    );
    let line = &lines[1];
    assert_eq!((text(line, "key_id"), text(line, "key_name")), (&*boss_id, "boss \"}\u{2028}"));
    assert_eq!((text(line, "client"), text(line, "request_id")), ("192.0.2.7", "mine-1"));
    assert_eq!(text(line, "target"), text(&asset, "id"));
    assert_eq!(text(&lines[0], "client"), "127.0.0.1");
    let written = std::fs::read_to_string(data.join("audit/audit.jsonl")).unwrap();
    assert!(!written.contains(&boss[3..]) && !written.contains("in the body"), "{written}");

    // The cookie of a viewer, behind TLS.
    server.key = Some(read);
    let opened = behind(server.request("POST", "/v1/session")).send().unwrap();
    let cookie = opened.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.ends_with("; HttpOnly; SameSite=Strict; Secure"), "{cookie}");
    let plain = server.request("POST", "/v1/session").send().unwrap();
    assert!(!plain.headers()["set-cookie"].to_str().unwrap().contains("Secure"));
    server.key = None;
    let pair = cookie.split(';').next().unwrap();
    let content = text(&asset, "content_url");
    let shown = || server.request("GET", content).header("cookie", pair).send().unwrap();
    assert_eq!(shown().status(), 200);
    let revoked =
        server.client.delete(format!("{}/v1/keys/{read_id}", server.url())).bearer_auth(&boss).send();
    assert_eq!(revoked.unwrap().status(), 204);
    assert_eq!(error_of(shown()).0, 401);

    // A log that cannot be written holds nobody up.
    std::fs::remove_dir_all(data.join("audit")).unwrap();
    std::fs::write(data.join("audit"), "in the way").unwrap();
    server.key = Some(boss);
    assert_eq!(server.delete(&asset_path).status(), 204);
    let metrics = server.get("/metrics").text().unwrap();
    assert!(metrics.contains("\ntriptych_audit_failed_total 1\n"), "{metrics}");
}

#[test]
fn a_change_runs_to_its_end_though_its_client_disconnects() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(Options::default().data(&data));
    let film = std::fs::read(video("left.mp4", 12.8, 300)).unwrap();
    let part = "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"left.mp4\"\r\n\r\n";
    let body = [part.as_bytes(), &film, b"\r\n--x--\r\n"].concat();
    let head = format!(
        "POST /v1/assets?wait=true HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    let send = |body: &[u8]| {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    };
    // Gone in the middle of the body: nothing was sent that could be done.
    send(&body[..body.len() / 2]);
    let lines =
        eventually("the refusal is in the log", || Some(audit_lines(&data)).filter(|lines| lines.len() == 1));
    assert!((400..500).contains(&lines[0]["status"].as_u64().unwrap()), "{lines:?}");
    // Gone right after it.
    send(&body);
    let lines =
        eventually("its outcome is in the log", || Some(audit_lines(&data)).filter(|lines| lines.len() == 2));
    assert_eq!((&lines[1]["status"], &lines[1]["code"]), (&json!(201), &Value::Null), "{lines:?}");
    let assets = server.get_json("/v1/assets");
    assert_eq!(assets["data"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&assets["data"][0]["id"], &assets["data"][0]["state"]),
        (&lines[1]["target"], &json!("ready"))
    );
}

/// A stand-in for a collector: the bodies of what is posted to it.
#[cfg(feature = "otlp")]
fn collector() -> (String, std::sync::mpsc::Receiver<(String, Vec<u8>)>) {
    use std::io::{BufRead, BufReader};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let tell = tell.clone();
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream);
                loop {
                    let mut lines = Vec::new();
                    loop {
                        let mut line = String::new();
                        if reader.read_line(&mut line).unwrap_or(0) == 0 {
                            return;
                        }
                        if line.trim().is_empty() {
                            break;
                        }
                        lines.push(line.trim().to_owned());
                    }
                    let length = lines.iter().find_map(|line| {
                        line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok()
                    });
                    let mut body = vec![0; length.unwrap()];
                    reader.read_exact(&mut body).unwrap();
                    tell.send((lines[0].clone(), body)).unwrap();
                    reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
                }
            });
        }
    });
    (format!("http://{address}"), told)
}

#[test]
#[cfg(feature = "otlp")]
fn traces_reach_a_collector() {
    let (endpoint, told) = collector();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (id, key) = make(&data, "traced", "write", &[]);
    let options = Options::default().data(&data);
    let mut server = Server::start(
        options.env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint).env("OTEL_BSP_SCHEDULE_DELAY", "100"),
    );
    server.key = Some(key.clone());
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let body = json!({"query": {"text": "a red circle"}});
    let asked =
        server.request("POST", "/v1/search").header("traceparent", parent).json(&body).send().unwrap();
    assert_eq!(asked.status(), 200);
    server.add(&picture("traced.png"));
    server.stop();
    let mut sent = Vec::new();
    while let Ok((line, body)) = told.recv_timeout(Duration::from_secs(1)) {
        assert_eq!(line, "POST /v1/traces HTTP/1.1");
        sent.extend(body);
    }
    let has = |wanted: &[u8]| sent.windows(wanted.len()).any(|window| window == wanted);
    let trace_id: Vec<u8> =
        (0..16).map(|n| u8::from_str_radix(&trace[2 * n..2 * n + 2], 16).unwrap()).collect();
    assert!(has(&trace_id), "the caller's trace goes on");
    for name in [
        "POST /v1/search",
        "POST /v1/assets",
        "triptych",
        "key_id",
        &id,
        "http.response.status_code",
        "infer",
        "queue_secs",
        "search",
        "decode",
        "store_clips",
    ] {
        assert!(has(name.as_bytes()), "no span says {name}");
    }
    assert!(!has(key[3..].as_bytes()) && !has(b"a red circle"), "no keys, no bodies");
}
