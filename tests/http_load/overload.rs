//! More queries than the server can answer.

use std::time::Duration;

use reqwest::multipart;
use serde_json::json;

use crate::common::{Options, Server, media, video};
use crate::honest::{Figures, client, closed_loop, offered, ok, steady};

/// A sound of 410 KB.
fn dear_sound() -> bytes::Bytes {
    let file = media(
        "dear.wav",
        &["-f", "lavfi", "-i", "sine=frequency=700:duration=4.27:sample_rate=48000", "-ac", "1"],
    );
    std::fs::read(file).unwrap().into()
}

/// One kind of query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Query {
    /// A sound of 410 KB in a form.
    Sound,
    /// Words.
    Text,
}

struct Asking {
    client: reqwest::Client,
    url: String,
    sound: bytes::Bytes,
}

impl Asking {
    fn new(server: &Server) -> Self {
        Self { client: client(), url: format!("{}/v1/search", server.url()), sound: dear_sound() }
    }

    fn ask(&self, query: Query) -> reqwest::RequestBuilder {
        let request = self.client.post(&self.url);
        match query {
            Query::Text => request.json(&json!({"query": "a red circle", "targets": ["video"]})),
            Query::Sound => {
                let length = self.sound.len() as u64;
                let part = multipart::Part::stream_with_length(self.sound.clone(), length).file_name("a.wav");
                request.multipart(
                    multipart::Form::new()
                        .text("modality", "audio")
                        .text("request", r#"{"targets":["audio"]}"#)
                        .part("file", part),
                )
            }
        }
    }
}

/// Number of connections for ten times the load.
const CONNECTIONS: usize = 512;

fn refused(status: u16) -> bool {
    status == 429 || status == 503
}

/// Measures the capacity, then 80 % of it, then ten times as much.
struct Curve {
    capacity: f64,
    at_80: Figures,
    overloaded: Figures,
    overloaded_secs: f64,
    /// Processor time of the server and its decoders for each answer: at capacity, and overloaded.
    cpu_secs: [f64; 2],
    /// Processor time that the clients took meanwhile.
    clients_cpu_secs: f64,
}

/// The server runs on one half of the processors and the clients on the other: otherwise the clients' CPU
/// time would count as the server's, and ten times as many queries of 410 KB are work for them, too.
fn halves() -> Option<(String, rustix::thread::CpuSet)> {
    let all: Vec<usize> = {
        let allowed = rustix::thread::sched_getaffinity(None).unwrap();
        (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect()
    };
    let (server, clients) = all.split_at(all.len() / 2);
    let list = server.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let mut set = rustix::thread::CpuSet::new();
    clients.iter().for_each(|cpu| set.set(*cpu));
    (!server.is_empty()).then_some((list, set))
}

/// Processor time of a process and of the children it has waited for.
fn cpu_secs(pid: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11..15].iter().map(|field| field.parse::<f64>().unwrap()).sum();
    ticks / rustix::param::clock_ticks_per_second() as f64
}

fn measure(server: &Server, query: Query, secs: u64) -> Curve {
    let asking = Asking::new(server);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let how_long = Duration::from_secs(secs);
    runtime.block_on(async {
        let make = |_| asking.ask(query);
        closed_loop(2, Duration::from_secs(2), make).await;
        let pid = server.pid().to_string();
        let start = cpu_secs(&pid);
        let closed = closed_loop(4, how_long, make).await;
        let at_capacity = (cpu_secs(&pid) - start) / closed.count(ok) as f64;
        let capacity = closed.count(ok) as f64 / how_long.as_secs_f64();
        let at_80 = steady(capacity * 0.8, how_long, make).await;
        let (start, clients, began) = (cpu_secs(&pid), cpu_secs("self"), std::time::Instant::now());
        let overloaded = offered(capacity * 10.0, CONNECTIONS, how_long, make).await;
        Curve {
            capacity,
            at_80,
            overloaded_secs: began.elapsed().as_secs_f64(),
            cpu_secs: [at_capacity, (cpu_secs(&pid) - start) / overloaded.count(ok) as f64],
            clients_cpu_secs: cpu_secs("self") - clients,
            overloaded,
        }
    })
}

impl Curve {
    fn share(&self) -> f64 {
        self.overloaded.count(ok) as f64 / self.overloaded_secs / self.capacity
    }

    fn print(&self, query: Query) {
        println!("{query:?}: capacity {:.1} a second", self.capacity);
        println!("{}", self.at_80.line("  at 80 %"));
        let accepted = (self.overloaded.millis(0.5, ok), self.overloaded.millis(0.99, ok));
        println!(
            "  offered x{:.1}: {} of {} accepted = {:.0} % of capacity, p50 {:.0} ms, p99 {:.0} ms (x{:.2} of 80 %)",
            self.overloaded.0.len() as f64 / self.overloaded_secs / self.capacity,
            self.overloaded.count(ok),
            self.overloaded.0.len(),
            self.share() * 100.0,
            accepted.0,
            accepted.1,
            accepted.1 / self.at_80.millis(0.99, ok)
        );
        println!(
            "  refusals {}: p50 {:.1} ms, p99 {:.1} ms; neither: {:?}",
            self.overloaded.count(refused),
            self.overloaded.millis(0.5, refused),
            self.overloaded.millis(0.99, refused),
            self.overloaded.by_status(|status| !ok(status) && !refused(status))
        );
        println!(
            "  processor time for each answer: {:.3} ms at capacity, {:.3} ms overloaded; the clients took {:.0} %",
            self.cpu_secs[0] * 1e3,
            self.cpu_secs[1] * 1e3,
            self.clients_cpu_secs / self.overloaded_secs * 100.0
        );
    }
}

fn library(options: Options) -> Server {
    let server = Server::start(options);
    server.add(&video("overload.mp4", 19.2, 300));
    server
}

#[test]
fn too_many_dear_queries_are_refused_and_cheap_ones_are_answered() {
    let server = library(Options::default());
    let asking = Asking::new(&server);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (dear, text) = runtime.block_on(async {
        let secs = Duration::from_secs(4);
        // However fast the machine is: six times what it can answer.
        let learned = closed_loop(4, Duration::from_secs(2), |_| asking.ask(Query::Sound)).await;
        let capacity = learned.count(ok) as f64 / 2.0;
        let dear = steady(6.0 * capacity, secs, |_| asking.ask(Query::Sound));
        let text = steady(5.0, secs, |_| asking.ask(Query::Text));
        tokio::join!(dear, text)
    });
    println!("{}\n{}", dear.line("sounds"), text.line("texts"));
    println!("refusals p50 {:.1} ms, p99 {:.1} ms", dear.millis(0.5, refused), dear.millis(0.99, refused));
    assert_eq!(text.failed(), 0, "{}", text.line("texts"));
    assert!(dear.count(ok) > 0, "{}", dear.line("sounds"));
    assert!(dear.count(refused) > 0, "{}", dear.line("sounds"));
    assert_eq!(dear.count(|status| !ok(status) && !refused(status)), 0, "{}", dear.line("sounds"));
}

#[test]
#[ignore = "minutes; make test-overload"]
fn ten_times_as_many_sounds_as_can_be_answered() {
    ten_times_as_many(Query::Sound);
}

#[test]
#[ignore = "minutes; make test-overload"]
fn ten_times_as_many_words_as_can_be_answered() {
    ten_times_as_many(Query::Text);
}

fn ten_times_as_many(query: Query) {
    let server = match halves() {
        Some((server, clients)) => {
            rustix::thread::sched_setaffinity(None, &clients).unwrap();
            library(Options::default().prefix(&["taskset".to_owned(), "-c".to_owned(), server]))
        }
        None => library(Options::default()),
    };
    let secs = std::env::var("TRIPTYCH_LOAD_SECS").map_or(30, |secs| secs.parse().unwrap());
    let curve = measure(&server, query, secs);
    curve.print(query);
    let metrics = server.get("/metrics").text().unwrap();
    let closed = |line: &&str| line.starts_with("triptych_http_connections_evicted_total{");
    metrics.lines().filter(closed).for_each(|line| println!("  {line}"));
    assert!(curve.share() >= 0.9, "{query:?}: {:.2} of capacity", curve.share());
    let (loaded, accepted) = (curve.at_80.millis(0.99, ok), curve.overloaded.millis(0.99, ok));
    assert!(accepted <= 3.0 * loaded, "{query:?}: accepted p99 {accepted} ms, {loaded} ms at 80 %");
    let refusal = curve.overloaded.millis(0.99, refused);
    assert!(refusal <= 50.0, "{query:?}: refusal p99 {refusal} ms");
    assert_eq!(curve.overloaded.count(|status| !ok(status) && !refused(status)), 0);
}
