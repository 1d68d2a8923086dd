//! Queries whose bodies are still on their way.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::class::Class;

/// How long a place is kept for a body.
pub const IN_TIME: Duration = Duration::from_millis(100);
/// An address whose body came late is given no places for so long: its queries are weighed when they are there.
const LATE_FOR: Duration = Duration::from_secs(60);
/// Most addresses that are known to be late.
const MAX_LATE: usize = 4096;

/// Places of bodies that are expected within [`IN_TIME`].
#[derive(Debug, Default)]
pub struct Coming {
    next: u64,
    places: HashMap<u64, Place>,
    late: HashMap<IpAddr, Instant>,
}

#[derive(Debug)]
struct Place {
    class: Class,
    from: IpAddr,
    since: Instant,
}

impl Place {
    fn is_kept(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < IN_TIME
    }
}

impl Coming {
    /// What is expected.
    pub fn classes(&self, now: Instant) -> impl Iterator<Item = &Class> {
        self.places.values().filter(move |place| place.is_kept(now)).map(|place| &place.class)
    }

    /// A place for a body; `None` for those who were late before.
    pub fn add(&mut self, class: &Class, from: IpAddr, now: Instant) -> Option<u64> {
        let is_late = |since: &Instant| now.saturating_duration_since(*since) < LATE_FOR;
        if self.late.get(&from).is_some_and(is_late) {
            return None;
        }
        self.next += 1;
        self.places.insert(self.next, Place { class: class.clone(), from, since: now });
        Some(self.next)
    }

    /// Its body has come, or never will: whether the place was kept until now.
    pub fn take(&mut self, place: u64, now: Instant) -> bool {
        let Some(place) = self.places.remove(&place) else { return false };
        let kept = place.is_kept(now);
        if !kept {
            if self.late.len() >= MAX_LATE {
                self.late.retain(|_, since| now.saturating_duration_since(*since) < LATE_FOR);
            }
            if self.late.len() < MAX_LATE {
                self.late.insert(place.from, now);
            }
        }
        kept
    }
}
