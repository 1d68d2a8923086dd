//! Our own parts taken away, killed and damaged while the server runs.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use reqwest::blocking::multipart;
use serde_json::{Value, json};

use crate::common::{self, Options, Server, error_of, eventually, ok_json};

/// A native folder of its own, whose ffmpeg may be taken away.
struct Parts {
    folder: tempfile::TempDir,
}

impl Parts {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("ffmpeg")).unwrap();
        let own = common::native_dir().canonicalize().unwrap();
        std::os::unix::fs::symlink(own.join("onnxruntime"), folder.path().join("onnxruntime")).unwrap();
        std::os::unix::fs::symlink(own.join("ffmpeg/ffmpeg"), folder.path().join("ffmpeg/ffmpeg")).unwrap();
        Self { folder }
    }

    fn ffmpeg(&self) -> PathBuf {
        self.folder.path().join("ffmpeg/ffmpeg")
    }

    fn hidden(&self) -> PathBuf {
        self.folder.path().join("ffmpeg/elsewhere")
    }

    /// Puts something else where ffmpeg was.
    fn replace(&self, bytes: Option<(&[u8], u32)>) {
        if !self.hidden().exists() {
            std::fs::rename(self.ffmpeg(), self.hidden()).unwrap();
        }
        let _ = std::fs::remove_file(self.ffmpeg());
        if let Some((bytes, mode)) = bytes {
            std::fs::write(self.ffmpeg(), bytes).unwrap();
            std::fs::set_permissions(self.ffmpeg(), std::fs::Permissions::from_mode(mode)).unwrap();
        }
    }

    /// Puts a named pipe where ffmpeg was.
    fn replace_by_pipe(&self) {
        self.replace(None);
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR | rustix::fs::Mode::XUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, self.ffmpeg(), mode).unwrap();
    }

    fn put_back(&self) {
        let _ = std::fs::remove_file(self.ffmpeg());
        std::fs::rename(self.hidden(), self.ffmpeg()).unwrap();
    }

    fn options(&self) -> Options {
        Options::default().env("TRIPTYCH_NATIVE_DIR", self.folder.path().to_str().unwrap())
    }
}

/// Stands for a named pipe.
const PIPE: &[u8] = b"a named pipe";

fn ready(server: &Server, wanted: u16) {
    eventually("readiness changes", || (server.get("/readyz").status() == wanted).then_some(()));
}

fn state_of(server: &Server, id: &str) -> Value {
    server.get_json(&format!("/v1/assets/{id}"))["state"].clone()
}

fn search_by(server: &Server, file: &Path) -> reqwest::blocking::Response {
    let query = json!({"query": {"video": common::data_uri("video/mp4", file)}});
    server.post("/v1/search", &query)
}

/// Gone, not executable, of another machine, cut off, another program, a pipe: in each case the fault is ours, and passes.
#[test]
fn without_ffmpeg_files_wait_and_nothing_is_lost() {
    let parts = Parts::new();
    let data = tempfile::tempdir().unwrap();
    let options = || parts.options().data(data.path()).root(&common::manifest_dir().join("models"));
    let server = Server::start(options());
    let (first, second) = (common::video("part-a.mp4", 2.0, 300), common::video("part-b.mp4", 2.0, 500));
    let mut foreign = std::fs::read("/proc/self/exe").unwrap();
    foreign.truncate(1 << 16);
    let cut = foreign.clone();
    foreign[18] = 8;
    // Programs that are no ffmpeg: one ends well without a word, one complains.
    let others = ["/bin/true", "/bin/cat"].map(|program| std::fs::read(program).unwrap());
    for bytes in [
        None,
        Some((&cut[..], 0o755)),
        Some((&foreign[..], 0o755)),
        Some((&b"#!/bin/sh\nexit 0\n"[..], 0o755)),
        Some((&cut[..], 0o644)),
        Some((&others[0][..], 0o755)),
        Some((&others[1][..], 0o755)),
        Some((PIPE, 0)),
    ] {
        if bytes.is_some_and(|(bytes, _)| bytes == PIPE) {
            parts.replace_by_pipe();
        } else {
            parts.replace(bytes);
        }
        ready(&server, 503);
        for answer in [
            search_by(&server, &first),
            server.upload_bytes("w.mp4", std::fs::read(&first).unwrap(), "?wait=true"),
        ] {
            let text = answer.text().unwrap();
            assert!(
                text.contains("decode_worker_failed")
                    && !text.contains(parts.folder.path().to_str().unwrap()),
                "{text}"
            );
        }
        assert_eq!(
            server.search(&json!({"query": "red"})),
            Vec::<Value>::new(),
            "what needs no decoder goes on"
        );
        parts.put_back();
        ready(&server, 200);
    }
    assert_eq!(server.get_json("/v1/assets")["data"], json!([]), "who waited was told");

    parts.replace(None);
    ready(&server, 503);
    let asset = ok_json(server.upload_bytes("a.mp4", std::fs::read(&first).unwrap(), ""));
    let id = asset["id"].as_str().unwrap().to_owned();
    let job = server.post_json("/v1/jobs", &json!({"type": "index", "path": common::manifest_dir().join("models/small-world/samples/clips/clip-12.mp4")}));
    let job = job["id"].as_str().unwrap().to_owned();
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(state_of(&server, &id), "indexing");
    // Also over a restart.
    server.stop();
    parts.put_back();
    let server = Server::start(options());
    parts.replace(None);
    let other = ok_json(server.upload_bytes("b.mp4", std::fs::read(&second).unwrap(), ""));
    ready(&server, 503);
    parts.put_back();
    for id in [id.as_str(), other["id"].as_str().unwrap()] {
        eventually("the asset is searchable", || (state_of(&server, id) == "ready").then_some(()));
    }
    let job = server.finished_job(&job);
    assert_eq!((&job["items_done"], &job["state"]), (&json!(1), &json!("done")));
    server.stop();
}

/// Whoever kills ffmpeg from outside is not the file.
#[test]
fn a_decoder_that_is_killed_is_started_again() {
    // A film that takes a while to decode.
    let long = common::media(
        "long.mp4",
        &[
            "-f",
            "lavfi",
            "-i",
            "testsrc2=size=320x240:rate=25:duration=120",
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
            "-g",
            "250",
        ],
    );
    let server = Server::start(Options::default());
    for signal in ["-KILL", "-TERM"] {
        let asset = ok_json(server.upload_bytes("long.mp4", std::fs::read(&long).unwrap(), ""));
        let id = asset["id"].as_str().unwrap();
        // One that stays: it is also looked whether ffmpeg starts at all.
        eventually("a decoder is killed", || {
            let before = decoders(server.pid());
            std::thread::sleep(Duration::from_millis(100));
            let child = decoders(server.pid()).into_iter().find(|pid| before.contains(pid))?;
            Command::new("kill").args([signal, &child]).status().unwrap().success().then_some(())
        });
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(state_of(&server, id), "indexing", "{signal}");
        eventually("it is indexed all the same", || (state_of(&server, id) == "ready").then_some(()));
        assert_eq!(server.delete(&format!("/v1/assets/{id}")).status(), 204);
    }
    server.stop();
}

/// The server's children that have become ffmpeg.
fn decoders(pid: u32) -> Vec<String> {
    let of = |pid: &String| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    super::children(pid).into_iter().filter(|pid| of(pid).trim() == "ffmpeg").collect()
}

/// The server's program may be replaced on disk, as an upgrade does.
#[test]
fn another_program_in_the_servers_place_changes_nothing_for_the_one_that_runs() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("triptych");
    std::fs::copy(common::binary(), &program).unwrap();
    let server = Server::start_program(&program, Options::default());
    std::fs::remove_file(&program).unwrap();
    std::fs::write(&program, "#!/bin/sh\nexit 1\n").unwrap();
    let asset = server.add(&common::video("part-a.mp4", 2.0, 300));
    assert_eq!((&asset["state"], server.get("/readyz").status().as_u16()), (&json!("ready"), 200));
    server.stop();
}

/// If ONNX Runtime is truncated anywhere, the command names the file and the remedy, and does not die of
/// SIGBUS.
#[test]
fn a_damaged_onnx_runtime_is_named() {
    let own = common::native_dir().join("onnxruntime");
    let folder = tempfile::tempdir().unwrap();
    let name =
        std::fs::read_dir(&own).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let name = name.filter(|name| name.starts_with("libonnxruntime.so")).max().unwrap();
    let library = folder.path().join(&name);
    let whole = std::fs::read(own.join(&name)).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    let serve = |code: &str| {
        let began = Instant::now();
        let output = Command::new(common::binary())
            .args(["serve", "--listen", "127.0.0.1:0", "--device", "cpu", "--data"])
            .arg(folder.path().join("data"))
            .arg("--model")
            .arg(common::manifest_dir().join("models/small-world"))
            .env("TRIPTYCH_NATIVE_DIR", common::native_dir())
            .env("ORT_DYLIB_PATH", &library)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(
            said.contains(code) && said.contains(library.to_str().unwrap()) && said.contains("make native"),
            "{said}"
        );
        assert!(began.elapsed() < Duration::from_secs(30));
    };
    for bytes in [&whole[..whole.len() - 1], &whole[..whole.len() / 2], &whole[..100], b""] {
        std::fs::write(&library, bytes).unwrap();
        serve("native_part_damaged");
    }
    // What was unpacked here is known byte for byte.
    std::fs::copy(own.join("VERSION"), folder.path().join("VERSION")).unwrap();
    std::fs::write(&library, &flipped).unwrap();
    serve("native_part_damaged");
}

/// With too low a limit on its address space, the server reports the required size, at whatever point it
/// fails.
#[test]
fn an_address_space_that_is_too_small_is_told() {
    let data = tempfile::tempdir().unwrap();
    let bundle = common::manifest_dir().join("models/small-world");
    for kib in [100_000, 300_000, 500_000, 700_000, 900_000] {
        let script = format!(
            "ulimit -v {kib}; exec '{}' serve --device cpu --listen 127.0.0.1:0 --data '{}' --model '{}'",
            common::binary().display(),
            data.path().join(kib.to_string()).display(),
            bundle.display()
        );
        let mut shell = Command::new("sh");
        let done =
            shell.args(["-c", &script]).env("TRIPTYCH_NATIVE_DIR", common::native_dir()).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(3), "{kib}: {said}");
        assert!(said.contains("error[address_space_limit]: expected"), "{kib}: {said}");
        assert!(said.contains(&format!("allows {} MiB", kib >> 10)), "{kib}: {said}");
    }
}

/// Where the server runs under a lower cap than decoders get, that cap holds for them too.
#[test]
fn decoders_take_what_a_lower_cap_leaves() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("capped");
    let script = format!("#!/bin/sh\nulimit -v 3000000\nexec '{}' \"$@\"\n", common::binary().display());
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let server = Server::start_program(&program, Options::default());
    let asset = server.add(&common::video("part-a.mp4", 2.0, 300));
    assert_eq!(asset["state"], "ready");
    server.stop();
}

#[test]
fn sockets_and_pipes_under_an_allowed_root_are_refused_at_every_door() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let _socket = UnixListener::bind(root.join("socket.mp4")).unwrap();
    assert!(Command::new("mkfifo").arg(root.join("pipe.mp4")).status().unwrap().success());
    std::fs::create_dir(root.join("folder.mp4")).unwrap();
    let film = root.join("film.mp4");
    std::fs::copy(common::video("part-a.mp4", 2.0, 300), &film).unwrap();
    let server = Server::start(Options::default().root(&root));
    for name in ["socket.mp4", "pipe.mp4", "folder.mp4"] {
        let path = root.join(name);
        for wait in ["", "?wait=true"] {
            let answer = server.post(&format!("/v1/assets{wait}"), &json!({"path": path}));
            assert_eq!(error_of(answer), (400, "path_kind".to_owned()), "{name}");
        }
        let answer = server.post("/v1/jobs", &json!({"type": "index", "manifest": path}));
        assert_eq!(error_of(answer), (400, "path_kind".to_owned()), "{name}");
        let answer = server.post("/v1/embeddings", &json!({"modality": "video", "input": path}));
        assert_eq!(error_of(answer).0, 422, "{name}");
        let job = server.post_json("/v1/jobs", &json!({"type": "index", "files": [{"path": path}]}));
        let job = server.finished_job(job["id"].as_str().unwrap());
        let items = server.items(job["id"].as_str().unwrap());
        assert_eq!(items[0]["error"]["code"], "path_kind", "{name}");
        if name != "folder.mp4" {
            let answer = server.post("/v1/jobs", &json!({"type": "index", "path": path}));
            assert_eq!(error_of(answer), (400, "path_kind".to_owned()), "{name}");
            let answer = server.post("/v1/watches", &json!({"path": path}));
            assert_eq!(error_of(answer), (400, "path_kind".to_owned()), "{name}");
        }
    }
    // A file that has become a socket since it was indexed.
    let asset = ok_json(server.post("/v1/assets?wait=true", &json!({"path": film})));
    std::fs::remove_file(&film).unwrap();
    let _film = UnixListener::bind(&film).unwrap();
    for path in ["content", "thumbnail?at=1"] {
        let answer = server.get(&format!("/v1/assets/{}/{path}", asset["id"].as_str().unwrap()));
        assert!(answer.status().is_client_error(), "{path}: {}", answer.status());
    }
    // Beside them a folder is indexed.
    std::fs::copy(common::video("part-a.mp4", 2.0, 300), root.join("beside.mp4")).unwrap();
    let job = server.post_json("/v1/jobs", &json!({"type": "index", "path": root}));
    assert_eq!(server.finished_job(job["id"].as_str().unwrap())["state"], "done");
    server.stop();
}

/// Samples beyond any sound are refused in every container that holds floats, and no sound is refused that is only
/// loud or next to silent.
#[test]
fn samples_that_no_sound_has_are_refused_in_every_container() {
    let server = Server::start(Options::default());
    let sound = |value: &str, name: &str, encoder: &str| {
        let source = format!("aevalsrc=if(eq(n\\,9000)\\,{value}\\,0.2*sin(2*PI*440*t)):s=16000:d=2");
        let args: Vec<&str> = ["-f", "lavfi", "-i", &source].into_iter().chain(encoder.split(' ')).collect();
        let name = format!("{}-{name}", value.replace(['/', '*', '-'], "m"));
        std::fs::read(common::media(&name, &args)).unwrap()
    };
    let ask = |bytes: &[u8]| {
        let part = multipart::Part::bytes(bytes.to_vec()).file_name("a");
        server.post_form("/v1/search", multipart::Form::new().text("modality", "audio").part("file", part))
    };
    let containers = [
        ("f32.wav", "-c:a pcm_f32le"),
        ("f64.wav", "-c:a pcm_f64le"),
        ("f32.aiff", "-c:a pcm_f32be"),
        ("f32.caf", "-c:a pcm_f32le"),
        ("f32.w64", "-c:a pcm_f32le"),
        ("f32.au", "-c:a pcm_f32be"),
        ("f64.mkv", "-c:a pcm_f64le"),
        ("stereo.wav", "-c:a pcm_f32le -ac 2"),
    ];
    for (name, encoder) in containers {
        for value in ["1e20", "-3e38", "1e300", "0/0"] {
            let bytes = sound(value, name, encoder);
            let (status, code) = error_of(ask(&bytes));
            assert_eq!((status, code.as_str()), (422, "bad_samples"), "{value} in {name}");
            let (status, code) = error_of(server.upload_bytes(name, bytes, "?wait=true"));
            assert_eq!((status, code.as_str()), (422, "bad_samples"), "{value} in {name}");
        }
        for value in ["32768", "-65000", "1e-40", "1e-20"] {
            assert_eq!(ask(&sound(value, name, encoder)).status(), 200, "{value} in {name}");
        }
    }
    // Channels that cancel each other in the mix.
    for (others, layout) in [("", "stereo"), ("|0|0|0|0", "5.1")] {
        for (value, right) in [("1e38", 422), ("200000", 422), ("65000", 200)] {
            let spike = |sign: &str| format!("if(eq(n\\,9000)\\,{sign}{value}\\,0.2*sin(2*PI*440*t))");
            let source = format!("aevalsrc={}|{}{others}:c={layout}:s=16000:d=2", spike(""), spike("-"));
            let name = format!("opposite-{value}-{layout}.wav");
            let made = common::media(&name, &["-f", "lavfi", "-i", &source, "-c:a", "pcm_f32le"]);
            let answer = ask(&std::fs::read(made).unwrap());
            assert_eq!(answer.status(), right, "{value} in {layout}");
        }
    }
    server.stop();
}
