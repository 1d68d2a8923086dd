//! Whether anybody still waits for a decode.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};

/// Watches for the caller's loss of interest.
#[derive(Debug)]
pub struct Cancel(pub(super) OwnedFd);

/// Cancels its [`Cancel`] when dropped.
#[derive(Debug)]
pub struct CancelGuard(#[allow(dead_code)] OwnedFd);

impl Cancel {
    /// A watch and the guard that ends it.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new() -> std::io::Result<(Self, CancelGuard)> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        Ok((Self(read), CancelGuard(write)))
    }

    /// Whether nobody is interested any more.
    pub(in crate::media) fn fired(&self) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }
}
