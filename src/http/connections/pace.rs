//! How fast a peer sends or takes bytes, counting only the time in which the server waited for it.

use std::time::{Duration, Instant};

/// A peer this many times faster than it must be makes good progress.
const GOOD_PROGRESS: f64 = 16.0;
/// Seconds of good progress that can be saved up.
const MOST_CREDIT_SECS: f64 = 2.0;
/// Bytes after the first wait from which on there is progress to speak of.
const PROGRESS_BYTES: u64 = 4 << 10;

/// Minimum rate of a peer.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Bytes per second, averaged over a window of waiting.
    pub min_bytes_per_sec: f64,
    /// Waiting time over which the rate is averaged; also the grace at the beginning.
    pub window: Duration,
    /// Longest wait for a single byte.
    pub silence: Duration,
}

/// What can be said of a peer where places are short.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Progress {
    /// It has only just begun to be waited for.
    Unknown,
    /// It gets on well.
    Good,
    /// It is this many seconds behind good progress.
    Behind(f64),
}

/// One direction of one message. A handler that works, or an event stream with nothing to tell, is not
/// waiting, so neither counts against the peer.
#[derive(Debug, Default)]
pub struct Pace {
    /// Since when the current wait lasts.
    since: Option<Instant>,
    /// How much of the current wait an earlier window has counted.
    counted: Duration,
    /// Waiting time of this window, without the current wait.
    waited: Duration,
    /// Bytes of this window.
    bytes: u64,
    /// How far ahead of good progress it was at the end of the last wait, seconds; below 0 behind.
    credit_secs: f64,
    /// Bytes since it was first waited for; `None` before.
    after_wait: Option<u64>,
}

impl Pace {
    /// A message of which nothing has come; good progress is expected after so long.
    pub fn new(grace: Duration) -> Self {
        Self { credit_secs: grace.as_secs_f64(), ..Self::default() }
    }

    /// The server waits for the peer from now on, if it did not already.
    pub fn wait(&mut self, now: Instant) {
        self.since.get_or_insert(now);
        self.after_wait.get_or_insert(0);
    }

    /// The peer sent or took this many bytes.
    pub fn moved(&mut self, now: Instant, bytes: usize, rule: &Rule) {
        if let Some(since) = self.since.take() {
            let wait = now.saturating_duration_since(since);
            self.waited += wait.saturating_sub(self.counted);
            self.counted = Duration::ZERO;
            self.credit_secs -= wait.as_secs_f64();
        }
        self.bytes += bytes as u64;
        // What was moved before the first wait went into buffers: it says nothing of the peer.
        if let Some(after_wait) = &mut self.after_wait {
            *after_wait += bytes as u64;
            let earned = bytes as f64 / (rule.min_bytes_per_sec * GOOD_PROGRESS).max(1.0);
            self.credit_secs = (self.credit_secs + earned).min(MOST_CREDIT_SECS);
        }
    }

    /// Whether the server waits right now.
    pub const fn is_waiting(&self) -> bool {
        self.since.is_some()
    }

    /// When [`Pace::is_too_slow`] should be asked next, if nothing moves before.
    pub fn deadline(&self, rule: &Rule) -> Option<Instant> {
        let left = (rule.window + self.counted).saturating_sub(self.waited);
        self.since.map(|since| since + left.min(rule.silence))
    }

    /// Whether the peer has fallen behind the rule; a window that ended well makes room for the next one.
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

    /// How the peer gets on.
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
        // An hour of the handler's own work.
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
