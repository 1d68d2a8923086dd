//! The folder for files that the server does not recognise. It deletes none of them: the operator inspects
//! them and empties the folder with `triptych quarantine empty`.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::own_files;

/// Name of the folder in the data folder.
const FOLDER: &str = "quarantine";

/// The quarantine of a data folder. All calls block.
#[derive(Debug, Clone)]
pub struct Quarantine {
    data_dir: PathBuf,
    /// The subfolder of this start, created for the first file.
    folder: PathBuf,
}

/// A file in quarantine.
#[derive(Debug, Clone, Serialize)]
pub struct Quarantined {
    /// Path beneath `quarantine/`: the time of the move, then the original path in the data folder.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
}

impl Quarantine {
    /// `data_dir` must be resolved: quarantined files are named relative to it.
    pub fn of(data_dir: &Path) -> Self {
        let stamp = chrono::Utc::now().format("%Y%m%dT%H%M%S%.3fZ").to_string();
        Self { data_dir: data_dir.to_owned(), folder: data_dir.join(FOLDER).join(stamp) }
    }

    /// Moves a file or folder to quarantine, durably. `reason` is a phrase for the log.
    pub fn take(&self, path: &Path, reason: &str) -> io::Result<()> {
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("cannot move {} to quarantine: {error}", path.display()))
        };
        let relative = path.strip_prefix(&self.data_dir).unwrap_or(Path::new("unknown"));
        let to = free(self.folder.join(relative));
        let (from_folder, to_folder) =
            (path.parent().unwrap_or(&self.data_dir), to.parent().unwrap_or(&self.folder));
        DirBuilder::new().recursive(true).mode(0o700).create(to_folder).map_err(named)?;
        fs::rename(path, &to).map_err(named)?;
        // Each folder on the way may be new; sync the old place last.
        let new = to_folder.ancestors().take_while(|folder| folder.starts_with(&self.data_dir));
        for folder in new.chain([from_folder]) {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(named)?;
        }
        metrics::counter!("triptych_quarantined_total").increment(1);
        tracing::warn!(from = %path.display(), to = %to.display(), reason, "moved to quarantine");
        Ok(())
    }
}

/// Moves a file to quarantine. One that cannot be moved (full disk, another owner's folder) stays: this must
/// not make startup fail.
pub fn move_away(quarantine: &Quarantine, path: &Path, reason: &str) {
    if let Err(error) = quarantine.take(path, reason) {
        tracing::warn!(%error, reason, "left an unrecognised file in place");
    }
}

/// An unused path, as two files from the same place may come to quarantine.
fn free(path: PathBuf) -> PathBuf {
    let numbered = |n: u32| match n {
        0 => path.clone(),
        n => PathBuf::from(format!("{}.{n}", path.display())),
    };
    (0..).map(numbered).find(|path| path.symlink_metadata().is_err()).unwrap_or(path)
}

/// The files in quarantine, ordered by path. Blocking.
///
/// # Errors
/// Input/output errors.
pub fn quarantined(data_dir: &Path) -> io::Result<Vec<Quarantined>> {
    let root = data_dir.join(FOLDER);
    own_files::check_no_link(data_dir, FOLDER)?;
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            // Links are not followed.
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                folders.push(entry.path());
            } else {
                let path = entry.path().strip_prefix(&root).map_or_else(|_| entry.path(), Path::to_owned);
                found.push(Quarantined { path, bytes: metadata.len() });
            }
        }
    }
    found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Deletes the files in quarantine for good; returns how many files and bytes there were. Blocking.
///
/// # Errors
/// Input/output errors.
pub fn empty_quarantine(data_dir: &Path) -> io::Result<(usize, u64)> {
    let files = quarantined(data_dir)?;
    match fs::remove_dir_all(data_dir.join(FOLDER)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    Ok((files.len(), files.iter().map(|file| file.bytes).sum()))
}

/// Updates the metrics of the quarantine.
pub fn measure(data_dir: &Path) {
    match quarantined(data_dir) {
        Ok(files) => {
            metrics::gauge!("triptych_quarantine_files").set(files.len() as f64);
            metrics::gauge!("triptych_quarantine_bytes")
                .set(files.iter().map(|f| f.bytes as f64).sum::<f64>());
        }
        Err(error) => tracing::warn!(%error, "cannot read the quarantine"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_folders_are_moved_whole_listed_and_emptied() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().canonicalize().unwrap();
        fs::create_dir_all(data.join("tmp/folder")).unwrap();
        fs::write(data.join("tmp/folder/a"), "abc").unwrap();
        fs::create_dir_all(data.join("uploads/ab")).unwrap();
        fs::write(data.join("uploads/ab/b"), "de").unwrap();
        assert!(quarantined(&data).unwrap().is_empty());

        let quarantine = Quarantine::of(&data);
        quarantine.take(&data.join("tmp/folder"), "a folder").unwrap();
        quarantine.take(&data.join("uploads/ab/b"), "unknown").unwrap();
        assert!(!data.join("tmp/folder").exists() && !data.join("uploads/ab/b").exists());
        let files = quarantined(&data).unwrap();
        let ends: Vec<_> =
            files.iter().map(|file| (file.path.iter().skip(1).collect::<PathBuf>(), file.bytes)).collect();
        assert_eq!(ends, [("tmp/folder/a".into(), 3), ("uploads/ab/b".into(), 2)]);
        fs::write(data.join("uploads/ab/b"), "fg").unwrap();
        quarantine.take(&data.join("uploads/ab/b"), "once more").unwrap();
        assert_eq!(quarantined(&data).unwrap().len(), 3);
        let error = quarantine.take(&data.join("none"), "missing").unwrap_err();
        assert!(error.to_string().contains("none"), "{error}");

        assert_eq!(empty_quarantine(&data).unwrap(), (3, 7));
        assert!(quarantined(&data).unwrap().is_empty());
        assert_eq!(empty_quarantine(&data).unwrap(), (0, 0));
    }
}
