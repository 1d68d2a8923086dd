//! Which files of a folder become items of a job.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// Names that are taken without a look inside.
const MEDIA_EXTENSIONS: &[&str] = &[
    "mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "ts", "m2ts", "mts", "flv", "wmv", "3gp",
    "ogv", "wav", "mp3", "flac", "ogg", "oga", "opus", "m4a", "aac", "aif", "aiff", "wma", "jpg", "jpeg",
    "png", "webp", "gif", "bmp",
];

/// Which of a folder's files are wanted: globs over their paths relative to the folder. `*` stays
/// within a name, `**` crosses folders; a pattern without `/` is looked for in every folder. Upper
/// and lower case are the same.
#[derive(Debug, Clone, Default)]
pub struct NameFilter {
    include: Option<GlobSet>,
    exclude: GlobSet,
}

impl NameFilter {
    /// A filter; without `include` everything is wanted that `exclude` does not name.
    ///
    /// # Errors
    /// A sentence that names the pattern that is none.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, String> {
        let include = if include.is_empty() { None } else { Some(globs(include)?) };
        Ok(Self { include, exclude: globs(exclude)? })
    }

    /// Whether an object of a bucket is wanted, by its key after the folder: what a glob names, else what
    /// has a name of media; hidden names never. Nothing looks inside.
    #[must_use]
    pub fn wants_object(&self, relative: &str) -> bool {
        let hidden = relative.split('/').any(|part| part.starts_with('.'));
        let path = Path::new(relative);
        !hidden && self.wants(path) && (self.include.is_some() || named_media(path))
    }

    fn wants(&self, relative: &Path) -> bool {
        self.include.as_ref().is_none_or(|include| include.is_match(relative))
            && !self.exclude.is_match(relative)
    }
}

fn globs(patterns: &[String]) -> Result<GlobSet, String> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let anywhere = if pattern.contains('/') { pattern.clone() } else { format!("**/{pattern}") };
        let glob = GlobBuilder::new(&anywhere).literal_separator(true).case_insensitive(true).build();
        set.add(glob.map_err(|error| format!("`{pattern}`: {}", error.kind()))?);
    }
    set.build().map_err(|error| error.to_string())
}

/// Why a folder could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// More files than one job takes.
    #[error("more than {0} files")]
    TooMany(usize),
    /// Input/output.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The media files of a folder, sorted by path, or the one file given. Hidden names are left out,
/// and so is what neither its name nor its first bytes call media. A link to a file is listed as
/// it stands and checked when it is indexed; links to folders are not followed, so there are no
/// cycles. `filter` leaves out files, not the one file given. `inside` says whether a resolved path may be read. Blocking.
///
/// # Errors
/// [`ListError`].
pub fn list_media(
    root: &Path,
    recursive: bool,
    filter: &NameFilter,
    most: usize,
    inside: impl Fn(&Path) -> bool,
) -> Result<Vec<String>, ListError> {
    if root.is_file() {
        return Ok(root.to_str().map(str::to_owned).into_iter().collect());
    }
    let mut found = Vec::new();
    walk(root, recursive, |path, link| {
        let wanted = filter.wants(path.strip_prefix(root).unwrap_or(path)) && is_media(path, link, &inside);
        match path.to_str().filter(|_| wanted) {
            Some(text) => found.push(text.to_owned()),
            None if wanted => tracing::warn!(path = ?path, "a name that is not UTF-8 is left out"),
            None => {}
        }
        if found.len() > most { Err(ListError::TooMany(most)) } else { Ok(()) }
    })?;
    found.sort_unstable();
    Ok(found)
}

/// Shows every file and link of a folder that is not hidden, in no order, and whether it is a link;
/// whether every folder could be read.
fn walk(
    root: &Path,
    recursive: bool,
    mut each: impl FnMut(&Path, bool) -> Result<(), ListError>,
) -> Result<bool, ListError> {
    let mut whole = true;
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            // One unreadable folder in a big tree must not stop the rest.
            Err(error) if folder != root => {
                tracing::warn!(folder = ?folder, %error, "a folder could not be read and is left out");
                whole = false;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let kind = entry.file_type()?;
            let path = entry.path();
            if !kind.is_dir() {
                each(&path, kind.is_symlink())?;
            } else if recursive {
                folders.push(path);
            }
        }
    }
    Ok(whole)
}

/// One file of a folder that is looked at again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenFile {
    /// Its path.
    pub path: String,
    /// Bytes.
    pub size_bytes: u64,
    /// When it was last written, nanoseconds since 1970.
    pub mtime_ns: i64,
}

/// The wanted files of a folder with their sizes and times, sorted by path, and whether every folder in
/// it could be read. Names decide, nothing is opened; links that lead outside are left out. Blocking.
///
/// # Errors
/// [`ListError`].
pub fn list_seen(
    root: &Path,
    recursive: bool,
    filter: &NameFilter,
    most: usize,
    inside: impl Fn(&Path) -> bool,
) -> Result<(Vec<SeenFile>, bool), ListError> {
    use std::os::unix::fs::MetadataExt;
    let mut found = Vec::new();
    let whole = walk(root, recursive, |path, link| {
        let relative = path.strip_prefix(root).unwrap_or(path).to_str();
        let (Some(text), true) = (path.to_str(), relative.is_some_and(|name| filter.wants_object(name)))
        else {
            return Ok(());
        };
        if link && !path.canonicalize().is_ok_and(|real| inside(&real)) {
            return Ok(());
        }
        // What went away meanwhile was not seen.
        if let Some(meta) = fs::metadata(path).ok().filter(fs::Metadata::is_file) {
            let mtime_ns = meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec());
            found.push(SeenFile { path: text.to_owned(), size_bytes: meta.len(), mtime_ns });
        }
        if found.len() > most { Err(ListError::TooMany(most)) } else { Ok(()) }
    })?;
    found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok((found, whole))
}

fn is_media(path: &Path, link: bool, inside: &impl Fn(&Path) -> bool) -> bool {
    if named_media(path) {
        // A link is listed even where it leads outside: its item then says that it is refused.
        return link || path.is_file();
    }
    let Ok(real) = path.canonicalize() else { return false };
    inside(&real) && real.is_file() && sniffs_as_media(&real)
}

fn named_media(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
    extension.is_some_and(|e| MEDIA_EXTENSIONS.contains(&e.as_str()))
}

fn sniffs_as_media(path: &PathBuf) -> bool {
    let mut head = Vec::with_capacity(64);
    fs::File::open(path).is_ok_and(|file| file.take(64).read_to_end(&mut head).is_ok())
        && looks_like_media(&head)
}

/// Whether a file's first bytes are those of a container or picture that is known.
fn looks_like_media(head: &[u8]) -> bool {
    let at = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    at(4, b"ftyp")
        || at(0, &[0x1a, 0x45, 0xdf, 0xa3])
        || (at(0, b"RIFF") && (at(8, b"WAVE") || at(8, b"AVI ") || at(8, b"WEBP")))
        || at(0, b"fLaC")
        || at(0, b"OggS")
        || at(0, b"ID3")
        || at(0, &[0xff, 0xd8, 0xff])
        || at(0, b"\x89PNG\r\n\x1a\n")
        || at(0, b"GIF8")
        || at(0, b"FLV\x01")
        || (at(0, b"FORM") && (at(8, b"AIFF") || at(8, b"AIFC")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(root: &Path, recursive: bool) -> Vec<String> {
        let base = root.to_owned();
        let all = NameFilter::default();
        let listed = list_media(root, recursive, &all, 100, |path| path.starts_with(&base)).unwrap();
        listed.iter().map(|p| p.strip_prefix(root.to_str().unwrap()).unwrap()[1..].to_owned()).collect()
    }

    #[test]
    fn a_folder_gives_its_media_sorted() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap().join("root");
        fs::create_dir_all(root.join("b/deep")).unwrap();
        fs::create_dir_all(root.join(".hidden")).unwrap();
        for name in ["z.mp4", "a.WAV", "b/c.jpg", "b/deep/d.webm", ".x.mp4", ".hidden/e.mp4", "notes.txt"] {
            fs::write(root.join(name), "x").unwrap();
        }
        fs::write(root.join("no-extension"), b"\0\0\0\x18ftypisom").unwrap();
        fs::write(dir.path().join("outside.bin"), b"fLaC").unwrap();
        symlink(dir.path().join("outside.bin"), root.join("out.bin")).unwrap();
        symlink(dir.path().join("outside.bin"), root.join("out.mp4")).unwrap();
        symlink(&root, root.join("loop")).unwrap();
        let all = NameFilter::default();
        assert_eq!(
            names(&root, true),
            ["a.WAV", "b/c.jpg", "b/deep/d.webm", "no-extension", "out.mp4", "z.mp4"]
        );
        assert_eq!(names(&root, false), ["a.WAV", "no-extension", "out.mp4", "z.mp4"]);
        assert!(matches!(list_media(&root, true, &all, 2, |_| true), Err(ListError::TooMany(2))));
        assert_eq!(list_media(&root.join("z.mp4"), true, &all, 2, |_| true).unwrap().len(), 1);
        assert!(list_media(&root.join("none"), true, &all, 2, |_| true).is_err());
    }

    #[test]
    fn a_look_sees_names_sizes_and_times_and_nothing_outside() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        let root = base.join("root");
        fs::create_dir_all(root.join("b")).unwrap();
        for (name, bytes) in [("z.mp4", 3), ("b/c.wav", 2), ("b.wav", 1), (".h.mp4", 1), ("x.part", 1)] {
            fs::write(root.join(name), vec![0; bytes]).unwrap();
        }
        fs::write(base.join("out.mp4"), "x").unwrap();
        symlink(base.join("out.mp4"), root.join("out.mp4")).unwrap();
        symlink(root.join("z.mp4"), root.join("in.mp4")).unwrap();
        let all = NameFilter::default();
        let (seen, whole) = list_seen(&root, true, &all, 9, |path| path.starts_with(&root)).unwrap();
        let sizes: Vec<_> = seen
            .iter()
            .map(|file| {
                (Path::new(&file.path).strip_prefix(&root).unwrap().to_str().unwrap(), file.size_bytes)
            })
            .collect();
        assert_eq!(sizes, [("b.wav", 1), ("b/c.wav", 2), ("in.mp4", 3), ("z.mp4", 3)]);
        assert!(whole && seen.iter().all(|file| file.mtime_ns > 1_700_000_000_000_000_000));
        assert!(matches!(list_seen(&root, true, &all, 3, |_| true), Err(ListError::TooMany(3))));
    }

    #[test]
    fn globs_choose_among_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for name in ["a.mp4", "b/c.MP4", "b/d.wav", "b/raw/e.mp4", "raw/f.mp4"] {
            fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            fs::write(root.join(name), "x").unwrap();
        }
        let chosen = |include: &[&str], exclude: &[&str]| {
            let owned = |globs: &[&str]| globs.iter().map(|g| (*g).to_owned()).collect::<Vec<_>>();
            let filter = NameFilter::new(&owned(include), &owned(exclude)).unwrap();
            let listed = list_media(root, true, &filter, 100, |_| true).unwrap();
            let names =
                listed.iter().map(|p| Path::new(p).strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            names.collect::<Vec<_>>()
        };
        assert_eq!(chosen(&["*.mp4"], &[]), ["a.mp4", "b/c.MP4", "b/raw/e.mp4", "raw/f.mp4"]);
        assert_eq!(chosen(&["b/*.mp4"], &[]), ["b/c.MP4"]);
        assert_eq!(chosen(&["*.mp4", "*.wav"], &["**/raw/**"]), ["a.mp4", "b/c.MP4", "b/d.wav"]);
        assert_eq!(chosen(&[], &["*.mp4"]), ["b/d.wav"]);
        let (all, wav) = (NameFilter::default(), NameFilter::new(&["*.raw".to_owned()], &[]).unwrap());
        assert!(all.wants_object("a/b.MP4") && !all.wants_object("a/.b.mp4") && !all.wants_object("a/b.txt"));
        assert!(wav.wants_object("a/b.raw") && !wav.wants_object("a/b.mp4") && !wav.wants_object(".a/b.raw"));
        assert!(NameFilter::new(&["[".to_owned()], &[]).unwrap_err().starts_with("`[`: "));
    }
}
