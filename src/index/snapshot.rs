//! The index file: vectors and ids of one index, used only after the whole file is verified.
//!
//! ```text
//! "TRIPIDX1" | u32 header length | header (JSON) | count x i64 clip id | count x dim x f32 | u32 CRC-32 of all before
//! ```
//! All numbers are little-endian.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::IndexError;
use super::rows::{Rows, View};
use crate::fail_points::crash_point;
use crate::own_files;
use crate::store::{StorageFull, StoreError};
use crate::types::{ClipId, ModelId, Space, Track};

const MAGIC: &[u8; 8] = b"TRIPIDX1";
const CRC_BYTES: usize = 4;
/// Longest vector that a manifest allows.
const MAX_DIM: usize = 1 << 16;

/// Describes the contents of an index file. The file is loaded only if all of this matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The model that made the vectors.
    pub model: ModelId,
    /// Track of the vectors.
    pub track: Track,
    /// Space of the vectors.
    pub space: Space,
    /// Number of values of a vector.
    pub dim: usize,
    /// Number of vectors.
    pub count: usize,
    /// The store's sequence when the file was written.
    pub sequence: i64,
    /// Clips whose stored vector is damaged; the file does not contain them.
    pub damaged: Vec<ClipId>,
}

/// Writes a temporary file, syncs it, renames it and syncs the folder, so that there is always a complete
/// file or none.
///
/// # Errors
/// [`IndexError::Snapshot`].
pub fn save(path: &Path, header: &Header, view: &View) -> Result<(), IndexError> {
    write_file(path, header, view).map_err(|error| match StorageFull::of_io(&error) {
        Some(full) => StoreError::from(full).into(),
        None => IndexError::Snapshot(format!("{}: {error}", path.display())),
    })
}

fn write_file(path: &Path, header: &Header, view: &View) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
    let mut out =
        Summed { out: BufWriter::with_capacity(1 << 20, temporary.as_file_mut()), crc: Default::default() };
    let json = serde_json::to_vec(header)?;
    out.put(MAGIC)?;
    out.put(&u32::try_from(json.len()).map_err(std::io::Error::other)?.to_le_bytes())?;
    out.put(&json)?;
    for (_, id) in view.live_slots() {
        out.put(&id.0.to_le_bytes())?;
    }
    let mut bytes = Vec::with_capacity(view.dim * 4);
    for (slot, _) in view.live_slots() {
        bytes.clear();
        bytes.extend(view.values(slot).iter().flat_map(|v| v.to_le_bytes()));
        out.put(&bytes)?;
    }
    let crc = out.crc.clone().finalize();
    out.put(&crc.to_le_bytes())?;
    out.out.flush()?;
    drop(out);
    temporary.as_file().sync_all()?;
    crash_point!("index-snapshot-rename");
    temporary.persist(path)?;
    File::open(folder)?.sync_all()
}

struct Summed<W> {
    out: W,
    crc: crc32fast::Hasher,
}

impl<W: Write> Summed<W> {
    fn put(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.crc.update(bytes);
        self.out.write_all(bytes)
    }
}

/// Reads only the header of an index file, for a copy of the file whose reader verifies the whole.
#[must_use]
pub fn peek(path: &Path) -> Option<Header> {
    let mut file = opened(path)?;
    let (mut magic, mut length) = ([0; MAGIC.len()], [0; 4]);
    file.read_exact(&mut magic).ok()?;
    file.read_exact(&mut length).ok()?;
    let length = u64::from(u32::from_le_bytes(length));
    if magic != *MAGIC || length > file.metadata().ok()?.len() {
        return None;
    }
    let mut json = Vec::new();
    file.take(length).read_to_end(&mut json).ok()?;
    serde_json::from_slice(&json).ok()
}

/// Header and rows of an index file; `None` if it is missing or damaged. The caller checks whether the header
/// matches.
#[must_use]
pub fn load(path: &Path) -> Option<(Header, Rows)> {
    let mut bytes = Vec::new();
    opened(path)?.read_to_end(&mut bytes).ok()?;
    read(&bytes)
}

/// What is no regular file counts as damaged.
fn opened(path: &Path) -> Option<File> {
    let opened = own_files::open_path(path).inspect_err(|error| {
        if error.kind() != std::io::ErrorKind::NotFound {
            tracing::warn!(%error, "a saved index cannot be read; it is rebuilt");
        }
    });
    opened.ok()
}

fn read(bytes: &[u8]) -> Option<(Header, Rows)> {
    let (body, crc) = bytes.split_at_checked(bytes.len().checked_sub(CRC_BYTES)?)?;
    if crc32fast::hash(body).to_le_bytes() != crc {
        return None;
    }
    let rest = body.strip_prefix(MAGIC.as_slice())?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (json, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    let header: Header = serde_json::from_slice(json).ok()?;
    let (ids, values) = rest.split_at_checked(header.count.checked_mul(8)?)?;
    if header.dim == 0
        || header.dim > MAX_DIM
        || values.len() != header.count.checked_mul(header.dim)?.checked_mul(4)?
    {
        return None;
    }
    let mut rows = Rows::new(header.dim);
    let mut vector = Vec::with_capacity(header.dim);
    for (id, values) in ids.as_chunks::<8>().0.iter().zip(values.chunks_exact(header.dim * 4)) {
        vector.clear();
        vector.extend(values.as_chunks::<4>().0.iter().map(|v| f32::from_le_bytes(*v)));
        rows.insert(ClipId(i64::from_le_bytes(*id)), &vector);
    }
    Some((header, rows))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn header(count: usize) -> Header {
        Header {
            model: ModelId("m".into()),
            track: Track::Audio,
            space: Space::new("fine"),
            dim: 3,
            count,
            sequence: 9,
            damaged: vec![ClipId(4)],
        }
    }

    fn rows() -> Rows {
        let mut rows = Rows::new(3);
        for id in 0..50 {
            rows.insert(ClipId(id * 3), &[id as f32, -1.0, 0.5]);
        }
        rows.remove(ClipId(30));
        rows
    }

    #[test]
    fn a_snapshot_comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.snapshot");
        assert!(load(&path).is_none());
        let rows = rows();
        save(&path, &header(49), rows.view()).unwrap();
        let (found, loaded) = load(&path).unwrap();
        assert_eq!((found, loaded.census()), (header(49), rows.census()));
        for (slot, id) in rows.view().live_slots() {
            assert_eq!(loaded.view().values(loaded.slot(id).unwrap()), rows.view().values(slot));
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "a temporary file was left");
    }

    #[test]
    fn no_flipped_byte_and_no_truncation_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.snapshot");
        save(&path, &header(49), rows().view()).unwrap();
        let good = std::fs::read(&path).unwrap();
        for n in 0..200 {
            let at = n * (good.len() - 1) / 199;
            let mut bad = good.clone();
            bad[at] ^= 1 << (n % 8);
            std::fs::write(&path, &bad).unwrap();
            assert!(load(&path).is_none(), "byte {at} flipped");
            std::fs::write(&path, &good[..at]).unwrap();
            assert!(load(&path).is_none(), "cut to {at} bytes");
        }
        // A valid checksum over invalid contents.
        for body in [&b""[..], b"TRIPIDX1", b"TRIPIDX1\xff\xff\xff\xff", b"TRIPIDX1\x02\x00\x00\x00{}"] {
            std::fs::write(&path, [body, &crc32fast::hash(body).to_le_bytes()].concat()).unwrap();
            assert!(load(&path).is_none());
        }
    }
}

/// See [`crate::fuzz`].
#[cfg(test)]
pub(crate) mod fuzzed {
    use super::*;

    pub(crate) fn seeds() -> Vec<Vec<u8>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.snapshot");
        let mut rows = Rows::new(3);
        for id in 0..9 {
            rows.insert(ClipId(id), &[id as f32, -1.0, 0.5]);
        }
        let header = Header {
            model: ModelId("m".into()),
            track: Track::Audio,
            space: Space::new("fine"),
            dim: 3,
            count: 9,
            sequence: 9,
            damaged: vec![ClipId(4)],
        };
        save(&path, &header, rows.view()).unwrap();
        vec![std::fs::read(&path).unwrap()]
    }

    /// Also tries with a valid checksum, since a wrong one is detected at once. Whatever is accepted has the
    /// size that its header states.
    pub(crate) fn run(bytes: &[u8]) {
        assert!(read(bytes).is_none_or(|(header, rows)| rows.census().clips <= header.count as u64));
        let body = &bytes[..bytes.len().saturating_sub(CRC_BYTES)];
        let summed = [body, &crc32fast::hash(body).to_le_bytes()].concat();
        if let Some((header, rows)) = read(&summed) {
            assert!(header.dim >= 1 && header.dim <= MAX_DIM && rows.census().clips <= header.count as u64);
        }
    }
}
