//! Roles, and keys that are created, revoked, damaged.

use super::*;

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

    // The command line lists them, and keys that it creates beside the running server work there.
    let listed = key_json(&data, &["list"]);
    assert_eq!(listed["data"].as_array().unwrap().len(), 3);
    let (made_id, made) = make(&data, "from the shell", "write", &["--expires-in-days", "3"]);
    let with =
        |key: &str| server.client.get(format!("{}/v1/assets", server.url())).bearer_auth(key).send().unwrap();
    eventually("the server notices the new key", || (with(&made).status() == 200).then_some(()));
    assert_eq!(with(text(&read, "key")).status(), 200);

    // Nothing shows a key again, and no file contains one.
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
