//! `triptych decode-worker`: the sandboxed child that parses one untrusted file.

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the child; never called by a user. It takes no arguments: the request comes over its standard input, which is
/// a socket.
#[must_use]
pub fn main(_args: impl Iterator<Item = OsString>) -> ExitCode {
    crate::decode_child::main()
}
