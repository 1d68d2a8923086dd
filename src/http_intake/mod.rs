//! The steps before a handler: the client and its role, admission, and the reception of the body, form or
//! query. Nothing here depends on a resource.

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
