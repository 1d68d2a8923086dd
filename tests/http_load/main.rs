//! Slow, greedy and too many clients beside honest ones. The short forms run with the other tests; the long
//! ones print the figures of docs/measurements/load.md: `make test-slow-clients test-overload test-memory`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod bodies;
mod honest;
mod limits;
mod memory;
mod overload;
mod slow;
