//! The contents of a snapshot, and a restored library.

use super::*;

/// Copies the files of a folder, not the folders in it.
fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

/// The same answers, but that this file is not there any more.
fn without_the_file(name: &str, answers: &mut Value) {
    match answers {
        Value::Array(list) => list.iter_mut().for_each(|value| without_the_file(name, value)),
        Value::Object(object) => {
            let of_it = object.get("asset_name").or(object.get("name")).is_some_and(|of| of == name);
            match object.get_mut("damage") {
                Some(damage) if of_it => *damage = json!("missing"),
                _ => object.values_mut().for_each(|value| without_the_file(name, value)),
            }
        }
        _ => {}
    }
}

#[test]
fn a_restored_library_answers_as_the_original_did() {
    let place = Place::new();
    let media = tempfile::tempdir().unwrap();
    let by_path = media.path().join("by-path.mp4");
    std::fs::copy(video("second.mp4", 6.4, 700), &by_path).unwrap();
    let server = Server::start(place.options().root(media.path()));
    let first = server.add(&video("first.mp4", 9.6, 300));
    server.add(&tone("tone.wav", 8.0, 900));
    let job = json!({"type": "index", "files": [{"path": by_path, "metadata": {"shelf": "b"}}]});
    let job = server.post_json("/v1/jobs", &job);
    server.finished_job(job["id"].as_str().unwrap());
    let rules = json!({"rules": [{"name": "old", "older_than_secs": 86_400_000}]});
    ok_json(server.request("PUT", "/v1/retention").json(&rules).send().unwrap());
    eventually("what scores mean was measured", || {
        let stats = server.get_json("/v1/stats");
        (stats["ingest_active"] == 0).then_some(())
    });
    let mut then = answers(&server);
    let taken = take(&server, &json!({}));
    assert_eq!((&taken["state"], &taken["error"]), (&json!("ready"), &Value::Null), "{taken}");
    let contents = &taken["contents"];
    assert_eq!((&contents["assets"], &contents["by_path"]), (&json!(3), &json!(1)));
    assert_eq!((&contents["media_files"], &contents["copied_files"]), (&json!(2), &json!(2)));
    assert_eq!(contents["lacking"], json!(0));

    // The original changes further; the snapshot does not.
    assert_eq!(server.delete(&format!("/v1/assets/{}", id(&first))).status(), 204);
    server.add(&video("third.mp4", 6.4, 1100));
    server.stop();
    std::fs::remove_file(&by_path).unwrap();
    without_the_file("by-path.mp4", &mut then);

    let to = place.dir.path().join("restored");
    let report = restore(&place, &id(&taken), &to);
    assert_eq!((&report["assets"], &report["media_files"]), (&json!(3), &json!(2)));
    assert_eq!((&report["missing_by_path"], &report["missing_paths"]), (&json!(1), &json!([by_path])));
    let restored = Server::start(Options::default().data(&to).root(media.path()));
    assert_eq!(answers(&restored), then);
    let content = restored.get(&format!("/v1/assets/{}/content", id(&first)));
    assert_eq!(content.bytes().unwrap(), std::fs::read(video("first.mp4", 9.6, 300)).unwrap());
    restored.stop();
    // Also after the second start: nothing was taken for an orphan.
    let restored = Server::start(Options::default().data(&to).root(media.path()));
    assert_eq!(answers(&restored), then);
    assert_eq!(restored.get(&format!("/v1/assets/{}/content", id(&first))).status(), 200);
    restored.stop();
    // And with indexes rebuilt from the store.
    std::fs::remove_dir_all(to.join("index")).unwrap();
    let restored = Server::start(Options::default().data(&to).root(media.path()));
    assert_eq!(answers(&restored), then);
    restored.stop();

    // With no other bundle than the one it was made with.
    let other = place.dir.path().join("bundle");
    let ours = common::manifest_dir().join("models/small-world");
    copy_files(&ours, &other);
    let manifest = std::fs::read_to_string(ours.join("manifest.json")).unwrap();
    let changed = manifest.replace("small procedural world", "large procedural world");
    assert_ne!(changed, manifest);
    std::fs::write(other.join("manifest.json"), changed).unwrap();
    let with_other = Command::new(env!("CARGO_BIN_EXE_triptych"))
        .args(["search", "a red circle", "--device", "cpu", "--data", to.to_str().unwrap()])
        .args(["--model", other.to_str().unwrap()])
        .env("TRIPTYCH_NATIVE_DIR", common::native_dir())
        .output()
        .unwrap();
    assert_eq!(error_code(&with_other), "other_model");

    // A link to an empty folder is that folder; one to nothing is named.
    let (real, link) = (place.dir.path().join("real"), place.dir.path().join("link"));
    std::fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    restore(&place, &id(&taken), &link);
    assert!(real.join("triptych.db").is_file() && link.is_symlink());
    std::os::unix::fs::symlink(place.dir.path().join("nowhere"), place.dir.path().join("dangling")).unwrap();
    let dangling = place.dir.path().join("dangling");
    let root = place.root();
    let refused = triptych(&[
        "snapshot",
        "restore",
        &id(&taken),
        "--data",
        dangling.to_str().unwrap(),
        "--snapshot-root",
        root.to_str().unwrap(),
    ]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains(dangling.to_str().unwrap()), "{said}");

    // Not over anything.
    let again = triptych(&[
        "snapshot",
        "restore",
        &id(&taken),
        "--data",
        to.to_str().unwrap(),
        "--snapshot-root",
        root.to_str().unwrap(),
    ]);
    assert_eq!(error_code(&again), "data_folder_not_empty");
}

#[test]
fn media_are_copied_once_and_go_with_their_last_snapshot() {
    let place = Place::new();
    let server = place.server();
    let first = server.add(&video("first.mp4", 6.4, 300));
    let one = take(&server, &json!({}));
    let second = server.add(&tone("tone.wav", 4.0, 900));
    let two = take(&server, &json!({}));
    let copied =
        |view: &Value| (view["contents"]["media_files"].clone(), view["contents"]["copied_files"].clone());
    assert_eq!(copied(&one), (json!(1), json!(1)));
    assert_eq!(copied(&two), (json!(2), json!(1)));
    assert_eq!(server.delete(&format!("/v1/assets/{}", id(&first))).status(), 204);
    let three = take(&server, &json!({}));
    assert_eq!(copied(&three), (json!(1), json!(0)));
    let listed = server.get_json("/v1/snapshots");
    let ids: Vec<&Value> = listed["data"].as_array().unwrap().iter().map(|view| &view["id"]).collect();
    assert_eq!(ids, [&three["id"], &two["id"], &one["id"]]);

    let media = |asset: &Value| {
        let sha = asset["sha256"].as_str().unwrap();
        place.root().join("media").join(&sha[..2]).join(sha)
    };
    for (gone, left) in [(&one, (true, true)), (&two, (false, true)), (&three, (false, false))] {
        assert_eq!(server.delete(&format!("/v1/snapshots/{}", id(gone))).status(), 204);
        assert_eq!((media(&first).exists(), media(&second).exists()), left);
        assert_eq!(error_of(server.get(&format!("/v1/snapshots/{}", id(gone)))).1, "not_found");
        assert_eq!(
            error_of(server.delete(&format!("/v1/snapshots/{}", id(gone)))),
            (404, "not_found".into())
        );
    }

    // Damaged copies are found by a recheck, and replaced.
    let four = take(&server, &json!({}));
    let kept = media(&second);
    let mut bytes = std::fs::read(&kept).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&kept, &bytes).unwrap();
    let root = place.root();
    let verify = || triptych(&["snapshot", "verify", &id(&four), "--snapshot-root", root.to_str().unwrap()]);
    assert_eq!(error_code(&verify()), "snapshot_damaged");
    assert_eq!(take(&server, &json!({}))["contents"]["copied_files"], json!(0));
    assert_eq!(take(&server, &json!({"recheck": true}))["contents"]["copied_files"], json!(1));
    assert!(verify().status.success());

    // An upload that is damaged in the data folder is reported and left out, not copied.
    let rotten = server.add(&tone("rotten.wav", 5.0, 500));
    let sha = rotten["sha256"].as_str().unwrap();
    let folder = place.data().join("uploads").join(&sha[..2]);
    let file = std::fs::read_dir(folder)
        .unwrap()
        .map(|f| f.unwrap().path())
        .find(|p| p.to_str().unwrap().contains(sha));
    std::fs::write(file.unwrap(), b"rotten").unwrap();
    let five = take(&server, &json!({}));
    assert_eq!((&five["state"], &five["contents"]["lacking"]), (&json!("ready"), &json!(1)));
    assert!(!media(&rotten).exists());
    server.stop();
    let to = place.dir.path().join("restored");
    assert_eq!(restore(&place, &id(&five), &to)["lacking"], json!(1));
}

fn files_beneath(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files_beneath(&path, files) } else { files.push(path) }
    }
}

#[test]
fn every_damage_to_every_file_is_refused_by_its_name() {
    let place = Place::new();
    let server = place.server();
    server.add(&video("first.mp4", 6.4, 300));
    server.add(&tone("tone.wav", 4.0, 900));
    let view = take(&server, &json!({}));
    server.stop();
    let root = place.root();
    let mut files = Vec::new();
    files_beneath(&root, &mut files);
    files.retain(|path| path.file_name().unwrap() != "lock");
    let names: Vec<_> =
        files.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    for wanted in ["manifest.json", "store.db", "media.jsonl", "video-coarse.snapshot"] {
        assert!(names.iter().any(|name| name == wanted), "{wanted} is not among {names:?}");
    }
    let to = place.dir.path().join("restored");
    let attempt = || {
        let output = triptych(&[
            "snapshot",
            "restore",
            &id(&view),
            "--data",
            to.to_str().unwrap(),
            "--snapshot-root",
            root.to_str().unwrap(),
        ]);
        assert!(!to.exists(), "something was put in place");
        let left = std::fs::read_dir(place.dir.path()).unwrap().count();
        assert_eq!(left, 2, "half a library was left behind");
        output
    };
    for (path, name) in files.iter().zip(&names) {
        let good = std::fs::read(path).unwrap();
        let damages = (0..4).flat_map(|n| {
            let at = n * (good.len() - 1) / 3;
            let mut flipped = good.clone();
            flipped[at] ^= 1 << (n % 8);
            [Some(flipped), Some(good[..at].to_vec())]
        });
        let longer = [&good[..], b"x"].concat();
        for (n, damage) in damages.chain([None, Some(longer)]).enumerate() {
            match damage {
                Some(bytes) => std::fs::write(path, bytes).unwrap(),
                None => std::fs::remove_file(path).unwrap(),
            }
            let output = attempt();
            assert_eq!(error_code(&output), "snapshot_damaged", "{name}, damage {n}");
            let message = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(message.contains(name.as_str()), "{name}, damage {n}: {message}");
        }
        std::fs::write(path, &good).unwrap();
    }
    restore(&place, &id(&view), &to);
}
