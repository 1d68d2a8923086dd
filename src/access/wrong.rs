//! Delays answers to wrong keys, increasingly, per address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Maximum number of addresses remembered.
const MAX_ADDRESSES: usize = 4096;
/// Wrong keys of an address that are answered at once: users mistype.
const FREE: f64 = 5.0;
/// One wrong key is forgiven per this many seconds.
const FORGIVEN_SECS: f64 = 10.0;
/// Upper limit of an address's score.
const WORST: f64 = 60.0;
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(2);
/// Maximum number of delayed answers at a time, per address and in total.
const WAITING: usize = 8;
const WAITING_IN_ALL: usize = 256;
/// How long an address is trusted after it sent a right key.
const TRUSTED_FOR: Duration = Duration::from_secs(3600);

/// The addresses that sent wrong keys.
#[derive(Clone, Default)]
pub struct WrongKeys(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    addresses: HashMap<IpAddr, Seen>,
    waiting: usize,
}

struct Seen {
    /// Number of wrong keys, minus those forgiven.
    score: f64,
    at: Instant,
    waiting: usize,
    right_at: Option<Instant>,
}

/// How to answer a wrong key.
pub enum WrongAnswer {
    /// Answer without a delay.
    Now,
    /// After this delay, during which the place stays taken.
    After(Duration, Place),
    /// Not at all: too many answers are delayed already. Gives the time after which to retry.
    TooMany(Duration),
}

/// The place of a delayed answer; released on drop.
pub struct Place {
    of: WrongKeys,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.of.table();
        table.waiting = table.waiting.saturating_sub(1);
        if let Some(seen) = table.addresses.get_mut(&self.address) {
            seen.waiting = seen.waiting.saturating_sub(1);
        }
    }
}

impl WrongKeys {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether to compare a guessable key at all. Not while so many wrong keys of this address are delayed
    /// that a quick answer would reveal a right one; an address with a recent right key is always allowed.
    #[must_use]
    pub fn may_compare(&self, address: IpAddr) -> bool {
        let table = self.table();
        let Some(seen) = table.addresses.get(&network_of(address)) else {
            return table.waiting < WAITING_IN_ALL;
        };
        let trusted = seen.right_at.is_some_and(|at| at.elapsed() < TRUSTED_FOR);
        trusted || (seen.waiting < WAITING && table.waiting < WAITING_IN_ALL)
    }

    /// Remembers that an address sent a right key.
    pub fn right(&self, address: IpAddr) {
        let mut table = self.table();
        if let Some(seen) = table.seen(network_of(address)) {
            seen.right_at = Some(Instant::now());
        }
    }

    /// Counts a wrong key; returns how to answer it.
    #[must_use]
    pub fn wrong(&self, address: IpAddr) -> WrongAnswer {
        metrics::counter!("triptych_wrong_keys_total").increment(1);
        let address = network_of(address);
        let mut table = self.table();
        let full = table.waiting >= WAITING_IN_ALL;
        let Some(seen) = table.seen(address) else { return WrongAnswer::TooMany(LONGEST_DELAY) };
        seen.score = (seen.score_now() + 1.0).min(WORST);
        seen.at = Instant::now();
        let delay = delay(seen.score);
        if delay.is_zero() {
            return WrongAnswer::Now;
        }
        if full || seen.waiting >= WAITING {
            return WrongAnswer::TooMany(delay);
        }
        seen.waiting += 1;
        table.waiting += 1;
        WrongAnswer::After(delay, Place { of: self.clone(), address })
    }
}

impl Seen {
    fn score_now(&self) -> f64 {
        (self.score - self.at.elapsed().as_secs_f64() / FORGIVEN_SECS).max(0.0)
    }
}

impl Table {
    /// The entry of an address. If the table is full, forgets the least suspicious other address.
    fn seen(&mut self, address: IpAddr) -> Option<&mut Seen> {
        if self.addresses.len() >= MAX_ADDRESSES && !self.addresses.contains_key(&address) {
            let idle = self.addresses.iter().filter(|(_, seen)| seen.waiting == 0);
            let least = idle.min_by(|(_, a), (_, b)| a.score_now().total_cmp(&b.score_now()));
            let least = least.map(|(address, _)| *address)?;
            self.addresses.remove(&least);
        }
        let new = || Seen { score: 0.0, at: Instant::now(), waiting: 0, right_at: None };
        Some(self.addresses.entry(address).or_insert_with(new))
    }
}

fn delay(score: f64) -> Duration {
    let over = score - FREE;
    if over <= 0.0 {
        return Duration::ZERO;
    }
    FIRST_DELAY.mul_f64((over - 1.0).exp2().min(1e6)).min(LONGEST_DELAY)
}

/// The network that counts as one client: whoever has one IPv6 address has its whole /64.
#[must_use]
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn delays_grow_and_places_are_few() {
        let wrong = WrongKeys::default();
        for _ in 0..5 {
            assert!(matches!(wrong.wrong(A), WrongAnswer::Now));
        }
        let mut places = Vec::new();
        let mut last = Duration::ZERO;
        for _ in 0..WAITING {
            let WrongAnswer::After(delay, place) = wrong.wrong(A) else { panic!("a place is free") };
            assert!(delay >= last && delay <= LONGEST_DELAY, "{delay:?}");
            last = delay;
            places.push(place);
        }
        assert!(last > FIRST_DELAY * 8);
        assert!(matches!(wrong.wrong(A), WrongAnswer::TooMany(_)));
        assert!(!wrong.may_compare(A) && wrong.may_compare(B));
        assert!(matches!(wrong.wrong(B), WrongAnswer::Now), "others are not slowed");
        wrong.right(A);
        assert!(wrong.may_compare(A), "it had the right key");
        drop(places);
        assert!(matches!(wrong.wrong(A), WrongAnswer::After(..)));
        assert_eq!(wrong.table().waiting, 0);
    }

    #[test]
    fn memory_is_bounded() {
        let wrong = WrongKeys::default();
        for _ in 0..20 {
            drop(wrong.wrong(A));
        }
        for n in 0..MAX_ADDRESSES as u32 + 200 {
            drop(wrong.wrong(IpAddr::V4((0x0a00_0000 + n).into())));
        }
        let table = wrong.table();
        assert_eq!(table.addresses.len(), MAX_ADDRESSES);
        assert!(table.addresses[&A].score > FREE, "the worst are remembered");
    }
}
