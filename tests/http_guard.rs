//! Access: keys, the cookie for media, requests from foreign pages.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use common::{Options, Server, error_of, picture};
use serde_json::json;

#[test]
fn a_key_is_asked_for_before_anything_is_read() {
    let mut server = Server::start(Options::default().args(&["--api-key", "s3cret"]));
    for path in ["/livez", "/readyz", "/health", "/", "/docs", "/openapi.json", "/ui/app.js"] {
        assert_eq!(server.get(path).status(), 200, "{path}");
    }
    for path in ["/v1/assets", "/v1/stats", "/metrics", "/v1/models", "/nothing"] {
        let response = server.get(path);
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
        assert_eq!(error_of(response), (401, "missing_api_key".to_owned()), "{path}");
    }
    // Refused although the promised body never comes.
    let head = b"POST /v1/assets HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 99999\r\n\r\n";
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(head).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 401");
    server.key = Some("s3cre".to_owned());
    assert_eq!(error_of(server.get("/v1/assets")), (401, "invalid_api_key".to_owned()));
    server.key = Some("s3cret".to_owned());
    assert_eq!(server.get("/v1/assets").status(), 200);
}

#[test]
fn a_cookie_opens_media_and_nothing_else() {
    let mut server = Server::start(Options::default().args(&["--api-key", "s3cret"]));
    server.key = Some("s3cret".to_owned());
    let asset = server.add(&picture("shown.png"));
    let opened = server.request("POST", "/v1/session").send().unwrap();
    assert_eq!(opened.status(), 204);
    let cookie = opened.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let pair = cookie.split(';').next().unwrap().to_owned();
    server.key = None;
    assert_eq!(error_of(server.post("/v1/session", &json!({}))), (401, "missing_api_key".to_owned()));
    let with =
        |method: &str, path: &str| server.request(method, path).header("cookie", &pair).send().unwrap();
    let content = asset["content_url"].as_str().unwrap();
    assert_eq!(with("GET", content).status(), 200);
    assert_eq!(with("GET", asset["thumbnail_url"].as_str().unwrap()).status(), 200);
    assert_eq!(error_of(server.get(content)).0, 401);
    for (method, path) in
        [("GET", "/v1/assets"), ("GET", "/metrics"), ("DELETE", content), ("POST", "/v1/session")]
    {
        assert_eq!(error_of(with(method, path)).0, 401, "{method} {path}");
    }
}

/// The status of a request sent as it stands, with a body-less head.
fn status_of(server: &Server, head: &[u8]) -> u16 {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(head).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    std::str::from_utf8(&answer[9..]).unwrap().parse().unwrap()
}

#[test]
fn foreign_pages_are_refused() {
    let server = Server::start(Options::default().args(&["--allow-host", "media.lan"]));
    let get = |target: &str, version: &str, lines: &[&[u8]]| {
        let lines: Vec<u8> = lines.iter().flat_map(|line| [line, &b"\r\n"[..]].concat()).collect();
        let head = [format!("GET {target} {version}\r\n").as_bytes(), &lines, b"\r\n"].concat();
        status_of(&server, &head)
    };
    for good in ["localhost", "127.0.0.1:80", "[::1]:8080", "Media.LAN:443"] {
        assert_eq!(get("/v1/assets", "HTTP/1.1", &[format!("Host: {good}").as_bytes()]), 200, "{good}");
    }
    let bad: [&[&[u8]]; 15] = [
        &[],
        &[b"Host:".as_slice()],
        &[b"Host: evil.example".as_slice()],
        &[b"Host: localhost".as_slice(), b"Host: localhost".as_slice()],
        &[b"Host: localhost".as_slice(), b"Host: evil.example".as_slice()],
        &[b"Host: 127.0.0.1:evil.example".as_slice()],
        &[b"Host: [::1]evil.example".as_slice()],
        &[b"Host: localhost@evil.example".as_slice()],
        &[b"Host: evil.example@localhost".as_slice()],
        &[b"Host: localhost.".as_slice()],
        &[b"Host: localhost:65536".as_slice()],
        &[b"Host: [fe80::1%25eth0]".as_slice()],
        &[b"Host: localhost\xff".as_slice()],
        &[b"Host: \xc3\xa9vil.example".as_slice()],
        &[b"Host: localhost, evil.example".as_slice()],
    ];
    for bad in bad {
        for version in ["HTTP/1.1", "HTTP/1.0"] {
            let status = get("/v1/assets", version, bad);
            assert!([400, 403].contains(&status), "{status} {version} {bad:?}");
        }
    }
    assert_eq!(get("http://evil.example/v1/assets", "HTTP/1.1", &[b"Host: localhost".as_slice()]), 400);
    assert_eq!(get("http://localhost/v1/assets", "HTTP/1.1", &[b"Host: localhost".as_slice()]), 200);
    let with = |method: &str, path: &str, name: &str, value: &str| {
        server.request(method, path).header(name, value).send().unwrap()
    };
    let rebound = with("GET", "/v1/assets", "host", "evil.example");
    assert_eq!(error_of(rebound), (403, "host_not_allowed".to_owned()));
    let foreign = with("POST", "/v1/search", "origin", "http://evil.example");
    assert_eq!(error_of(foreign), (403, "cross_origin_refused".to_owned()));
    assert_eq!(
        with("GET", "/v1/assets", "origin", "http://evil.example")
            .headers()
            .get("access-control-allow-origin"),
        None
    );
    let own = with("GET", "/v1/assets", "x-request-id", "my-trace.7");
    assert_eq!(own.headers()["x-request-id"], "my-trace.7");
    let odd = with("GET", "/v1/assets", "x-request-id", "a b\"c");
    assert!(odd.headers()["x-request-id"].to_str().unwrap().starts_with("req_"));
}
