//! The command line as a person uses it: the real binary, the bundle that ships, its sample clips.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn bundle() -> PathBuf {
    root().join("models/small-world")
}

fn triptych(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_triptych"));
    command.args(arguments).current_dir(root()).env("TRIPTYCH_DEVICE", "cpu");
    if std::env::var_os("TRIPTYCH_NATIVE_DIR").is_none() {
        command.env("TRIPTYCH_NATIVE_DIR", root().join(".triptych/native"));
    }
    command
}

fn run(arguments: &[&str]) -> Output {
    triptych(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", text(&output.stdout), text(&output.stderr)))
}

/// Runs a command that must fail with this status and stable code.
fn refused(arguments: &[&str], status: i32, code: &str) {
    let output = run(arguments);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {message}");
    assert!(message.contains(&format!("error[{code}]: ")), "{arguments:?}: {message}");
    assert!(!message.contains("panicked"), "{message}");
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A query sound and where its answer is, from the bundle's own notes.
fn demo() -> Value {
    serde_json::from_str(&std::fs::read_to_string(bundle().join("samples/demo.json")).unwrap()).unwrap()
}

#[test]
fn indexes_and_searches_the_samples() {
    let data = tempfile::tempdir().unwrap();
    let data = path(data.path());
    let clips = bundle().join("samples/clips");
    let files = std::fs::read_dir(&clips).unwrap().count();

    let output = run(&["index", path(&clips), "--data", data, "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let first = json(&output);
    assert_eq!(first["job"]["items_done"], files);
    assert_eq!(first["job"]["items_failed"], 0);
    assert_eq!(first["items"].as_array().unwrap().len(), files);

    // Again: the same bytes are not embedded twice.
    let again = json(&run(&["index", path(&clips), "--data", data, "--json"]));
    assert_eq!(again["job"]["items_done"], files);

    let hits = json(&run(&["search", demo()["text"].as_str().unwrap(), "--data", data, "--json"]));
    let hits = hits["data"].as_array().unwrap().clone();
    assert_eq!(hits.len(), 10);
    assert_eq!(hits[0]["matched"], "video");
    assert!(hits.windows(2).all(|pair| pair[0]["score"].as_f64() >= pair[1]["score"].as_f64()));

    let sound = bundle().join("samples").join(demo()["audio"].as_str().unwrap());
    let by_sound = json(&run(&["search", "--audio", path(&sound), "--data", data, "--json"]));
    assert_eq!(by_sound["space"], "fine");
    assert_eq!(by_sound["data"].as_array().unwrap().len(), 10);

    // A part of a file finds that very part.
    let reel = std::fs::read_dir(&clips).unwrap().map(|e| e.unwrap().path()).min().unwrap();
    let query = format!("{}@0-3.2", reel.display());
    let by_clip = json(&run(&["search", "--video", &query, "--data", data, "--json"]));
    let best = &by_clip["data"][0];
    assert_eq!(best["asset_name"], reel.file_name().unwrap().to_str().unwrap());
    assert_eq!(best["start_secs"], 0.0);
    assert!(best["score"].as_f64().unwrap() > 0.99, "{best}");

    let table = text(&run(&["search", "a red circle", "--data", data, "--limit", "2"]).stdout);
    assert!(table.contains("start - end") && table.contains("2 hits in"), "{table}");
}

#[test]
fn embeds_texts_and_files() {
    let output = json(&run(&["embed", "a blue ring growing", "--json"]));
    let vector = output["data"][0]["embedding"].as_array().expect("an embedding").clone();
    let norm: f64 = vector.iter().map(|v| v.as_f64().unwrap().powi(2)).sum();
    assert!((norm - 1.0).abs() < 1e-4, "norm {norm}");
    let sound = bundle().join("samples").join(demo()["audio"].as_str().unwrap());
    let output = json(&run(&["embed", "--audio", path(&sound), "--space", "fine", "--json"]));
    assert_eq!(output["data"][0]["embedding"].as_array().unwrap().len(), 512);
}

#[test]
fn tells_what_is_wrong() {
    let data = tempfile::tempdir().unwrap();
    let data = path(data.path());
    refused(&["index", "/no/such/folder", "--data", data], 2, "path_missing");
    refused(&["search", "zzzz qqqq", "--data", data], 2, "no_known_words");
    refused(&["search", "--audio", "/no/such.wav", "--data", data], 2, "path_missing");
    refused(&["search", "--video", "x.mp4@9-3", "--data", data], 2, "invalid_value");
    refused(&["model", "verify", "/no/such/bundle"], 3, "model_missing");
    refused(
        &["serve", "--model", "/no/such/bundle", "--data", data, "--listen", "127.0.0.1:0"],
        3,
        "model_missing",
    );
    refused(&["serve", "--data", data, "--listen", "0.0.0.0:0"], 2, "api_key_required");
    // An empty variable counts as not set; above all, it is not a key that everybody knows.
    let output = triptych(&["serve", "--data", data, "--listen", "0.0.0.0:0"])
        .env("TRIPTYCH_API_KEY", "")
        .env("TRIPTYCH_ALLOW_URL_HOSTS", "")
        .output()
        .unwrap();
    assert!(text(&output.stderr).contains("error[api_key_required]: "), "{}", text(&output.stderr));
    let output = run(&["serve", "--data", data, "--listen", "0.0.0.0:0", "--api-key", ""]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--api-key"), "{}", text(&output.stderr));

    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("notes.mp4"), "this is a text file, not a film").unwrap();
    let output = run(&["index", path(folder.path()), "--data", data]);
    assert_eq!(output.status.code(), Some(2));
    let told = text(&output.stdout);
    assert!(told.contains("failed: ") && told.contains("[unsupported_media]"), "{told}");
}

#[test]
fn verifies_and_shows_the_bundle() {
    let output = run(&["model", "verify", path(&bundle())]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let shown = json(&run(&["model", "show", path(&bundle()), "--json"]));
    assert_eq!(shown["manifest"]["name"], "small-world");
    assert!(run(&["doctor"]).status.success());
}

/// What `demo` prints up to the address that it listens at, and that address.
fn until_listening(lines: &mut impl Iterator<Item = std::io::Result<String>>) -> (String, String) {
    let mut told = String::new();
    loop {
        let line = lines.next().expect("the demo ended early").unwrap();
        if let Some(address) = line.strip_prefix("listening on ") {
            return (told, address.to_owned());
        }
        told += &line;
        told.push('\n');
    }
}

#[test]
fn demo_of_a_bundle_without_samples_serves_it() {
    let (data, bare) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for entry in std::fs::read_dir(bundle()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), bare.path().join(entry.file_name())).unwrap();
        }
    }
    let arguments =
        ["demo", "--model", path(bare.path()), "--data", path(data.path()), "--listen", "127.0.0.1:0"];
    let mut child = triptych(&arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (told, address) = until_listening(&mut lines);
    assert!(told.contains("Model small-world") && told.contains("no sample clips"), "{told}");
    assert!(!told.contains("Text query"), "{told}");
    let page = reqwest::blocking::get(&address).unwrap();
    assert_eq!(page.status(), 200);
    child.kill().unwrap();
    child.wait().unwrap();

    std::fs::create_dir(bare.path().join("samples")).unwrap();
    refused(&arguments, 2, "path_missing");
}

#[test]
fn demo_answers_serves_and_stops_on_a_signal() {
    let data = tempfile::tempdir().unwrap();
    let bundle = bundle();
    let arguments =
        ["demo", "--model", path(&bundle), "--data", path(data.path()), "--listen", "127.0.0.1:0"];
    let mut child = triptych(&arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (told, address) = until_listening(&mut lines);
    assert!(told.contains("Text query: ") && told.contains("Audio query: "), "{told}");
    assert_eq!(told.matches("start - end").count(), 2, "{told}");
    let page = reqwest::blocking::get(&address).unwrap();
    assert_eq!(page.status(), 200);
    assert!(page.text().unwrap().contains("<title>"));

    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let mut rest = String::new();
    for line in lines {
        rest += &line.unwrap();
    }
    assert!(child.wait().unwrap().success(), "{rest}");
    child.stdout.take().map(|mut out| out.read_to_string(&mut rest));
}

#[test]
fn evaluates_a_file_of_pairs() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let clips = bundle().join("samples/clips");
    let indexed = run(&["index", path(&clips), "--data", path(&data), "--json"]);
    assert!(indexed.status.success(), "{}", text(&indexed.stderr));
    let pairs = dir.path().join("pairs.csv");
    // As MSR-VTT's files are; a quoted comma is part of the text.
    let rows = "key,vid_key,video_id,sentence\nret0,msr1,reel-01,\"a big blue triangle, moving left\"\n";
    std::fs::write(&pairs, rows).unwrap();
    let output = run(&["eval", path(&pairs), "--data", path(&data), "--targets", "both", "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let evaluation = json(&output);
    assert_eq!((evaluation["pairs"].as_u64(), evaluation["results"].as_array().unwrap().len()), (Some(1), 4));
    assert_eq!(evaluation["results"][0]["r_at_1"]["value"], 1.0);
    let shown = run(&["eval", path(&pairs), "--data", path(&data)]);
    assert!(text(&shown.stdout).contains("median rank"), "{}", text(&shown.stdout));
    // What scores mean was measured while indexing.
    let search = json(&run(&["search", "a big blue triangle moving left", "--data", path(&data), "--json"]));
    assert_eq!(search["no_match"], false, "{search}");
    assert!(search["data"][0]["confidence"].as_f64().unwrap() > 0.9, "{search}");

    std::fs::write(&pairs, "a,b\n1,2\n").unwrap();
    refused(&["eval", path(&pairs), "--data", path(&data)], 2, "invalid_csv");
    std::fs::write(&pairs, "text,asset\nred,nothing\n").unwrap();
    refused(&["eval", path(&pairs), "--data", path(&data)], 1, "asset_unknown");
    refused(&["eval", "/nonexistent.csv", "--data", path(&data)], 2, "path_missing");
}

#[test]
fn a_reader_that_has_gone_and_a_full_disk_are_told_apart() {
    let bundle = bundle();
    let arguments = ["model", "show", path(&bundle), "--json"];
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let gone = triptych(&arguments).stdout(writer).output().unwrap();
    assert!(gone.status.success() && gone.stderr.is_empty(), "{}", text(&gone.stderr));

    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let full = triptych(&arguments).stdout(full).output().unwrap();
    let told = text(&full.stderr);
    assert_eq!(full.status.code(), Some(1), "{told}");
    assert!(told.contains("error[output_failed]: ") && !told.contains("panicked"), "{told}");
}
