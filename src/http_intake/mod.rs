//! What happens to a request before its handler: who sends it and what they may do, whether it is taken on, and how its
//! body, form or query is received. Nothing here knows a resource.

pub mod admission;
pub mod bodies;
pub mod client;
pub mod config;
pub mod extract;
pub mod form;
pub mod guard;
pub mod middleware;
mod open;
pub mod query;
pub mod spaces;
pub mod state;
#[cfg(feature = "otlp")]
pub mod trace;
