//! Files over https: whose certificates are taken, and that nothing leads back to http.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::Arc;

use common::web::{Page, Web};
use common::{Options, Server, error_of, tone};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{self, ServerConfig, pki_types::PrivateKeyDer};

/// A server for `localhost` that answers `/down` with a redirect and everything else with a file; its port
/// and its certificate as PEM.
fn serve(file: Vec<u8>, down: String) -> (u16, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let pem = made.cert.pem();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().unwrap().port()).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else { break };
                    head.push(byte);
                }
                let redirect = format!("HTTP/1.1 302 Found\r\nLocation: {down}\r\nContent-Length: 0\r\n\r\n");
                let found = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", file.len());
                let answer = if head.starts_with(b"GET /down ") {
                    redirect.into_bytes()
                } else {
                    [found.as_bytes(), &file].concat()
                };
                let _ = stream.write_all(&answer).await;
                let _ = stream.shutdown().await;
            }
        });
    });
    (told.recv().unwrap(), pem)
}

#[test]
fn certificates_are_checked_and_https_stays_https() {
    let plain = Web::start();
    let file = std::fs::read(tone("tone-0.wav", 4.0, 200)).unwrap();
    plain.put("/a.wav", Page::File(file.clone()));
    let (port, pem) = serve(file, plain.url("/a.wav"));
    let dir = tempfile::tempdir().unwrap();
    let trusted = dir.path().join("trusted.pem");
    std::fs::write(&trusted, pem).unwrap();
    let rules =
        [format!("localhost:{port}+private"), format!("127.0.0.1:{port}+private"), plain.rule()].join(",");
    let options = || Options::default().args(&["--allow-url-host", &rules]);
    let add = |server: &Server, url: &str| server.post("/v1/assets?wait=true", &json!({"url": url}));

    let server = Server::start(options().env("SSL_CERT_FILE", trusted.to_str().unwrap()));
    assert_eq!(add(&server, &format!("https://localhost:{port}/a.wav")).status(), 201);
    for (url, status, code) in [
        // A certificate of another name.
        (format!("https://127.0.0.1:{port}/a.wav"), 502, "url_failed"),
        (format!("https://localhost:{port}/down"), 403, "url_not_allowed"),
        // Another protocol than this port's.
        (format!("http://localhost:{port}/a.wav"), 502, "url_failed"),
    ] {
        assert_eq!(error_of(add(&server, &url)), (status, code.to_owned()), "{url}");
    }
    assert_eq!(plain.hits("/a.wav"), 0);
    drop(server);

    let server = Server::start(options());
    let unknown = error_of(add(&server, &format!("https://localhost:{port}/a.wav")));
    assert_eq!(unknown, (502, "url_failed".to_owned()), "nobody vouches for it");
}
