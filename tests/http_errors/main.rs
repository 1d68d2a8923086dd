//! Bad input gets a 4xx with a stable code, and the server keeps serving.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod files;
mod requests;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use common::{Options, Server, data_uri, error_of, media, ok_json, tone, video};
use reqwest::blocking::multipart;
use serde_json::{Value, json};

fn shared() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let args =
            ["--max-upload-bytes", "8388608", "--max-body-bytes", "4194304", "--body-timeout-secs", "2"];
        let heads = ["--header-timeout-secs", "2", "--idle-timeout-secs", "2"];
        Server::start(Options::default().args(&args).args(&heads))
    })
}

fn still_serves(server: &Server) {
    assert_eq!(server.get("/readyz").status(), 200);
}
