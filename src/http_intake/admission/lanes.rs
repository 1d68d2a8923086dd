//! The measured load of the server: the lanes, the rate at which requests leave them, and the cost of each
//! class.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::class::Class;
use super::coming::Coming;

/// Time without a refusal after which new queries count as a burst.
const CALM_AFTER: Duration = Duration::from_millis(300);
/// The pace of a lane is averaged over at least this time and this many requests.
const PACE_OVER: Duration = Duration::from_millis(50);
const PACE_LEAST: u32 = 8;
/// The estimated cost of a class is this quantile of its measured costs, so that a moment in which the
/// machine stalls does not make every class look expensive.
const COST_QUANTILE: f64 = 0.3;
/// How far one request moves the estimate, as a share of it.
const LEARNING_RATE: f64 = 0.1;
/// For this many first requests of a class, the estimate is their mean.
const FIRST_SEEN: u32 = 8;
/// Estimated cost of a request of an unknown class, in seconds.
const FIRST_LIGHT_SECS: f64 = 0.005;
const FIRST_MEDIA_SECS: f64 = 0.1;

/// Estimated cost of the requests of a class.
#[derive(Debug, Default)]
pub(super) struct Cost {
    pub(super) secs: f64,
    pub(super) seen: u32,
}

impl Cost {
    pub(super) fn learn(&mut self, secs: f64) {
        self.seen = self.seen.saturating_add(1);
        if self.seen <= FIRST_SEEN {
            // The mean so far.
            self.secs += (secs - self.secs) / f64::from(self.seen);
        } else if secs > self.secs {
            self.secs *= 1.0 + LEARNING_RATE * COST_QUANTILE;
        } else {
            self.secs *= 1.0 - LEARNING_RATE * (1.0 - COST_QUANTILE);
        }
    }
}

/// Queries that compete only among themselves, not with those of the other lane.
#[derive(Debug, Default)]
pub(super) struct Lane {
    pub(super) running: HashMap<Class, usize>,
    pub(super) count: usize,
    /// Time of the last refusal.
    pub(super) refused: Option<Instant>,
    pub(super) pace: Pace,
}

impl Lane {
    pub(super) fn lasting(&self, now: Instant) -> bool {
        self.refused.is_some_and(|last| now.saturating_duration_since(last) < CALM_AFTER)
    }
}

/// How fast requests leave a lane that is never empty. The cost of single requests is not enough there: work
/// that belongs to no request, above all refusals, also takes processor time.
#[derive(Debug, Default)]
pub(super) struct Pace {
    pub(super) since: Option<Instant>,
    pub(super) left: u32,
    /// Average seconds between two requests leaving.
    pub(super) secs: Option<f64>,
}

impl Pace {
    /// Records that a request has left; `lasting` if the lane has refused queries lately, so that it was
    /// never empty.
    pub(super) fn one_left(&mut self, lasting: bool, now: Instant) {
        let Some(since) = self.since.filter(|_| lasting) else {
            *self = Self { since: lasting.then_some(now), left: 0, secs: None };
            return;
        };
        self.left += 1;
        let took = now.saturating_duration_since(since);
        if took >= PACE_OVER && self.left >= PACE_LEAST {
            *self = Self { since: Some(now), left: 0, secs: Some(took.as_secs_f64() / f64::from(self.left)) };
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Lanes {
    pub(super) light: Lane,
    pub(super) media: Lane,
    pub(super) costs: HashMap<Class, Cost>,
    pub(super) coming: Coming,
}

impl Lanes {
    pub(super) fn lane(&mut self, media: bool) -> &mut Lane {
        if media { &mut self.media } else { &mut self.light }
    }

    pub(super) fn cost(&self, class: &Class) -> f64 {
        let first = if class.media { FIRST_MEDIA_SECS } else { FIRST_LIGHT_SECS };
        self.costs.get(class).map_or(first, |cost| cost.secs)
    }

    /// Seconds of work ahead of a request of this cost. All share the processors evenly, so until this
    /// request is done, each other one takes at most its own cost, and at most this one's.
    pub(super) fn ahead(&self, lane: &Lane, secs: f64) -> f64 {
        lane.running.iter().map(|(class, count)| self.cost(class).min(secs) * *count as f64).sum()
    }

    /// The same for queries whose bodies are on their way, and their number.
    pub(super) fn coming(&self, media: bool, secs: f64, now: Instant) -> (f64, usize) {
        let classes = self.coming.classes(now).filter(|_| media);
        classes.fold((0.0, 0), |(ahead, count), class| (ahead + self.cost(class).min(secs), count + 1))
    }
}
