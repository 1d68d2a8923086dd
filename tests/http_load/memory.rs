//! How much memory many large bodies take.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine;
use reqwest::Client;

use crate::common::{Options, Server};
use crate::honest::{Figures, once};

/// Resident bytes of a process and all its descendants: (its own, all).
fn resident(pid: u32) -> (u64, u64) {
    let of = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|kib| kib.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).unwrap_or(0) << 10
    };
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = tasks.flat_map(|task| {
        let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()
    });
    let own = of(pid);
    (own, own + children.map(|child| resident(child).1).sum::<u64>())
}

/// The largest sums while it lives.
struct Watch {
    stop: Arc<AtomicBool>,
    most: Arc<[AtomicU64; 2]>,
    thread: std::thread::JoinHandle<()>,
}

impl Watch {
    fn start(pid: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let most = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let (stopped, sums) = (Arc::clone(&stop), Arc::clone(&most));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let (own, all) = resident(pid);
                sums[0].fetch_max(own, Ordering::Relaxed);
                sums[1].fetch_max(all, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        Self { stop, most, thread }
    }

    fn end(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        (self.most[0].load(Ordering::Relaxed), self.most[1].load(Ordering::Relaxed))
    }
}

/// Memory and disk space of bodies, from the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holding {
    /// Sounds, which are decoded and embedded.
    Sounds,
    /// Noise that is not media, so that only the reception is measured.
    Noise,
}

/// So many bytes of noise, with the header of a WAV of two channels before it for sounds.
fn medium(holding: Holding, bytes: usize) -> Vec<u8> {
    let mut noise = wav(bytes);
    if holding == Holding::Noise {
        noise[..4].copy_from_slice(b"none");
    }
    noise
}

/// Nothing of it compresses or is silent.
fn wav(bytes: usize) -> Vec<u8> {
    let data = bytes - 44;
    let mut wav = Vec::with_capacity(bytes);
    wav.extend_from_slice(b"RIFF");
    wav.extend_from_slice(&(36 + data as u32).to_le_bytes());
    wav.extend_from_slice(b"WAVEfmt \x10\0\0\0\x01\0\x02\0");
    wav.extend_from_slice(&48_000_u32.to_le_bytes());
    wav.extend_from_slice(&192_000_u32.to_le_bytes());
    wav.extend_from_slice(b"\x04\0\x10\0data");
    wav.extend_from_slice(&(data as u32).to_le_bytes());
    let mut state = 1_u32;
    while wav.len() < bytes {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        wav.push((state >> 24) as u8);
    }
    wav
}

/// Offers bodies of a size at the same time, half of them as JSON and half as forms.
async fn offer(server_url: String, holding: Holding, count: usize, body_bytes: usize) -> Figures {
    let client = Client::builder().timeout(Duration::from_secs(600)).build().unwrap();
    let sound = medium(holding, body_bytes * 3 / 4 - 200);
    let base64 = base64::engine::general_purpose::STANDARD.encode(&sound);
    let json =
        format!("{{\"query\":{{\"audio\":\"data:audio/wav;base64,{base64}\"}},\"targets\":[\"audio\"]}}");
    let json = bytes::Bytes::from(json);
    let form = [
        b"--x\r\nContent-Disposition: form-data; name=\"modality\"\r\n\r\naudio\r\n--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n",
        &medium(holding, body_bytes)[..],
        b"\r\n--x--\r\n",
    ]
    .concat();
    let form = bytes::Bytes::from(form);
    let requests = (0..count).map(|number| {
        let request = client.post(format!("{server_url}/v1/search"));
        once(if number.is_multiple_of(2) {
            request.header("content-type", "application/json").body(json.clone())
        } else {
            request.header("content-type", "multipart/form-data; boundary=x").body(form.clone())
        })
    });
    Figures(futures::future::join_all(requests).await)
}

fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

fn temporary_files(data: &Path) -> usize {
    std::fs::read_dir(data.join("tmp")).unwrap().count()
}

struct Outcome {
    before: u64,
    own: u64,
    all: u64,
    after: u64,
}

fn measure(holding: Holding, count: usize, body_bytes: usize, rest: Duration) -> Outcome {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(Options::default().data(data.path()));
    let pid = server.pid();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // Whatever is allocated once.
    runtime.block_on(offer(server.url().to_owned(), holding, 2, 1 << 20));
    std::thread::sleep(Duration::from_secs(1));
    let before = resident(pid).0;
    let watch = Watch::start(pid);
    let figures = runtime.block_on(offer(server.url().to_owned(), holding, count, body_bytes));
    let (own, all) = watch.end();
    std::thread::sleep(rest);
    let after = resident(pid).0;
    let metrics = server.get("/metrics").text().unwrap();
    let refused = metrics.lines().filter(|line| line.starts_with("triptych_http_refused_total{"));
    refused.for_each(|line| println!("{line}"));
    println!(
        "{count} bodies of {} MB: {} answered, {} refused, {} others; {} MiB before, server {} MiB at most, \
         with children {} MiB, {} MiB {} s after",
        body_bytes / 1_000_000,
        figures.count(crate::honest::ok),
        figures.count(|status| status == 429 || status == 503),
        figures.count(|status| !crate::honest::ok(status) && status != 429 && status != 503),
        mib(before),
        mib(own),
        mib(all),
        mib(after),
        rest.as_secs()
    );
    // 422: received whole, and no medium.
    let answered = figures
        .count(|status| if holding == Holding::Sounds { crate::honest::ok(status) } else { status == 422 });
    assert!(answered > 0);
    assert_eq!(temporary_files(data.path()), 0);
    assert_eq!(server.get("/readyz").status(), 200);
    Outcome { before, own, all, after }
}

#[test]
fn large_bodies_are_not_held_in_memory() {
    let outcome = measure(Holding::Noise, 24, 25_000_000, Duration::from_secs(1));
    // Held once, they would be 600 MB, and it was three times that.
    assert!(outcome.own < outcome.before + (150 << 20), "{} MiB", mib(outcome.own));
}

#[test]
#[ignore = "minutes, and gigabytes of disk; make test-memory"]
fn two_hundred_and_fifty_six_bodies_of_sixty_megabytes() {
    let outcome = measure(Holding::Sounds, 256, 60_000_000, Duration::from_secs(60));
    assert!(outcome.all <= 1_500_000_000, "{} MiB", mib(outcome.all));
    assert!(outcome.after as f64 <= outcome.before as f64 * 1.2, "{} MiB", mib(outcome.after));
}
