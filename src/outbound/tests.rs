//! The client against malicious servers. Names resolve to what a test says, and every checked address is
//! dialled on loopback, so that no test reaches a real host.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// A staged network: the resolver's answers in turn, and the address that all connections really use.
#[derive(Debug)]
struct Staged {
    names: Mutex<HashMap<&'static str, Vec<Vec<IpAddr>>>>,
    server: SocketAddr,
    dialled: Mutex<Vec<SocketAddr>>,
}

#[async_trait]
impl Resolve for Staged {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let mut names = self.names.lock().unwrap();
        match names.get_mut(host) {
            Some(answers) if answers.len() > 1 => Ok(answers.remove(0)),
            Some(answers) => Ok(answers[0].clone()),
            None => Err(io::Error::other("no such name")),
        }
    }
}

#[async_trait]
impl Dial for Staged {
    async fn dial(&self, address: SocketAddr) -> io::Result<TcpStream> {
        self.dialled.lock().unwrap().push(address);
        TcpStream::connect(self.server).await
    }
}

/// A server that answers each path with raw bytes, and then closes the connection or holds it open.
async fn server(answers: &'static [(&'static str, &'static str, bool)]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else { return };
                    head.push(byte);
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                let path = head.split(' ').nth(1).unwrap_or("");
                let (_, bytes, hold) =
                    answers.iter().find(|(of, ..)| *of == path).unwrap_or(&("", "", false));
                let _ = stream.write_all(bytes.as_bytes()).await;
                if path == "/endless" {
                    while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
                }
                if *hold {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                }
            });
        }
    });
    address
}

fn staged(server: SocketAddr, names: &[(&'static str, &[&[&str]])]) -> Arc<Staged> {
    let parse = |answer: &&[&str]| answer.iter().map(|ip| ip.parse().unwrap()).collect();
    let names = names.iter().map(|(name, answers)| (*name, answers.iter().map(parse).collect())).collect();
    Arc::new(Staged { names: Mutex::new(names), server, dialled: Mutex::new(Vec::new()) })
}

fn door(network: &Arc<Staged>, rules: &[&str]) -> Outbound {
    Outbound::new(OutboundConfig {
        allow_hosts: rules.iter().map(|rule| rule.parse().unwrap()).collect(),
        connect_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_millis(300),
        total_timeout: Duration::from_secs(5),
        resolver: Arc::clone(network) as Arc<dyn Resolve>,
        dialer: Arc::clone(network) as Arc<dyn Dial>,
    })
    .unwrap()
}

async fn fetch(door: &Outbound, url: &str, max_bytes: u64) -> Result<Vec<u8>, OutboundError> {
    let mut download = door.get(&door.check(url)?, max_bytes).await?;
    let mut all = Vec::new();
    while let Some(chunk) = download.next().await? {
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

async fn code(door: &Outbound, url: &str) -> &'static str {
    fetch(door, url, 1 << 20).await.map_or_else(|error| error.code(), |_| "ok")
}

const PUBLIC: &[&str] = &["93.184.216.34"];
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

#[tokio::test]
async fn a_file_is_fetched_from_the_address_that_was_checked() {
    let at = server(&[("/a", OK, false)]).await;
    let network = staged(at, &[("media.example", &[PUBLIC])]);
    let door = door(&network, &["media.example"]);
    assert_eq!(fetch(&door, "http://media.example/a", 5).await.unwrap(), b"hello");
    assert_eq!(*network.dialled.lock().unwrap(), ["93.184.216.34:80".parse().unwrap()]);
    assert_eq!(
        fetch(&door, "http://media.example/a", 4).await,
        Err(OutboundError::TooLarge { max_bytes: 4 })
    );
    assert_eq!(code(&door, "http://other.example/a").await, "url_not_allowed");
}

#[tokio::test]
async fn nothing_is_asked_by_default() {
    let off = Outbound::new(OutboundConfig::default()).unwrap();
    assert!(!off.is_on());
    assert_eq!(off.check("http://media.example/a"), Err(OutboundError::UrlsDisabled));
    let url = Url::parse("http://media.example/a").unwrap();
    assert_eq!(off.get(&url, 1).await.unwrap_err(), OutboundError::UrlsDisabled);
    let posted = off.post(&url, HeaderMap::new(), Bytes::new(), Duration::from_secs(1)).await;
    assert_eq!(posted, Err(OutboundError::UrlsDisabled));
}

#[tokio::test]
async fn a_name_with_a_bad_address_among_good_ones_is_refused_and_nothing_dialled() {
    let at = server(&[("/a", OK, false)]).await;
    let bad = [
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "::1",
        "::ffff:10.0.0.1",
        "fe80::1",
        "64:ff9b::7f00:1",
        "0.0.0.0",
    ];
    for address in bad {
        let network = staged(at, &[("media.example", &[&["93.184.216.34", address]])]);
        assert_eq!(
            code(&door(&network, &["media.example"]), "http://media.example/a").await,
            "url_not_allowed"
        );
        assert!(network.dialled.lock().unwrap().is_empty(), "{address}");
    }
    // A marked host may have a private address, but never one that no host may have.
    let network = staged(at, &[("nas.lan", &[&["10.0.0.1"]]), ("metadata", &[&["169.254.169.254"]])]);
    let marked = door(&network, &["nas.lan+private", "metadata+private"]);
    assert_eq!(code(&marked, "http://nas.lan/a").await, "ok");
    assert_eq!(code(&marked, "http://metadata/a").await, "url_not_allowed");
}

#[tokio::test]
async fn a_name_that_changes_its_address_gains_nothing() {
    const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
    let at = server(&[("/a", ANSWER, false)]).await;
    let network = staged(at, &[("media.example", &[PUBLIC, &["127.0.0.1"]])]);
    let door = door(&network, &["media.example"]);
    assert_eq!(code(&door, "http://media.example/a").await, "ok");
    assert_eq!(*network.dialled.lock().unwrap(), ["93.184.216.34:80".parse().unwrap()]);
    assert_eq!(code(&door, "http://media.example/a").await, "url_not_allowed");
    assert_eq!(network.dialled.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn every_redirect_is_checked_again() {
    let at = server(&[
        ("/good", "HTTP/1.1 302 Found\r\nLocation: http://cdn.example/a\r\nContent-Length: 0\r\n\r\n", false),
        ("/a", OK, false),
        ("/relative", "HTTP/1.1 301 Moved\r\nLocation: a\r\nContent-Length: 0\r\n\r\n", false),
        (
            "/loopback",
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/a\r\nContent-Length: 0\r\n\r\n",
            false,
        ),
        (
            "/inside",
            "HTTP/1.1 307 Moved\r\nLocation: http://inside.example/a\r\nContent-Length: 0\r\n\r\n",
            false,
        ),
        (
            "/port",
            "HTTP/1.1 302 Found\r\nLocation: http://media.example:22/\r\nContent-Length: 0\r\n\r\n",
            false,
        ),
        ("/file", "HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n", false),
        (
            "/user",
            "HTTP/1.1 302 Found\r\nLocation: http://me@media.example/a\r\nContent-Length: 0\r\n\r\n",
            false,
        ),
        ("/loop", "HTTP/1.1 302 Found\r\nLocation: /loop\r\nContent-Length: 0\r\n\r\n", false),
        ("/nowhere", "HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", false),
    ])
    .await;
    let names: &[(&str, &[&[&str]])] =
        &[("media.example", &[PUBLIC]), ("cdn.example", &[PUBLIC]), ("inside.example", &[&["192.168.1.1"]])];
    let network = staged(at, names);
    let door = door(&network, &["media.example", "cdn.example", "inside.example", "127.0.0.1"]);
    for (path, expected) in [
        ("/good", "ok"),
        ("/relative", "ok"),
        ("/loopback", "url_not_allowed"),
        ("/inside", "url_not_allowed"),
        ("/port", "url_not_allowed"),
        ("/file", "url_not_allowed"),
        ("/user", "url_not_allowed"),
        ("/loop", "url_refused"),
        ("/nowhere", "url_refused"),
    ] {
        assert_eq!(code(&door, &format!("http://media.example{path}")).await, expected, "{path}");
    }
    let dialled = network.dialled.lock().unwrap();
    assert!(dialled.iter().all(|address| *address == "93.184.216.34:80".parse().unwrap()), "{dialled:?}");
}

#[tokio::test]
async fn https_does_not_lead_to_http() {
    let network = staged("127.0.0.1:9".parse().unwrap(), &[]);
    let door = door(&network, &["media.example"]);
    let from = door.check("https://media.example/a").unwrap();
    let to = |text: &'static str| door.next_hop(&from, Some(&HeaderValue::from_static(text)));
    assert_eq!(to("http://media.example/a").map_err(|error| error.code()), Err("url_not_allowed"));
    assert_eq!(to("//media.example/b").unwrap().as_str(), "https://media.example/b");
}

#[tokio::test]
async fn answers_that_are_no_file_or_no_end_are_cut() {
    let at = server(&[
        ("/endless", "HTTP/1.1 200 OK\r\n\r\n", false),
        ("/silent", "", true),
        ("/stalls", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello", true),
        ("/short", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello", false),
        ("/huge", "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nhello", true),
        ("/broken-chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n", false),
        ("/gzip", "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello", false),
        ("/not-http", "220 mail.example ESMTP\r\n", false),
        ("/missing", "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", false),
        ("/part", "HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\n\r\nhello", false),
        ("/busy", "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", false),
    ])
    .await;
    let network = staged(at, &[("media.example", &[PUBLIC])]);
    let door = door(&network, &["media.example"]);
    for (path, expected) in [
        ("/endless", "url_too_large"),
        ("/silent", "url_timeout"),
        ("/stalls", "url_timeout"),
        ("/short", "url_failed"),
        ("/huge", "url_too_large"),
        ("/broken-chunk", "url_failed"),
        ("/gzip", "url_refused"),
        ("/not-http", "url_failed"),
        ("/missing", "url_refused"),
        ("/part", "url_refused"),
        ("/busy", "url_failed"),
    ] {
        assert_eq!(code(&door, &format!("http://media.example{path}")).await, expected, "{path}");
    }
}

#[tokio::test]
async fn a_name_nobody_knows_says_so() {
    let network = staged("127.0.0.1:9".parse().unwrap(), &[]);
    let error =
        fetch(&door(&network, &["media.example"]), "http://media.example/?secret", 1).await.unwrap_err();
    assert_eq!(error.to_string(), "media.example: could not resolve the name: no such name");
}

#[tokio::test]
async fn a_post_does_not_follow() {
    let at = server(&[
        ("/hook", "HTTP/1.1 204 No Content\r\n\r\n", false),
        ("/moved", "HTTP/1.1 307 Moved\r\nLocation: /hook\r\nContent-Length: 0\r\n\r\n", false),
        ("/silent", "", true),
    ])
    .await;
    let network = staged(at, &[("hooks.example", &[PUBLIC])]);
    let door = door(&network, &["hooks.example"]);
    let post = |path: &str| {
        let url = door.check(&format!("http://hooks.example{path}")).unwrap();
        let door = door.clone();
        async move {
            door.post(&url, HeaderMap::new(), Bytes::from_static(b"{}"), Duration::from_millis(300)).await
        }
    };
    assert_eq!(post("/hook").await, Ok(204));
    assert_eq!(post("/moved").await, Ok(307));
    assert_eq!(post("/silent").await.unwrap_err().code(), "url_timeout");
}
