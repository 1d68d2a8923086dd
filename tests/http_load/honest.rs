//! Well-behaved clients, and their measurements.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::{Client, RequestBuilder};

/// What became of one request.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// 0 where the connection failed.
    pub status: u16,
    pub secs: f64,
}

/// What became of all of them.
#[derive(Debug, Default, Clone)]
pub struct Figures(pub Vec<Seen>);

impl Figures {
    fn quantile_of(mut secs: Vec<f64>, quantile: f64) -> f64 {
        secs.sort_by(f64::total_cmp);
        let index = ((secs.len() as f64 * quantile).ceil() as usize).clamp(1, secs.len().max(1)) - 1;
        secs.get(index).copied().unwrap_or(f64::NAN)
    }

    /// This quantile of the milliseconds of answered requests that satisfy `which`.
    pub fn millis(&self, quantile: f64, which: impl Fn(u16) -> bool) -> f64 {
        let secs = self.0.iter().filter(|seen| which(seen.status)).map(|seen| seen.secs).collect();
        Self::quantile_of(secs, quantile) * 1e3
    }

    pub fn count(&self, which: impl Fn(u16) -> bool) -> usize {
        self.0.iter().filter(|seen| which(seen.status)).count()
    }

    pub fn failed(&self) -> usize {
        self.count(|status| !ok(status))
    }

    /// Number of requests per status that satisfy `which`.
    pub fn by_status(&self, which: impl Fn(u16) -> bool) -> BTreeMap<u16, usize> {
        let mut counts = BTreeMap::new();
        for seen in self.0.iter().filter(|seen| which(seen.status)) {
            *counts.entry(seen.status).or_default() += 1;
        }
        counts
    }

    pub fn line(&self, what: &str) -> String {
        let (p50, p99) = (self.millis(0.5, ok), self.millis(0.99, ok));
        let (count, refused, failed) = (self.0.len(), self.failed(), self.by_status(|status| !ok(status)));
        let why = if refused > 0 { format!("   by status {failed:?}") } else { String::new() };
        format!(
            "{what:<32} {count:>6} requests {refused:>4} refused   p50 {p50:>7.1} ms   p99 {p99:>7.1} ms{why}"
        )
    }
}

pub fn ok(status: u16) -> bool {
    (200..300).contains(&status)
}

pub fn client() -> Client {
    Client::builder().timeout(Duration::from_secs(60)).build().unwrap()
}

/// Sends requests at a steady rate whatever becomes of them. Whole answers are read.
pub async fn steady(
    per_sec: f64,
    how_long: Duration,
    make: impl Fn(usize) -> RequestBuilder + Send + Sync,
) -> Figures {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = tokio::task::JoinSet::new();
    let begin = tokio::time::Instant::now();
    for number in 0.. {
        let at = Duration::from_secs_f64(f64::from(number) / per_sec);
        if at >= how_long {
            break;
        }
        tokio::time::sleep_until(begin + at).await;
        let (request, seen) = (make(number as usize), Arc::clone(&seen));
        tasks.spawn(async move {
            let one = once(request).await;
            seen.lock().unwrap().push(one);
        });
    }
    tasks.join_all().await;
    let seen = seen.lock().unwrap().clone();
    Figures(seen)
}

/// Offers requests at a rate on at most so many connections: one that is late sends at once, one that has no
/// answer yet cannot send the next. An open loop without that bound would measure how sockets run out.
pub async fn offered(
    per_sec: f64,
    connections: usize,
    how_long: Duration,
    make: impl Fn(usize) -> RequestBuilder + Send + Sync,
) -> Figures {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let begin = tokio::time::Instant::now();
    let one = |_| async {
        let mut seen = Vec::new();
        loop {
            let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let at = Duration::from_secs_f64(number as f64 / per_sec);
            if at >= how_long || begin.elapsed() >= how_long {
                return seen;
            }
            tokio::time::sleep_until(begin + at).await;
            seen.push(once(make(number)).await);
        }
    };
    Figures(futures::future::join_all((0..connections).map(one)).await.into_iter().flatten().collect())
}

/// So many clients, each with one request at a time, without a pause.
pub async fn closed_loop(
    clients: usize,
    how_long: Duration,
    make: impl Fn(usize) -> RequestBuilder + Send + Sync,
) -> Figures {
    let end = Instant::now() + how_long;
    let one = |number| {
        let make = &make;
        async move {
            let mut seen = Vec::new();
            while Instant::now() < end {
                seen.push(once(make(number)).await);
            }
            seen
        }
    };
    Figures(futures::future::join_all((0..clients).map(one)).await.into_iter().flatten().collect())
}

pub async fn once(request: RequestBuilder) -> Seen {
    let began = Instant::now();
    let status = match request.send().await {
        Ok(response) => {
            let status = response.status().as_u16();
            // An answer that is cut short does not count.
            response.bytes().await.map_or(0, |_| status)
        }
        Err(error) => {
            if std::env::var_os("SHOW_ERRORS").is_some() {
                eprintln!("a request failed: {error:?}");
            }
            0
        }
    };
    Seen { status, secs: began.elapsed().as_secs_f64() }
}
