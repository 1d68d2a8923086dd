//! Keys of several roles: made, used, limited, revoked; the audit log; proxies; wrong keys.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod audit;
mod keys;
mod limits;
#[cfg(feature = "otlp")]
mod traces;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use common::{Options, Server, error_of, eventually, ok_json, picture, video};
use serde_json::{Value, json};

/// `triptych key …`.
fn key_command(data: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_triptych"));
    command.arg("key").args(arguments).args(["--json", "--data"]).arg(data).output().unwrap()
}

fn key_json(data: &Path, arguments: &[&str]) -> Value {
    let output = key_command(data, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("{field} of {value}"))
}

/// Makes a key on the command line: its id, the key.
fn make(data: &Path, name: &str, role: &str, more: &[&str]) -> (String, String) {
    let made = key_json(data, &[&["create", "--name", name, "--role", role], more].concat());
    (text(&made, "id").to_owned(), text(&made, "key").to_owned())
}

fn audit_lines(data: &Path) -> Vec<Value> {
    let written = std::fs::read_to_string(data.join("audit/audit.jsonl")).unwrap_or_default();
    written.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn refused_total(server: &Server, code: &str) -> u64 {
    let metrics = server.get("/metrics").text().unwrap();
    let name = format!("triptych_http_refused_total{{code=\"{code}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(0)
}
