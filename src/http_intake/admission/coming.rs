//! Queries whose bodies are still on their way.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::class::Class;

/// How long a place is reserved for a body.
pub const IN_TIME: Duration = Duration::from_millis(100);
/// How long an address whose body came late gets no places; its queries are weighed when the body is there.
const LATE_FOR: Duration = Duration::from_secs(60);
/// Maximum number of addresses remembered as late.
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
    /// Classes of the expected requests.
    pub fn classes(&self, now: Instant) -> impl Iterator<Item = &Class> {
        self.places.values().filter(move |place| place.is_kept(now)).map(|place| &place.class)
    }

    /// Reserves a place for a body; `None` if this address was late recently.
    pub fn add(&mut self, class: &Class, from: IpAddr, now: Instant) -> Option<u64> {
        let is_late = |since: &Instant| now.saturating_duration_since(*since) < LATE_FOR;
        if self.late.get(&from).is_some_and(is_late) {
            return None;
        }
        self.next += 1;
        self.places.insert(self.next, Place { class: class.clone(), from, since: now });
        Some(self.next)
    }

    /// Releases the place of a body that has arrived, or never will; returns whether it was still reserved.
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
