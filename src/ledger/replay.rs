//! The result of reading a ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::path::Path;

use super::LEDGER;
use super::line::{AssetEntry, Entry, WorkKind, decode};
use crate::own_files;
use crate::types::AssetId;

/// Longest line that is read: metadata is at most 64 KiB, which JSON may write six times as long.
const MAX_LINE_BYTES: usize = 1 << 20;

/// The result of reading a ledger from its first line to its last.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Replay {
    /// Whether a ledger exists.
    pub exists: bool,
    /// Highest count of acknowledged changes in the store.
    pub acknowledged: i64,
    /// Assets that exist.
    pub live: BTreeMap<AssetId, AssetEntry>,
    /// Files beneath `uploads/` whose assets were deleted.
    pub deleted_uploads: BTreeSet<String>,
    /// User settings that have not been removed.
    pub work: BTreeSet<(WorkKind, String)>,
    /// Number of lines with a wrong checksum.
    pub damaged_lines: u64,
    /// Position of the end of the last whole line, in bytes.
    pub whole_bytes: u64,
}

impl Replay {
    fn take(&mut self, acknowledged: i64, entry: Entry) {
        self.acknowledged = self.acknowledged.max(acknowledged);
        match entry {
            Entry::Ledger { .. } => {}
            Entry::Put(asset) => {
                if let Some(upload) = &asset.upload {
                    self.deleted_uploads.remove(upload);
                }
                self.live.insert(asset.id, asset);
            }
            Entry::Gone { id, upload } => {
                self.live.remove(&id);
                self.deleted_uploads.extend(upload);
            }
            Entry::Work { kind, id, exists: true } => {
                self.work.insert((kind, id));
            }
            Entry::Work { kind, id, exists: false } => {
                self.work.remove(&(kind, id));
            }
        }
    }

    /// The shortest list of entries with the same result. Deleted uploads are included, because their files
    /// may still be there.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let gone = self.deleted_uploads.iter().map(|upload| Entry::Gone {
            // The asset's real id no longer matters.
            id: AssetId::generate(),
            upload: Some(upload.clone()),
        });
        let put = self.live.values().cloned().map(Entry::Put);
        let work =
            self.work.iter().map(|(kind, id)| Entry::Work { kind: *kind, id: id.clone(), exists: true });
        gone.chain(put).chain(work).collect()
    }
}

pub(super) fn read(folder: &Path) -> io::Result<Replay> {
    match own_files::open(folder, LEDGER) {
        Ok(file) => read_from(BufReader::with_capacity(1 << 16, file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Replay::default()),
        Err(error) => Err(error),
    }
}

/// Reads any bytes; none of them is trusted.
pub(super) fn read_from(mut input: impl BufRead) -> io::Result<Replay> {
    let mut replay = Replay { exists: true, ..Replay::default() };
    let mut line = Vec::new();
    loop {
        line.clear();
        let (read, whole) = read_line(&mut input, &mut line)?;
        if read == 0 {
            return Ok(replay);
        }
        if !whole {
            // The beginning of a line that was being written and was never acknowledged.
            return Ok(replay);
        }
        replay.whole_bytes += read;
        match decode(&line)? {
            Some((acknowledged, entry)) => replay.take(acknowledged, entry),
            None => replay.damaged_lines += 1,
        }
    }
}

/// Reads up to and including a newline, keeping no more than [`MAX_LINE_BYTES`]. Returns the number of bytes
/// read, and whether there was a newline.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<(u64, bool)> {
    let mut read = 0;
    loop {
        let buffer = match input.fill_buf() {
            Ok(buffer) => buffer,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if buffer.is_empty() {
            return Ok((read, false));
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let part = &buffer[..end.unwrap_or(buffer.len())];
        let room = MAX_LINE_BYTES.saturating_sub(line.len());
        line.extend_from_slice(&part[..part.len().min(room)]);
        let used = part.len() + usize::from(end.is_some());
        input.consume(used);
        read += used as u64;
        if end.is_some() {
            return Ok((read, true));
        }
    }
}
