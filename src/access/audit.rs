//! The audit log: one JSON line for each requested change.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::own_files;

const FILE: &str = "audit.jsonl";

/// Where the audit log is and how large it may become.
#[derive(Debug, Clone)]
pub struct AuditConfig {
    /// Folder of the log; created if absent.
    pub folder: PathBuf,
    /// Size limit of one file in bytes; a new file is begun before it is exceeded.
    pub max_bytes: u64,
    /// Number of files to keep, including the newest.
    pub kept: usize,
}

/// The audit log. A line is in the kernel's hands when `write` returns, so it survives the end of the
/// process.
#[derive(Clone)]
pub struct AuditLog(Arc<Mutex<Log>>);

struct Log {
    config: AuditConfig,
    open: Option<File>,
    failing: bool,
}

impl AuditLog {
    /// Opens no file yet: an unwritable folder must not stop a server that is only read from.
    #[must_use]
    pub fn new(config: AuditConfig) -> Self {
        Self(Arc::new(Mutex::new(Log { config, open: None, failing: false })))
    }

    /// Writes one entry. A failure is counted and logged once in the server's log; the caller's change goes
    /// ahead all the same. Waits for the disk.
    pub fn write(&self, entry: &serde_json::Value) {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // JSON escapes anything that could break the line.
        match log.append(format!("{entry}\n").as_bytes()) {
            Ok(()) if log.failing => {
                log.failing = false;
                tracing::info!("writing to the audit log works again");
            }
            Ok(()) => {}
            Err(error) => {
                metrics::counter!("triptych_audit_failed_total").increment(1);
                // The next entry reopens the file and completes a torn line.
                log.open = None;
                if !std::mem::replace(&mut log.failing, true) {
                    let folder = log.config.folder.display().to_string();
                    tracing::error!(%error, folder, "cannot write the audit log; changes continue without it");
                }
            }
        }
    }
}

impl Log {
    fn path(&self, number: usize) -> PathBuf {
        let name = if number == 0 { FILE.to_owned() } else { format!("audit.{number}.jsonl") };
        self.config.folder.join(name)
    }

    fn append(&mut self, line: &[u8]) -> std::io::Result<()> {
        let path = self.path(0);
        if self.open.as_ref().is_some_and(|file| !is_at(file, &path)) {
            // Another program has moved the file away.
            self.open = None;
        }
        if self.open.is_none() {
            self.open = Some(open(&self.config.folder)?);
        }
        let size = self.open.as_ref().map_or(Ok(0), |file| file.metadata().map(|found| found.len()))?;
        if size > 0 && size + line.len() as u64 > self.config.max_bytes {
            self.rotate()?;
            self.open = Some(open(&self.config.folder)?);
        }
        self.open.as_mut().map_or(Ok(()), |file| file.write_all(line))
    }

    fn rotate(&mut self) -> std::io::Result<()> {
        self.open = None;
        let last = self.config.kept.max(1) - 1;
        if last == 0 {
            return fs::remove_file(self.path(0));
        }
        for number in (0..last).rev() {
            match fs::rename(self.path(number), self.path(number + 1)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let same = |a: fs::Metadata, b: fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    file.metadata().and_then(|open| Ok(same(open, fs::metadata(path)?))).unwrap_or(false)
}

/// Opens the log at its end, and terminates a line that was cut off there.
fn open(folder: &Path) -> std::io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o600);
    let mut file = own_files::open_with(folder, FILE, &mut options)?;
    if file.metadata()?.len() > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn log(folder: &Path, max_bytes: u64, kept: usize) -> AuditLog {
        AuditLog::new(AuditConfig { folder: folder.to_owned(), max_bytes, kept })
    }

    fn lines(path: &Path) -> Vec<String> {
        fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn entries_are_lines_and_files_are_few() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("audit");
        let audit = log(&folder, 100, 3);
        for n in 0..40 {
            audit.write(&json!({"n": n, "text": "a\nb"}));
        }
        let mut seen = Vec::new();
        for name in ["audit.2.jsonl", "audit.1.jsonl", FILE] {
            let text = fs::read_to_string(folder.join(name)).unwrap();
            assert!(text.len() <= 100, "{}", text.len());
            seen.extend(lines(&folder.join(name)));
        }
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 3);
        let numbers: Vec<i64> = seen
            .iter()
            .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["n"].as_i64().unwrap())
            .collect();
        let first = numbers[0];
        assert_eq!(numbers, (first..40).collect::<Vec<_>>(), "none is missing among those kept");
    }

    #[test]
    fn a_torn_line_is_ended_and_a_moved_file_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        fs::write(&path, "{\"n\":").unwrap();
        let audit = log(dir.path(), 1 << 20, 2);
        audit.write(&json!({"n": 1}));
        assert_eq!(lines(&path), ["{\"n\":", "{\"n\":1}"]);
        fs::rename(&path, dir.path().join("taken")).unwrap();
        audit.write(&json!({"n": 2}));
        assert_eq!(lines(&path), ["{\"n\":2}"]);
    }

    #[test]
    fn a_link_is_not_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "another's").unwrap();
        std::os::unix::fs::symlink(&victim, dir.path().join(FILE)).unwrap();
        log(dir.path(), 1 << 20, 2).write(&json!({"n": 1}));
        assert_eq!(fs::read_to_string(&victim).unwrap(), "another's");
    }

    #[test]
    fn a_failure_passes() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("audit");
        fs::write(&folder, "a file in the way").unwrap();
        let audit = log(&folder, 1 << 20, 2);
        audit.write(&json!({"n": 1}));
        fs::remove_file(&folder).unwrap();
        audit.write(&json!({"n": 2}));
        assert_eq!(lines(&folder.join(FILE)), ["{\"n\":2}"]);
    }
}
