//! Paths given by users: they must be below an allowed root, and are opened in a way that a link swapped in
//! later cannot redirect.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::error::FileError;

/// The folders whose files may be indexed by path.
#[derive(Debug, Clone)]
pub struct AllowedRoots(Vec<PathBuf>);

impl AllowedRoots {
    /// Resolves the roots once; a missing one is an error at startup, not a surprise later.
    pub fn new(roots: &[PathBuf]) -> Result<Self, FileError> {
        let resolve = |root: &PathBuf| {
            let path = root
                .canonicalize()
                .map_err(|_| FileError::Missing(format!("allowed root {}", root.display())))?;
            if path.is_dir() {
                Ok(path)
            } else {
                Err(FileError::Kind(format!("allowed root {}", root.display()), "a folder"))
            }
        };
        roots.iter().map(resolve).collect::<Result<_, _>>().map(Self)
    }

    /// The path with every link resolved, if it is below a root. A path outside gets the same error whether
    /// it exists or not, so that nobody can probe the disk.
    pub fn resolve(&self, path: &Path) -> Result<PathBuf, FileError> {
        let refused = || FileError::NotAllowed(path.display().to_string());
        if !path.is_absolute() {
            return Err(refused());
        }
        match path.canonicalize() {
            Ok(real) if self.holds(&real) => Ok(real),
            Ok(_) => Err(refused()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && self.lexically_inside(path) => {
                Err(FileError::Unreadable(path.display().to_string()))
            }
            Err(_) if self.lexically_inside(path) => Err(FileError::Missing(path.display().to_string())),
            Err(_) => Err(refused()),
        }
    }

    /// Whether a resolved path is below a root.
    pub fn holds(&self, real: &Path) -> bool {
        self.0.iter().any(|root| real.starts_with(root))
    }

    /// A missing path is reported as missing only if its nearest existing parent is allowed.
    fn lexically_inside(&self, path: &Path) -> bool {
        let dotted = path.components().any(|part| part == std::path::Component::ParentDir);
        let parent = path.ancestors().skip(1).find_map(|parent| parent.canonicalize().ok());
        !dotted && parent.is_some_and(|parent| self.holds(&parent))
    }
}

/// Opens a resolved path for reading without following any link, and refuses anything but a regular file (a
/// FIFO would block, a device would not end). A refused file is never opened: opening alone has effects on
/// some devices.
///
/// # Errors
/// [`FileError::Missing`], [`FileError::NotAllowed`], [`FileError::Kind`],
/// [`FileError::Unreadable`], [`FileError::Io`].
pub fn open_resolved(path: &Path) -> Result<File, FileError> {
    let name = || path.display().to_string();
    let file = open_named(path, OFlags::PATH)?;
    if !file.metadata()?.is_file() {
        return Err(FileError::Kind(name(), "a regular file"));
    }
    drop(file);
    // The file may have been replaced in between: check the opened one.
    let file = open_named(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(FileError::Kind(name(), "a regular file")) }
}

fn open_named(path: &Path, flags: OFlags) -> Result<File, FileError> {
    let flags = flags | OFlags::CLOEXEC;
    let opened = match openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        Ok(fd) => Ok(File::from(fd)),
        // Kernels before 5.6 and some container sandboxes lack the call.
        Err(Errno::NOSYS | Errno::PERM) => open_checked(path, flags),
        Err(error) => Err(error.into()),
    };
    let name = || path.display().to_string();
    opened.map_err(|error: io::Error| match Errno::from_io_error(&error) {
        Some(Errno::NOENT | Errno::NOTDIR) => FileError::Missing(name()),
        Some(Errno::LOOP) => FileError::NotAllowed(name()),
        // Sockets, and devices without a driver.
        Some(Errno::NXIO | Errno::NODEV) => FileError::Kind(name(), "a regular file"),
        Some(Errno::ACCESS | Errno::PERM | Errno::NAMETOOLONG) => FileError::Unreadable(name()),
        _ => FileError::Io(error),
    })
}

fn open_checked(path: &Path, flags: OFlags) -> io::Result<File> {
    if path.canonicalize()? != path {
        return Err(Errno::LOOP.into());
    }
    Ok(File::from(rustix::fs::open(path, flags | OFlags::NOFOLLOW, Mode::empty())?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn code(result: Result<PathBuf, FileError>) -> &'static str {
        result.map_or_else(|error| error.code(), |_| "ok")
    }

    #[test]
    fn only_paths_beneath_a_root_are_allowed() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        let root = base.join("root");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::write(root.join("sub/a.mp4"), "x").unwrap();
        std::fs::write(base.join("secret"), "x").unwrap();
        std::fs::create_dir(base.join("root2")).unwrap();
        std::fs::write(base.join("root2/b"), "x").unwrap();
        symlink(base.join("secret"), root.join("out")).unwrap();
        symlink(root.join("sub/a.mp4"), root.join("in")).unwrap();
        let roots = AllowedRoots::new(std::slice::from_ref(&root)).unwrap();

        assert_eq!(roots.resolve(&root.join("sub/a.mp4")).unwrap(), root.join("sub/a.mp4"));
        assert_eq!(roots.resolve(&root.join("in")).unwrap(), root.join("sub/a.mp4"));
        assert_eq!(code(roots.resolve(&root.join("sub/none"))), "path_missing");
        for outside in ["../secret", "out", "../root2/b", "../none", "sub/../../none", "out/none"] {
            assert_eq!(code(roots.resolve(&root.join(outside))), "path_not_allowed", "{outside}");
        }
        assert_eq!(code(roots.resolve(Path::new("sub/a.mp4"))), "path_not_allowed");
        assert_eq!(code(AllowedRoots::new(&[]).unwrap().resolve(&root)), "path_not_allowed");
        assert!(AllowedRoots::new(&[base.join("none")]).is_err());
    }

    #[test]
    fn a_link_swapped_in_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        std::fs::write(base.join("secret"), "x").unwrap();
        symlink(base.join("secret"), base.join("a.mp4")).unwrap();
        assert_eq!(open_resolved(&base.join("a.mp4")).unwrap_err().code(), "path_not_allowed");
        assert_eq!(
            open_checked(&base.join("a.mp4"), OFlags::RDONLY).unwrap_err().raw_os_error(),
            Some(Errno::LOOP.raw_os_error())
        );
        assert!(open_resolved(&base.join("secret")).is_ok());
        assert!(open_checked(&base.join("secret"), OFlags::RDONLY).is_ok());
        assert_eq!(open_resolved(&base).unwrap_err().code(), "path_kind");
        assert_eq!(open_resolved(&base.join("none")).unwrap_err().code(), "path_missing");
    }

    #[test]
    fn what_is_no_file_is_told_so() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(base.join("socket")).unwrap();
        rustix::fs::mkfifoat(CWD, base.join("fifo"), Mode::RUSR | Mode::WUSR).unwrap();
        for name in ["socket", "fifo", ""] {
            assert_eq!(open_resolved(&base.join(name)).unwrap_err().code(), "path_kind", "{name}");
        }
        assert_eq!(open_resolved(Path::new("/dev/null")).unwrap_err().code(), "path_kind");
    }
}
