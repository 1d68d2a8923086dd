//! Flags and environment, parsed and validated once.
