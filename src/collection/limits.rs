//! Limits of standing queries.

/// Maximum number of standing queries per library.
pub const MAX_STANDING: usize = 10_000;

/// Largest total size of a query's files, which are stored with it, in bytes.
pub const MAX_GIVEN_BYTES: usize = 16 << 20;
