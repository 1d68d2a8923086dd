//! Who may call what: keys, sessions, the table of roles, the audit log.

mod audit;
pub mod guard;
mod host;
pub mod keys;
pub mod roles;
pub mod session;
