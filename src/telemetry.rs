//! Logs and metrics.

/// Logs to standard error, filtered by `RUST_LOG` (default: warnings, our own notices).
pub fn init_logging() {}
