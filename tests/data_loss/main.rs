//! A data folder that lost data, or contains files that the server does not recognise: the server refuses to
//! start rather than lose more, rebuilds on request, and deletes nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod own_files;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use common::{Options, Server, copy, eventually, ok_json, run, wav};
use reqwest::blocking::multipart;
use serde_json::{Value, json};

const DATABASE: &str = "triptych.db";

const LOG: &str = "triptych.db-wal";

fn add(server: &Server, n: usize) -> Value {
    let file = multipart::Part::bytes(wav(n, 1.0)).file_name(format!("{n}.wav"));
    let form = multipart::Form::new().part("file", file).text("metadata", json!({ "n": n }).to_string());
    ok_json(server.post_form("/v1/assets?wait=true", form))
}

/// The users' data: id to name, metadata and content of every asset.
fn assets(server: &Server) -> BTreeMap<String, (Value, Value, Value)> {
    let page = server.get_json("/v1/assets?limit=1000");
    let all = page["data"].as_array().unwrap().iter();
    all.map(|asset| {
        let id = asset["id"].as_str().unwrap().to_owned();
        (id, (asset["name"].clone(), asset["metadata"].clone(), asset["sha256"].clone()))
    })
    .collect()
}

fn all_ready(server: &Server) {
    eventually("every asset is ready", || {
        let page = server.get_json("/v1/assets?limit=1000");
        page["data"].as_array().unwrap().iter().all(|asset| asset["state"] == "ready").then_some(())
    });
}

/// Every file beneath a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn cut_to_half(file: &Path) {
    let len = fs::metadata(file).unwrap().len();
    fs::OpenOptions::new().write(true).open(file).unwrap().set_len(len / 2).unwrap();
}

/// The data folder of a killed server, with its write-ahead log and the acknowledged changes.
struct Killed {
    dir: tempfile::TempDir,
    acknowledged: BTreeMap<String, (Value, Value, Value)>,
}

impl Killed {
    fn with(assets_count: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(Options::default().data(&dir.path().join("data")));
        (0..assets_count).for_each(|n| drop(add(&server, n)));
        let acknowledged = assets(&server);
        server.kill9();
        Self { dir, acknowledged }
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A copy of the folder, so that each damage starts from the same state.
    fn copied(&self, name: &str) -> PathBuf {
        let to = self.dir.path().join(name);
        copy(&self.folder(), &to);
        to
    }
}

#[test]
fn a_store_that_lost_something_refuses_to_serve_and_is_rebuilt_on_request() {
    let killed = Killed::with(5);
    type Damage = fn(&Path);
    let damages: [(&str, &str, Damage); 6] = [
        ("half-a-log", "store_behind", |data| cut_to_half(&data.join(LOG))),
        ("no-log", "store_behind", |data| fs::remove_file(data.join(LOG)).unwrap()),
        ("no-database", "store_behind", |data| {
            [DATABASE, LOG].iter().for_each(|name| fs::remove_file(data.join(name)).unwrap());
        }),
        ("neither-database-nor-ledger", "store_behind", |data| {
            [DATABASE, LOG, "ledger.log"].iter().for_each(|name| fs::remove_file(data.join(name)).unwrap());
        }),
        ("no-database-at-all", "store_unreadable", |data| {
            fs::remove_file(data.join(LOG)).unwrap();
            fs::write(data.join(DATABASE), vec![7; 1 << 16]).unwrap();
        }),
        ("cut-database", "store_unreadable", |data| {
            fs::remove_file(data.join(LOG)).unwrap();
            fs::write(data.join(DATABASE), b"SQLite format 3\0 and no more").unwrap();
        }),
    ];
    for (name, code, damage) in damages {
        let data = killed.copied(name);
        damage(&data);
        let before = files(&data.join("uploads"));
        let (exit, said) = Server::start_refused(Options::default().data(&data));
        assert_eq!(exit, 4, "{name}: {said}");
        assert!(
            said.contains(&format!("error[{code}]")) && said.contains("--rebuild-from-uploads"),
            "{name}: {said}"
        );
        assert_eq!(files(&data.join("uploads")), before, "{name}: nothing is touched");

        let rebuild = || Options::default().data(&data).args(&["--rebuild-from-uploads"]);
        let server = Server::start(rebuild());
        all_ready(&server);
        let rebuilt = assets(&server);
        if name == "neither-database-nor-ledger" {
            let contents = |of: &BTreeMap<_, (Value, Value, Value)>| {
                let mut all: Vec<_> = of.values().map(|(.., sha256)| sha256.to_string()).collect();
                all.sort();
                all
            };
            assert_eq!(contents(&rebuilt), contents(&killed.acknowledged), "{name}");
        } else {
            assert_eq!(rebuilt, killed.acknowledged, "{name}");
        }
        assert_eq!(
            server.search(&json!({"query": "a red circle", "targets": ["audio"], "limit": 10})).len(),
            5
        );
        server.stop();
        // From now on it is as any other, and the flag changes nothing.
        let server = Server::start(rebuild());
        assert_eq!(assets(&server), rebuilt, "{name}");
        server.stop();
        assert_eq!(files(&data.join("uploads")), before, "{name}");
    }
}

#[test]
fn an_older_database_put_back_by_hand_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(Options::default().data(&data));
    add(&server, 1);
    server.stop();
    let older = fs::read(data.join(DATABASE)).unwrap();
    type Change = fn(&Server);
    let changes: [(&str, Change); 4] = [
        ("an upload", |server| drop(add(server, 2))),
        ("a deletion", |server| {
            let id = assets(server).into_keys().next_back().unwrap();
            assert_eq!(server.delete(&format!("/v1/assets/{id}")).status(), 204);
        }),
        ("a new name", |server| {
            let id = assets(server).into_keys().next().unwrap();
            let patch = server.request("PATCH", &format!("/v1/assets/{id}")).json(&json!({"name": "x"}));
            ok_json(patch.send().unwrap());
        }),
        ("a standing query", |server| {
            ok_json(server.post("/v1/standing-queries", &json!({"query": "a red circle"})));
        }),
    ];
    for (what, change) in changes {
        let copied = dir.path().join(what.replace(' ', "-"));
        copy(&data, &copied);
        let server = Server::start(Options::default().data(&copied));
        change(&server);
        let acknowledged = assets(&server);
        server.stop();
        let log = fs::metadata(copied.join(LOG)).map_or(0, |file| file.len());
        assert_eq!(log, 0, "a clean stop leaves nothing in the log");
        fs::write(copied.join(DATABASE), &older).unwrap();
        let (exit, said) = Server::start_refused(Options::default().data(&copied));
        assert!(exit == 4 && said.contains("error[store_behind]"), "{what}: {exit} {said}");
        // To use the older store on purpose, the operator moves the ledger away; nothing is deleted.
        let server = Server::start(Options::default().data(&copied).args(&["--rebuild-from-uploads"]));
        all_ready(&server);
        assert_eq!(assets(&server), acknowledged, "{what}");
    }
}

#[test]
fn what_is_not_understood_is_put_in_quarantine_and_never_deleted() {
    let killed = Killed::with(2);
    let data = killed.folder();
    let mine = |path: &str, text: &str| {
        let path = data.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    mine("tmp/folder/deep/a.txt", "a");
    mine("tmp/notes.txt", "b");
    mine("tmp/upload-left-by-a-crash", "ours: it was being received");
    mine("uploads/00/holiday.mp4", "c");
    mine("uploads/00/folder/d.mp4", "d");
    mine("uploads/readme.txt", "e");
    mine("uploads/projects/f.prproj", "f");
    // An upload without a row: it was never acknowledged, but it may be the only remaining copy.
    let orphan = format!("uploads/ab/ab{}-01234567", "0".repeat(62));
    mine(&orphan, "g");

    let server = Server::start(Options::default().data(&data));
    assert_eq!(assets(&server), killed.acknowledged);
    let metrics = server.get("/metrics").text().unwrap();
    assert!(metrics.contains("triptych_quarantine_files 7"), "{metrics}");
    let kept: Vec<String> =
        files(&data.join("quarantine")).iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let mut sorted = kept.clone();
    sorted.sort();
    assert_eq!(sorted, ["a", "b", "c", "d", "e", "f", "g"]);
    assert!(files(&data.join("tmp")).is_empty());

    let data = data.to_str().unwrap();
    let listed = run(&["quarantine", "list", "--data", data, "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 7);
    assert!(listed.to_string().contains(&orphan));
    let emptied = run(&["quarantine", "empty", "--data", data]);
    assert!(String::from_utf8_lossy(&emptied.stdout).starts_with("7 files"));
    server.stop();
    let server = Server::start(Options::default().data(&killed.folder()));
    assert_eq!(assets(&server), killed.acknowledged);
}

#[test]
fn a_damaged_or_missing_ledger_is_written_anew_from_a_whole_store() {
    let killed = Killed::with(3);
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage, bool); 3] = [
        ("flipped", |ledger| ledger[100] ^= 1, true),
        ("cut", |ledger| ledger.truncate(ledger.len() / 2), false),
        ("empty", Vec::clear, false),
    ];
    for (name, damage, kept) in damages {
        let data = killed.copied(name);
        let ledger = data.join("ledger.log");
        let whole = fs::read(&ledger).unwrap();
        let mut bytes = whole.clone();
        damage(&mut bytes);
        fs::write(&ledger, &bytes).unwrap();
        let server = Server::start(Options::default().data(&data));
        assert_eq!(assets(&server), killed.acknowledged, "{name}");
        assert_eq!(files(&data.join("quarantine")).len(), usize::from(kept), "{name}");
        server.stop();
        // The new one protects as the old one did.
        fs::remove_file(data.join(DATABASE)).unwrap();
        let (exit, said) = Server::start_refused(Options::default().data(&data));
        assert_eq!(exit, 4, "{name}: {said}");
    }
}

/// Every file with its bytes, except the lock, which names the last process.
fn bytes_of_all(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let all = files(folder).into_iter().filter(|path| path.file_name().is_none_or(|name| name != "lock"));
    all.map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
}

#[test]
fn a_start_or_a_command_that_refuses_changes_no_file() {
    let killed = Killed::with(5);
    let data = killed.folder();
    let log = data.join(LOG);
    // Commits behind the damage may still be read by hand.
    let mut bytes = fs::read(&log).unwrap();
    let len = bytes.len();
    bytes[len * 3 / 10..len * 6 / 10].fill(0);
    fs::write(&log, bytes).unwrap();
    fs::write(data.join("tmp/upload-left-by-a-crash"), "ours").unwrap();
    fs::write(data.join("tmp/notes.txt"), "somebody's").unwrap();
    let before = bytes_of_all(&data);
    for _ in 0..3 {
        let (exit, said) = Server::start_refused(Options::default().data(&data));
        assert!(exit == 4 && said.contains("error[store_behind]"), "{exit} {said}");
        assert_eq!(bytes_of_all(&data), before);
    }
    let (folder, out) = (data.to_str().unwrap(), killed.dir.path().join("out"));
    let out = out.to_str().unwrap();
    for command in [
        vec!["check", "--data", folder],
        vec!["compact", "--data", folder],
        vec!["export", "--data", folder, "--out", out],
        vec!["snapshot", "create", "--data", folder, "--snapshot-root", out],
    ] {
        let output = run(&command);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{command:?}: {said}");
        assert!(said.contains("error[store_behind]") && said.contains("--rebuild-from-uploads"), "{said}");
        assert_eq!(bytes_of_all(&data), before, "{command:?}");
    }
    // A rebuild moves the old store to quarantine unchanged.
    let server = Server::start(Options::default().data(&data).args(&["--rebuild-from-uploads"]));
    all_ready(&server);
    assert_eq!(assets(&server), killed.acknowledged);
    let kept = files(&data.join("quarantine"));
    let kept = kept.iter().find(|path| path.ends_with(LOG)).unwrap();
    assert_eq!(fs::read(kept).unwrap(), before[&log]);
}

fn remove(path: &Path) {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

#[test]
fn a_check_reads_the_uploads_of_the_folder_it_is_given() {
    let killed = Killed::with(2);
    let check = |data: &Path| run(&["check", "--data", data.to_str().unwrap()]).status.code();
    let copied = killed.copied("copied");
    assert_eq!(check(&copied), Some(0));
    let upload = files(&copied.join("uploads")).remove(0);
    let mut bytes = fs::read(&upload).unwrap();
    bytes[100] ^= 1;
    fs::write(&upload, bytes).unwrap();
    assert_eq!(check(&copied), Some(1), "the copy is damaged, and the original is not");
    let moved = killed.dir.path().join("moved");
    fs::rename(killed.folder(), &moved).unwrap();
    assert_eq!(check(&moved), Some(0), "nothing is missing");
}
