//! Starts the real binary on a free port with a data folder of its own, and makes media to feed it.
#![allow(dead_code, unreachable_pub, missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod media;
pub mod s3;
pub mod web;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::blocking::{Client, RequestBuilder, Response, multipart};
use serde_json::{Value, json};
use tempfile::TempDir;

#[allow(unused_imports)]
pub use media::*;

/// Ends the server also where the test process is killed: its end of the pipe closes then.
const KEEPER: &str = r#"
exec 3<&0
"$@" &
pid=$!
echo "pid $pid"
(read -r _ <&3; kill -9 $pid 2>/dev/null) >/dev/null 2>&1 &
wait $pid
"#;

/// How to start a server.
#[derive(Default)]
pub struct Options {
    /// Data folder; default: a new one that goes with the server.
    pub data: Option<PathBuf>,
    /// Further arguments of `serve`.
    pub args: Vec<String>,
    /// Folders whose files may be indexed by path.
    pub roots: Vec<PathBuf>,
    /// Environment variables.
    pub envs: Vec<(String, String)>,
    /// What the server is started by, as `nsenter` with its arguments.
    pub prefix: Vec<String>,
    /// Where its log goes; default: the test's own standard error.
    pub log: Option<PathBuf>,
}

impl Options {
    pub fn root(mut self, root: &Path) -> Self {
        self.roots.push(root.to_owned());
        self
    }
    pub fn data(mut self, data: &Path) -> Self {
        self.data = Some(data.to_owned());
        self
    }
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.envs.push((name.to_owned(), value.to_owned()));
        self
    }
    pub fn prefix(mut self, prefix: &[String]) -> Self {
        self.prefix = prefix.to_vec();
        self
    }
    pub fn log(mut self, log: &Path) -> Self {
        self.log = Some(log.to_owned());
        self
    }
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }
}

/// A running server.
pub struct Server {
    keeper: Child,
    stdin: Option<ChildStdin>,
    pid: String,
    url: String,
    pub client: Client,
    pub key: Option<String>,
    _data: Option<TempDir>,
}

impl Server {
    /// Starts a server and waits until it is ready.
    pub fn start(options: Options) -> Self {
        Self::try_start(options).expect("the server ended before it was ready")
    }

    /// The same with another program.
    pub fn start_program(program: &Path, options: Options) -> Self {
        Self::spawn(program, options, Stdio::inherit()).expect("the server ended before it was ready")
    }

    /// Starts a server and waits until it is ready; `None` if it ends before that.
    pub fn try_start(options: Options) -> Option<Self> {
        Self::spawn(&binary(), options, Stdio::inherit())
    }

    /// Starts a server and waits until it is ready; if it ends before that, returns its output.
    pub fn start_or_said(options: Options) -> Result<Self, String> {
        let said = tempfile::NamedTempFile::new().unwrap();
        let started = Self::spawn(&binary(), options, said.reopen().unwrap().into());
        started.ok_or_else(|| String::from_utf8_lossy(&std::fs::read(said.path()).unwrap()).into_owned())
    }

    fn spawn(program: &Path, options: Options, stderr: Stdio) -> Option<Self> {
        let kept = options.data.is_none().then(|| tempfile::tempdir().unwrap());
        let data = options.data.unwrap_or_else(|| kept.as_ref().unwrap().path().join("data"));
        let stderr = options.log.map_or(stderr, |log| std::fs::File::create(log).unwrap().into());
        let mut command = Command::new("sh");
        command.args(["-c", KEEPER, "keeper"]).args(options.prefix).arg(program);
        serve_arguments(&mut command, &data, options.roots, options.args, options.envs);
        let mut keeper = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        let stdin = keeper.stdin.take();
        let mut lines = BufReader::new(keeper.stdout.take().unwrap()).lines();
        let mut wanted = |prefix: &str| {
            lines.by_ref().find_map(|line| line.unwrap().strip_prefix(prefix).map(str::to_owned))
        };
        let (pid, url) = (wanted("pid ").unwrap(), wanted("listening on "));
        let Some(url) = url else {
            drop(stdin);
            keeper.wait().unwrap();
            return None;
        };
        std::thread::spawn(move || lines.for_each(drop));
        let client = Client::builder().timeout(Duration::from_secs(120)).build().unwrap();
        let server = Self { keeper, stdin, pid, url, client, key: None, _data: kept };
        server.wait_ready().then_some(server)
    }

    /// Starts a server that must end by itself before it listens; returns its exit status and output.
    pub fn start_refused(options: Options) -> (i32, String) {
        let data = options.data.unwrap();
        let mut command = Command::new(binary());
        serve_arguments(&mut command, &data, options.roots, options.args, options.envs);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let listens = BufReader::new(child.stdout.take().unwrap()).lines().any(|line| {
            let listens = line.unwrap().starts_with("listening on ");
            if listens {
                child.kill().unwrap();
            }
            listens
        });
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!listens, "the server was to refuse to start: {said}");
        (output.status.code().unwrap_or(-1), said)
    }

    /// Whether it became ready; false if it ended first.
    fn wait_ready(&self) -> bool {
        eventually("the server is ready", || {
            let answer = self.client.get(format!("{}/readyz", self.url)).send();
            match answer {
                Ok(answer) => (answer.status() == 200).then_some(true),
                Err(_) => (!self.is_up()).then_some(false),
            }
        })
    }

    /// Whether the process is there.
    pub fn is_up(&self) -> bool {
        std::fs::read_to_string(format!("/proc/{}/stat", self.pid))
            .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'))
    }

    /// Kills the server without a warning, even while requests are running.
    pub fn kill_now(&self) {
        let _ = Command::new("kill").args(["-9", &self.pid]).stderr(Stdio::null()).status();
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.pid.trim().parse().unwrap()
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.pid]).status().unwrap().success());
    }

    /// Kills the server without a warning.
    pub fn kill9(mut self) {
        self.signal("-9");
        self.keeper.wait().unwrap();
    }

    /// Asks the server to stop and waits until it has; its exit must be clean.
    pub fn stop(mut self) {
        self.signal("-TERM");
        let status = self.keeper.wait().unwrap();
        assert!(status.success(), "exit after SIGTERM: {status}");
    }

    pub fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let request = self.client.request(method.parse().unwrap(), format!("{}{path}", self.url));
        self.key.iter().fold(request, |request, key| request.bearer_auth(key))
    }

    pub fn get(&self, path: &str) -> Response {
        self.request("GET", path).send().unwrap()
    }

    pub fn get_json(&self, path: &str) -> Value {
        ok_json(self.get(path))
    }

    pub fn delete(&self, path: &str) -> Response {
        self.request("DELETE", path).send().unwrap()
    }

    pub fn post(&self, path: &str, body: &Value) -> Response {
        self.request("POST", path).json(body).send().unwrap()
    }

    pub fn post_json(&self, path: &str, body: &Value) -> Value {
        ok_json(self.post(path, body))
    }

    pub fn post_form(&self, path: &str, form: multipart::Form) -> Response {
        self.request("POST", path).multipart(form).send().unwrap()
    }

    /// Uploads bytes under a name.
    pub fn upload_bytes(&self, name: &str, bytes: Vec<u8>, query: &str) -> Response {
        let part = multipart::Part::bytes(bytes).file_name(name.to_owned());
        self.post_form(&format!("/v1/assets{query}"), multipart::Form::new().part("file", part))
    }

    /// Uploads a file and waits until it is searchable; the asset.
    pub fn add(&self, file: &Path) -> Value {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        ok_json(self.upload_bytes(&name, std::fs::read(file).unwrap(), "?wait=true"))
    }

    pub fn search(&self, body: &Value) -> Vec<Value> {
        self.post_json("/v1/search", body)["data"].as_array().unwrap().clone()
    }

    /// Waits until a job has ended; the job.
    pub fn finished_job(&self, id: &str) -> Value {
        eventually("the job ends", || {
            let job = self.get_json(&format!("/v1/jobs/{id}"));
            (!["queued", "running"].contains(&job["state"].as_str().unwrap())).then_some(job)
        })
    }

    pub fn items(&self, id: &str) -> Vec<Value> {
        self.get_json(&format!("/v1/jobs/{id}/items?limit=1000"))["data"].as_array().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// The program under test: `TRIPTYCH_BIN`, or the one that was built with the test.
pub fn binary() -> PathBuf {
    std::env::var_os("TRIPTYCH_BIN").map_or_else(|| env!("CARGO_BIN_EXE_triptych").into(), PathBuf::from)
}

fn serve_arguments(
    command: &mut Command,
    data: &Path,
    roots: Vec<PathBuf>,
    args: Vec<String>,
    envs: Vec<(String, String)>,
) {
    command.args(["serve", "--listen", "127.0.0.1:0", "--device", "cpu"]).arg("--data").arg(data);
    if !args.iter().any(|arg| arg == "--model") {
        command.arg("--model").arg(manifest_dir().join("models/small-world"));
    }
    for root in roots {
        command.arg("--allow-root").arg(root);
    }
    command.args(args).env("TRIPTYCH_NATIVE_DIR", native_dir()).envs(envs);
}

/// Runs the program with these arguments to its end.
pub fn run(args: &[&str]) -> std::process::Output {
    Command::new(binary()).args(args).env("TRIPTYCH_NATIVE_DIR", native_dir()).output().unwrap()
}

/// The body of an answer that must be a success.
pub fn ok_json(response: Response) -> Value {
    let status = response.status();
    let text = response.text().unwrap();
    assert!(status.is_success(), "{status}: {text}");
    serde_json::from_str(&text).unwrap()
}

/// Status and code of an answer that must be an error of the one shape.
pub fn error_of(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let text = response.text().unwrap();
    let body: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status}: not JSON: {text}"));
    let error = &body["error"];
    assert_eq!(error["request_id"], json!(id), "{body}");
    assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()), "{body}");
    assert!(error["type"].is_string() && error.get("param").is_some(), "{body}");
    (status, error["code"].as_str().unwrap().to_owned())
}

/// Tries until it works, for up to a minute.
pub fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{what}: not within a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn manifest_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The native parts: `TRIPTYCH_NATIVE_DIR`, or where `make native` puts them.
pub fn native_dir() -> PathBuf {
    let given = std::env::var_os("TRIPTYCH_NATIVE_DIR").map(PathBuf::from);
    given.unwrap_or_else(|| manifest_dir().join(".triptych/native"))
}

/// The shipped bundle under another name, which makes it another model.
pub fn other_bundle(dir: &Path) -> PathBuf {
    let (from, to) = (manifest_dir().join("models/small-world"), dir.canonicalize().unwrap().join("other"));
    std::fs::create_dir_all(&to).unwrap();
    for file in std::fs::read_dir(&from).unwrap() {
        let file = file.unwrap().path();
        if file.is_file() && file.file_name().unwrap() != "manifest.json" {
            std::os::unix::fs::symlink(&file, to.join(file.file_name().unwrap())).unwrap();
        }
    }
    let text = std::fs::read_to_string(from.join("manifest.json")).unwrap();
    let mut manifest: Value = serde_json::from_str(&text).unwrap();
    manifest["name"] = json!("other-world");
    std::fs::write(to.join("manifest.json"), manifest.to_string()).unwrap();
    to
}

/// Copies a folder with all its contents.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        // A link to a file of the bundle becomes the file, so that damage stays in the copy.
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}
