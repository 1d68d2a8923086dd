//! `triptych decode-worker`: the sandboxed child that parses one untrusted file.

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the child; never called by people.
#[must_use]
pub fn main(_args: impl Iterator<Item = OsString>) -> ExitCode {
    ExitCode::FAILURE
}
