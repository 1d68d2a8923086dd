//! Damaged uploads, vectors and rows.

use super::*;

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

/// A disk that is not mounted: missing uploads are counted before anybody requests them, and no longer once
/// they are back, whether the server starts without the disk or loses it while running.
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

/// Flipped bits in the database: the rest is served, the damage is counted, and a repair recomputes it from
/// the files.
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

/// An unreadable row affects no other row, and a check names it.
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
