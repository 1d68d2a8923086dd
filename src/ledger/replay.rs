//! What a ledger amounts to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::path::Path;

use super::line::{AssetEntry, Entry, WorkKind, decode};
use crate::types::AssetId;

/// Longest line that is read: metadata is at most 64 KiB, which JSON may write six times as long.
const MAX_LINE_BYTES: usize = 1 << 20;

/// What a ledger amounts to, read from its first line to its last.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Replay {
    /// Whether there is a ledger at all.
    pub exists: bool,
    /// Highest count of acknowledged changes that the store has had.
    pub acknowledged: i64,
    /// Assets that are alive.
    pub live: BTreeMap<AssetId, AssetEntry>,
    /// Uploaded files whose assets were deleted, beneath `uploads/`.
    pub deleted_uploads: BTreeSet<String>,
    /// User settings that have not been removed.
    pub work: BTreeSet<(WorkKind, String)>,
    /// Lines whose checksum is wrong.
    pub damaged_lines: u64,
    /// Bytes up to the end of the last whole line.
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

    /// The shortest list of entries that amounts to the same. Deleted uploads stay named, because
    /// their files may not be gone yet.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let gone = self.deleted_uploads.iter().map(|upload| Entry::Gone {
            // Whose it was does not matter any more.
            id: AssetId::generate(),
            upload: Some(upload.clone()),
        });
        let put = self.live.values().cloned().map(Entry::Put);
        let work =
            self.work.iter().map(|(kind, id)| Entry::Work { kind: *kind, id: id.clone(), exists: true });
        gone.chain(put).chain(work).collect()
    }
}

pub(super) fn read(path: &Path) -> io::Result<Replay> {
    match File::open(path) {
        Ok(file) => read_from(BufReader::with_capacity(1 << 16, file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Replay::default()),
        Err(error) => Err(error),
    }
}

/// Reads any bytes without trusting them.
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
            // The beginning of a line that was being written: nobody was told of it.
            return Ok(replay);
        }
        replay.whole_bytes += read;
        match decode(&line)? {
            Some((acknowledged, entry)) => replay.take(acknowledged, entry),
            None => replay.damaged_lines += 1,
        }
    }
}

/// Reads up to and including a newline, keeping no more than [`MAX_LINE_BYTES`] of it: bytes read,
/// and whether the newline was there.
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
