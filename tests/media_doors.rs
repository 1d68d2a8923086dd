//! Uploads, folders, manifests, watches and buckets take the same files, whatever these are called.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::s3::{self, S3};
use common::{Options, Server, eventually, media, ok_json};
use serde_json::{Value, json};

const FILM: &[&str] = &["-f", "lavfi", "-i", "testsrc2=size=96x72:rate=10:duration=1.2"];
const LARGE: &[&str] = &["-f", "lavfi", "-i", "testsrc2=size=720x576:rate=25:duration=1.2"];
const SOUND: &[&str] = &["-f", "lavfi", "-i", "aevalsrc=0.4*sin(2*PI*440*t):s=48000:d=1.2"];
const VIDEO_48K: &[&str] = &["-c:v", "mpeg2video", "-c:a", "pcm_s16le", "-ac", "2"];

/// Extension, inputs, and codecs and muxer.
type Kind = (&'static str, &'static [&'static [&'static str]], &'static [&'static str]);

/// A file of every kind that the pinned ffmpeg writes and the server reads.
const KINDS: &[Kind] = &[
    ("mp4", &[FILM, SOUND], &["-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac"]),
    ("mov", &[FILM, SOUND], &["-c:v", "mpeg4", "-c:a", "pcm_s16le"]),
    ("m4v", &[FILM], &["-c:v", "mpeg4", "-f", "mp4"]),
    ("3gp", &[FILM], &["-c:v", "h263", "-s", "176x144"]),
    ("f4v", &[FILM, SOUND], &["-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac"]),
    ("mkv", &[FILM, SOUND], &["-c:v", "mpeg4", "-c:a", "flac"]),
    ("webm", &[FILM, SOUND], &["-c:v", "libvpx", "-deadline", "realtime", "-c:a", "libopus"]),
    ("avi", &[FILM, SOUND], &["-c:v", "mpeg4", "-c:a", "libmp3lame"]),
    ("flv", &[FILM, SOUND], &["-c:v", "flv", "-c:a", "libmp3lame", "-ar", "44100"]),
    ("wmv", &[FILM, SOUND], &["-c:v", "wmv2", "-c:a", "wmav2"]),
    ("mpg", &[LARGE, SOUND], &["-c:v", "mpeg1video", "-c:a", "mp2"]),
    ("vob", &[LARGE, SOUND], &["-c:v", "mpeg2video", "-c:a", "ac3"]),
    ("ts", &[LARGE, SOUND], &["-c:v", "mpeg2video", "-c:a", "mp2"]),
    (
        "m2ts",
        &[LARGE, SOUND],
        &["-c:v", "libx264", "-preset", "ultrafast", "-c:a", "ac3", "-mpegts_m2ts_mode", "1"],
    ),
    ("m2t", &[LARGE, SOUND], &["-c:v", "mpeg2video", "-c:a", "mp2", "-f", "mpegts"]),
    ("ogv", &[FILM, SOUND], &["-c:v", "libtheora", "-c:a", "libvorbis"]),
    ("mxf", &[LARGE, SOUND], VIDEO_48K),
    ("gxf", &[LARGE, SOUND], &["-c:v", "mpeg2video", "-c:a", "pcm_s16le", "-ac", "1"]),
    ("dv", &[LARGE, SOUND], &["-target", "pal-dv"]),
    ("rm", &[FILM, SOUND], &["-s", "96x80", "-c:v", "rv10", "-c:a", "ac3"]),
    ("ivf", &[FILM], &["-c:v", "libvpx", "-deadline", "realtime"]),
    ("y4m", &[FILM], &["-pix_fmt", "yuv420p", "-strict", "-1"]),
    ("h264", &[FILM], &["-c:v", "libx264", "-preset", "ultrafast"]),
    ("hevc", &[FILM], &["-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none"]),
    ("obu", &[FILM], &["-c:v", "libsvtav1", "-preset", "12"]),
    ("m1v", &[LARGE], &["-c:v", "mpeg1video"]),
    ("m2v", &[LARGE], &["-c:v", "mpeg2video"]),
    ("apng", &[FILM], &[]),
    ("gif", &[FILM], &[]),
    ("mjpeg", &[FILM], &["-c:v", "mjpeg", "-pix_fmt", "yuvj420p"]),
    ("wav", &[SOUND], &[]),
    ("w64", &[SOUND], &[]),
    ("rf64", &[SOUND], &["-f", "wav", "-rf64", "always"]),
    ("mp3", &[SOUND], &["-c:a", "libmp3lame", "-id3v2_version", "0"]),
    ("mp2", &[SOUND], &["-c:a", "mp2"]),
    ("flac", &[SOUND], &[]),
    ("oga", &[SOUND], &["-c:a", "libvorbis"]),
    ("opus", &[SOUND], &["-c:a", "libopus"]),
    ("m4a", &[SOUND], &["-c:a", "aac"]),
    ("aac", &[SOUND], &["-c:a", "aac", "-f", "adts"]),
    ("aiff", &[SOUND], &[]),
    ("wma", &[SOUND], &["-c:a", "wmav2", "-f", "asf"]),
    ("caf", &[SOUND], &["-c:a", "pcm_s16le"]),
    ("au", &[SOUND], &[]),
    ("amr", &[SOUND], &["-c:a", "libopencore_amrnb", "-ar", "8000", "-ac", "1"]),
    ("ac3", &[SOUND], &["-c:a", "ac3"]),
    ("eac3", &[SOUND], &["-c:a", "eac3"]),
    ("dts", &[SOUND], &["-c:a", "dca", "-strict", "-2"]),
    ("wv", &[SOUND], &["-c:a", "wavpack"]),
    ("tta", &[SOUND], &["-c:a", "tta"]),
    ("voc", &[SOUND], &["-c:a", "pcm_u8"]),
    ("mka", &[SOUND], &["-c:a", "flac"]),
    ("jpg", &[FILM], &["-frames:v", "1", "-update", "1"]),
    ("png", &[FILM], &["-frames:v", "1", "-update", "1"]),
    ("webp", &[FILM], &["-frames:v", "1", "-c:v", "libwebp"]),
    ("bmp", &[FILM], &["-frames:v", "1", "-update", "1"]),
    ("avif", &[FILM], &["-frames:v", "1", "-c:v", "libaom-av1", "-cpu-used", "8", "-still-picture", "1"]),
];

fn made(extension: &str, inputs: &[&[&str]], codecs: &[&str]) -> PathBuf {
    let args = [inputs.concat(), codecs.to_vec()].concat();
    media(&format!("door.{extension}"), &args)
}

/// State by extension of what a job made of files called `<extension>-file<end>`.
fn outcomes(server: &Server, job: &Value, end: &str) -> BTreeMap<String, String> {
    let job = server.finished_job(job["id"].as_str().unwrap());
    let items = server.get_json(&format!("/v1/jobs/{}/items?limit=1000", job["id"].as_str().unwrap()));
    let of = |item: &Value| {
        let name =
            Path::new(item["path"].as_str().unwrap()).file_name().unwrap().to_str().unwrap().to_owned();
        let extension = name.strip_suffix(end).and_then(|name| name.strip_suffix("-file")).unwrap_or(&name);
        let code = item["error"]["code"].as_str().unwrap_or("");
        (extension.to_owned(), format!("{} {code}", item["state"].as_str().unwrap()))
    };
    items["data"].as_array().unwrap().iter().map(of).collect()
}

#[test]
fn every_door_takes_the_same_files_whatever_they_are_called() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let (named, nameless, watched) = (root.join("named"), root.join("nameless"), root.join("watched"));
    [&named, &nameless, &watched].into_iter().for_each(|folder| std::fs::create_dir(folder).unwrap());
    let s3 = S3::start();
    let mut lines = String::new();
    for (extension, inputs, codecs) in KINDS {
        let bytes = std::fs::read(made(extension, inputs, codecs)).unwrap();
        std::fs::write(named.join(format!("{extension}-file.{}", extension.to_uppercase())), &bytes).unwrap();
        for folder in [&nameless, &watched] {
            std::fs::write(folder.join(format!("{extension}-file")), &bytes).unwrap();
        }
        s3.put(&format!("films/{extension}-file"), bytes);
        lines += &format!("{}\n", json!({"path": nameless.join(format!("{extension}-file"))}));
    }
    let others: [(&str, &[u8]); 5] = [
        ("notes", b"The free notes"),
        ("page.html", b"<html></html>"),
        ("a.zip", b"PK\x03\x04\x14\0\0\0"),
        ("doc", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n\0"),
        ("app.ts", b"export const a = 1;\n"),
    ];
    for (name, bytes) in others {
        for folder in [&named, &nameless, &watched] {
            std::fs::write(folder.join(name), bytes).unwrap();
        }
        s3.put(&format!("films/{name}"), bytes.to_vec());
    }
    let manifest = root.join("all.jsonl");
    std::fs::write(&manifest, lines).unwrap();
    let options = Options::default()
        .root(&root)
        .args(&["--allow-bucket", "s3://films", "--s3-endpoint", &s3.endpoint()])
        .env("AWS_ACCESS_KEY_ID", s3::KEY_ID)
        .env("AWS_SECRET_ACCESS_KEY", s3::SECRET);
    let server = Server::start(options);
    let job = |body: Value| {
        let mut whole = json!({"type": "index"});
        whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        ok_json(server.post("/v1/jobs", &whole))
    };

    let mut uploaded = BTreeMap::new();
    for (extension, inputs, codecs) in KINDS {
        let bytes = std::fs::read(made(extension, inputs, codecs)).unwrap();
        let answer = server.upload_bytes("upload", bytes, "?wait=true");
        let taken = answer.status().is_success();
        assert!(taken, "{extension}: {}", answer.text().unwrap());
        uploaded.insert((*extension).to_owned(), "done ".to_owned());
    }
    let by_manifest = outcomes(&server, &job(json!({"manifest": manifest})), "");
    assert_eq!(by_manifest, uploaded);
    let mut wanted = uploaded;
    wanted.extend(others.map(|(name, _)| (name.to_owned(), "skipped not_media".to_owned())));
    let nameless = job(json!({"path": nameless}));
    assert_eq!(outcomes(&server, &nameless, ""), wanted);
    let by_name: BTreeMap<_, _> = outcomes(&server, &job(json!({"path": named})), "")
        .into_iter()
        .map(|(name, state)| {
            (name.split_once("-file.").map_or(name.clone(), |(kind, _)| kind.to_owned()), state)
        })
        .collect();
    assert_eq!(by_name, wanted);
    assert_eq!(outcomes(&server, &job(json!({"bucket": "s3://films"})), ""), wanted);
    let watch = ok_json(server.post("/v1/watches", &json!({"path": watched, "poll_secs": 1})));
    let made = eventually("the watch has made its job", || {
        let now = server.get_json(&format!("/v1/watches/{}", watch["id"].as_str().unwrap()));
        now["job_id"].as_str().map(|id| json!({"id": id}))
    });
    assert_eq!(outcomes(&server, &made, ""), wanted);
}

#[test]
fn a_folder_without_media_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap().join("papers");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("notes.txt"), "nothing to see").unwrap();
    let server = Server::start(Options::default().root(&root));
    let answer = ok_json(server.post("/v1/jobs", &json!({"type": "index", "path": root})));
    assert_eq!((&answer["state"], &answer["error"]["code"]), (&json!("failed"), &json!("no_media")));
    assert_eq!((&answer["items_total"], &answer["items_skipped"]), (&json!(1), &json!(1)));
    let items = server.items(answer["id"].as_str().unwrap());
    assert_eq!((&items[0]["state"], &items[0]["error"]["code"]), (&json!("skipped"), &json!("not_media")));
    server.stop();

    let data = dir.path().join("data");
    let bundle = common::manifest_dir().join("models/small-world");
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let output = common::run(&[
        "index",
        &text(&root),
        "--data",
        &text(&data),
        "--model",
        &text(&bundle),
        "--device",
        "cpu",
    ]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("error[no_media]") && said.contains("notes.txt [not_media]"), "{said}");
}
