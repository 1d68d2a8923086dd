//! Tells a decode that nobody waits for its result any more.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};

/// Receiving end: shows whether its guard has been dropped.
#[derive(Debug)]
pub struct Cancel(pub(super) OwnedFd);

/// Fires its [`Cancel`] when dropped.
#[derive(Debug)]
pub struct CancelGuard(#[allow(dead_code)] OwnedFd);

impl Cancel {
    /// A receiving end and the guard that fires it.
    ///
    /// # Errors
    /// If the process has no descriptors left.
    pub fn new() -> std::io::Result<(Self, CancelGuard)> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        Ok((Self(read), CancelGuard(write)))
    }

    /// Whether the guard has been dropped.
    pub(in crate::media) fn fired(&self) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }
}
