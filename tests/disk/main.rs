//! Full disks and damaged bytes: refused writes, continued reads, recovery. The disks are small ones in
//! memory, in a mount namespace of their own; without the right to mount one, these tests print that and
//! skip.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod damage;
mod full;

use std::fs;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Options, Server, error_of, eventually, ok_json, video};
use reqwest::blocking::Response;
use serde_json::{Value, json};
use sqlx::Connection;
use tempfile::TempDir;

/// A sound that no other call made.
fn sound(secs: f64) -> Vec<u8> {
    use std::sync::atomic::{AtomicU32, Ordering};
    static MADE: AtomicU32 = AtomicU32::new(0);
    let hz = 200.0 + f64::from(MADE.fetch_add(1, Ordering::Relaxed)) * 7.3;
    let rate = 8000_u32;
    let count = (secs * f64::from(rate)) as u32;
    let mut bytes = Vec::new();
    bytes.extend(b"RIFF");
    bytes.extend((36 + count * 2).to_le_bytes());
    bytes.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    bytes.extend(rate.to_le_bytes());
    bytes.extend((rate * 2).to_le_bytes());
    bytes.extend(b"\x02\0\x10\0data");
    bytes.extend((count * 2).to_le_bytes());
    for n in 0..count {
        let at = f64::from(n) / f64::from(rate);
        let value = (at * hz * std::f64::consts::TAU).sin() * 9000.0;
        bytes.extend((value as i16).to_le_bytes());
    }
    bytes
}

fn id(object: &Value) -> &str {
    object["id"].as_str().unwrap()
}

fn readyz(server: &Server) -> Value {
    server.get_json("/readyz")
}

/// A check that finds nothing.
fn clean_check(server: &Server) -> Value {
    assert_eq!(server.post("/v1/checks", &json!({})).status(), 202);
    eventually("the check ends", || {
        let now = server.get_json("/v1/checks");
        (now["state"] != "running").then_some(now)
    })
}

fn change(data: &Path, sql: &'static str) {
    with_database(data, async |db| {
        sqlx::query(sql).execute(db).await.unwrap();
    });
}

fn with_database<T>(data: &Path, work: impl AsyncFnOnce(&mut sqlx::SqliteConnection) -> T) -> T {
    let url = format!("sqlite://{}", data.join("triptych.db").display());
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut db = sqlx::SqliteConnection::connect(&url).await.unwrap();
        let done = work(&mut db).await;
        db.close().await.unwrap();
        done
    })
}
