//! Permits, caps and deadlines of connections.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::{Options, Server, error_of, eventually, tone};

const HALF_BODY: &[u8] = b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
    Content-Length: 999\r\n\r\n{";
const HALF_FORM: &[u8] = b"POST /v1/assets HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n\
    Content-Length: 9999\r\n\r\n--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nabc";
const HALF_HEAD: &[u8] = b"GET /v1/assets HTTP/1.1\r\nHost: localhost\r\nX-Half: ";

fn connect(server: &Server, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(bytes).unwrap();
    stream
}

fn read_all(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset after the answer takes nothing away from it.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_body_on_its_way_holds_no_permit() {
    let server = Server::start(Options::default().args(&["--max-in-flight", "1"]));
    let halves: Vec<_> =
        [HALF_BODY, HALF_FORM].iter().cycle().take(12).map(|half| connect(&server, half)).collect();
    std::thread::sleep(Duration::from_millis(200));
    for _ in 0..20 {
        assert_eq!(server.get("/v1/assets").status(), 200);
    }
    drop(halves);
}

#[test]
fn slow_bodies_and_heads_end_in_time_whatever_trickles_in() {
    let args = ["--header-timeout-secs", "2", "--body-timeout-secs", "60", "--min-bytes-per-sec", "1024"];
    let server = Server::start(Options::default().args(&args));
    let trickle = |start: &'static [u8]| {
        let mut stream = connect(&server, start);
        std::thread::spawn(move || {
            let began = Instant::now();
            stream.set_read_timeout(Some(Duration::from_millis(250))).unwrap();
            let mut answer = Vec::new();
            let mut buffer = [0; 4096];
            while began.elapsed() < Duration::from_secs(40) {
                match stream.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(read) => answer.extend_from_slice(&buffer[..read]),
                    Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock) => {
                        let _ = stream.write_all(b"a");
                    }
                    Err(_) => break,
                }
            }
            (began.elapsed().as_secs_f64(), String::from_utf8_lossy(&answer).into_owned())
        })
    };
    let [head, body, form] = [HALF_HEAD, HALF_BODY, HALF_FORM].map(trickle).map(|t| t.join().unwrap());
    assert!((1.0..6.0).contains(&head.0) && head.1.is_empty(), "{head:?}");
    for (secs, answer) in [body, form] {
        assert!((10.0..25.0).contains(&secs), "{secs} s: {answer}");
        assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("\"request_timeout\""), "{answer}");
    }
}

#[test]
fn an_address_at_its_cap_loses_its_own_slowest_and_is_told_when_all_work() {
    let root = tempfile::tempdir().unwrap();
    for hz in [500, 600, 700, 800] {
        let sound = tone(&format!("working-{hz}.wav"), 60.0, hz);
        std::fs::copy(sound, root.path().join(format!("{hz}.wav"))).unwrap();
    }
    let args = ["--max-connections-per-address", "2", "--header-timeout-secs", "60"];
    let server = Server::start(Options::default().args(&args).root(root.path()));
    let job = server.post_json("/v1/jobs", &json!({"type": "index", "path": root.path()}));
    let job = format!("/v1/jobs/{}", job["id"].as_str().unwrap());
    server.post_json(&format!("{job}/pause"), &json!({}));
    let heads: Vec<_> = (0..2).map(|_| connect(&server, HALF_HEAD)).collect();
    std::thread::sleep(Duration::from_millis(400));
    let ask = || {
        let fresh = reqwest::blocking::Client::new();
        fresh.get(format!("{}/v1/assets", server.url())).header("connection", "close").send().unwrap()
    };
    assert_eq!(ask().status(), 200);
    let mut heads = heads.into_iter();
    assert_eq!(read_all(heads.next().unwrap()), "", "the oldest head was cut");
    // Two listeners of a job that does not end.
    let listen = format!("GET {job}/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let listeners: Vec<_> = (0..2)
        .map(|_| {
            let mut stream = connect(&server, listen.as_bytes());
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200");
            stream
        })
        .collect();
    let told = ask();
    assert_eq!((told.status().as_u16(), &told.headers()["retry-after"]), (429, &"1".parse().unwrap()));
    assert!(told.text().unwrap().contains("\"too_many_connections\""));
    drop(listeners);
    eventually("there is room again", || (ask().status() == 200).then_some(()));
}

#[test]
fn bodies_have_one_budget_on_disk() {
    // The least that there can be: one upload and four MiB.
    let args = ["--max-upload-bytes", "1000000", "--max-body-bytes", "1000000", "--max-body-disk-bytes", "1"];
    let server = Server::start(Options::default().args(&args));
    let upload = || {
        let head = b"POST /v1/assets HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n\
            Content-Length: 1000000\r\n\r\n--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n";
        let mut stream = connect(&server, head);
        stream.write_all(&vec![7; 950_000]).unwrap();
        stream
    };
    let mut uploads: Vec<_> = (0..5).map(|_| upload()).collect();
    eventually("the uploads have come", || {
        let metrics = server.get("/metrics").text().unwrap();
        let held =
            metrics.lines().find_map(|line| line.strip_prefix("triptych_http_body_bytes{held_in=\"disk\"} "));
        held.and_then(|held| held.parse::<f64>().ok()).filter(|held| *held > 4_700_000.0)
    });
    let refused = server.upload_bytes("more.bin", vec![1; 900_000], "");
    assert_eq!(refused.headers()["retry-after"], "2");
    assert_eq!(error_of(refused), (429, "too_many_bytes".to_owned()));
    assert_eq!(server.get("/v1/assets").status(), 200);
    uploads.clear();
    eventually("there is room again", || {
        let status = server.upload_bytes("more.bin", vec![1; 900_000], "").status();
        (status == 202 || status == 200).then_some(())
    });
}
