//! When and where snapshots are taken.

use super::*;

#[test]
fn snapshots_are_off_without_a_place_and_one_at_a_time_with_one() {
    let server = Server::start(Options::default());
    for response in [
        server.post("/v1/snapshots", &json!({})),
        server.get("/v1/snapshots"),
        server.get("/v1/snapshots/snp_00000000000000000000000000000001"),
        server.delete("/v1/snapshots/snp_00000000000000000000000000000001"),
    ] {
        assert_eq!(error_of(response), (409, "snapshots_off".into()));
    }
    server.stop();
    let place = Place::new();
    let server = place.server();
    assert_eq!(server.get_json("/v1/snapshots")["data"], json!([]));
    assert_eq!(error_of(server.get("/v1/snapshots/nonsense")), (400, "invalid_value".into()));
    assert_eq!(error_of(server.post("/v1/snapshots", &json!({"to": "/etc"}))), (400, "unknown_field".into()));
    // Somebody else works in the same place.
    std::fs::create_dir_all(place.root()).unwrap();
    let lock = std::fs::File::create(place.root().join("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    assert_eq!(error_of(server.post("/v1/snapshots", &json!({}))), (409, "snapshots_locked".into()));
    drop(lock);
    assert_eq!(take(&server, &json!({}))["state"], json!("ready"));
    // A server has the folder open.
    let (data, root) = (place.data(), place.root());
    let create = || {
        triptych(&[
            "snapshot",
            "create",
            "--json",
            "--data",
            data.to_str().unwrap(),
            "--snapshot-root",
            root.to_str().unwrap(),
        ])
    };
    assert_eq!(error_code(&create()), "data_folder_locked");
    server.stop();
    let view = stdout_json(&create());
    assert_eq!(view["state"], json!("ready"));
    let list =
        stdout_json(&triptych(&["snapshot", "list", "--json", "--snapshot-root", root.to_str().unwrap()]));
    assert_eq!(list["data"].as_array().unwrap().len(), 2);
    let folder = root.join("snapshots").join(id(&view));
    assert!(triptych(&["snapshot", "verify", folder.to_str().unwrap()]).status.success());
    assert!(triptych(&["snapshot", "delete", folder.to_str().unwrap()]).status.success());
    assert_eq!(place.snapshots_on_disk(), 1);
    let none = place.dir.path().join("none");
    let args =
        ["snapshot", "create", "--data", none.to_str().unwrap(), "--snapshot-root", root.to_str().unwrap()];
    assert_eq!(error_code(&triptych(&args)), "no_library");
    assert!(!none.exists());
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn snapshots_are_not_kept_in_the_data_folder() {
    let place = Place::new();
    let (data, within) = (place.data(), place.data().join("backup"));
    let (data, within) = (data.to_str().unwrap(), within.to_str().unwrap());
    let model = common::manifest_dir().join("models/small-world");
    let output = Command::new(env!("CARGO_BIN_EXE_triptych"))
        .args(["serve", "--listen", "127.0.0.1:0", "--device", "cpu", "--model", model.to_str().unwrap()])
        .args(["--data", data, "--snapshot-root", within])
        .env("TRIPTYCH_NATIVE_DIR", common::native_dir())
        .output()
        .unwrap();
    assert_eq!(error_code(&output), "destination_failed");
    place.server().stop();
    let create = triptych(&["snapshot", "create", "--data", data, "--snapshot-root", within]);
    assert_eq!(error_code(&create), "destination_failed");
}

#[test]
fn a_snapshot_taken_under_steady_ingest_can_be_restored() {
    let place = Place::new();
    let server = place.server();
    server.add(&video("first.mp4", 6.4, 300));
    let stop = AtomicBool::new(false);
    let taken: Vec<Value> = std::thread::scope(|scope| {
        // All the time, uploads are added, deleted and added again with the same bytes.
        for worker in 0..2_u32 {
            let (server, stop) = (&server, &stop);
            scope.spawn(move || {
                let files: Vec<_> = (0..4)
                    .map(|n| tone(&format!("w{worker}-{n}.wav"), 3.2, 400 + 100 * (4 * worker + n)))
                    .collect();
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let file = &files[n % files.len()];
                    let response = server.upload_bytes(
                        "w.wav",
                        std::fs::read(file).unwrap(),
                        if n % 3 == 0 { "" } else { "?wait=true" },
                    );
                    let asset = ok_json(response);
                    server.search(&json!({"query": {"text": "a red circle"}}));
                    if n % 2 == 1 {
                        server.delete(&format!("/v1/assets/{}", id(&asset)));
                    }
                }
            });
        }
        // Also where an assertion fails: the others would go on for ever.
        let _stop = OnDrop(|| stop.store(true, Ordering::Relaxed));
        (0..10).map(|_| take(&server, &json!({}))).collect()
    });
    // Nothing that was put off stays behind.
    eventually("deleted uploads are gone", || {
        let stats = server.get_json("/v1/stats");
        let files = |folder: &Path| std::fs::read_dir(folder).map_or(0, Iterator::count);
        let folders = std::fs::read_dir(place.data().join("uploads")).unwrap();
        let kept: usize = folders.map(|folder| files(&folder.unwrap().path())).sum();
        (stats["ingest_active"] == 0 && stats["assets"] == json!(kept)).then_some(())
    });
    server.stop();
    for (n, view) in taken.iter().enumerate() {
        assert_eq!((&view["state"], &view["contents"]["lacking"]), (&json!("ready"), &json!(0)), "{view}");
        let to = place.dir.path().join(format!("restored-{n}"));
        let report = restore(&place, &id(view), &to);
        assert_eq!(report["assets"], view["contents"]["assets"]);
        assert_eq!(report["media_files"], view["contents"]["media_files"]);
        // Starting a model takes long: two are opened.
        if n % 5 == 0 {
            let restored = Server::start(Options::default().data(&to));
            eventually("everything is searchable", || {
                (restored.get_json("/v1/stats")["ingest_active"] == 0).then_some(())
            });
            let assets = restored.get_json("/v1/assets?limit=1000")["data"].as_array().unwrap().clone();
            assert_eq!(json!(assets.len()), view["contents"]["assets"]);
            for asset in &assets {
                assert_eq!(asset["state"], json!("ready"), "{asset}");
                assert_eq!(restored.get(asset["content_url"].as_str().unwrap()).status(), 200);
            }
            restored.stop();
        }
    }
}

#[test]
fn a_killed_snapshot_is_none_and_leaves_the_older_ones() {
    let place = Place::new();
    let server = place.server();
    server.add(&video("first.mp4", 6.4, 300));
    let whole = take(&server, &json!({}));
    // Enough media that the next one takes a while.
    let sound = std::fs::read(tone("long.wav", 60.0, 900)).unwrap();
    for n in 0..40_u32 {
        // Trailing bytes after the RIFF chunk make it another file.
        let bytes = [&sound[..], &n.to_le_bytes()].concat();
        server.upload_bytes(&format!("{n}.wav"), bytes, "");
    }
    let mut server = server;
    for round in 0..3 {
        let begun = ok_json(server.post("/v1/snapshots", &json!({})));
        std::thread::sleep(std::time::Duration::from_millis(5 + 25 * round));
        server.kill9();
        server = place.server();
        let listed = server.get_json("/v1/snapshots")["data"].as_array().unwrap().clone();
        for view in &listed {
            assert_eq!(view["state"], json!("ready"), "{view}");
            let root = place.root();
            let verified = triptych(&[
                "snapshot",
                "verify",
                view["id"].as_str().unwrap(),
                "--snapshot-root",
                root.to_str().unwrap(),
            ]);
            assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
        }
        assert!(listed.iter().any(|view| view["id"] == whole["id"]));
        let there = listed.iter().any(|view| view["id"] == begun["id"]);
        assert_eq!(
            server.get(&format!("/v1/snapshots/{}", id(&begun))).status(),
            if there { 200 } else { 404 }
        );
    }
    // The next one removes what is left of them.
    let last = take(&server, &json!({}));
    assert_eq!(last["state"], json!("ready"));
    let listed = server.get_json("/v1/snapshots")["data"].as_array().unwrap().len();
    assert_eq!(place.snapshots_on_disk(), listed);
    assert_eq!(std::fs::read_dir(place.root().join("tmp")).unwrap().count(), 0);
    server.stop();
}

#[test]
fn the_clock_takes_snapshots_and_keeps_the_last() {
    let place = Place::new();
    let options = place.options().args(&["--snapshot-every-secs", "1", "--snapshots-kept", "2"]);
    let server = Server::start(options);
    let by_hand = take_when_free(&server);
    let ids = || -> Vec<Value> {
        let data = server.get_json("/v1/snapshots")["data"].as_array().unwrap().clone();
        data.into_iter().filter(|view| view["scheduled"] == json!(true) && view["state"] == "ready").collect()
    };
    let first = eventually("one is taken", || ids().last().cloned());
    eventually("the first is gone again", || {
        let now = ids();
        (now.len() == 2 && now.iter().all(|view| view["id"] != first["id"])).then_some(())
    });
    assert_eq!(server.get_json(&format!("/v1/snapshots/{}", id(&by_hand)))["state"], json!("ready"));
    server.stop();
}

fn take_when_free(server: &Server) -> Value {
    let location = eventually("nobody else takes one", || {
        let response = server.post("/v1/snapshots", &json!({}));
        (response.status() == 202).then(|| response.headers()["location"].to_str().unwrap().to_owned())
    });
    eventually("it is there", || {
        let now = server.get_json(&location);
        (now["state"] != "running").then_some(now)
    })
}

#[test]
fn a_bucket_keeps_snapshots_as_a_folder_does() {
    let s3 = S3::start();
    s3.put("backups/other/file", b"somebody else's".to_vec());
    let place = Place::new();
    let with_key = |options: Options| {
        options
            .args(&["--s3-endpoint", &s3.endpoint()])
            .env("AWS_ACCESS_KEY_ID", s3::KEY_ID)
            .env("AWS_SECRET_ACCESS_KEY", s3::SECRET)
    };
    let root = "s3://backups/lib";
    let options = Options::default().data(&place.data()).args(&["--snapshot-root", root]);
    let server = Server::start(with_key(options));
    // To be backed up to is not to be read from.
    let job = json!({"type": "index", "bucket": root});
    assert_eq!(error_of(server.post("/v1/jobs", &job)), (403, "buckets_disabled".into()));
    assert_eq!(server.get_json("/v1/snapshots")["data"], json!([]));
    server.add(&video("first.mp4", 6.4, 300));
    let first = take(&server, &json!({}));
    assert_eq!(first["state"], json!("ready"), "{first}");
    server.add(&tone("tone.wav", 4.0, 900));
    let second = take(&server, &json!({"recheck": true}));
    assert_eq!(
        (&second["contents"]["media_files"], &second["contents"]["copied_files"]),
        (&json!(2), &json!(1))
    );
    let then = answers(&server);
    let media = || s3.names().iter().filter(|name| name.starts_with("backups/lib/media/")).count();
    assert_eq!((media(), s3.open_parts()), (2, 0));
    assert_eq!(server.delete(&format!("/v1/snapshots/{}", id(&first))).status(), 204);
    assert_eq!(media(), 2);
    let listed = server.get_json("/v1/snapshots");
    assert_eq!(listed["data"], json!([second]));
    server.stop();
    assert_eq!(std::fs::read_dir(place.data().join("tmp")).unwrap().count(), 0, "the copy was left behind");

    let command = |arguments: &[&str]| {
        let endpoint = s3.endpoint();
        Command::new(env!("CARGO_BIN_EXE_triptych"))
            .args(arguments)
            .args(["--snapshot-root", root])
            .env("AWS_ENDPOINT_URL", endpoint)
            .env("AWS_ACCESS_KEY_ID", s3::KEY_ID)
            .env("AWS_SECRET_ACCESS_KEY", s3::SECRET)
            .output()
            .unwrap()
    };
    let to = place.dir.path().join("restored");
    let (id, to_text) = (id(&second), to.to_str().unwrap());
    assert!(command(&["snapshot", "verify", &id]).status.success());
    // Damaged there.
    for name in s3.names().iter().filter(|name| name.starts_with("backups/lib/")) {
        let good = s3.get(name).unwrap().to_vec();
        let mut bad = good.clone();
        bad[good.len() / 2] ^= 4;
        s3.put(name, bad);
        let output = command(&["snapshot", "restore", &id, "--data", to_text]);
        assert_eq!(error_code(&output), "snapshot_damaged", "{name}");
        assert!(!to.exists());
        s3.put(name, good);
    }
    let report = stdout_json(&command(&["snapshot", "restore", &id, "--json", "--data", to_text]));
    assert_eq!(report["media_files"], json!(2));
    let restored = Server::start(Options::default().data(&to));
    assert_eq!(answers(&restored), then);
    restored.stop();
    assert!(command(&["snapshot", "delete", &id]).status.success());
    assert_eq!(s3.names(), ["backups/other/file"]);
}
