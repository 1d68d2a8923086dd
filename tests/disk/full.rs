//! Disks without free space.

use super::*;

/// Maximum time from free space to the first accepted write.
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

    /// Frees the space again.
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

fn patch(server: &Server, asset: &Value, n: usize) -> Response {
    let body = json!({"metadata": {"n": n, "filling": "x".repeat(20_000)}});
    server.request("PATCH", &format!("/v1/assets/{}", id(asset))).json(&body).send().unwrap()
}

fn refused(what: &str, response: Response) {
    assert_eq!(error_of(response), (507, "storage_full".to_owned()), "{what}");
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
    // A query file is received on another disk.
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

    /// One cycle: work in progress, a full disk, every write refused, space freed, nothing lost.
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
            // A failed write reveals it; so does the next check of free space.
            let health = readyz(server);
            (health["status"] == "degraded" && health["parts"]["disk"]["status"] == "degraded").then_some(())
        });
        writers_are_refused(server, film, self.root.path());
        reads_go_on(server, film);
        // Assets can be deleted to make room: space for this is reserved.
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

/// A server that can write nothing at startup serves the existing data, and resumes writing by itself.
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
                // There is no room to write at all: the store is opened read-only.
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

/// `ulimit -f`: the signal does not end the process, and the client gets an error.
#[test]
fn a_file_that_may_not_grow_is_told() {
    let wrap = ["sh", "-c", "ulimit -f 6000; exec \"$@\"", "sh"].map(str::to_owned);
    let server = Server::start(Options::default().prefix(&wrap));
    refused("upload", server.upload_bytes("a.wav", sound(300.0), ""));
    assert_eq!(server.get("/livez").status(), 200);
}
