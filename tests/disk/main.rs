//! Full disks and damaged bytes: what is refused, what goes on, what heals. The disks are small ones in memory,
//! in a mount namespace of their own; where none may be mounted, the tests that need one say so and skip.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

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

/// Longest from free space to the first write that is taken.
const HEALS_WITHIN: Duration = Duration::from_secs(5);

/// A small disk that only processes in its mount namespace have at this path.
struct Disk {
    holder: Child,
    stdin: Option<ChildStdin>,
    at: TempDir,
}

impl Disk {
    /// None, and a word about it, where nothing may be mounted here.
    fn mount(options: &str) -> Option<Self> {
        let at = tempfile::tempdir().unwrap();
        let script = r#"mount -t tmpfs -o "$1" tmpfs "$2" && echo ready && read -r _"#;
        let spawned = Command::new("unshare")
            .args(["-m", "--propagation", "private", "sh", "-c", script, "sh", options])
            .arg(at.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut line = String::new();
        let mut disk = match spawned {
            Ok(mut holder) => Self { stdin: holder.stdin.take(), holder, at },
            Err(error) => return skipped(&error.to_string()),
        };
        let _ = BufReader::new(disk.holder.stdout.take().unwrap()).read_line(&mut line);
        if line.trim() == "ready" { Some(disk) } else { skipped("a tmpfs may not be mounted here") }
    }

    /// What a command that is to see the disk is started by.
    fn enter(&self) -> Vec<String> {
        ["nsenter", "-t", &self.holder.id().to_string(), "-m", "--"].map(str::to_owned).to_vec()
    }

    fn run(&self, command: &[&str]) -> std::process::Output {
        let enter = self.enter();
        Command::new(&enter[0]).args(&enter[1..]).args(command).output().unwrap()
    }

    fn remount(&self, how: &str) {
        let output = self.run(&["mount", "-o", &format!("remount,{how}"), self.at.path().to_str().unwrap()]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The disk as this process sees it.
    fn seen(&self) -> PathBuf {
        let inside = self.at.path().strip_prefix("/").unwrap();
        Path::new("/proc").join(self.holder.id().to_string()).join("root").join(inside)
    }

    fn data(&self) -> PathBuf {
        self.at.path().join("data")
    }

    fn options(&self) -> Options {
        let backup = self.at.path().join("backup");
        Options::default().data(&self.data()).prefix(&self.enter()).args(&[
            "--snapshot-root",
            backup.to_str().unwrap(),
            "--ingest-workers",
            "1",
        ])
    }

    /// Takes every byte.
    fn fill(&self) {
        let mut file =
            fs::OpenOptions::new().create(true).append(true).open(self.seen().join("filler")).unwrap();
        for size in [1 << 20, 4096, 64] {
            while file.write_all(&vec![7; size]).is_ok() {}
        }
    }

    /// Takes every inode.
    fn fill_inodes(&self) {
        let folder = self.seen().join("inodes");
        fs::create_dir(&folder).unwrap();
        while let Ok(file) = tempfile::NamedTempFile::new_in(&folder) {
            file.keep().unwrap();
        }
    }

    /// Gives back what was taken.
    fn free(&self) {
        let _ = fs::remove_file(self.seen().join("filler"));
        let _ = fs::remove_dir_all(self.seen().join("inodes"));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.holder.wait();
    }
}

fn skipped<T>(why: &str) -> Option<T> {
    eprintln!("SKIPPED: {why}; tests of full disks need root, unshare and nsenter");
    None
}

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

fn patch(server: &Server, asset: &Value, n: usize) -> Response {
    let body = json!({"metadata": {"n": n, "filling": "x".repeat(20_000)}});
    server.request("PATCH", &format!("/v1/assets/{}", id(asset))).json(&body).send().unwrap()
}

fn refused(what: &str, response: Response) {
    assert_eq!(error_of(response), (507, "storage_full".to_owned()), "{what}");
}

fn readyz(server: &Server) -> Value {
    server.get_json("/readyz")
}

/// Searches, lists, files and pictures are there whatever the disk does.
fn reads_go_on(server: &Server, asset: &Value) {
    assert!(!server.search(&json!({"query": {"text": "circle"}, "limit": 3})).is_empty());
    assert!(!server.get_json("/v1/assets")["data"].as_array().unwrap().is_empty());
    let content = server.get(&format!("/v1/assets/{}/content", id(asset)));
    assert_eq!(content.status(), 200);
    assert_eq!(content.bytes().unwrap().len() as u64, asset["size_bytes"].as_u64().unwrap());
    assert_eq!(server.get(&format!("/v1/assets/{}/thumbnail", id(asset))).status(), 200);
    server.get_json("/v1/stats");
    // A query that is a file needs a place for it, which is found elsewhere.
    let part = reqwest::blocking::multipart::Part::bytes(sound(1.0)).file_name("query.wav");
    let form = reqwest::blocking::multipart::Form::new().part("file", part).text("modality", "audio");
    let found = ok_json(server.post_form("/v1/search", form));
    assert!(!found["data"].as_array().unwrap().is_empty(), "{found}");
}

/// Everything that writes is refused with the one code.
fn writers_are_refused(server: &Server, asset: &Value, root: &Path) {
    refused("upload", server.upload_bytes("a.wav", sound(1.0), ""));
    refused("upload that is waited for", server.upload_bytes("b.wav", sound(1.0), "?wait=true"));
    let part =
        reqwest::blocking::multipart::Part::reader(std::io::Cursor::new(sound(1.0))).file_name("c.wav");
    let form = reqwest::blocking::multipart::Form::new().part("file", part);
    refused("upload of unknown length", server.post_form("/v1/assets", form));
    refused("change", patch(server, asset, 1));
    refused("job", server.post("/v1/jobs", &json!({"type": "index", "path": root})));
    refused("watch", server.post("/v1/watches", &json!({"path": root})));
    let rules = json!({"rules": [{"name": "r", "older_than_secs": 1_000_000_000}]});
    refused("rules", server.request("PUT", "/v1/retention").json(&rules).send().unwrap());
    let standing = json!({"query": {"text": "circle"}, "min_score": 0.99});
    refused("standing query", server.post("/v1/standing-queries", &standing));
    let response = server.post("/v1/snapshots", &json!({}));
    if response.status() == 202 {
        let snapshot = ok_json(response);
        let ended = eventually("the snapshot ends", || {
            let now = server.get(&format!("/v1/snapshots/{}", id(&snapshot)));
            let now: Value = now.json().unwrap();
            (now["state"] != "running").then_some(now)
        });
        assert_eq!(ended["error"]["code"], "storage_full", "{ended}");
    } else {
        refused("snapshot", response);
    }
}

/// What healed, and how long it took.
#[derive(Debug, Default)]
struct Healed {
    store: Duration,
    upload: Duration,
    ready: Duration,
}

impl Healed {
    fn worst(&self) -> Duration {
        self.store.max(self.upload).max(self.ready)
    }
}

fn heals(server: &Server, asset: &Value, began: Instant) -> Healed {
    let mut healed = Healed::default();
    eventually("the store takes changes", || (patch(server, asset, 2).status() == 200).then_some(()));
    healed.store = began.elapsed();
    eventually("uploads are taken", || {
        (server.upload_bytes("healed.wav", sound(1.0), "").status() == 202).then_some(())
    });
    healed.upload = began.elapsed();
    eventually("it is said so", || (readyz(server)["parts"]["disk"]["status"] == "ok").then_some(()));
    healed.ready = began.elapsed();
    assert!(healed.worst() <= HEALS_WITHIN, "{healed:?}");
    healed
}

/// A check that finds nothing.
fn clean_check(server: &Server) -> Value {
    assert_eq!(server.post("/v1/checks", &json!({})).status(), 202);
    eventually("the check ends", || {
        let now = server.get_json("/v1/checks");
        (now["state"] != "running").then_some(now)
    })
}

/// A library on a small disk, with a film that everything is tried on.
struct Place {
    disk: Disk,
    root: TempDir,
}

impl Place {
    fn new(options: &str) -> Option<Self> {
        Some(Self { disk: Disk::mount(options)?, root: tempfile::tempdir().unwrap() })
    }

    fn server(&self) -> Server {
        Server::start(self.disk.options().root(self.root.path()))
    }

    /// One time full: work under way, everything refused, space given back, nothing lost.
    fn one_fill(&self, server: &Server, film: &Value, round: usize) -> Healed {
        let other = ok_json(server.upload_bytes("other.wav", sound(1.0), "?wait=true"));
        // The log of the store is emptied: whatever is written needs room.
        server.post_json("/v1/compactions", &json!({}));
        let folder = self.root.path().join(format!("round-{round}"));
        fs::create_dir(&folder).unwrap();
        for n in 0..4 {
            fs::write(folder.join(format!("{n}.wav")), sound(8.0)).unwrap();
        }
        let accepted = ok_json(server.upload_bytes("accepted.wav", sound(8.0), ""));
        let job = ok_json(server.post("/v1/jobs", &json!({"type": "index", "path": folder})));
        let held = self.disk.seen().join("data/reserve.bin");
        eventually("space is held in reserve", || held.exists().then_some(()));
        self.disk.fill();
        eventually("it is known that the disk is full", || {
            // A write tells; so does the next look at free space.
            let health = readyz(server);
            (health["status"] == "degraded" && health["parts"]["disk"]["status"] == "degraded").then_some(())
        });
        writers_are_refused(server, film, self.root.path());
        reads_go_on(server, film);
        // Whoever has to make room can: space for that is held against everybody else.
        let deleted = server.delete(&format!("/v1/assets/{}", id(&other)));
        assert_eq!(deleted.status(), 204, "{:?}", deleted.text());
        assert!(!held.exists());
        let temporary = self.disk.seen().join("data/tmp");
        eventually("nothing half-received is left", || {
            fs::read_dir(&temporary).unwrap().next().is_none().then_some(())
        });
        self.disk.free();
        let healed = heals(server, film, Instant::now());
        let job = server.finished_job(id(&job));
        assert_eq!((&job["state"], &job["items_done"]), (&json!("done"), &json!(4)), "{job}");
        eventually("what was accepted is indexed", || {
            let now = server.get_json(&format!("/v1/assets/{}", id(&accepted)));
            assert_ne!(now["state"], "failed", "{now}");
            (now["state"] == "ready").then_some(())
        });
        let check = clean_check(server);
        assert_eq!(check["clean"], true, "{check}");
        healed
    }
}

fn fills(rounds: usize) {
    let Some(place) = Place::new("size=64m") else { return };
    let server = place.server();
    let film = server.add(&video("full-disk.mp4", 3.2, 300));
    let mut worst = Duration::ZERO;
    for round in 0..rounds {
        let healed = place.one_fill(&server, &film, round);
        worst = worst.max(healed.worst());
        println!("fill {round}: healed after {healed:?}");
    }
    let before: Vec<Value> = server.get_json("/v1/assets?limit=1000")["data"].as_array().unwrap().clone();
    server.stop();
    let log = fs::metadata(place.disk.seen().join("data/triptych.db-wal")).map_or(0, |log| log.len());
    assert_eq!(log, 0, "a clean stop leaves nothing in the log");
    let server = place.server();
    let after = server.get_json("/v1/assets?limit=1000")["data"].as_array().unwrap().len();
    assert_eq!(after, before.len());
    println!("{rounds} fills: every writer answered 507, reads went on, healed within {worst:?}");
}

#[test]
fn a_full_disk_refuses_writes_serves_reads_and_heals() {
    fills(1);
}

#[test]
#[ignore = "make test-full-disk"]
fn twenty_times_full() {
    fills(20);
}

/// A start that can write nothing at all serves what is there, and begins to write by itself.
#[test]
fn a_server_starts_on_a_full_disk() {
    let Some(place) = Place::new("size=48m,nr_inodes=4000") else { return };
    let server = place.server();
    let film = server.add(&video("full-disk.mp4", 3.2, 300));
    let fill = |n: usize| if n == 2 { place.disk.fill_inodes() } else { place.disk.fill() };
    let mut server = Some(server);
    for n in 0..4 {
        // 0: after a clean stop; 1: after a crash with work under way; 2: no inodes; 3: read-only.
        let running = server.take().unwrap();
        if n == 1 {
            let accepted = ok_json(running.upload_bytes("accepted.wav", sound(8.0), ""));
            fill(n);
            running.kill9();
            assert!(place.disk.seen().join("data/triptych.db-wal").exists(), "{accepted}");
            // What the dead process had open without a name is free again.
            fill(n);
        } else {
            running.stop();
            if n == 2 {
                // Nothing is left in which to write: the store is read as it lies.
                let _ = fs::remove_file(place.disk.seen().join("data/triptych.db-wal"));
            }
            if n == 3 { place.disk.remount("ro") } else { fill(n) }
        }
        let restarted = place.server();
        let health = readyz(&restarted);
        assert_eq!(health["parts"]["disk"]["status"], "degraded", "{n}: {health}");
        reads_go_on(&restarted, &film);
        refused("change", patch(&restarted, &film, 3));
        refused("upload", restarted.upload_bytes("a.wav", sound(1.0), ""));
        if n == 3 {
            place.disk.remount("rw")
        } else {
            place.disk.free()
        }
        let healed = heals(&restarted, &film, Instant::now());
        println!("start {n} on a full disk: healed after {healed:?}");
        eventually("nothing waits any more", || {
            let assets = restarted.get_json("/v1/assets?limit=1000");
            assets["data"].as_array().unwrap().iter().all(|asset| asset["state"] == "ready").then_some(())
        });
        let check = clean_check(&restarted);
        assert_eq!(check["clean"], true, "{n}: {check}");
        server = Some(restarted);
    }
}

/// `ulimit -f`: the signal does not end the process, and the client is told.
#[test]
fn a_file_that_may_not_grow_is_told() {
    let wrap = ["sh", "-c", "ulimit -f 6000; exec \"$@\"", "sh"].map(str::to_owned);
    let server = Server::start(Options::default().prefix(&wrap));
    refused("upload", server.upload_bytes("a.wav", sound(300.0), ""));
    assert_eq!(server.get("/livez").status(), 200);
}

fn uploads_of(data: &Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(data.join("uploads")).unwrap().map(|folder| folder.unwrap().path());
    folders.flat_map(|folder| fs::read_dir(folder).unwrap().map(|file| file.unwrap().path())).collect()
}

fn flip(path: &Path, at: u64) {
    let mut file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&[byte[0] ^ 0x10]).unwrap();
}

#[test]
fn damaged_uploads_are_never_served_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(Options::default().data(&data).args(&["--check-bytes-per-sec", "0"]));
    let file = video("damaged.mp4", 3.2, 500);
    let film = server.add(&file);
    let content = format!("/v1/assets/{}/content", id(&film));
    let view = || server.get_json(&format!("/v1/assets/{}", id(&film)))["damage"].clone();
    let kept = uploads_of(&data).pop().unwrap();
    assert_eq!(server.get(&content).status(), 200);

    // Another time of the same bytes is nothing.
    fs::File::options()
        .append(true)
        .open(&kept)
        .unwrap()
        .set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    assert_eq!((server.get(&content).status().as_u16(), view()), (200, Value::Null));

    flip(&kept, 5000);
    assert_eq!(error_of(server.get(&content)), (410, "content_damaged".to_owned()));
    let thumbnail = format!("/v1/assets/{}/thumbnail?size=200", id(&film));
    assert_eq!(error_of(server.get(&thumbnail)).1, "content_damaged");
    assert_eq!(view(), "changed");
    assert_eq!(server.get_json("/v1/stats")["damaged"]["assets"], 1);
    let health = readyz(&server);
    assert_eq!(
        (&health["status"], &health["parts"]["content"]["status"]),
        (&json!("degraded"), &json!("degraded"))
    );
    assert!(server.get("/metrics").text().unwrap().contains("triptych_damaged{what=\"assets\"} 1"));
    // Searches do not need the bytes.
    assert!(!server.search(&json!({"query": {"text": "circle"}, "limit": 1})).is_empty());

    // The same file, sent again, takes the place of the damaged bytes.
    assert_eq!(server.upload_bytes("again.mp4", fs::read(&file).unwrap(), "").status(), 200);
    assert_eq!((server.get(&content).status().as_u16(), view()), (200, Value::Null));
    assert_eq!(readyz(&server)["status"], "ok");

    // Bytes that change behind the time of their file are found by reading them, and cut ones at once.
    let time = fs::metadata(&kept).unwrap().modified().unwrap();
    flip(&kept, 6000);
    fs::File::options().append(true).open(&kept).unwrap().set_modified(time).unwrap();
    let check = clean_check(&server);
    assert_eq!((&check["clean"], &check["damaged_assets"][0]["problem"]), (&json!(false), &json!("changed")));
    assert_eq!(error_of(server.get(&content)).1, "content_damaged");
    flip(&kept, 6000);
    assert_eq!(clean_check(&server)["clean"], true);
    assert_eq!((server.get(&content).status().as_u16(), view()), (200, Value::Null));
    fs::remove_file(&kept).unwrap();
    assert_eq!(error_of(server.get(&content)), (404, "content_missing".to_owned()));
    assert_eq!(clean_check(&server)["damaged_assets"][0]["problem"], "missing");
    server.stop();

    let output =
        Command::new(common::binary()).args(["check", "--json", "--data"]).arg(&data).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &report["damaged_assets_total"]), (Some(1), &json!(1)), "{report}");
}

#[test]
fn the_bytes_of_uploads_are_read_by_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(Options::default().data(&data));
    server.add(&video("read.mp4", 3.2, 700));
    server.stop();
    let kept = uploads_of(&data).pop().unwrap();
    let time = fs::metadata(&kept).unwrap().modified().unwrap();
    flip(&kept, 7000);
    fs::File::options().append(true).open(&kept).unwrap().set_modified(time).unwrap();
    change(&data, "UPDATE assets SET checked_unix_ms = 0");
    let server = Server::start(Options::default().data(&data));
    eventually("it is found", || (server.get_json("/v1/stats")["damaged"]["assets"] == 1).then_some(()));
}

/// A disk that is not mounted: what is missing is counted before anybody asks for it, and no longer once it is back,
/// whether the server starts without it or loses it while it runs.
#[test]
fn missing_uploads_are_counted_before_anyone_reads_them() {
    let dir = tempfile::tempdir().unwrap();
    let (data, away) = (dir.path().join("data"), dir.path().join("away"));
    let server = Server::start(Options::default().data(&data).args(&["--check-bytes-per-sec", "0"]));
    let films = [video("gone.mp4", 1.0, 500), video("gone2.mp4", 1.2, 600)].map(|file| server.add(&file));
    let counted = |server: &Server| server.get_json("/v1/stats")["damaged"]["assets"].clone();
    let content = |server: &Server| readyz(server)["parts"]["content"]["status"].clone();
    assert_eq!((counted(&server), content(&server)), (json!(0), json!("ok")));
    server.stop();

    let uploads = data.join("uploads");
    fs::rename(&uploads, &away).unwrap();
    fs::create_dir(&uploads).unwrap();
    let server = Server::start(Options::default().data(&data).args(&["--check-bytes-per-sec", "0"]));
    assert_eq!((counted(&server), content(&server)), (json!(2), json!("degraded")));
    for film in &films {
        assert_eq!(server.get_json(&format!("/v1/assets/{}", id(film)))["damage"], "missing");
    }

    fs::remove_dir(&uploads).unwrap();
    fs::rename(&away, &uploads).unwrap();
    let is = |wanted: u64| (counted(&server) == wanted).then_some(());
    eventually("they are back", || is(0));
    assert_eq!(content(&server), "ok");
    assert_eq!(server.get(&format!("/v1/assets/{}/content", id(&films[0]))).status(), 200);

    fs::remove_file(uploads_of(&data).pop().unwrap()).unwrap();
    eventually("it is missed", || is(1));
    assert_eq!(content(&server), "degraded");
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

/// Every vector of a database, by its row.
fn vectors(data: &Path) -> Vec<(i64, Vec<u8>)> {
    with_database(data, async |db| {
        sqlx::query_as("SELECT id, data FROM vectors ORDER BY id").fetch_all(db).await.unwrap()
    })
}

fn cosine(a: &[u8], b: &[u8]) -> f64 {
    let values = |bytes: &[u8]| -> Vec<f64> {
        bytes.chunks_exact(4).map(|c| f64::from(f32::from_le_bytes([c[0], c[1], c[2], c[3]]))).collect()
    };
    values(a).iter().zip(values(b)).map(|(a, b)| a * b).sum()
}

/// Flips in the database: the rest is served, it is told how much is damaged, and it is made anew from the bytes.
#[test]
fn damaged_vectors_are_told_and_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(Options::default().data(&data));
    let films: Vec<Value> =
        (0..3).map(|n| server.add(&video(&format!("flip-{n}.mp4"), 9.6, 300 + 90 * n))).collect();
    server.stop();
    let good = vectors(&data);
    change(&data, "UPDATE vectors SET data = x'00' || substr(data, 2) WHERE id % 3 = 0");
    change(&data, "DELETE FROM vectors WHERE id = (SELECT MAX(id) FROM vectors)");
    // The indexes on disk still have them; they are a cache, and may be gone.
    fs::remove_dir_all(data.join("index")).unwrap();

    let server = Server::start(Options::default().data(&data));
    let health = readyz(&server);
    assert_eq!(
        (&health["status"], &health["parts"]["index"]["status"]),
        (&json!("degraded"), &json!("degraded"))
    );
    let damaged = server.get_json("/v1/stats")["damaged"]["clips"].as_u64().unwrap();
    assert!(damaged >= 2, "{damaged}");
    assert!(!server.search(&json!({"query": {"text": "circle"}})).is_empty());

    assert_eq!(server.post("/v1/checks", &json!({"repair": true})).status(), 202);
    assert!(matches!(server.post("/v1/checks", &json!({})).status().as_u16(), 202 | 409));
    let report = eventually("the repair ends", || {
        let now = server.get_json("/v1/checks");
        (now["state"] != "running").then_some(now)
    });
    let repaired = report["repaired_clips"].as_u64().unwrap();
    assert!(report["clean"] == true && repaired >= damaged, "{report}");
    assert_eq!(server.get_json("/v1/stats")["damaged"], json!({"rows": 0, "clips": 0, "assets": 0}));
    assert_eq!(readyz(&server)["status"], "ok");
    for film in &films {
        assert_eq!(server.get_json(&format!("/v1/assets/{}", id(film)))["clip_count"], film["clip_count"]);
    }
    server.stop();
    let now = vectors(&data);
    assert_eq!(
        now.iter().map(|(id, _)| *id).collect::<Vec<_>>(),
        good.iter().map(|(id, _)| *id).collect::<Vec<_>>()
    );
    let worst = good.iter().zip(&now).map(|((_, a), (_, b))| cosine(a, b)).fold(1.0, f64::min);
    assert!(worst > 0.999_99, "{worst}");
}

/// One row that cannot be read takes nothing else with it, and a check says which one it is.
#[test]
fn damaged_rows_are_left_out_and_listed() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(Options::default().data(&data));
    let films: Vec<Value> = (0..4)
        .map(|n| ok_json(server.upload_bytes("a.wav", sound(1.0 + f64::from(n)), "?wait=true")))
        .collect();
    server.post_json("/v1/standing-queries", &json!({"query": {"text": "circle"}, "min_score": 0.9}));
    let job = json!({"type": "index", "files": [{"path": "/nowhere/a.wav"}, {"path": "/nowhere/b.wav"}]});
    let _ = server.post("/v1/jobs", &job);
    server.stop();
    change(&data, "UPDATE assets SET metadata = '{' WHERE n = 1");
    change(&data, "UPDATE assets SET state = 'reedy' WHERE n = 2");
    change(&data, "UPDATE assets SET id = x'00ff' WHERE n = 3");
    change(&data, "UPDATE clips SET start_secs = -5 WHERE asset = 1");
    change(&data, "UPDATE standing_queries SET spec = 'x'");

    let server = Server::start(Options::default().data(&data));
    let listed = server.get_json("/v1/assets")["data"].as_array().unwrap().clone();
    let ids: Vec<&str> = listed.iter().map(id).collect();
    assert_eq!(ids, [id(&films[3]), id(&films[0])], "{listed:?}");
    assert_eq!((&listed[1]["damage"], &listed[1]["metadata"]), (&json!("metadata"), &json!({})));
    let page = server.get_json("/v1/assets?limit=1");
    assert_eq!(id(&page["data"][0]), id(&films[3]));
    let next = server.get_json(&format!("/v1/assets?limit=1&after={}", page["next"].as_str().unwrap()));
    assert_eq!(id(&next["data"][0]), id(&films[0]), "a page goes on behind damaged rows");
    assert_eq!(server.get_json("/v1/standing-queries")["data"], json!([]));
    assert_eq!(
        error_of(server.get(&format!("/v1/assets/{}", id(&films[1])))),
        (500, "damaged_row".to_owned())
    );
    assert_eq!(server.upload_bytes("new.wav", sound(7.0), "?wait=true").status(), 201);

    let check = clean_check(&server);
    let tables: Vec<&str> =
        check["damaged_rows"].as_array().unwrap().iter().map(|row| row["table"].as_str().unwrap()).collect();
    for table in ["assets", "clips", "standing_queries"] {
        assert!(tables.contains(&table), "{check}");
    }
    assert!(
        check["clean"] == false && server.get_json("/v1/stats")["damaged"]["rows"].as_u64().unwrap() >= 5
    );
    assert_eq!(readyz(&server)["parts"]["store"]["status"], "degraded");
}
