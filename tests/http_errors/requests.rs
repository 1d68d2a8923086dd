//! Malformed requests and bodies, slow clients, too many requests.

use super::*;

const MAX_UPLOAD: usize = 8 << 20;

#[test]
fn bad_requests_name_code_and_field() {
    let server = shared();
    let sound = data_uri("audio/wav", &tone("short.wav", 1.0, 900));
    let cases: Vec<(&str, Value, u16, &str, &str)> = vec![
        ("/v1/search", json!({"query": {"text": "red"}, "extra": 1}), 400, "unknown_field", "extra"),
        ("/v1/search", json!({"query": {"text": "red", "smell": "x"}}), 400, "unknown_field", "query.smell"),
        ("/v1/search", json!({}), 400, "missing_field", "query"),
        ("/v1/search", json!({"query": {}}), 400, "invalid_value", "query"),
        ("/v1/search", json!({"query": {"text": "red", "audio": sound}}), 400, "invalid_value", "query"),
        ("/v1/search", json!({"query": {"text": 5}}), 400, "invalid_value", "query.text"),
        ("/v1/search", json!({"query": {"text": "  "}}), 400, "invalid_value", "query.text"),
        ("/v1/search", json!({"query": {"text": "xyzzy qwrtp"}}), 422, "no_known_words", "query.text"),
        ("/v1/search", json!({"query": {"text": "red ".repeat(9000)}}), 422, "text_too_long", "query.text"),
        ("/v1/search", json!({"query": {"text": "red"}, "limit": 0}), 400, "invalid_value", "limit"),
        ("/v1/search", json!({"query": {"text": "red"}, "limit": 1001}), 400, "invalid_value", "limit"),
        ("/v1/search", json!({"query": {"text": "red"}, "offset": 1001}), 400, "invalid_value", "offset"),
        ("/v1/search", json!({"query": {"text": "red"}, "offset": -1}), 400, "invalid_value", "offset"),
        ("/v1/search", json!({"query": {"text": "red"}, "targets": []}), 400, "invalid_value", "targets"),
        (
            "/v1/search",
            json!({"query": {"text": "red"}, "targets": ["smell"]}),
            400,
            "invalid_value",
            "targets[0]",
        ),
        ("/v1/search", json!({"query": {"text": "red"}, "space": "none"}), 400, "bad_space", "space"),
        ("/v1/search", json!({"query": {"text": "red"}, "space": "fine"}), 400, "bad_space", "space"),
        ("/v1/search", json!({"query": {"text": "red"}, "model": "other"}), 404, "model_not_found", "model"),
        (
            "/v1/search",
            json!({"query": {"text": "red"}, "params": {"ef": 0}}),
            400,
            "invalid_value",
            "params.ef",
        ),
        (
            "/v1/search",
            json!({"query": {"text": "red"}, "filter": {"asset_ids": ["x"]}}),
            400,
            "invalid_value",
            "filter.asset_ids[0]",
        ),
        ("/v1/search", json!({"query": {"audio": "UklGRg=="}}), 400, "invalid_value", "query.audio"),
        ("/v1/search", json!({"query": {"image": sound}}), 400, "media_type_mismatch", "query.image"),
        (
            "/v1/search",
            json!({"query": {"video": "data:video/mp4;base64,!!"}}),
            400,
            "invalid_value",
            "query.video",
        ),
        (
            "/v1/search",
            json!({"query": {"asset": {"id": format!("ast_{:032x}", 7)}}}),
            404,
            "not_found",
            "query.asset.id",
        ),
        (
            "/v1/search",
            json!({"query": {"asset": {"id": format!("ast_{:032x}", 7), "start_secs": 5, "end_secs": 2}}}),
            400,
            "invalid_value",
            "query.asset.start_secs",
        ),
        ("/v1/embeddings", json!({"modality": "text", "input": []}), 400, "invalid_value", "input"),
        ("/v1/embeddings", json!({"modality": "text"}), 400, "missing_field", "input"),
        ("/v1/embeddings", json!({"modality": "smell", "input": "x"}), 400, "invalid_value", "modality"),
        (
            "/v1/embeddings",
            json!({"modality": "text", "input": ["red", "xyzzy"]}),
            422,
            "no_known_words",
            "input[1]",
        ),
        (
            "/v1/embeddings",
            json!({"modality": "text", "input": "red", "space": "fine"}),
            400,
            "bad_space",
            "space",
        ),
        (
            "/v1/embeddings",
            json!({"modality": "audio", "input": "/etc/passwd"}),
            403,
            "path_not_allowed",
            "input[0]",
        ),
        (
            "/v1/embeddings",
            json!({"modality": "video", "input": sound}),
            400,
            "media_type_mismatch",
            "input[0]",
        ),
        (
            "/v1/embeddings",
            json!({"model": "other", "modality": "text", "input": "red"}),
            404,
            "model_not_found",
            "model",
        ),
        ("/v1/assets", json!({"path": "/etc/passwd"}), 403, "path_not_allowed", "path"),
        ("/v1/assets", json!({"path": "/x", "uri": "http://x"}), 400, "unknown_field", "uri"),
        ("/v1/jobs", json!({"type": "index", "path": "/etc"}), 403, "path_not_allowed", "path"),
        ("/v1/jobs", json!({"type": "dance", "path": "/etc"}), 400, "invalid_value", "type"),
        (
            "/v1/jobs",
            json!({"type": "index", "path": "/etc", "metadata": [1]}),
            400,
            "invalid_value",
            "metadata",
        ),
    ];
    for (path, body, status, code, param) in cases {
        let response = server.post(path, &body);
        let seen = response.status().as_u16();
        let error = response.json::<Value>().unwrap()["error"].clone();
        let shown = body.to_string().chars().take(120).collect::<String>();
        assert_eq!(
            (seen, &error["code"], &error["param"]),
            (status, &json!(code), &json!(param)),
            "{path} {shown}: {error}"
        );
        assert_eq!(
            error["type"],
            if code == "path_not_allowed" || seen != 401 { "invalid_request_error" } else { "" }
        );
    }
    for (path, code) in [
        ("/v1/assets/x", "invalid_value"),
        ("/v1/assets/job_00000000000000000000000000000000", "invalid_value"),
        ("/v1/jobs/ast_00000000000000000000000000000000", "invalid_value"),
        ("/v1/assets?limit=0", "invalid_value"),
        ("/v1/assets?limit=x", "invalid_value"),
        ("/v1/assets?colour=red", "unknown_field"),
        ("/v1/assets/..%2f..%2fetc/content", "invalid_value"),
    ] {
        let (status, seen) = error_of(server.get(path));
        assert_eq!((status, seen.as_str()), (400, code), "{path}");
    }
    for path in [
        "/v1/assets/ast_00000000000000000000000000000000",
        "/v1/jobs/job_00000000000000000000000000000000/items",
        "/v1/nothing",
        "/ui/none.js",
        "/ui/../Cargo.toml",
    ] {
        assert_eq!(error_of(server.get(path)), (404, "not_found".to_owned()), "{path}");
    }
    let wrong = server.request("PUT", "/v1/search").send().unwrap();
    assert_eq!(wrong.headers()["allow"], "POST");
    assert_eq!(error_of(wrong), (405, "method_not_allowed".to_owned()));
}

/// Answers have no memory budget, so they must not grow with the request.
#[test]
fn answers_quote_no_more_than_a_little_of_a_request() {
    let server = shared();
    let long = "x".repeat(3_000_000);
    let object = |key: &str| json!({ (key): &long });
    let mut wide = object("query");
    wide["limit"] = json!(&long);
    let posts = [
        ("/v1/search", json!({ (&*long): 1 })),
        ("/v1/search", json!({"query": {(&*long): 1}})),
        ("/v1/search", json!({"query": "a", "limit": &long})),
        ("/v1/search", json!({"query": "a", "group_by": &long})),
        ("/v1/search", json!({"query": "a", "model": &long})),
        ("/v1/search", json!({"query": "a", "space": &long})),
        ("/v1/search", json!({"query": "a", "targets": [&long]})),
        ("/v1/search", json!({"query": {"asset": &long}})),
        ("/v1/search", json!({"query": "a", "filter": {"must": [{"key": "a", (&*long): 1}]}})),
        ("/v1/search", wide),
        ("/v1/embeddings", json!({"modality": &long, "text": "a"})),
        ("/v1/embeddings", json!({"modality": "text", "text": "a", "model": &long})),
        ("/v1/assets", object("path")),
        ("/v1/assets", object("url")),
        ("/v1/jobs", json!({"type": "index", "path": format!("/{long}")})),
        ("/v1/jobs", object("type")),
        ("/v1/watches", json!({"path": format!("/{long}")})),
        ("/v1/keys", json!({"name": "a", "role": &long})),
        ("/v1/keys", json!({"name": &long, "role": "read"})),
        ("/v1/standing-queries", json!({"query": "a", "webhook": {"url": &long}})),
        ("/v1/models", object("path")),
    ];
    for (path, body) in posts {
        let response = server.post(path, &body);
        let status = response.status();
        let answer = response.bytes().unwrap();
        assert!(status.is_client_error(), "{path}: {status}");
        assert!(
            answer.len() < 2000,
            "{path}: {} bytes are answered to {:.60}",
            answer.len(),
            body.to_string()
        );
        let error: Value = serde_json::from_slice(&answer).unwrap();
        assert!(error["error"]["code"].is_string(), "{path}: {error}");
    }
    still_serves(server);
}

#[test]
fn bad_bodies_are_told_apart() {
    let server = shared();
    let post = |path: &str, content_type: &str, body: Vec<u8>| {
        error_of(server.request("POST", path).header("content-type", content_type).body(body).send().unwrap())
    };
    let json_type = "application/json";
    assert_eq!(post("/v1/search", json_type, b"{\"query\":".to_vec()), (400, "invalid_json".to_owned()));
    assert_eq!(post("/v1/search", json_type, vec![0xff, 0xfe]), (400, "invalid_json".to_owned()));
    assert_eq!(post("/v1/search", "text/plain", b"{}".to_vec()), (415, "unsupported_media_type".to_owned()));
    assert_eq!(post("/v1/assets", "video/mp4", b"x".to_vec()), (415, "unsupported_media_type".to_owned()));
    assert_eq!(post("/v1/jobs", "text/plain", b"{}".to_vec()), (415, "unsupported_media_type".to_owned()));
    let form_type = "multipart/form-data; boundary=x";
    assert_eq!(
        post("/v1/assets", "multipart/form-data", b"x".to_vec()),
        (400, "invalid_multipart".to_owned())
    );
    assert_eq!(
        post("/v1/assets", form_type, b"no boundary here".to_vec()),
        (400, "invalid_multipart".to_owned())
    );
    let cut = b"--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nabc".to_vec();
    assert_eq!(post("/v1/assets", form_type, cut), (400, "invalid_multipart".to_owned()));
    let empty = multipart::Form::new().text("name", "x");
    assert_eq!(error_of(server.post_form("/v1/assets", empty)), (400, "missing_field".to_owned()));
    let stray = multipart::Form::new().text("colour", "x");
    assert_eq!(error_of(server.post_form("/v1/assets", stray)), (400, "unknown_field".to_owned()));
    let odd = multipart::Form::new()
        .text("metadata", "[1]")
        .part("file", multipart::Part::bytes(vec![1]).file_name("a"));
    assert_eq!(error_of(server.post_form("/v1/assets", odd)), (400, "invalid_value".to_owned()));

    // Too large: with a declared length, without one, and as JSON.
    let large = vec![0; MAX_UPLOAD + (4 << 20)];
    assert_eq!(
        error_of(server.upload_bytes("large.mp4", large.clone(), "")),
        (413, "payload_too_large".to_owned())
    );
    let part = multipart::Part::reader(std::io::Cursor::new(large)).file_name("large.mp4");
    let streamed = multipart::Form::new().part("file", part);
    assert_eq!(error_of(server.post_form("/v1/assets", streamed)), (413, "payload_too_large".to_owned()));
    let body = json!({"query": {"audio": format!("data:audio/wav;base64,{}", "A".repeat(5 << 20))}});
    assert_eq!(error_of(server.post("/v1/search", &body)), (413, "payload_too_large".to_owned()));
    still_serves(server);
}

/// Sends bytes and reads until the server closes; returns the elapsed time and the answer.
fn closed_after(server: &Server, bytes: &[u8]) -> (Duration, String) {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(bytes).unwrap();
    let began = Instant::now();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    (began.elapsed(), String::from_utf8_lossy(&answer).into_owned())
}

#[test]
fn slow_clients_are_dropped() {
    let server = shared();
    let (took, _) = closed_after(server, b"GET /v1/assets HTTP/1.1\r\nHost: localhost\r\nX-Slow: ");
    assert!((1.0..8.0).contains(&took.as_secs_f64()), "half a head: {took:?}");
    let (took, _) = closed_after(server, b"");
    assert!((1.0..8.0).contains(&took.as_secs_f64()), "nothing at all: {took:?}");
    let (took, answer) = closed_after(server, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(answer.contains("200 OK") && took.as_secs_f64() < 8.0, "idle after an answer: {took:?}");
    let half = b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    let (took, answer) = closed_after(server, half);
    assert!(
        took.as_secs_f64() < 10.0 && answer.contains("request_timeout"),
        "half a body: {took:?} {answer}"
    );
    let form = b"POST /v1/assets HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n\
        Content-Length: 9999\r\n\r\n--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nabc";
    let (took, answer) = closed_after(server, form);
    assert!(
        took.as_secs_f64() < 10.0 && answer.contains("request_timeout"),
        "half a form: {took:?} {answer}"
    );
    still_serves(server);
}

#[test]
fn too_many_requests_are_shed() {
    let server = Server::start(Options::default().args(&["--max-in-flight", "1"]));
    let sound = std::fs::read(tone("shed.wav", 60.0, 900)).unwrap();
    let shed = std::thread::scope(|scope| {
        // A slow request, whose answer is awaited. It may coincide with those below and be refused itself.
        let working = scope.spawn(|| {
            let upload = || server.upload_bytes("shed.wav", sound.clone(), "?wait=true").status();
            std::iter::repeat_with(upload).find(|status| *status != 429).unwrap()
        });
        let shed = common::eventually("a request is shed", || {
            let response = server.get("/v1/assets");
            assert!(response.status() == 429 || !working.is_finished(), "{}", response.status());
            (response.status() == 429).then_some(response)
        });
        still_serves(&server);
        assert_eq!(working.join().unwrap(), 201);
        shed
    });
    assert_eq!(shed.headers()["retry-after"], "1");
    assert_eq!(error_of(shed), (429, "too_many_requests".to_owned()));
    common::eventually("there is room again", || (server.get("/v1/assets").status() == 200).then_some(()));
}
