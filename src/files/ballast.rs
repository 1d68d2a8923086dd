//! A file that only reserves disk space. It is released when other programs have filled the disk to the last
//! byte, so that assets can still be deleted.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FallocateFlags, fallocate};

/// Name of the file in the data folder.
const FILE: &str = "reserve.bin";

/// The file, and whether it is there.
#[derive(Debug)]
pub(super) struct Ballast {
    path: PathBuf,
    held: Mutex<bool>,
}

impl Ballast {
    pub(super) fn of(folder: &Path) -> Self {
        let path = folder.join(FILE);
        let held = Mutex::new(path.is_file());
        Self { path, held }
    }

    /// Allocates the space unless it already has it. Blocking.
    pub(super) fn take(&self, bytes: u64) -> io::Result<()> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if *held || bytes == 0 {
            return Ok(());
        }
        let written = File::create(&self.path).and_then(|file| fill(file, bytes));
        *held = written.is_ok();
        if !*held {
            // Half a file helps nobody.
            drop(fs::remove_file(&self.path));
        }
        written
    }

    /// Releases the space; returns whether there was any. Blocking.
    pub(super) fn give_up(&self) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let given = *held && fs::remove_file(&self.path).is_ok();
        *held = false;
        given
    }
}

/// Allocates real blocks: a sparse file would reserve nothing.
fn fill(mut file: File, bytes: u64) -> io::Result<()> {
    if fallocate(&file, FallocateFlags::empty(), 0, bytes).is_ok() {
        return Ok(());
    }
    // Not every file system allocates ahead, and some compress bytes that are all equal.
    let block: Vec<u8> = (0..64_u32 << 10).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut left = bytes;
    while left > 0 {
        let now = left.min(block.len() as u64);
        file.write_all(block.get(..now as usize).unwrap_or_default())?;
        left -= now;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn space_is_really_taken_and_given_back_once() {
        let dir = tempfile::tempdir().unwrap();
        let ballast = Ballast::of(dir.path());
        assert!(!ballast.give_up(), "nothing is held yet");
        ballast.take(300_000).unwrap();
        let file = fs::metadata(dir.path().join(FILE)).unwrap();
        assert!(file.blocks() * 512 >= 300_000, "{} blocks", file.blocks());
        ballast.take(900_000).unwrap();
        assert_eq!(fs::metadata(dir.path().join(FILE)).unwrap().len(), file.len(), "it is taken once");

        let again = Ballast::of(dir.path());
        assert!(again.give_up(), "a later start finds it");
        assert!(!dir.path().join(FILE).exists() && !again.give_up());
        again.take(100_000).unwrap();
        assert!(dir.path().join(FILE).exists());
    }

    #[test]
    fn bytes_are_written_where_space_cannot_be_allocated_ahead() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        // A file that is not open for writing cannot be allocated, and not be written either.
        File::create(&path).unwrap();
        assert!(fill(File::open(&path).unwrap(), 10).is_err());
        assert!(Ballast::of(&dir.path().join("missing")).take(10).is_err());
    }
}
