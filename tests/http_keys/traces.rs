//! Traces, in builds with the feature `otlp`.

use super::*;

/// A stand-in for a collector, which passes on the bodies posted to it.
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
