//! Estimates what requests cost, and decides which are admitted.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::class::Class;
use super::lanes::Lanes;
use crate::http_kit::error::ApiError;

/// Light queries that are always admitted, per query that the server can process at a time, regardless of
/// their estimated cost: a stall of the whole machine is no reason to refuse them.
const LIGHT_ALWAYS: f64 = 16.0;
/// While its lane has refused queries lately, a query is admitted only if it will be done after this many
/// times its own cost: a queue that never empties makes everybody wait and serves nobody sooner.
const LASTING_COSTS: f64 = 2.5;
/// Light queries may wait at least this long in any case, in seconds.
const LASTING_LIGHT_SECS: f64 = 0.002;
/// The limits for a burst: many simultaneous queries are admitted if they will be done soon. The larger one
/// counts.
const BURST_SECS: f64 = 0.2;
const BURST_COSTS: f64 = 6.0;
/// Decides which requests are admitted.
#[derive(Debug)]
pub struct Admission {
    permits: Arc<Semaphore>,
    /// Three quarters of the permits, for everything but light queries.
    others: Arc<Semaphore>,
    /// Number of requests that can run in parallel without slowing each other down.
    parallel: f64,
    lanes: Mutex<Lanes>,
}

/// A request being processed.
#[derive(Debug)]
pub struct Running {
    admission: Arc<Admission>,
    class: Class,
    began: Instant,
    others: usize,
    pub succeeded: bool,
    _permits: [Option<OwnedSemaphorePermit>; 2],
}

impl Admission {
    /// Admits at most `max_in_flight` requests; up to `parallel` of them do not slow each other down.
    pub fn new(max_in_flight: usize, parallel: usize) -> Arc<Self> {
        Arc::new(Self {
            permits: Arc::new(Semaphore::new(max_in_flight.max(1))),
            others: Arc::new(Semaphore::new((max_in_flight - max_in_flight / 4).max(1))),
            parallel: parallel.max(1) as f64,
            lanes: Mutex::default(),
        })
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides, before its body is read, whether a request would be admitted now. A query with media gets a
    /// place, which it keeps if its body comes soon, so that no more bodies are received than can be
    /// processed.
    pub fn expect(self: &Arc<Self>, class: &Class, from: IpAddr) -> Result<Option<Expected>, Refusal> {
        let taken = |permits: &Semaphore| permits.available_permits() == 0;
        let now = Instant::now();
        if taken(&self.permits) || (!class.is_light_query() && taken(&self.others)) {
            return Err(self.too_many(class, now));
        }
        if !class.is_query() {
            return Ok(None);
        }
        let mut lanes = self.lanes();
        let coming = lanes.coming(class.media, lanes.cost(class), now);
        self.weigh(&mut lanes, class, coming, now)?;
        let place = if class.media { lanes.coming.add(class, from, now) } else { None };
        drop(lanes);
        Ok(place.map(|place| Expected { admission: Arc::clone(self), place: Some(place) }))
    }

    /// Refuses a request because all permits are taken; its query lane then no longer counts as having a
    /// burst.
    fn too_many(&self, class: &Class, now: Instant) -> Refusal {
        if class.is_query() {
            self.lanes().lane(class.media).refused = Some(now);
        }
        Refusal::TooMany
    }

    /// Refuses a query that would have to wait too long.
    fn weigh(
        &self,
        lanes: &mut Lanes,
        class: &Class,
        coming: (f64, usize),
        now: Instant,
    ) -> Result<(), Refusal> {
        let secs = lanes.cost(class);
        let lane = if class.media { &lanes.media } else { &lanes.light };
        let lasting = lane.lasting(now);
        let most = match (lasting, class.media) {
            (true, true) => secs * LASTING_COSTS,
            (true, false) => LASTING_LIGHT_SECS.max(secs * LASTING_COSTS),
            (false, _) => BURST_SECS.max(secs * BURST_COSTS),
        };
        let (ahead, count) = (lanes.ahead(lane, secs) + coming.0, lane.count + coming.1);
        let by_pace = lane.pace.secs.filter(|_| lasting && !class.media).unwrap_or(0.0) * count as f64;
        // One more than can be processed at a time: it is ready when one of them finishes.
        let always = if class.media { self.parallel + 1.0 } else { self.parallel * LIGHT_ALWAYS };
        let wait_secs = f64::max(ahead / self.parallel, by_pace);
        if count as f64 >= always && wait_secs + secs / self.parallel > most {
            lanes.lane(class.media).refused = Some(now);
            return Err(Refusal::Overloaded { wait_secs });
        }
        Ok(())
    }

    /// Admits a request or refuses it; an expected one already has its place.
    pub fn enter(self: &Arc<Self>, class: Class, expected: Option<Expected>) -> Result<Running, Refusal> {
        let take = |permits: &Arc<Semaphore>| {
            let permit = Arc::clone(permits).try_acquire_owned();
            permit.map_err(|_| self.too_many(&class, Instant::now()))
        };
        let permit = take(&self.permits)?;
        let other = (!class.is_light_query()).then(|| take(&self.others)).transpose()?;
        let has_place = expected.is_some_and(Expected::came_in_time);
        let mut lanes = self.lanes();
        let others = lanes.light.count + lanes.media.count;
        if class.is_query() {
            if !has_place {
                self.weigh(&mut lanes, &class, (0.0, 0), Instant::now())?;
            }
            let lane = lanes.lane(class.media);
            lane.count += 1;
            *lane.running.entry(class.clone()).or_default() += 1;
        }
        drop(lanes);
        Ok(Running {
            admission: Arc::clone(self),
            class,
            began: Instant::now(),
            others,
            succeeded: false,
            _permits: [Some(permit), other],
        })
    }
}

/// A query whose body is on its way.
#[derive(Debug)]
pub struct Expected {
    admission: Arc<Admission>,
    place: Option<u64>,
}

impl Expected {
    /// Its body is there; returns whether its place was still reserved.
    fn came_in_time(mut self) -> bool {
        let place = self.place.take();
        place.is_some_and(|place| self.admission.lanes().coming.take(place, Instant::now()))
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.admission.lanes().coming.take(place, Instant::now());
        }
    }
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Refusal {
    /// All permits are taken.
    TooMany,
    /// The expected wait is too long.
    Overloaded { wait_secs: f64 },
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let (code, message, retry) = match refusal {
            Refusal::TooMany => {
                ("too_many_requests", "the server is at its limit of concurrent requests; try again", 1)
            }
            Refusal::Overloaded { wait_secs } => {
                let message = "the server is overloaded and cannot answer in time; try again";
                ("overloaded", message, wait_secs.ceil().clamp(1.0, 60.0) as u64)
            }
        };
        Self::new(StatusCode::TOO_MANY_REQUESTS, code, message).retry_after(retry)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.class.is_query() {
            return;
        }
        let now = Instant::now();
        let took = now.saturating_duration_since(self.began).as_secs_f64();
        let mut lanes = self.admission.lanes();
        let parallel = self.admission.parallel;
        // It shared the processors with the average number of other requests.
        let beside =
            1.0 + (self.others + (lanes.light.count + lanes.media.count).saturating_sub(1)) as f64 / 2.0;
        if self.succeeded {
            lanes.costs.entry(self.class.clone()).or_default().learn(took * parallel / beside.max(parallel));
        }
        let lane = lanes.lane(self.class.media);
        let lasting = lane.lasting(now);
        lane.pace.one_left(lasting, now);
        lane.count = lane.count.saturating_sub(1);
        if let Some(count) = lane.running.get_mut(&self.class) {
            *count -= 1;
            if *count == 0 {
                lane.running.remove(&self.class);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::http_intake::admission::lanes::{Cost, Pace};

    fn class(media: bool) -> Class {
        Class { route: "/v1/search".to_owned(), media, size: 10 }
    }

    fn known(admission: &Admission, class: &Class, secs: f64) {
        admission.lanes().costs.entry(class.clone()).or_default().learn(secs);
    }

    fn lasting(admission: &Admission, media: bool) {
        admission.lanes().lane(media).refused = Some(Instant::now());
    }

    fn enter(admission: &Arc<Admission>, class: &Class) -> Result<Running, Refusal> {
        admission.enter(class.clone(), None)
    }

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn a_burst_is_taken_and_a_lasting_queue_is_kept_short() {
        let admission = Admission::new(256, 2);
        let class = class(true);
        known(&admission, &class, 0.1);
        let burst: Vec<_> = (0..100).map_while(|_| enter(&admission, &class).ok()).collect();
        assert_eq!(burst.len(), 12, "six costs of wait on two processors");
        drop(burst);
        lasting(&admission, true);
        let queue: Vec<_> = (0..100).map_while(|_| enter(&admission, &class).ok()).collect();
        assert_eq!(queue.len(), 5, "two and a half costs of wait on two processors");
    }

    #[test]
    fn a_lasting_queue_is_as_long_as_its_pace_allows() {
        let admission = Admission::new(256, 1);
        let class = class(false);
        known(&admission, &class, 1e-6);
        let all: Vec<_> = (0..300).map_while(|_| enter(&admission, &class).ok()).collect();
        assert_eq!(all.len(), 256, "they seem to cost nothing");
        drop(all);
        assert!(admission.lanes().light.lasting(Instant::now()), "all permits were taken");
        admission.lanes().light.pace = Pace::default();
        // One leaves every 50 microseconds, whatever its estimated cost.
        let began = Instant::now();
        for number in 1..=1001 {
            let now = began + Duration::from_micros(50 * number);
            admission.lanes().light.pace.one_left(true, now);
        }
        let queue: Vec<_> = (0..300).map_while(|_| enter(&admission, &class).ok()).collect();
        assert_eq!(queue.len(), 40, "two milliseconds of wait");
        let mut pace = Pace { secs: Some(1.0), ..Pace::default() };
        pace.one_left(false, began);
        assert_eq!(pace.secs, None, "the queue was empty");
    }

    #[test]
    fn bodies_on_their_way_have_places_and_slow_ones_lose_them() {
        let admission = Admission::new(256, 2);
        let class = class(true);
        known(&admission, &class, 0.1);
        lasting(&admission, true);
        let mut coming: Vec<_> =
            (0..100).map_while(|_| admission.expect(&class, HERE).ok()).map(Option::unwrap).collect();
        assert_eq!(coming.len(), 5, "as many as are taken");
        // A new request is weighed against those already there.
        let came = enter(&admission, &class).unwrap();
        drop(came);
        let running = admission.enter(class.clone(), coming.pop()).unwrap();
        assert!(admission.expect(&class, HERE).is_err(), "it changed its place for another one");
        drop(running);
        std::thread::sleep(super::super::coming::IN_TIME * 2);
        assert!(!coming.pop().unwrap().came_in_time());
        assert!(admission.expect(&class, HERE).unwrap().is_none(), "it was late, and is given none");
        let elsewhere = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
        assert!(admission.expect(&class, elsewhere).unwrap().is_some());
    }

    #[test]
    fn dear_requests_leave_room_for_light_ones() {
        let admission = Admission::new(8, 2);
        let (media, light) = (class(true), class(false));
        known(&admission, &media, 0.001);
        let held: Vec<_> = (0..8).map_while(|_| enter(&admission, &media).ok()).collect();
        assert_eq!(held.len(), 6);
        assert!(admission.expect(&media, HERE).is_err() && admission.expect(&light, HERE).is_ok());
        let light: Vec<_> = (0..8).map_while(|_| enter(&admission, &light).ok()).collect();
        assert_eq!(light.len(), 2);
        drop((held, light));
        assert_eq!(admission.permits.available_permits(), 8);
    }

    #[test]
    fn a_long_request_is_not_counted_whole_against_a_short_one() {
        let admission = Admission::new(256, 2);
        let (long, short) = (class(true), Class { size: 5, ..class(true) });
        known(&admission, &long, 60.0);
        known(&admission, &short, 0.02);
        let _running: Vec<_> = (0..4).map(|_| enter(&admission, &long).unwrap()).collect();
        lasting(&admission, true);
        assert!(enter(&admission, &short).is_ok());
    }

    #[test]
    fn the_only_one_is_taken_whatever_it_costs() {
        let admission = Admission::new(1, 1);
        known(&admission, &class(true), 1e6);
        assert!(enter(&admission, &class(true)).is_ok());
    }

    #[test]
    fn costs_follow_what_is_seen() {
        let mut cost = Cost::default();
        cost.learn(0.2);
        assert!((cost.secs - 0.2).abs() < 1e-9, "the first is all that is known");
        let mut learn = |secs: f64, times: usize| {
            (0..times).for_each(|_| cost.learn(secs));
            cost.secs
        };
        let settled = learn(0.1, 500);
        assert!((0.09..0.11).contains(&settled), "{settled}");
        let stalled = learn(5.0, 20);
        assert!(stalled < 0.2, "twenty requests of a moment that stood still: {stalled}");
        let dearer = learn(5.0, 500);
        assert!(dearer > 4.0, "{dearer}");
    }
}
