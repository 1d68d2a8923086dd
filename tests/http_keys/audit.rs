//! The audit log, and changes whose client disconnects.

use super::*;

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

    // A log that cannot be written delays no request.
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
