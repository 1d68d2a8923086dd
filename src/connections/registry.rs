//! All open connections, and the choice of the one to close if there is no room for another.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::conn::{Conn, Cut, Patience, Rank};
use crate::access::network_of;

/// Limits on the number of connections.
#[derive(Debug, Clone, Copy)]
pub struct Caps {
    /// Open connections in total.
    pub total: usize,
    /// Open connections from one address.
    pub per_address: usize,
}

/// There is no room, and no connection that could be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

#[derive(Debug, Default)]
struct Open {
    by_id: HashMap<u64, Arc<Conn>>,
    by_address: HashMap<IpAddr, usize>,
    next: u64,
}

/// All open connections, with their limits.
#[derive(Debug)]
pub struct Registry {
    caps: Caps,
    patience: Patience,
    open: Mutex<Open>,
    freed: Notify,
}

/// A connection's place; released on drop.
#[derive(Debug)]
pub struct Place {
    registry: Arc<Registry>,
    pub conn: Arc<Conn>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.registry.open().remove(self.conn.id);
        self.registry.freed.notify_one();
    }
}

impl Open {
    fn remove(&mut self, id: u64) {
        let Some(conn) = self.by_id.remove(&id) else { return };
        if let Some(count) = self.by_address.get_mut(&conn.peer) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&conn.peer);
            }
        }
        metrics::gauge!("triptych_http_connections").set(self.by_id.len() as f64);
    }

    /// Closes the most dispensable of these connections; returns whether there was one.
    fn evict(&mut self, among: impl Fn(&Conn, Rank, Cut) -> bool, now: Instant) -> bool {
        let ranked =
            self.by_id.values().filter_map(|conn| conn.rank(now).map(|(rank, cut)| (rank, cut, conn)));
        let ranked = ranked.filter(|(rank, cut, conn)| among(conn, *rank, *cut));
        let worse =
            |a: &(Rank, _, _), b: &(Rank, _, _)| a.0.partial_cmp(&b.0).unwrap_or(std::cmp::Ordering::Equal);
        let Some((_, cut, conn)) = ranked.max_by(worse) else { return false };
        let (id, conn) = (conn.id, Arc::clone(conn));
        metrics::counter!("triptych_http_connections_evicted_total", "waiting_for" => cut.as_str())
            .increment(1);
        tracing::debug!(peer = %conn.peer, waiting_for = cut.as_str(), "closed a connection to make room for another");
        // Its place is free now; its task ends a moment later.
        self.remove(id);
        conn.evict();
        true
    }
}

impl Registry {
    /// An empty registry.
    pub fn new(caps: Caps, patience: Patience) -> Arc<Self> {
        Arc::new(Self { caps, patience, open: Mutex::default(), freed: Notify::new() })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves a place for a connection from this address, closing another connection if necessary.
    pub fn admit(self: &Arc<Self>, peer: IpAddr, now: Instant) -> Result<Place, Full> {
        let peer = network_of(peer);
        let mut open = self.open();
        let own = open.by_address.get(&peer).copied().unwrap_or(0);
        if own >= self.caps.per_address && !open.evict(|conn, _, _| conn.peer == peer, now) {
            return Err(Full);
        }
        if open.by_id.len() >= self.caps.total && !open.evict(|_, _, _| true, now) {
            return Err(Full);
        }
        open.next += 1;
        let conn = Arc::new(Conn::new(open.next, peer, self.patience, now));
        open.by_id.insert(conn.id, Arc::clone(&conn));
        *open.by_address.entry(peer).or_default() += 1;
        metrics::gauge!("triptych_http_connections").set(open.by_id.len() as f64);
        Ok(Place { registry: Arc::clone(self), conn })
    }

    /// Closes one connection, for example because the process ran out of file descriptors.
    pub fn evict_one(&self) -> bool {
        self.open().evict(|_, _, _| true, Instant::now())
    }

    /// Closes the connection with the slowest body to make room for others, if one is known to be slow.
    pub fn evict_body(&self) -> bool {
        self.open().evict(|_, rank, cut| cut == Cut::Body && rank.is_known(), Instant::now())
    }

    /// Resolves when a place was released.
    pub async fn freed(&self) {
        self.freed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::pace::Rule;
    use super::*;

    fn registry(total: usize, per_address: usize) -> Arc<Registry> {
        let second = Duration::from_secs(1);
        let rule = Rule { min_bytes_per_sec: 1024.0, window: second * 10, silence: second * 30 };
        let patience = Patience { head: second * 10, idle: second * 30, body: rule, answer: rule };
        Registry::new(Caps { total, per_address }, patience)
    }

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[tokio::test]
    async fn the_oldest_head_makes_room_and_work_does_not() {
        let registry = registry(3, 3);
        let begin = Instant::now();
        let at = |secs: u64| begin + Duration::from_secs(secs);
        let working = registry.admit(address(1), at(0)).unwrap();
        working.conn.begin(at(0), false);
        let oldest = registry.admit(address(2), at(1)).unwrap();
        let newer = registry.admit(address(3), at(2)).unwrap();
        let another = registry.admit(address(4), at(3)).unwrap();
        oldest.conn.evicted().await;
        for place in [&newer, &another] {
            place.conn.begin(at(3), false);
        }
        assert_eq!(registry.admit(address(5), at(9)).unwrap_err(), Full);
        drop(another);
        registry.freed().await;
        assert!(registry.admit(address(5), at(9)).is_ok());
        // The evicted connection's place is already taken again; dropping it must not free another.
        drop(oldest);
        assert_eq!(registry.open().by_id.len(), 2);
    }

    #[tokio::test]
    async fn an_address_at_its_cap_gives_up_its_own() {
        let registry = registry(10, 2);
        let begin = Instant::now();
        let later = begin + Duration::from_secs(5);
        let foreign = registry.admit(address(1), begin).unwrap();
        let first = registry.admit(address(2), begin + Duration::from_secs(1)).unwrap();
        let second = registry.admit(address(2), begin + Duration::from_secs(1)).unwrap();
        second.conn.begin(begin, false);
        let third = registry.admit(address(2), later).unwrap();
        first.conn.evicted().await;
        assert_eq!(foreign.conn.read_deadline(), Some((begin + Duration::from_secs(10), Cut::Head)));
        third.conn.begin(later, false);
        assert_eq!(registry.admit(address(2), later).unwrap_err(), Full);
        drop((foreign, first, second, third));
        let open = registry.open();
        assert!(open.by_id.is_empty() && open.by_address.is_empty());
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        let parse = |text: &str| network_of(text.parse().unwrap());
        assert_eq!(parse("2001:db8:1:2:3::4"), parse("2001:db8:1:2:ffff::"));
        assert_ne!(parse("2001:db8:1:2::1"), parse("2001:db8:1:3::1"));
        assert_eq!(parse("::ffff:10.0.0.1"), parse("10.0.0.1"));
    }
}
