//! The server's own files and folders in its data folder. Each must be of the expected kind: a link would
//! lead to somebody else's files, a named pipe would block, a device has no end.

use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Files of a data folder.
const FILES: &[&str] = &[
    "lock",
    "ledger.log",
    "models.json",
    "keys.json",
    "keys.json.new",
    "keys.lock",
    "keys-used.json",
    "keys-used.json.new",
];
/// Files of a store.
const STORE: &[&str] = &["triptych.db", "triptych.db-wal", "triptych.db-journal"];
/// Folders of a data folder that it cannot do without.
const FOLDERS: &[&str] = &["uploads", "tmp", "models"];
/// Paths in a data folder that may be something other than a folder, but not a link: files moved or written
/// there would go elsewhere.
const NO_LINKS: &[&str] = &["quarantine", "index", "audit"];

/// Something of the wrong kind has the name of one of the server's own files or folders.
#[derive(Debug, thiserror::Error)]
#[error("`{name}` is {found}, but the server needs {wanted} there; {advice}")]
struct WrongKind {
    name: String,
    found: &'static str,
    wanted: &'static str,
    advice: &'static str,
}

const A_FILE: &str = "a regular file";
const A_FOLDER: &str = "a folder";
const MOVE_AWAY: &str = "move it away, or put back what was there";
const PUT_IT_THERE: &str = "links inside the server's own folders are not followed: put the file or folder itself there, or mount another disk there";

fn kind_of(found: FileType) -> &'static str {
    match found {
        kind if kind.is_symlink() => "a symbolic link",
        kind if kind.is_dir() => A_FOLDER,
        kind if kind.is_file() => A_FILE,
        kind if kind.is_fifo() => "a named pipe",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    }
}

fn wrong_kind(name: &str, found: FileType, wanted: &'static str) -> io::Error {
    let advice = if found.is_symlink() { PUT_IT_THERE } else { MOVE_AWAY };
    let wrong = WrongKind { name: name.to_owned(), found: kind_of(found), wanted, advice };
    io::Error::new(ErrorKind::InvalidInput, wrong)
}

fn named(name: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{name}: {error}"))
}

/// The file of this name, if there is one; links are not followed.
fn found(folder: &Path, name: &str) -> io::Result<Option<FileType>> {
    match fs::symlink_metadata(folder.join(name)) {
        Ok(found) => Ok(Some(found.file_type())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(named(name, &error)),
    }
}

/// Refuses anything but a regular file; it may be absent.
///
/// # Errors
/// Input/output errors.
pub fn check_file(folder: &Path, name: &str) -> io::Result<()> {
    match found(folder, name)? {
        Some(kind) if !kind.is_file() => Err(wrong_kind(name, kind, A_FILE)),
        _ => Ok(()),
    }
}

/// Refuses anything but a folder; it may be absent.
///
/// # Errors
/// Input/output errors.
pub fn check_folder(folder: &Path, name: &str) -> io::Result<()> {
    match found(folder, name)? {
        Some(kind) if !kind.is_dir() => Err(wrong_kind(name, kind, A_FOLDER)),
        _ => Ok(()),
    }
}

/// Refuses a link.
///
/// # Errors
/// Input/output errors.
pub fn check_no_link(folder: &Path, name: &str) -> io::Result<()> {
    match found(folder, name)? {
        Some(kind) if kind.is_symlink() => Err(wrong_kind(name, kind, A_FOLDER)),
        _ => Ok(()),
    }
}

/// Checks the kinds of all files and folders of a data folder, and those of the store in `folder`, which is
/// the data folder or a folder in it. Changes nothing.
///
/// # Errors
/// Input/output errors. They name the first one of a wrong kind, relative to the data folder.
pub fn check(data_dir: &Path, folder: &Path) -> io::Result<()> {
    FOLDERS.iter().try_for_each(|name| check_folder(data_dir, name))?;
    NO_LINKS.iter().try_for_each(|name| check_no_link(data_dir, name))?;
    FILES.iter().try_for_each(|name| check_file(data_dir, name))?;
    check_store(data_dir, folder)
}

/// Checks the kinds of the files of a store and of its indexes, in a folder within the data folder.
///
/// # Errors
/// Input/output errors.
pub fn check_store(data_dir: &Path, folder: &Path) -> io::Result<()> {
    let within = folder.strip_prefix(data_dir).unwrap_or(folder);
    if within != Path::new("") {
        check_folder(data_dir, &within.display().to_string())?;
    }
    let name = |name: &str| within.join(name).display().to_string();
    check_no_link(data_dir, &name("index"))?;
    STORE.iter().try_for_each(|file| check_file(data_dir, &name(file)))
}

/// Opens one of the server's own files for reading.
///
/// # Errors
/// Input/output errors; [`ErrorKind::InvalidInput`] if it is no regular file.
pub fn open(folder: &Path, name: &str) -> io::Result<File> {
    open_with(folder, name, OpenOptions::new().read(true))
}

/// Like [`open`], with other options; they must not truncate the file, which is not known to be the server's own before
/// it is open.
///
/// # Errors
/// Input/output errors; [`ErrorKind::InvalidInput`] if it is no regular file.
pub fn open_with(folder: &Path, name: &str, options: &mut OpenOptions) -> io::Result<File> {
    // Before it is opened: opening alone has effects on some devices.
    check_file(folder, name)?;
    let options = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = options.open(folder.join(name)).map_err(|error| named(name, &error))?;
    // It may have been replaced in between.
    let kind = file.metadata()?.file_type();
    if kind.is_file() { Ok(file) } else { Err(wrong_kind(name, kind, A_FILE)) }
}

/// Like [`open`], for a path.
///
/// # Errors
/// Like [`open`].
pub fn open_path(path: &Path) -> io::Result<File> {
    match (path.parent(), path.file_name().and_then(|name| name.to_str())) {
        (Some(folder), Some(name)) => open(folder, name),
        _ => Err(ErrorKind::InvalidFilename.into()),
    }
}

/// Reads the whole of one of the server's own files.
///
/// # Errors
/// Like [`open`].
pub fn read(folder: &Path, name: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(folder, name)?.read_to_end(&mut bytes).map_err(|error| named(name, &error))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    /// Makes something at a path.
    type Make = Box<dyn Fn(&Path)>;

    /// Everything that is no regular file.
    fn kinds(dir: &Path) -> Vec<(&'static str, Make)> {
        let victim = dir.join("victim");
        fs::write(&victim, "another's").unwrap();
        vec![
            ("a folder", Box::new(|path: &Path| fs::create_dir(path).unwrap())),
            ("a named pipe", Box::new(|path: &Path| mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR).unwrap())),
            ("a socket", Box::new(|path: &Path| drop(UnixListener::bind(path).unwrap()))),
            ("a symbolic link", Box::new(move |path: &Path| symlink(&victim, path).unwrap())),
            ("a symbolic link", Box::new(|path: &Path| symlink("/dev/zero", path).unwrap())),
            ("a symbolic link", Box::new(|path: &Path| symlink("/nonexistent/x", path).unwrap())),
        ]
    }

    fn data(dir: &Path) -> PathBuf {
        let data = dir.join("data");
        fs::create_dir(&data).unwrap();
        data
    }

    #[test]
    fn only_regular_files_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let data = data(dir.path());
        assert_eq!(open(&data, "a").unwrap_err().kind(), ErrorKind::NotFound);
        fs::write(data.join("a"), "abc").unwrap();
        assert_eq!(read(&data, "a").unwrap(), b"abc");
        assert_eq!(open_path(&data.join("a")).unwrap().metadata().unwrap().len(), 3);
        assert!(open_path(&data).is_err() && open_path(Path::new("/")).is_err());
        assert_eq!(open(Path::new("/dev"), "null").unwrap_err().kind(), ErrorKind::InvalidInput);
        for (n, (what, make)) in kinds(dir.path()).into_iter().enumerate() {
            let name = format!("f{n}");
            make(&data.join(&name));
            let mut writing = OpenOptions::new();
            writing.read(true).append(true).create(true);
            for outcome in [open(&data, &name), open_with(&data, &name, &mut writing)] {
                let error = outcome.unwrap_err();
                let text = error.to_string();
                assert!(text.contains(&format!("`{name}`")) && text.contains(what), "{text}");
                assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
            }
        }
        assert_eq!(fs::read(dir.path().join("victim")).unwrap(), b"another's");
        assert!(!Path::new("/nonexistent/x").exists());
    }

    #[test]
    fn a_data_folder_holds_what_is_expected_or_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let data = data(dir.path());
        let model = data.join("models/ab");
        check(&data, &model).unwrap();
        fs::create_dir_all(&model).unwrap();
        FOLDERS.iter().chain(NO_LINKS).for_each(|name| fs::create_dir_all(data.join(name)).unwrap());
        FILES.iter().for_each(|name| fs::write(data.join(name), "").unwrap());
        STORE.iter().for_each(|name| fs::write(model.join(name), "").unwrap());
        check(&data, &model).unwrap();
        check(&data, &data).unwrap();
        // The data folder itself may be reached by a link.
        let link = dir.path().join("link");
        symlink(&data, &link).unwrap();
        check(&link, &link.join("models/ab")).unwrap();

        let in_model = STORE.iter().map(|name| format!("models/ab/{name}"));
        let names = FILES.iter().map(ToString::to_string).chain(in_model);
        for name in names {
            for (what, make) in kinds(dir.path()) {
                fs::remove_file(data.join(&name)).unwrap();
                make(&data.join(&name));
                let text = check(&data, &model).unwrap_err().to_string();
                assert!(text.contains(&format!("`{name}`")) && text.contains(what), "{text}");
                assert!(!text.contains(dir.path().to_str().unwrap()), "{text}");
                let path = data.join(&name);
                if path.is_dir() { fs::remove_dir(&path) } else { fs::remove_file(&path) }.unwrap();
                fs::write(&path, "").unwrap();
            }
        }
        let elsewhere = dir.path().join("elsewhere");
        for name in FOLDERS.iter().chain(NO_LINKS).copied().chain(["models/ab"]) {
            let aside = dir.path().join("aside");
            fs::rename(data.join(name), &aside).unwrap();
            symlink(&elsewhere, data.join(name)).unwrap();
            let text = check(&data, &model).unwrap_err().to_string();
            assert!(text.contains(&format!("`{name}`")) && text.contains("a symbolic link"), "{text}");
            fs::remove_file(data.join(name)).unwrap();
            fs::rename(&aside, data.join(name)).unwrap();
        }
        check(&data, &model).unwrap();
    }
}
