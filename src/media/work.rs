//! Limits the work that a file may cause, by its size: a small file that expands to hours must not cost
//! minutes.

use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

use super::MediaError;

const MIB: f64 = (1 << 20) as f64;

/// Work that a file may cause: a fixed amount, and more for each MiB.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WorkLimits {
    /// CPU seconds of decoding and preprocessing that any file may use.
    pub cpu_secs: f64,
    /// Additional CPU seconds per MiB.
    pub cpu_secs_per_mib: f64,
    /// Clips of one window each, different from their neighbours, that any file may have.
    pub clips: u64,
    /// Additional clips per MiB.
    pub clips_per_mib: u64,
}

impl Default for WorkLimits {
    fn default() -> Self {
        Self { cpu_secs: 10.0, cpu_secs_per_mib: 120.0, clips: 64, clips_per_mib: 1200 }
    }
}

impl WorkLimits {
    /// CPU time for a file of this size in bytes.
    #[must_use]
    pub fn cpu(&self, file_bytes: u64) -> Duration {
        let secs = self.cpu_secs + self.cpu_secs_per_mib * file_bytes as f64 / MIB;
        Duration::try_from_secs_f64(secs).unwrap_or(Duration::MAX)
    }

    /// The same limits with this share of the CPU time.
    #[must_use]
    pub fn share(self, share: f64) -> Self {
        Self { cpu_secs: self.cpu_secs * share, cpu_secs_per_mib: self.cpu_secs_per_mib * share, ..self }
    }

    /// Clips for a file of this size in bytes, if a clip begins every `stride` windows.
    #[must_use]
    pub fn clips(&self, file_bytes: u64, stride: f64) -> u64 {
        let windows = self.clips as f64 + self.clips_per_mib as f64 * file_bytes as f64 / MIB;
        let overlap = if stride > 0.0 && stride < 1.0 { 1.0 / stride } else { 1.0 };
        (windows * overlap) as u64
    }

    /// The error for more clips than a file may have.
    #[must_use]
    pub fn too_many_clips(&self, file_bytes: u64, allowed: u64) -> MediaError {
        MediaError::WorkLimit {
            detail: format!(
                "it has more than {allowed} distinct clips, the limit for its {file_bytes} bytes"
            ),
        }
    }

    /// The error for more CPU time than a file may use.
    #[must_use]
    pub fn too_much_cpu(&self, file_bytes: u64) -> MediaError {
        let secs = self.cpu(file_bytes).as_secs_f64();
        let secs = if secs < 10.0 { (secs * 10.0).floor() / 10.0 } else { secs.floor() };
        MediaError::WorkLimit {
            detail: format!(
                "decoding takes more than {secs} s of CPU time, the limit for its {file_bytes} bytes"
            ),
        }
    }
}

/// CPU time of this thread so far.
pub fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let secs = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(secs, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// CPU time of another process so far; `None` if the kernel does not report it.
pub fn process_cpu(pid: i32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain any characters.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks.saturating_mul(1000) / rustix::param::clock_ticks_per_second().max(1)))
}

/// Private memory that another process has mapped so far, in bytes, which is what `RLIMIT_DATA` counts; `None`
/// if the kernel does not report it.
pub fn process_data(pid: i32) -> Option<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages = statm.split_ascii_whitespace().nth(5)?.parse::<u64>().ok()?;
    pages.checked_mul(rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_files_are_cheap_and_sparse_recordings_fit() {
        let limits = WorkLimits::default();
        assert!(limits.cpu(100_000) < Duration::from_secs(22));
        // An hour of speech at 6 kbit/s, in windows of 3.2 s.
        assert!(limits.clips(6000 / 8 * 3600, 1.0) > 3600 * 10 / 32);
        assert_eq!(limits.clips(0, 1.0), 64);
        assert_eq!(limits.clips(0, 0.25), 256);
        assert_eq!(limits.clips(1 << 20, 2.0), 1264);
    }

    #[test]
    fn cpu_time_is_measured() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let (began, wall) = (thread_cpu(), std::time::Instant::now());
        let mut sum = 0_u64;
        while thread_cpu() - began < Duration::from_millis(60) && wall.elapsed() < Duration::from_secs(20) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(process_cpu(pid).unwrap() >= Duration::from_millis(40));
        assert_eq!(process_cpu(-1), None);
    }

    #[test]
    fn memory_is_measured() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let before = process_data(pid).unwrap();
        let block = std::hint::black_box(vec![1_u8; 64 << 20]);
        assert!(process_data(pid).unwrap() >= before + block.len() as u64 / 2);
        assert_eq!(process_data(-1), None);
    }
}
