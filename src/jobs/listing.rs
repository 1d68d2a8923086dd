//! Lists the files of a folder that become items of a job.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use super::left_out::LeftOut;
use super::names::NameFilter;
use crate::formats::{HEAD_BYTES, NameSays, head_is_media, name_says};
use crate::store::mtime_ns;

/// Why a folder could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// More files than one job takes.
    #[error("expected at most {0} files")]
    TooMany(usize),
    /// Input or output failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The contents of a folder.
#[derive(Debug, Default)]
pub struct Listing {
    /// Paths of the files to index, sorted.
    pub media: Vec<String>,
    /// Files left out, with the reason, sorted by path. In a name that is not UTF-8, invalid bytes appear as
    /// `\xNN`.
    pub left_out: Vec<(String, LeftOut)>,
}

impl Listing {
    fn len(&self) -> usize {
        self.media.len() + self.left_out.len()
    }
}

/// The media files of a folder, or the single file given, and the files left out: hidden ones, those that
/// neither name nor first bytes mark as media, those that cannot be read. Files that `filter` does not select
/// are not listed at all; a single file always counts as media. A link to a file with a media name is listed
/// as it is and checked when it is indexed; links to folders are not followed, so there are no cycles.
/// `inside` decides whether a resolved path may be read. Blocking.
///
/// # Errors
/// [`ListError`]: more than `most` files, of either kind.
pub fn list_media(
    root: &Path,
    recursive: bool,
    filter: &NameFilter,
    most: usize,
    inside: impl Fn(&Path) -> bool,
) -> Result<Listing, ListError> {
    let mut listing = Listing::default();
    if root.is_file() {
        listing.media.extend(root.to_str().map(str::to_owned));
        return Ok(listing);
    }
    walk(root, recursive, |path, met| {
        if !matches!(met, Met::Folder(_)) && !filter.wants(path.strip_prefix(root).unwrap_or(path)) {
            return Ok(());
        }
        let verdict = match met {
            Met::File { link } => examine(path, link, &inside),
            Met::Hidden => Err(LeftOut::hidden()),
            Met::Folder(left_out) => Err(left_out),
        };
        match (path.to_str(), verdict) {
            (Some(text), Ok(())) => listing.media.push(text.to_owned()),
            (None, Ok(())) => {
                let left_out =
                    LeftOut::new("name_not_utf8", "its name, or that of a folder above it, is not UTF-8");
                listing.left_out.push((escaped(path), left_out));
            }
            (_, Err(left_out)) => listing.left_out.push((escaped(path), left_out)),
        }
        if listing.len() > most { Err(ListError::TooMany(most)) } else { Ok(()) }
    })?;
    listing.media.sort_unstable();
    listing.left_out.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    Ok(listing)
}

/// A path as text, with `\xNN` for bytes that are not UTF-8.
fn escaped(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    text
}

/// An entry found in a folder.
enum Met {
    /// A file that is not hidden.
    File { link: bool },
    /// A hidden file or folder.
    Hidden,
    /// A folder that is not entered, and why.
    Folder(LeftOut),
}

/// Passes everything in a folder to `each`, in no order; returns whether every folder could be read.
fn walk(
    root: &Path,
    recursive: bool,
    mut each: impl FnMut(&Path, Met) -> Result<(), ListError>,
) -> Result<bool, ListError> {
    let mut whole = true;
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            // One unreadable folder in a large tree must not stop the rest.
            Err(error) if folder != root => {
                tracing::warn!(folder = ?folder, %error, "skipped a folder that could not be read");
                whole = false;
                each(&folder, Met::Folder(LeftOut::of_io(&error)))?;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            let path = entry.path();
            if kind.is_dir() && !recursive {
                continue;
            }
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                each(&path, Met::Hidden)?;
            } else if kind.is_dir() {
                folders.push(path);
            } else if kind.is_symlink() && path.is_dir() {
                let left_out =
                    LeftOut::new("link_to_folder", "it is a link to a folder; such links are not followed");
                each(&path, Met::Folder(left_out))?;
            } else {
                each(&path, Met::File { link: kind.is_symlink() })?;
            }
        }
    }
    Ok(whole)
}

/// A file seen in one poll of a watched folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenFile {
    /// Path of the file.
    pub path: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Time of the last write, in nanoseconds since 1970.
    pub mtime_ns: i64,
}

/// The selected files of a folder with their sizes and times, sorted by path, and whether every folder in it
/// could be read. Opens no file, and skips hidden names: programs that copy files into a folder use them
/// until a file is complete. Blocking.
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
    let mut found = Vec::new();
    let whole = walk(root, recursive, |path, met| {
        let Met::File { link } = met else { return Ok(()) };
        if !filter.wants(path.strip_prefix(root).unwrap_or(path)) {
            return Ok(());
        }
        // Of a link that leads outside, look only at the link itself.
        let outside = link && !path.canonicalize().is_ok_and(|real| inside(&real));
        let meta = if outside { fs::symlink_metadata(path) } else { fs::metadata(path) };
        // Skip files removed during the listing.
        if let Some(meta) = meta.ok().filter(|meta| meta.is_file() || meta.is_symlink()) {
            found.push(SeenFile { path: escaped(path), size_bytes: meta.len(), mtime_ns: mtime_ns(&meta) });
        }
        if found.len() > most { Err(ListError::TooMany(most)) } else { Ok(()) }
    })?;
    found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok((found, whole))
}

/// Whether a file that [`list_seen`] found is media, or why it is left out. Blocking.
///
/// # Errors
/// [`LeftOut`].
pub fn examine_seen(path: &str, inside: &impl Fn(&Path) -> bool) -> Result<(), LeftOut> {
    let file = Path::new(path);
    match fs::symlink_metadata(file) {
        Ok(meta) => examine(file, meta.is_symlink(), inside),
        // The path is escaped text, not the real name.
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.contains("\\x") => {
            Err(LeftOut::new("name_not_utf8", "its name, or that of a folder above it, is not UTF-8"))
        }
        Err(error) => Err(LeftOut::of_io(&error)),
    }
}

/// Whether a file is media by its name or, if that does not tell, by its first bytes.
fn examine(path: &Path, link: bool, inside: &impl Fn(&Path) -> bool) -> Result<(), LeftOut> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match name_says(&name) {
        // A link is listed even if it leads outside: its item then reports the refusal.
        NameSays::Media if link || path.is_file() => return Ok(()),
        NameSays::Media | NameSays::Nothing => {}
        NameSays::Unfinished => return Err(LeftOut::unfinished()),
    }
    let real = path.canonicalize().map_err(|error| LeftOut::of_io(&error))?;
    if !inside(&real) {
        return Err(LeftOut::new("path_not_allowed", "it is a link to a file outside the allowed folders"));
    }
    if !real.metadata().map_err(|error| LeftOut::of_io(&error))?.is_file() {
        return Err(LeftOut::new("path_kind", "it is not a regular file"));
    }
    let mut head = Vec::with_capacity(HEAD_BYTES);
    let file = fs::File::open(&real).map_err(|error| LeftOut::of_io(&error))?;
    file.take(HEAD_BYTES as u64).read_to_end(&mut head).map_err(|error| LeftOut::of_io(&error))?;
    if head.is_empty() {
        return Err(LeftOut::new("empty_file", "the file is empty"));
    }
    if head_is_media(&name, &head) { Ok(()) } else { Err(LeftOut::not_media()) }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use super::*;

    fn listed(root: &Path, recursive: bool) -> (Vec<String>, Vec<(String, &'static str)>) {
        let base = root.to_owned();
        let all = NameFilter::default();
        let listing = list_media(root, recursive, &all, 100, |path| path.starts_with(&base)).unwrap();
        let short = |path: &str| path.strip_prefix(root.to_str().unwrap()).unwrap()[1..].to_owned();
        let left_out = listing.left_out.iter().map(|(path, why)| (short(path), why.code)).collect();
        (listing.media.iter().map(|path| short(path)).collect(), left_out)
    }

    #[test]
    fn a_folder_gives_its_media_and_says_what_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap().join("root");
        fs::create_dir_all(root.join("b/deep")).unwrap();
        fs::create_dir_all(root.join(".hidden")).unwrap();
        for name in ["z.mp4", "a.WAV", "b/c.jpg", "b/deep/d.webm", ".x.mp4", ".hidden/e.mp4", "notes.txt"] {
            fs::write(root.join(name), "x").unwrap();
        }
        for (name, bytes) in [
            ("no-extension", &b"\0\0\0\x18ftypisom"[..]),
            ("film.mp4.part", b"\0\0\0\x18ftypisom"),
            ("app.ts", b"export const a = 1;"),
            ("nothing", b""),
        ] {
            fs::write(root.join(name), bytes).unwrap();
        }
        let odd = root.join(OsStr::from_bytes(b"caf\xe9.mp4"));
        fs::write(&odd, "x").unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, root.join("pipe.mp4"), rustix::fs::Mode::RUSR).unwrap();
        fs::write(dir.path().join("outside.bin"), b"fLaC").unwrap();
        symlink(dir.path().join("outside.bin"), root.join("out.bin")).unwrap();
        symlink(dir.path().join("outside.bin"), root.join("out.mp4")).unwrap();
        symlink(&root, root.join("loop")).unwrap();
        let (media, left_out) = listed(&root, true);
        assert_eq!(media, ["a.WAV", "b/c.jpg", "b/deep/d.webm", "no-extension", "out.mp4", "z.mp4"]);
        let wanted = [
            (".hidden", "hidden"),
            (".x.mp4", "hidden"),
            ("app.ts", "not_media"),
            ("caf\\xe9.mp4", "name_not_utf8"),
            ("film.mp4.part", "unfinished"),
            ("loop", "link_to_folder"),
            ("notes.txt", "not_media"),
            ("nothing", "empty_file"),
            ("out.bin", "path_not_allowed"),
            ("pipe.mp4", "path_kind"),
        ];
        assert_eq!(left_out, wanted.map(|(path, code)| (path.to_owned(), code)));
        assert_eq!(listed(&root, false).0, ["a.WAV", "no-extension", "out.mp4", "z.mp4"]);
        let all = NameFilter::default();
        assert!(matches!(list_media(&root, true, &all, 2, |_| true), Err(ListError::TooMany(2))));
        assert_eq!(list_media(&root.join("notes.txt"), true, &all, 2, |_| true).unwrap().media.len(), 1);
        assert!(list_media(&root.join("none"), true, &all, 2, |_| true).is_err());
        let inside = |path: &Path| path.starts_with(&root);
        let why =
            |name: &str| examine_seen(root.join(name).to_str().unwrap(), &inside).map_err(|why| why.code);
        assert_eq!(why("no-extension"), Ok(()));
        assert_eq!(why("notes.txt"), Err("not_media"));
        assert_eq!(why("caf\\xe9.mp4"), Err("name_not_utf8"));
        assert_eq!(why("gone"), Err("path_missing"));
    }

    #[test]
    fn a_look_sees_names_sizes_and_times_whatever_they_are_called() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        let root = base.join("root");
        fs::create_dir_all(root.join("b")).unwrap();
        for (name, bytes) in [("z.mp4", 3), ("b/c.wav", 2), ("b.wav", 1), (".h.mp4", 1), ("x", 1)] {
            fs::write(root.join(name), vec![0; bytes]).unwrap();
        }
        fs::write(base.join("out.mp4"), "x").unwrap();
        symlink(base.join("out.mp4"), root.join("out.mp4")).unwrap();
        symlink(root.join("z.mp4"), root.join("in.mp4")).unwrap();
        let all = NameFilter::default();
        let (seen, whole) = list_seen(&root, true, &all, 9, |path| path.starts_with(&root)).unwrap();
        let names: Vec<_> = seen
            .iter()
            .map(|file| Path::new(&file.path).strip_prefix(&root).unwrap().to_str().unwrap())
            .collect();
        assert_eq!(names, ["b.wav", "b/c.wav", "in.mp4", "out.mp4", "x", "z.mp4"]);
        assert_eq!((seen[1].size_bytes, seen[2].size_bytes), (2, 3));
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
            assert!(listed.left_out.is_empty());
            let names = listed
                .media
                .iter()
                .map(|p| Path::new(p).strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            names.collect::<Vec<_>>()
        };
        assert_eq!(chosen(&["*.mp4"], &[]), ["a.mp4", "b/c.MP4", "b/raw/e.mp4", "raw/f.mp4"]);
        assert_eq!(chosen(&["b/*.mp4"], &[]), ["b/c.MP4"]);
        // Composed and decomposed, either way round; the file keeps its name as it is.
        let all = NameFilter::new(&["gr\u{fc}n*".to_owned(), "ro\u{302}t*".to_owned()], &[]).unwrap();
        assert!(all.wants(Path::new("a/gru\u{308}n.mp4")) && all.wants(Path::new("r\u{f4}t.mp4")));
        assert_eq!(chosen(&["*.mp4", "*.wav"], &["**/raw/**"]), ["a.mp4", "b/c.MP4", "b/d.wav"]);
        assert_eq!(chosen(&[], &["*.mp4"]), ["b/d.wav"]);
        assert!(NameFilter::new(&["[".to_owned()], &[]).unwrap_err().starts_with("`[`: "));
    }
}
