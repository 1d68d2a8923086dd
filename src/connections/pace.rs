//! Measures how fast a peer sends or takes bytes, counting only the time that the server waited for it.

use std::time::{Duration, Instant};

/// A peer that is this many times faster than the minimum rate makes good progress.
const GOOD_PROGRESS: f64 = 16.0;
/// Maximum credit for good progress, in seconds.
const MOST_CREDIT_SECS: f64 = 2.0;
/// Bytes after the first wait that allow a judgement of the peer.
const PROGRESS_BYTES: u64 = 4 << 10;

/// Minimum rate of a peer.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Bytes per second, averaged over a window of waiting.
    pub min_bytes_per_sec: f64,
    /// Waiting time over which the rate is averaged; also the grace period at the beginning.
    pub window: Duration,
    /// Longest wait for a single byte.
    pub silence: Duration,
}

/// How a peer is doing, to decide which connections to close if room is short.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Progress {
    /// The server has only just begun to wait for it.
    Unknown,
    /// It makes good progress.
    Good,
    /// It is this many seconds behind good progress.
    Behind(f64),
}

/// The pace in one direction of one message. A working handler, or an event stream without events, does not
/// wait for the peer, so neither counts against it.
#[derive(Debug, Default)]
pub struct Pace {
    /// Start of the current wait.
    since: Option<Instant>,
    /// The part of the current wait that an earlier window has counted.
    counted: Duration,
    /// Waiting time of this window, without the current wait.
    waited: Duration,
    /// Bytes of this window.
    bytes: u64,
    /// How far ahead of good progress the peer was after the last wait, in seconds; negative: behind.
    credit_secs: f64,
    /// Bytes since the first wait; `None` before it.
    after_wait: Option<u64>,
}

impl Pace {
    /// A message before its first byte; good progress is expected after `grace`.
    pub fn new(grace: Duration) -> Self {
        Self { credit_secs: grace.as_secs_f64(), ..Self::default() }
    }

    /// Notes that the server waits for the peer, if it did not already.
    pub fn wait(&mut self, now: Instant) {
        self.since.get_or_insert(now);
        self.after_wait.get_or_insert(0);
    }

    /// Notes that the peer sent or took this many bytes.
    pub fn moved(&mut self, now: Instant, bytes: usize, rule: &Rule) {
        if let Some(since) = self.since.take() {
            let wait = now.saturating_duration_since(since);
            self.waited += wait.saturating_sub(self.counted);
            self.counted = Duration::ZERO;
            self.credit_secs -= wait.as_secs_f64();
        }
        self.bytes += bytes as u64;
        // Bytes before the first wait went into buffers and say nothing about the peer.
        if let Some(after_wait) = &mut self.after_wait {
            *after_wait += bytes as u64;
            let earned = bytes as f64 / (rule.min_bytes_per_sec * GOOD_PROGRESS).max(1.0);
            self.credit_secs = (self.credit_secs + earned).min(MOST_CREDIT_SECS);
        }
    }

    /// Whether the server is waiting now.
    pub const fn is_waiting(&self) -> bool {
        self.since.is_some()
    }

    /// When to call [`Pace::is_too_slow`] next, if nothing moves before.
    pub fn deadline(&self, rule: &Rule) -> Option<Instant> {
        let left = (rule.window + self.counted).saturating_sub(self.waited);
        self.since.map(|since| since + left.min(rule.silence))
    }

    /// Whether the peer has fallen behind the rule. A window that ended well is followed by a new one.
    pub fn is_too_slow(&mut self, now: Instant, rule: &Rule) -> bool {
        let current = self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        if current >= rule.silence {
            return true;
        }
        let waited = self.waited + current.saturating_sub(self.counted);
        if waited < rule.window {
            return false;
        }
        let enough = self.bytes as f64 >= rule.min_bytes_per_sec * waited.as_secs_f64();
        (self.waited, self.counted, self.bytes) = (Duration::ZERO, current, 0);
        !enough
    }

    /// How the peer is doing.
    pub fn progress(&self, now: Instant) -> Progress {
        let current = self.since.map_or(0.0, |since| now.saturating_duration_since(since).as_secs_f64());
        let credit_secs = self.credit_secs - current;
        match self.after_wait {
            _ if credit_secs < 0.0 => Progress::Behind(-credit_secs),
            Some(bytes) if bytes >= PROGRESS_BYTES => Progress::Good,
            _ => Progress::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule =
        Rule { min_bytes_per_sec: 1024.0, window: Duration::from_secs(10), silence: Duration::from_secs(30) };

    fn secs(secs: f64) -> Duration {
        Duration::from_secs_f64(secs)
    }

    #[test]
    fn a_trickle_is_too_slow_and_a_steady_stream_is_not() {
        let begin = Instant::now();
        let mut trickle = Pace::default();
        trickle.wait(begin);
        trickle.moved(begin + secs(9.0), 1, &RULE);
        trickle.wait(begin + secs(9.0));
        assert_eq!(trickle.deadline(&RULE), Some(begin + secs(10.0)));
        assert!(!trickle.is_too_slow(begin + secs(9.9), &RULE));
        assert!(trickle.is_too_slow(begin + secs(10.0), &RULE));

        let mut steady = Pace::default();
        for n in 0..300 {
            let at = begin + secs(f64::from(n));
            steady.wait(at);
            assert!(!steady.is_too_slow(at, &RULE), "{n}");
            steady.moved(at + secs(1.0), 1100, &RULE);
        }
    }

    #[test]
    fn only_waiting_counts() {
        let begin = Instant::now();
        let mut pace = Pace::default();
        pace.wait(begin);
        pace.moved(begin + secs(0.5), 10, &RULE);
        assert_eq!(pace.deadline(&RULE), None);
        // The handler itself works for an hour.
        pace.wait(begin + secs(3600.0));
        assert!(!pace.is_too_slow(begin + secs(3601.0), &RULE));
        assert_eq!(pace.deadline(&RULE), Some(begin + secs(3609.5)));
    }

    #[test]
    fn a_fast_beginning_pays_for_one_window_only() {
        let begin = Instant::now();
        let mut pace = Pace::default();
        pace.moved(begin, 100 << 20, &RULE);
        pace.wait(begin);
        assert!(!pace.is_too_slow(begin + secs(10.0), &RULE));
        assert_eq!(pace.deadline(&RULE), Some(begin + secs(20.0)));
        assert!(!pace.is_too_slow(begin + secs(19.0), &RULE));
        assert!(pace.is_too_slow(begin + secs(20.0), &RULE));
    }

    #[test]
    fn silence_has_a_limit_of_its_own() {
        let begin = Instant::now();
        let rule = Rule { silence: secs(2.0), ..RULE };
        let mut pace = Pace::default();
        pace.moved(begin, 100 << 20, &RULE);
        pace.wait(begin);
        assert_eq!(pace.deadline(&rule), Some(begin + secs(2.0)));
        assert!(!pace.is_too_slow(begin + secs(1.9), &rule) && pace.is_too_slow(begin + secs(2.0), &rule));
    }

    #[test]
    fn progress_is_told_by_what_moves_after_the_first_wait() {
        let begin = Instant::now();
        let mut pace = Pace::new(secs(0.5));
        pace.moved(begin, 100 << 20, &RULE);
        pace.wait(begin);
        assert_eq!(pace.progress(begin + secs(0.4)), Progress::Unknown);
        assert_eq!(pace.progress(begin + secs(1.5)), Progress::Behind(1.0));
        // Sixteen times the minimum is good progress; two seconds of it can be saved up.
        pace.moved(begin + secs(1.5), 16 << 10, &RULE);
        assert_eq!(pace.progress(begin + secs(1.5)), Progress::Good);
        pace.moved(begin + secs(1.5), 100 << 20, &RULE);
        pace.wait(begin + secs(1.5));
        assert_eq!(pace.progress(begin + secs(3.4)), Progress::Good);
        assert_eq!(pace.progress(begin + secs(4.0)), Progress::Behind(0.5));
    }
}
