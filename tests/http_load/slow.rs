//! Crowds of slow clients beside honest ones.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::RequestBuilder;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::common::{Options, Server, media, picture};
use crate::honest::{Figures, client, steady};

/// What a slow client is slow at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Head,
    Body,
    Upload,
    Download,
}

const KINDS: [Kind; 4] = [Kind::Head, Kind::Body, Kind::Upload, Kind::Download];

/// Slow clients that reconnect as soon as they are closed.
struct Crowd {
    tasks: Vec<tokio::task::JoinHandle<()>>,
    connected: Arc<AtomicUsize>,
}

impl Crowd {
    fn gather(address: SocketAddr, kind: Kind, count: usize, every: Duration, large: &str) -> Self {
        let connected = Arc::new(AtomicUsize::new(0));
        let one = |number: usize| {
            let (connected, large) = (Arc::clone(&connected), large.to_owned());
            tokio::spawn(async move {
                // Not all in one moment, again and again.
                tokio::time::sleep(Duration::from_micros(number as u64 * 500)).await;
                loop {
                    connected.fetch_add(1, Ordering::Relaxed);
                    let _ = dawdle(address, kind, every, &large).await;
                    tokio::time::sleep(Duration::from_millis(500 + number as u64 % 500)).await;
                }
            })
        };
        Self { tasks: (0..count).map(one).collect(), connected }
    }

    fn disperse(self) -> usize {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
        self.connected.load(Ordering::Relaxed)
    }
}

/// One connection of a slow client, until it is closed.
async fn dawdle(address: SocketAddr, kind: Kind, every: Duration, large: &str) -> std::io::Result<()> {
    let head = match kind {
        Kind::Head => "GET /v1/assets HTTP/1.1\r\nHost: localhost\r\nX-Slow: ".to_owned(),
        Kind::Body => "POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
            Content-Length: 5000\r\n\r\n{\"query\":\""
            .to_owned(),
        Kind::Upload => "POST /v1/assets HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n\
            Content-Length: 5000000\r\n\r\n--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n"
            .to_owned(),
        Kind::Download => format!("GET {large} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    };
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4096)?;
    let mut stream: TcpStream = socket.connect(address).await?;
    stream.write_all(head.as_bytes()).await?;
    let mut byte = [0; 1];
    loop {
        tokio::time::sleep(every).await;
        if kind == Kind::Download {
            if stream.read(&mut byte).await? == 0 {
                return Ok(());
            }
        } else {
            // A closed connection is seen by reading.
            match stream.try_read(&mut byte) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            stream.write_all(b"a").await?;
        }
    }
}

struct Plan {
    count: usize,
    per_sec: f64,
    how_long: Duration,
    /// How often a slow client moves a byte.
    every: Duration,
}

/// Honest figures without slow clients, beside each kind, and beside all of them.
fn measure(server: &Server, plan: &Plan) -> Vec<(String, Figures)> {
    server.add(&picture("shown.png"));
    // A file larger than any kernel buffer.
    let large = media(
        "large.wav",
        &["-f", "lavfi", "-i", "sine=frequency=700:duration=120:sample_rate=48000", "-ac", "2"],
    );
    let bytes = std::fs::read(large).unwrap();
    let asset = crate::common::ok_json(server.upload_bytes("large.wav", bytes, ""));
    let large = asset["content_url"].as_str().unwrap().to_owned();
    crate::common::eventually("the sound is indexed", || {
        let asset = server.get_json(&format!("/v1/assets/{}", asset["id"].as_str().unwrap()));
        (asset["state"] != "indexing").then_some(())
    });
    let address: SocketAddr = server.address().parse().unwrap();
    let search = format!("{}/v1/search", server.url());
    let kept = client();
    // Every other request on a connection of its own: a newcomer needs a place.
    let fresh = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
    let query = json!({"query": "a red circle"});
    let make = |number: usize| -> RequestBuilder {
        (if number.is_multiple_of(2) { &kept } else { &fresh }).post(&search).json(&query)
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let honest = || steady(plan.per_sec, plan.how_long, make);
        steady(plan.per_sec, Duration::from_secs(1), make).await;
        let mut figures = vec![("alone".to_owned(), honest().await)];
        let crowd = |kind| Crowd::gather(address, kind, plan.count, plan.every, &large);
        for kind in KINDS {
            let crowd = crowd(kind);
            tokio::time::sleep(Duration::from_secs(1)).await;
            let seen = honest().await;
            figures.push((format!("{} slow: {kind:?} ({})", plan.count, crowd.disperse()), seen));
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        let crowds: Vec<_> = KINDS.into_iter().map(crowd).collect();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let seen = honest().await;
        let connected: usize = crowds.into_iter().map(Crowd::disperse).sum();
        figures.push((format!("{} slow of each kind ({connected})", plan.count), seen));
        figures
    })
}

#[test]
fn slow_clients_of_every_kind_do_not_starve_honest_ones() {
    let args = ["--max-connections", "200", "--max-in-flight", "8"];
    let server = Server::start(Options::default().args(&args));
    let (every, how_long) = (Duration::from_millis(700), Duration::from_secs(2));
    let figures = measure(&server, &Plan { count: 150, per_sec: 20.0, how_long, every });
    let metrics = server.get("/metrics").text().unwrap();
    metrics
        .lines()
        .filter(|line| line.starts_with("triptych_http_refused_total"))
        .for_each(|line| println!("{line}"));
    for (what, figures) in figures {
        println!("{}", figures.line(&what));
        assert_eq!(figures.failed(), 0, "{}", figures.line(&what));
    }
    for waiting_for in ["head", "body", "answer"] {
        let line = format!("triptych_http_connections_evicted_total{{waiting_for=\"{waiting_for}\"}}");
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
}

#[test]
#[ignore = "minutes; make test-slow-clients"]
fn a_thousand_slow_clients_of_each_kind() {
    let server = Server::start(Options::default());
    // Once each: with less in between, 1,000 slow clients of a kind are no longer slow.
    let every = Duration::from_secs(9);
    let plan = Plan { count: 1000, per_sec: 50.0, how_long: Duration::from_secs(30), every };
    let figures = measure(&server, &plan);
    let alone = figures[0].1.millis(0.99, crate::honest::ok);
    for (what, figures) in &figures {
        println!("{}   x{:.2}", figures.line(what), figures.millis(0.99, crate::honest::ok) / alone);
    }
    let metrics = server.get("/metrics").text().unwrap();
    for counter in ["triptych_http_connections_evicted_total{", "triptych_http_refused_total{"] {
        metrics.lines().filter(|line| line.starts_with(counter)).for_each(|line| println!("{line}"));
    }
    for (what, figures) in &figures {
        assert_eq!(figures.failed(), 0, "{what}");
        let p99 = figures.millis(0.99, crate::honest::ok);
        assert!(p99 <= 2.0 * alone, "{what}: {p99} ms, {alone} ms alone");
    }
}
