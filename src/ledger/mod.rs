//! The ledger: a second record, outside the database, of what this server has acknowledged.
//!
//! `<data folder>/ledger.log` has one line for each acknowledged change, appended and synced after the
//! store's commit and before the answer. Each line has a CRC-32 and the store's count of acknowledged changes
//! at that moment, so the next startup recognises a store that lacks acknowledged changes. The lines name
//! every existing asset, with its name and metadata, which is enough to index everything again from the
//! uploads.

mod line;
mod replay;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use line::{AssetEntry, Entry, WorkKind};
pub use replay::Replay;

use crate::fail_points::crash_point;
use crate::own_files;
use line::encode;

/// Name of the ledger in the data folder.
pub const LEDGER: &str = "ledger.log";
/// A running server rewrites the ledger once it is this large and has grown to this many times the size after
/// the last rewrite.
const COMPACT_FROM_BYTES: u64 = 16 << 20;
const COMPACT_GROWTH: u64 = 4;

/// Proof that lines were written; [`Ledger::sync`] makes them durable.
#[derive(Debug, Clone, Copy)]
#[must_use = "nothing is durable until the ticket is synced"]
pub struct Ticket(u64);

/// The ledger of a data folder, open for appending. All calls block.
#[derive(Debug)]
pub struct Ledger {
    /// The data folder.
    folder: PathBuf,
    /// `None` until the ledger can be written.
    writer: Mutex<Option<Writer>>,
    /// Number of lines known to be on disk. The holder of this lock syncs for everybody who waits for it.
    synced_lines: Mutex<u64>,
}

#[derive(Debug)]
struct Writer {
    file: File,
    len_bytes: u64,
    len_at_rewrite_bytes: u64,
    lines: u64,
    /// A write or sync has failed: the file's contents are uncertain until it is rewritten.
    suspect: bool,
}

impl Writer {
    const fn new(file: File, len_bytes: u64) -> Self {
        Self { file, len_bytes, len_at_rewrite_bytes: len_bytes, lines: 0, suspect: false }
    }
}

impl Ledger {
    /// Reads the ledger of a data folder; a missing one gives an empty replay with `exists` false.
    ///
    /// # Errors
    /// Input/output errors, and [`io::ErrorKind::Unsupported`] if a newer version wrote it.
    pub fn read(data_dir: &Path) -> io::Result<Replay> {
        replay::read(data_dir)
    }

    /// A ledger that cannot be written yet: appending fails because storage is full.
    #[must_use]
    pub fn unwritten(data_dir: &Path) -> Self {
        Self { folder: data_dir.to_owned(), writer: Mutex::new(None), synced_lines: Mutex::new(0) }
    }

    /// Opens the ledger from which [`Ledger::read`] made `replay`, at the end of its last whole line.
    ///
    /// # Errors
    /// Input/output errors.
    pub fn open(data_dir: &Path, replay: &Replay) -> io::Result<Self> {
        let file = open_at_end(data_dir)?;
        // A crash may leave the beginning of a line that was never acknowledged.
        if file.metadata()?.len() > replay.whole_bytes {
            file.set_len(replay.whole_bytes)?;
            file.sync_data()?;
        }
        let writer = Writer::new(file, replay.whole_bytes);
        let folder = data_dir.to_owned();
        Ok(Self { folder, writer: Mutex::new(Some(writer)), synced_lines: Mutex::new(0) })
    }

    /// Replaces the ledger by these entries, durably.
    ///
    /// # Errors
    /// Input/output errors; the ledger is then unchanged.
    pub fn write(&self, acknowledged: i64, entries: &[Entry]) -> io::Result<()> {
        let mut writer = self.writer();
        let (file, len_bytes) = write_whole(&self.folder, acknowledged, entries)?;
        let lines = writer.as_ref().map_or(0, |writer| writer.lines);
        *writer = Some(Writer { lines, ..Writer::new(file, len_bytes) });
        Ok(())
    }

    /// Whether lines can be appended.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.writer().is_some()
    }

    fn writer(&self) -> MutexGuard<'_, Option<Writer>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends entries that the store has committed. `acknowledged` is the store's count after the commit.
    /// Entries about one asset must be appended in the order of their commits.
    ///
    /// # Errors
    /// Input/output errors; no entry is left half-written.
    pub fn append(&self, acknowledged: i64, entries: &[Entry]) -> io::Result<Ticket> {
        let mut bytes = Vec::new();
        for entry in entries {
            encode(&mut bytes, acknowledged, entry)?;
        }
        let mut writer = self.writer();
        let writer = writer.as_mut().ok_or_else(not_written)?;
        if writer.suspect {
            self.rewrite(writer)?;
        }
        if let Err(error) = write_lines(&mut writer.file, &bytes) {
            // A torn line in the middle would hide the next one.
            let whole = writer.len_bytes;
            writer.suspect = writer.file.set_len(whole).is_err();
            return Err(error);
        }
        writer.len_bytes += bytes.len() as u64;
        writer.lines += 1;
        Ok(Ticket(writer.lines))
    }

    /// Returns once the lines of a ticket are on disk. Waiting callers share one sync.
    ///
    /// # Errors
    /// Input/output errors; the ledger is then rewritten before the next line.
    pub fn sync(&self, ticket: Ticket) -> io::Result<()> {
        let mut synced = self.synced_lines.lock().unwrap_or_else(PoisonError::into_inner);
        if *synced >= ticket.0 {
            return Ok(());
        }
        let (file, lines) = {
            let mut writer = self.writer();
            let writer = writer.as_mut().ok_or_else(not_written)?;
            if writer.suspect {
                self.rewrite(writer)?;
                *synced = writer.lines;
                return Ok(());
            }
            (writer.file.try_clone(), writer.lines)
        };
        if let Err(error) = file.and_then(|file| sync_data(&file)) {
            // After a failed sync, the kernel may have dropped the data that it could not write, and a second
            // sync would succeed without it.
            if let Some(writer) = self.writer().as_mut() {
                writer.suspect = true;
            }
            return Err(error);
        }
        *synced = lines;
        Ok(())
    }

    /// Rewrites the ledger if most of its lines are obsolete.
    ///
    /// # Errors
    /// Input/output errors; the ledger is then unchanged.
    pub fn compact_if_due(&self) -> io::Result<()> {
        let mut writer = self.writer();
        let writer = writer.as_mut().ok_or_else(not_written)?;
        let due = writer.len_bytes >= COMPACT_FROM_BYTES
            && writer.len_bytes / COMPACT_GROWTH >= writer.len_at_rewrite_bytes;
        if due { self.rewrite(writer) } else { Ok(()) }
    }

    /// Rewrites the ledger from its own contents.
    fn rewrite(&self, writer: &mut Writer) -> io::Result<()> {
        let replay = replay::read(&self.folder)?;
        if replay.damaged_lines > 0 {
            // Lines that cannot be read are saved for a program that can.
            let aside = self.folder.join(format!("ledger-damaged-{}.log", uuid::Uuid::now_v7().simple()));
            fs::hard_link(self.folder.join(LEDGER), &aside)?;
            tracing::error!(lines = replay.damaged_lines, kept = %aside.display(), "some lines of the ledger are damaged");
        }
        let (file, len_bytes) = write_whole(&self.folder, replay.acknowledged, &replay.entries())?;
        writer.file = file;
        (writer.len_bytes, writer.len_at_rewrite_bytes, writer.suspect) = (len_bytes, len_bytes, false);
        Ok(())
    }
}

fn open_at_end(folder: &Path) -> io::Result<File> {
    own_files::open_with(folder, LEDGER, OpenOptions::new().append(true))
}

fn not_written() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, "no disk space for the ledger at startup")
}

fn write_lines(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    crash_point!("ledger-write");
    file.write_all(bytes)
}

fn sync_data(file: &File) -> io::Result<()> {
    crash_point!("ledger-written");
    file.sync_data()
}

/// Writes a new file under the ledger's name, durably; returns the file, open at its end, and its length.
fn write_whole(folder: &Path, acknowledged: i64, entries: &[Entry]) -> io::Result<(File, u64)> {
    let temporary = tempfile::Builder::new().prefix("ledger-").suffix(".tmp").tempfile_in(folder)?;
    let mut out = BufWriter::new(temporary.as_file());
    let mut line = Vec::new();
    encode(&mut line, acknowledged, &Entry::header())?;
    out.write_all(&line)?;
    for entry in entries {
        line.clear();
        encode(&mut line, acknowledged, entry)?;
        out.write_all(&line)?;
    }
    out.flush()?;
    drop(out);
    temporary.as_file().sync_all()?;
    crash_point!("ledger-rename");
    temporary.persist(folder.join(LEDGER)).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()?;
    let file = open_at_end(folder)?;
    let len_bytes = file.metadata()?.len();
    Ok((file, len_bytes))
}

/// Removes leftovers of an interrupted rewrite. The caller holds the data folder's lock.
///
/// # Errors
/// Input/output errors.
pub fn remove_leftovers(data_dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(data_dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("ledger-") && name.ends_with(".tmp") && entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) use tests::fuzzed;

#[cfg(test)]
mod tests;
