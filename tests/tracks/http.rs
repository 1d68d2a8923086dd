//! The same through the doors of a server, and on the command line.

use std::path::Path;

use reqwest::blocking::multipart;
use serde_json::{Value, json};

use super::common::{self, Options, Server, error_of, eventually, ok_json, run};
use super::{A, B, BLUE, MPEG4, RED, file};

fn film() -> std::path::PathBuf {
    file("http.mkv", &[RED, BLUE, A, B], &format!("{MPEG4} -c:a flac -disposition 0"))
}

fn used(asset: &Value) -> Vec<u64> {
    let tracks = asset["tracks"].as_array().unwrap();
    tracks.iter().filter(|track| track["used"] == json!(true)).map(|t| t["index"].as_u64().unwrap()).collect()
}

fn form(path: &Path, fields: &[(&str, &str)]) -> multipart::Form {
    let part = multipart::Part::bytes(std::fs::read(path).unwrap()).file_name("film.mkv");
    let form = multipart::Form::new().part("file", part);
    fields.iter().fold(form, |form, (name, value)| form.text((*name).to_owned(), (*value).to_owned()))
}

fn red_at(server: &Server, asset: &Value) -> bool {
    let url = format!("{}?at=1", asset["thumbnail_url"].as_str().unwrap());
    let jpeg = server.get(&url).bytes().unwrap();
    let picture = image::load_from_memory(&jpeg).unwrap().to_rgb8();
    picture.get_pixel(20, 20)[0] > 200
}

#[test]
fn tracks_are_listed_and_chosen_at_every_door() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let path = root.join("film.mkv");
    std::fs::copy(film(), &path).unwrap();
    let data = tempfile::tempdir().unwrap();
    let options = || Options::default().root(&root).data(data.path());
    let server = Server::start(options());

    let plain = server.add(&path);
    assert_eq!(used(&plain), [1, 2], "{plain}");
    assert_eq!((&plain["audio_track"], &plain["video_track"]), (&Value::Null, &Value::Null));
    let listed = server.get_json(&format!("/v1/assets/{}", plain["id"].as_str().unwrap()));
    assert_eq!(listed["tracks"], plain["tracks"]);
    assert_eq!(listed["tracks"][3]["codec"], json!("flac"));
    assert!(!red_at(&server, &plain));

    // Other tracks of the same bytes are another asset; the same ones are the same.
    let send = |fields: &[(&str, &str)]| server.post_form("/v1/assets?wait=true", form(&path, fields));
    let other = ok_json(send(&[("audio_track", "3"), ("video_track", "0")]));
    assert_ne!(other["id"], plain["id"]);
    assert_eq!((used(&other), &other["audio_track"]), (vec![0, 3], &json!(3)));
    assert!(red_at(&server, &other));
    let again = ok_json(send(&[("video_track", "0"), ("audio_track", "3")]));
    assert_eq!(again["id"], other["id"]);
    assert_eq!(ok_json(send(&[]))["id"], plain["id"]);

    // By its path: in JSON, and in a job.
    let by_path = json!({"path": path, "audio_track": 3});
    let third = server.post_json("/v1/assets?wait=true", &by_path);
    assert_eq!(used(&third), [1, 3]);
    let files = json!([{"path": path, "video_track": 0}, {"path": path, "audio_track": 7}]);
    let job = server.post_json("/v1/jobs", &json!({"type": "index", "files": files}));
    server.finished_job(job["id"].as_str().unwrap());
    let items = server.items(job["id"].as_str().unwrap());
    let fourth = server.get_json(&format!("/v1/assets/{}", items[0]["asset_id"].as_str().unwrap()));
    assert_eq!(used(&fourth), [0, 2]);
    assert_eq!(items[1]["error"]["code"], json!("unknown_track"), "{items:?}");

    // For all files of a job, whatever names them; what an item chooses goes before that.
    let list = root.join("list.jsonl");
    let line = |more: &str| format!("{{\"path\": \"film.mkv\"{more}}}\n");
    std::fs::write(&list, line("") + &line(", \"audio_track\": 2")).unwrap();
    let films = root.join("films");
    std::fs::create_dir(&films).unwrap();
    std::fs::copy(film(), films.join("film.mkv")).unwrap();
    for (source, wanted) in [
        (json!({"path": films}), vec![vec![0, 3]]),
        (json!({"manifest": list}), vec![vec![0, 3], vec![0, 2]]),
        (json!({"files": [{"path": path}, {"path": path, "video_track": 1}]}), vec![vec![0, 3], vec![1, 3]]),
    ] {
        let mut body = json!({"type": "index", "video_track": 0, "audio_track": 3});
        body.as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
        let job = server.post_json("/v1/jobs", &body);
        assert_eq!(server.finished_job(job["id"].as_str().unwrap())["state"], "done", "{body}");
        let items = server.items(job["id"].as_str().unwrap());
        let of =
            |item: &Value| server.get_json(&format!("/v1/assets/{}", item["asset_id"].as_str().unwrap()));
        assert_eq!(items.iter().map(|item| used(&of(item))).collect::<Vec<_>>(), wanted, "{body}");
    }
    let body = json!({"path": films, "poll_secs": 1, "audio_track": 3});
    let watch = ok_json(server.post("/v1/watches", &body));
    assert_eq!((&watch["audio_track"], &watch["video_track"]), (&json!(3), &Value::Null));
    let url = format!("/v1/watches/{}", watch["id"].as_str().unwrap());
    let job =
        eventually("the watch starts a job", || server.get_json(&url)["job_id"].as_str().map(str::to_owned));
    assert_eq!(server.finished_job(&job)["state"], "done");
    assert_eq!(server.items(&job)[0]["asset_id"], third["id"], "the same bytes and the same track");
    assert!(server.delete(&url).status().is_success());

    // A query may be of other tracks too.
    let query = |fields: &[(&str, &str)]| {
        let form = form(&path, fields).text("modality", "audio").text("request", r#"{"targets":["audio"]}"#);
        server.post_form("/v1/search", form)
    };
    let nearest = |fields| {
        let found = ok_json(query(fields));
        used(&server.get_json(&format!("/v1/assets/{}", found["data"][0]["asset_id"].as_str().unwrap())))[1]
    };
    assert_eq!((nearest(&[]), nearest(&[("audio_track", "3")])), (2, 3));
    assert_eq!(error_of(query(&[("audio_track", "9")])).1, "unknown_track");

    // An index without a track is refused, with the list of tracks.
    for (fields, code) in [
        (&[("audio_track", "1")][..], "unknown_track"),
        (&[("video_track", "4")], "unknown_track"),
        (&[("audio_track", "first")], "invalid_value"),
        (&[("audio_track", "-1")], "invalid_value"),
    ] {
        let response = send(fields);
        assert_eq!(error_of(response).1, code, "{fields:?}");
    }
    let refused = send(&[("audio_track", "9")]);
    assert_eq!(refused.status().as_u16(), 422);
    let said = refused.json::<Value>().unwrap()["error"]["message"].as_str().unwrap().to_owned();
    assert_eq!(said, "the file has no audio track 9: it has 2, 3");

    // What was chosen outlives a restart, and a file that is gone does not change which asset is which.
    let four = [&plain, &other, &third, &fourth];
    server.stop();
    let server = Server::start(options());
    for asset in four {
        let now = server.get_json(&format!("/v1/assets/{}", asset["id"].as_str().unwrap()));
        assert_eq!((&now["tracks"], &now["audio_track"]), (&asset["tracks"], &asset["audio_track"]));
    }
    // Deleted, it leaves the others their bytes.
    assert!(server.delete(&format!("/v1/assets/{}", other["id"].as_str().unwrap())).status().is_success());
    let content = server.get(plain["content_url"].as_str().unwrap());
    assert_eq!(content.bytes().unwrap(), std::fs::read(&path).unwrap());
}

/// A library that is rebuilt from its uploads and its ledger keeps what was chosen.
#[test]
fn a_library_that_is_rebuilt_keeps_what_was_chosen() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(Options::default().data(data.path()));
    let asset = ok_json(server.post_form("/v1/assets?wait=true", form(&film(), &[("audio_track", "3")])));
    assert_eq!(used(&asset), [1, 3]);
    server.stop();
    let mut lost = 0;
    for folder in [data.path().to_owned()].into_iter().chain(
        std::fs::read_dir(data.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_dir()),
    ) {
        for name in ["triptych.db", "triptych.db-wal", "triptych.db-shm"] {
            lost += usize::from(std::fs::remove_file(folder.join(name)).is_ok());
        }
    }
    assert!(lost > 0, "the database was found");
    let server = Server::start(Options::default().data(data.path()).args(&["--rebuild-from-uploads"]));
    let id = asset["id"].as_str().unwrap();
    let now = eventually("it is indexed again", || {
        let now: Value = server.get(&format!("/v1/assets/{id}")).json().ok()?;
        (now["state"] == json!("ready")).then_some(now)
    });
    assert_eq!((used(&now), &now["audio_track"]), (vec![1, 3], &json!(3)));
}

#[test]
fn the_command_line_chooses_tracks() {
    let data = tempfile::tempdir().unwrap();
    let bundle = common::manifest_dir().join("models/small-world");
    let path = film();
    let index = |more: &[&str]| {
        let mut args = vec!["index", path.to_str().unwrap(), "--json"];
        let data = data.path().to_str().unwrap();
        args.extend(["--model", bundle.to_str().unwrap(), "--data", data]);
        args.extend(more);
        let done = run(&args);
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        let json: Value = serde_json::from_str(&text)
            .unwrap_or_else(|e| panic!("{e}: {text} {}", String::from_utf8_lossy(&done.stderr)));
        (done.status.code(), json["items"][0].clone())
    };
    let (code, item) = index(&["--audio-track", "3"]);
    assert_eq!((code, &item["state"]), (Some(0), &json!("done")), "{item}");
    let list = data.path().join("list.jsonl");
    std::fs::write(&list, json!({"path": path}).to_string()).unwrap();
    let mut args = vec!["index", "--manifest", list.to_str().unwrap(), "--video-track", "9", "--json"];
    args.extend(["--model", bundle.to_str().unwrap(), "--data", data.path().to_str().unwrap()]);
    let done = run(&args);
    assert!(String::from_utf8_lossy(&done.stdout).contains("unknown_track"), "{done:?}");
    let (code, item) = index(&["--video-track", "9"]);
    assert_eq!((code, &item["error"]["code"]), (Some(2), &json!("unknown_track")), "{item}");
}
