//! Output of commands. `println!` would panic if the reader has gone, as in `triptych search … | head`.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use super::CliError;

static INCOMPLETE: AtomicBool = AtomicBool::new(false);

/// Prints a line. If the reader has gone, nothing is lost; any other failure is remembered for [`complete`].
macro_rules! say {
    ($($what:tt)*) => { $crate::cli::out::line(&format_args!($($what)*)) };
}

pub(super) fn line(what: &Arguments<'_>) {
    let mut stdout = std::io::stdout().lock();
    if let Err(error) = writeln!(stdout, "{what}").and_then(|()| stdout.flush())
        && error.kind() != ErrorKind::BrokenPipe
    {
        INCOMPLETE.store(true, Ordering::Relaxed);
    }
}

/// Fails if some output could not be written: a full disk must not look like success.
pub(super) fn complete() -> Result<(), CliError> {
    match INCOMPLETE.load(Ordering::Relaxed) {
        false => Ok(()),
        true => Err(CliError::other(
            "output_failed",
            "the output could not be written completely; check the disk or pipe it goes to",
        )),
    }
}
