//! Reads the bytes of a file at any position, in blocks.

use std::fs::File;
use std::os::unix::fs::FileExt;

const BLOCK: usize = 1 << 16;
/// Bytes that a search looks at in one go.
pub const PIECE_BYTES: usize = 1 << 15;

/// A buffered block of a file, for reads at any position.
pub struct Window<'a> {
    file: &'a File,
    start: u64,
    bytes: Vec<u8>,
    /// Length of the file, in bytes.
    pub len: u64,
}

impl<'a> Window<'a> {
    pub fn new(file: &'a File) -> std::io::Result<Self> {
        Ok(Self { file, start: 0, bytes: Vec::new(), len: file.metadata()?.len() })
    }

    /// Up to `count` bytes from `at` on: at most a block, and fewer at the end of the file.
    pub fn at(&mut self, at: u64, count: usize) -> &[u8] {
        let held = self.start + self.bytes.len() as u64;
        // After the end of the file there is nothing to read, whatever the count.
        let inside = at >= self.start && (at + count as u64 <= held || (held >= self.len && at <= held));
        if !inside {
            self.bytes.resize(BLOCK, 0);
            let mut filled = 0;
            while let Some(space) = self.bytes.get_mut(filled..).filter(|space| !space.is_empty()) {
                match self.file.read_at(space, at + filled as u64) {
                    Ok(0) => break,
                    Ok(read) => filled += read,
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    // ffmpeg will hit the same error and report it.
                    Err(_) => break,
                }
            }
            self.bytes.truncate(filled);
            self.start = at;
        }
        let from = usize::try_from(at - self.start).unwrap_or(usize::MAX).min(self.bytes.len());
        let to = from.saturating_add(count).min(self.bytes.len());
        self.bytes.get(from..to).unwrap_or_default()
    }

    /// A number of up to eight bytes; `None` if the file ends before.
    pub fn number(&mut self, at: u64, bytes: usize, little_endian: bool) -> Option<u64> {
        let found = self.at(at, bytes);
        let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        let whole = found.len() == bytes;
        whole.then(|| if little_endian { found.iter().rev().fold(0, add) } else { found.iter().fold(0, add) })
    }
}
