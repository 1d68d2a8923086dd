//! The state of one open connection.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::pace::{Pace, Progress, Rule};

/// How long an idle connection is spared: its client has behaved so far and may be about to use it. Closing
/// it at that moment would lose a request.
const YOUNG_IDLE: Duration = Duration::from_secs(5);
/// A request head usually comes in one piece, right after the handshake.
const YOUNG_HEAD: Duration = Duration::from_millis(250);
/// A body usually comes right after its head.
const BODY_GRACE: Duration = Duration::from_millis(250);
/// The kernel accepts more of an answer only after a part of its buffer has been read.
const ANSWER_GRACE: Duration = Duration::from_secs(2);

/// Limits for slow peers.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Time limit for a complete request head.
    pub head: Duration,
    /// Longest time between two requests.
    pub idle: Duration,
    /// Minimum rate at which a body must arrive.
    pub body: Rule,
    /// Minimum rate at which an answer must be read.
    pub answer: Rule,
}

/// State of a connection: what it waits for, or that it is being served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// A request head is awaited on a new connection, or has begun.
    Head,
    /// The head has arrived and the body is on its way.
    Body,
    /// The request is being processed.
    Working,
    /// The answer is being sent.
    Answering,
    /// The connection is idle between two requests.
    Idle,
}

/// Why a connection was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The request head did not arrive in time.
    Head,
    /// No further request came.
    Idle,
    /// Its body came too slowly.
    Body,
    /// Its answer was read too slowly.
    Answer,
}

impl Cut {
    /// The value of the label in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Idle => "idle",
            Self::Body => "body",
            Self::Answer => "answer",
        }
    }
}

/// How readily a connection is closed to make room: first by kind, then by how bad it is within the kind.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Rank(u8, f64);

impl Rank {
    /// Whether the connection is known to be idle or slow, rather than just new.
    pub const fn is_known(self) -> bool {
        self.0 > 0
    }
}

#[derive(Debug)]
struct State {
    phase: Phase,
    since: Instant,
    body: Pace,
    answer: Pace,
}

/// State of one open connection, shared by its stream and the registry.
#[derive(Debug)]
pub struct Conn {
    /// Number of the connection, unique in the process.
    pub id: u64,
    /// Address of the peer; for IPv6, its network.
    pub peer: IpAddr,
    patience: Patience,
    state: Mutex<State>,
    evicted: Notify,
}

impl Conn {
    /// A connection that was just accepted.
    pub fn new(id: u64, peer: IpAddr, patience: Patience, now: Instant) -> Self {
        let state = State {
            phase: Phase::Head,
            since: now,
            body: Pace::new(BODY_GRACE),
            answer: Pace::new(ANSWER_GRACE),
        };
        Self { id, peer, patience, state: Mutex::new(state), evicted: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that bytes came in from the peer.
    pub fn received(&self, now: Instant) {
        let mut state = self.state();
        if state.phase == Phase::Idle {
            (state.phase, state.since) = (Phase::Head, now);
        }
    }

    /// Notes that a request head has arrived.
    pub fn begin(&self, now: Instant, has_body: bool) {
        let mut state = self.state();
        state.phase = if has_body { Phase::Body } else { Phase::Working };
        state.since = now;
        state.body = Pace::new(BODY_GRACE);
    }

    /// Notes that the answer's head is ready.
    pub fn answering(&self, now: Instant) {
        let mut state = self.state();
        (state.phase, state.since) = (Phase::Answering, now);
        // If the peer still reads an earlier answer, its wait continues.
        if !state.answer.is_waiting() {
            state.answer = Pace::new(ANSWER_GRACE);
        }
    }

    /// Notes that the answer is in the connection's buffer.
    pub fn answered(&self, now: Instant) {
        let mut state = self.state();
        (state.phase, state.since) = (Phase::Idle, now);
    }

    /// Records that the body is complete, or will not arrive.
    pub fn body_ended(&self, now: Instant) {
        let mut state = self.state();
        state.phase = match state.phase {
            Phase::Body => Phase::Working,
            // The bytes after the answer were the rest of a refused body, not another head.
            Phase::Head => Phase::Idle,
            phase => phase,
        };
        state.since = now;
    }

    /// Notes that the server waits for the body; returns the deadline.
    pub fn wait_for_body(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state();
        state.body.wait(now);
        state.body.deadline(&self.patience.body)
    }

    /// Notes that a piece of the body has arrived.
    pub fn body_moved(&self, now: Instant, bytes: usize) {
        self.state().body.moved(now, bytes, &self.patience.body);
    }

    /// Whether the body arrives too slowly.
    pub fn body_is_too_slow(&self, now: Instant) -> bool {
        self.state().body.is_too_slow(now, &self.patience.body)
    }

    /// Notes that the server waits for the peer to read; returns the deadline.
    pub fn wait_for_reader(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state();
        state.answer.wait(now);
        state.answer.deadline(&self.patience.answer)
    }

    /// Whether the server waits for the peer to read.
    pub fn waits_for_reader(&self) -> bool {
        self.state().answer.is_waiting()
    }

    /// Notes that the peer, or its kernel, took a piece of the answer.
    pub fn answer_moved(&self, now: Instant, bytes: usize) {
        self.state().answer.moved(now, bytes, &self.patience.answer);
    }

    /// Whether the answer is read too slowly.
    pub fn answer_is_too_slow(&self, now: Instant) -> bool {
        self.state().answer.is_too_slow(now, &self.patience.answer)
    }

    /// The deadline for the next bytes, if a request head is awaited; bodies and answers have their own
    /// deadlines.
    pub fn read_deadline(&self) -> Option<(Instant, Cut)> {
        let state = self.state();
        match state.phase {
            Phase::Head => Some((state.since + self.patience.head, Cut::Head)),
            Phase::Idle => Some((state.since + self.patience.idle, Cut::Idle)),
            Phase::Body | Phase::Working | Phase::Answering => None,
        }
    }

    /// Whether no request is under way.
    pub fn is_idle(&self) -> bool {
        self.state().phase == Phase::Idle
    }

    /// How readily this connection is closed to make room for another; `None` if its request is being
    /// processed or it makes good progress. A connection that the server has only just begun to wait for
    /// cannot be judged yet; it goes last.
    pub fn rank(&self, now: Instant) -> Option<(Rank, Cut)> {
        let state = self.state();
        let age = now.saturating_duration_since(state.since);
        let by_age = |old: u8, young: Duration| Rank(if age >= young { old } else { 0 }, age.as_secs_f64());
        let by_progress = |pace: &Pace| match pace.progress(now) {
            Progress::Good => None,
            Progress::Unknown => Some(Rank(0, age.as_secs_f64())),
            Progress::Behind(secs) => Some(Rank(1, secs)),
        };
        match state.phase {
            Phase::Answering | Phase::Idle if state.answer.is_waiting() => {
                by_progress(&state.answer).map(|rank| (rank, Cut::Answer))
            }
            Phase::Idle => Some((by_age(3, YOUNG_IDLE), Cut::Idle)),
            Phase::Head => Some((by_age(2, YOUNG_HEAD), Cut::Head)),
            Phase::Body if state.body.is_waiting() => by_progress(&state.body).map(|rank| (rank, Cut::Body)),
            Phase::Body | Phase::Working | Phase::Answering => None,
        }
    }

    /// Ends the connection: wakes the task that waits in [`Conn::evicted`].
    pub fn evict(&self) {
        self.evicted.notify_one();
    }

    /// Resolves when the connection must be closed.
    pub async fn evicted(&self) {
        self.evicted.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    pub const PATIENCE: Patience = {
        let rule = Rule {
            min_bytes_per_sec: 1024.0,
            window: Duration::from_secs(10),
            silence: Duration::from_secs(30),
        };
        Patience { head: Duration::from_secs(10), idle: Duration::from_secs(30), body: rule, answer: rule }
    };

    fn conn(now: Instant) -> Conn {
        Conn::new(1, Ipv4Addr::LOCALHOST.into(), PATIENCE, now)
    }

    fn at(begin: Instant, secs: f64) -> Instant {
        begin + Duration::from_secs_f64(secs)
    }

    #[test]
    fn the_head_has_one_deadline_however_its_bytes_come() {
        let begin = Instant::now();
        let conn = conn(begin);
        for secs in [1.0, 5.0, 9.0] {
            conn.received(at(begin, secs));
            assert_eq!(conn.read_deadline(), Some((at(begin, 10.0), Cut::Head)));
        }
        conn.begin(at(begin, 9.5), false);
        assert_eq!(conn.read_deadline(), None);
        conn.answering(at(begin, 11.0));
        conn.answered(at(begin, 12.0));
        assert_eq!(conn.read_deadline(), Some((at(begin, 42.0), Cut::Idle)));
        conn.received(at(begin, 20.0));
        assert_eq!(conn.read_deadline(), Some((at(begin, 30.0), Cut::Head)));
    }

    #[test]
    fn what_works_or_gets_on_is_never_given_up() {
        let begin = Instant::now();
        let conn = conn(begin);
        conn.begin(begin, true);
        assert_eq!(conn.rank(at(begin, 9.0)), None, "a body that its handler does not ask for yet");
        conn.wait_for_body(begin);
        conn.body_moved(at(begin, 2.0), 1 << 20);
        conn.wait_for_body(at(begin, 2.0));
        assert_eq!(conn.rank(at(begin, 3.0)), None, "a fast body");
        conn.body_ended(at(begin, 3.0));
        assert_eq!(conn.rank(at(begin, 999.0)), None, "a request at work");
        conn.answering(at(begin, 999.0));
        assert_eq!(conn.rank(at(begin, 9999.0)), None, "events of which there is nothing to tell");
    }

    #[test]
    fn idle_goes_before_heads_before_slow_ones_before_the_unknown() {
        let begin = Instant::now();
        let make = |prepare: &dyn Fn(&Conn)| {
            let conn = conn(begin);
            prepare(&conn);
            conn.rank(at(begin, 5.0)).unwrap()
        };
        let idle = make(&|conn| conn.answered(begin));
        let head = make(&|_| {});
        let slow = make(&|conn| {
            conn.begin(begin, true);
            conn.wait_for_body(begin);
            conn.body_moved(at(begin, 1.0), 30_000);
            conn.wait_for_body(at(begin, 1.0));
        });
        let slower = make(&|conn| {
            conn.answering(begin);
            conn.answered(begin);
            conn.wait_for_reader(begin);
        });
        let unknown = make(&|conn| {
            conn.begin(at(begin, 4.8), true);
            conn.wait_for_body(at(begin, 4.8));
        });
        let young = make(&|conn| conn.answered(at(begin, 4.9)));
        let order = [idle, head, slower, slow, unknown, young];
        assert!(order.is_sorted_by(|a, b| a.0 > b.0), "{order:?}");
        let cuts = order.map(|(_, cut)| cut);
        assert_eq!(cuts, [Cut::Idle, Cut::Head, Cut::Answer, Cut::Body, Cut::Body, Cut::Idle]);
    }

    #[test]
    fn the_rest_of_a_refused_body_is_no_head() {
        let begin = Instant::now();
        let conn = conn(begin);
        conn.begin(begin, true);
        conn.answering(begin);
        conn.answered(begin);
        conn.received(begin);
        conn.body_ended(at(begin, 1.0));
        assert_eq!(conn.read_deadline(), Some((at(begin, 31.0), Cut::Idle)));
    }
}
