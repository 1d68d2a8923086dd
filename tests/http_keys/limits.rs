//! Rate limits and wrong keys.

use super::*;

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
    // Other keys are not slowed down, and after the wait the request succeeds.
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
    // In parallel, too: most get 429, and right keys still pass.
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
