//! Keeps an open library in order.

pub(super) mod clock;
pub(super) mod disk;
pub(super) mod snapshots;
