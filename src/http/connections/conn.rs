//! What is known of one open connection.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::pace::{Pace, Progress, Rule};

/// An idle connection is spared for so long: its client has behaved so far, and may be about to use it. One that
/// is closed just then loses a request.
const YOUNG_IDLE: Duration = Duration::from_secs(5);
/// A head usually comes in one piece, right behind the handshake.
const YOUNG_HEAD: Duration = Duration::from_millis(250);
/// A body usually comes right behind its head.
const BODY_GRACE: Duration = Duration::from_millis(250);
/// The kernel asks for more of an answer only when a part of its buffer has been read.
const ANSWER_GRACE: Duration = Duration::from_secs(2);

/// Limits for slow peers.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Longest time for a whole head.
    pub head: Duration,
    /// Longest time between two requests.
    pub idle: Duration,
    /// Minimum rate at which a body must arrive.
    pub body: Rule,
    /// Minimum rate at which an answer must be read.
    pub answer: Rule,
}

/// State of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// A head is awaited on a new connection, or has begun.
    Head,
    /// The head has come and the body is on its way.
    Body,
    /// The request is being answered.
    Working,
    /// The answer is being sent.
    Answering,
    /// Between two requests.
    Idle,
}

/// Why a connection was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Its head did not come in time.
    Head,
    /// No further request came.
    Idle,
    /// Its body came too slowly.
    Body,
    /// Its answer was read too slowly.
    Answer,
}

impl Cut {
    /// As metrics name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Idle => "idle",
            Self::Body => "body",
            Self::Answer => "answer",
        }
    }
}

/// How gladly a connection is given up: first by kind, then by how bad it is within the kind.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Rank(u8, f64);

impl Rank {
    /// Whether it is known to be idle or slow, and did not only just begin.
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

/// One open connection.
#[derive(Debug)]
pub struct Conn {
    /// Its number.
    pub id: u64,
    /// Who is at the other end; of IPv6 the network.
    pub peer: IpAddr,
    patience: Patience,
    state: Mutex<State>,
    evicted: Notify,
}

impl Conn {
    /// A connection that has just been accepted.
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

    /// Bytes came in from the peer.
    pub fn received(&self, now: Instant) {
        let mut state = self.state();
        if state.phase == Phase::Idle {
            (state.phase, state.since) = (Phase::Head, now);
        }
    }

    /// A head has come.
    pub fn begin(&self, now: Instant, has_body: bool) {
        let mut state = self.state();
        state.phase = if has_body { Phase::Body } else { Phase::Working };
        state.since = now;
        state.body = Pace::new(BODY_GRACE);
    }

    /// The answer's head is ready.
    pub fn answering(&self, now: Instant) {
        let mut state = self.state();
        (state.phase, state.since) = (Phase::Answering, now);
        // An earlier answer that is still being read goes on being waited for.
        if !state.answer.is_waiting() {
            state.answer = Pace::new(ANSWER_GRACE);
        }
    }

    /// The answer has been handed over to the connection's buffer.
    pub fn answered(&self, now: Instant) {
        let mut state = self.state();
        (state.phase, state.since) = (Phase::Idle, now);
    }

    /// The body has come whole, or will not come any more.
    pub fn body_ended(&self, now: Instant) {
        let mut state = self.state();
        state.phase = match state.phase {
            Phase::Body => Phase::Working,
            // What came after the answer was the rest of a refused body, not another head.
            Phase::Head => Phase::Idle,
            phase => phase,
        };
        state.since = now;
    }

    /// The server waits for the body: until when, at the longest.
    pub fn wait_for_body(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state();
        state.body.wait(now);
        state.body.deadline(&self.patience.body)
    }

    /// A piece of the body came.
    pub fn body_moved(&self, now: Instant, bytes: usize) {
        self.state().body.moved(now, bytes, &self.patience.body);
    }

    /// Whether the body comes too slowly.
    pub fn body_is_too_slow(&self, now: Instant) -> bool {
        self.state().body.is_too_slow(now, &self.patience.body)
    }

    /// The server waits until the peer has read something: until when, at the longest.
    pub fn wait_for_reader(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state();
        state.answer.wait(now);
        state.answer.deadline(&self.patience.answer)
    }

    /// Whether the peer has stopped reading.
    pub fn waits_for_reader(&self) -> bool {
        self.state().answer.is_waiting()
    }

    /// The peer, or its kernel, took a piece of the answer.
    pub fn answer_moved(&self, now: Instant, bytes: usize) {
        self.state().answer.moved(now, bytes, &self.patience.answer);
    }

    /// Whether the answer is read too slowly.
    pub fn answer_is_too_slow(&self, now: Instant) -> bool {
        self.state().answer.is_too_slow(now, &self.patience.answer)
    }

    /// Until when the next bytes must come, where that is the connection's own affair.
    pub fn read_deadline(&self) -> Option<(Instant, Cut)> {
        let state = self.state();
        match state.phase {
            Phase::Head => Some((state.since + self.patience.head, Cut::Head)),
            Phase::Idle => Some((state.since + self.patience.idle, Cut::Idle)),
            Phase::Body | Phase::Working | Phase::Answering => None,
        }
    }

    /// How gladly this connection is given up where there is no room for another one; `None` for one
    /// whose request is being worked on, or that makes good progress. Of those that have only just begun
    /// to be waited for nobody can tell; they go last.
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

    /// Ends the connection: whoever waits in [`Conn::evicted`] is woken.
    pub fn evict(&self) {
        self.evicted.notify_one();
    }

    /// Resolves when the connection must go.
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
