//! Keys, and sessions of browsers.

pub mod keys;
pub mod session;
