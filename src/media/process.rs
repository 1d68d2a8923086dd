//! The parent's side of one decode worker process: start, kill, reap.

use std::fs::File;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal, kill_process_group, pidfd_open, prlimit};

use super::{DecoderConfig, MediaError};
use crate::decode_child::protocol::{GO, Request};

/// Size of the pipes in bytes, by default the most that Linux allows. Larger pipes mean fewer context
/// switches.
const PIPE_BYTES: usize = 1 << 20;

/// How a child ended.
#[derive(Debug, Clone, Copy, Default)]
pub struct Exit {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    /// User and system time of the child, its threads and its reaped children.
    pub cpu: Duration,
}

/// A running child. Dropping it kills its process group and reaps it.
///
/// PDEATHSIG follows the *thread* that started the child, so a `Worker` must end on that thread. It is used
/// by one function of one thread only.
pub struct Worker {
    pid: Pid,
    reaped: bool,
    /// Readable once the child has exited.
    pub pidfd: OwnedFd,
    pub control: UnixStream,
    pub frames: OwnedFd,
    pub sound: OwnedFd,
    pub log: OwnedFd,
}

impl Worker {
    /// Starts a child and passes it the file and the request.
    pub fn start(config: &DecoderConfig, media: &File, request: &Request) -> Result<Self, MediaError> {
        let failed = |what: &str, e: std::io::Error| MediaError::Worker(format!("{what}: {e}"));
        let pipes = || -> std::io::Result<[(OwnedFd, OwnedFd); 3]> {
            let pipe = || Ok::<_, std::io::Error>(pipe_with(PipeFlags::CLOEXEC)?);
            Ok([pipe()?, pipe()?, pipe()?])
        };
        let [(frames, frames_end), (sound, sound_end), (log, log_end)] =
            pipes().map_err(|e| failed("pipe", e))?;
        let (control, control_end) = UnixStream::pair().map_err(|e| failed("socket", e))?;
        // Best effort: an unprivileged user has a quota of pipe memory.
        let _ = fcntl_setpipe_size(&frames, PIPE_BYTES);
        // The child gets none of the server's environment, which contains secrets. The allocator would retain
        // address space that it no longer uses, which counts towards the memory limit. No `pre_exec`, which
        // would fork a large process.
        let child = Command::new(&config.worker_exe)
            .arg0("triptych")
            .arg("decode-worker")
            .env_clear()
            .env("MALLOC_CONF", "retain:false")
            .stdin(OwnedFd::from(control_end))
            .stdout(Stdio::from(frames_end))
            .stderr(Stdio::from(log_end))
            .process_group(0)
            .spawn()
            .map_err(|e| failed(&config.worker_exe.display().to_string(), e))?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| MediaError::Worker("no process id".into()))?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|e| failed("pidfd", e.into()))?;
        let worker = Self { pid, reaped: false, pidfd, control, frames, sound, log };
        worker.send(media, &sound_end, request).map_err(|e| failed("request", e))?;
        for fd in [worker.frames.as_fd(), worker.sound.as_fd(), worker.log.as_fd(), worker.control.as_fd()] {
            rustix::io::ioctl_fionbio(fd, true).map_err(|e| failed("pipe", e.into()))?;
        }
        Ok(worker)
    }

    fn send(&self, media: &File, sound_end: &OwnedFd, request: &Request) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        let descriptors = [media.as_fd(), sound_end.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(std::io::Error::other("no room for the descriptors"));
        }
        // A request is far smaller than the socket's buffer, so it is sent at once.
        let sent = sendmsg(&self.control, &[IoSlice::new(&line)], &mut ancillary, SendFlags::NOSIGNAL)?;
        if sent == line.len() { Ok(()) } else { Err(std::io::Error::other("request too long")) }
    }

    /// Process id of the child.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Lets a child that waits for memory continue.
    pub fn go(&self) -> Result<(), MediaError> {
        // If the child is gone, its end shows that.
        match rustix::net::send(&self.control, &[GO], SendFlags::NOSIGNAL) {
            Ok(_) | Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => Ok(()),
            Err(errno) => Err(MediaError::Worker(format!("answer: {errno}"))),
        }
    }

    /// Lowers the memory limit of the running child.
    pub fn limit_data(&self, bytes: u64, most: u64) {
        let limit = Rlimit { current: Some(bytes), maximum: Some(most) };
        // If this fails, the child keeps its limit.
        let _ = prlimit(Some(self.pid), Resource::Data, limit);
    }

    /// Reaps the child, which must have exited or been killed.
    pub fn wait(mut self) -> Exit {
        self.reap()
    }

    /// Kills the child and everything it started.
    pub fn kill(&self) {
        // ESRCH: already gone.
        let _ = kill_process_group(self.pid, Signal::KILL);
    }

    #[allow(unsafe_code)]
    fn reap(&mut self) -> Exit {
        self.reaped = true;
        let mut status = 0;
        let mut usage = MaybeUninit::<libc::rusage>::zeroed();
        loop {
            // SAFETY: both pointers are to live locals of the right type; the pid is our own unreaped child.
            let pid =
                unsafe { libc::wait4(self.pid.as_raw_nonzero().get(), &mut status, 0, usage.as_mut_ptr()) };
            if pid >= 0 {
                break;
            }
            if std::io::Error::last_os_error().kind() != std::io::ErrorKind::Interrupted {
                return Exit::default();
            }
        }
        // SAFETY: zero is a valid rusage, and wait4 has filled it.
        let usage = unsafe { usage.assume_init() };
        Exit {
            code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
            signal: libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)),
            cpu: duration(usage.ru_utime) + duration(usage.ru_stime),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
            self.reap();
        }
    }
}

fn duration(time: libc::timeval) -> Duration {
    let secs = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(secs) + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
}
