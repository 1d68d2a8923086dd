//! The manifest of a snapshot, in a form that reveals any damage to it.
//!
//! ```text
//! {"sha256":"<hash of the JSON>","manifest":<JSON>}\n
//! ```

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::BackupError;
use crate::types::{ModelId, SnapshotId};

/// The format that this version writes, and the only one that it reads.
pub(super) const FORMAT: u64 = 1;
/// Largest manifest accepted; it names a handful of files.
pub(super) const MAX_MANIFEST_BYTES: u64 = 4 << 20;

/// File name of the manifest in a snapshot's folder. Without it the snapshot does not exist.
pub(super) const MANIFEST: &str = "manifest.json";
/// File name of the store's copy.
pub(super) const STORE: &str = "store.db";
/// File name of the list of media that the snapshot needs, one per line.
pub(super) const MEDIA: &str = "media.jsonl";

const HEAD: &str = "{\"sha256\":\"";
const MIDDLE: &str = "\",\"manifest\":";
const TAIL: &str = "}\n";

/// One file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileEntry {
    /// Path relative to the snapshot's folder.
    pub path: String,
    pub size_bytes: u64,
    /// Hash of the file, in lower-case hex.
    pub sha256: String,
}

/// An upload that a snapshot needs, in the media folder that all snapshots share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MediaEntry {
    /// Hash of the file, in lower-case hex; its location follows from it.
    pub sha256: String,
    pub size_bytes: u64,
    /// Why the file is not there: it was already missing or damaged in the data folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lacking: Option<String>,
}

/// Contents of a snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub format: u64,
    pub id: SnapshotId,
    pub created_unix_ms: i64,
    /// Whether the schedule took it, rather than a request.
    pub scheduled: bool,
    /// Version of the program that wrote it.
    pub version: String,
    pub model: ModelId,
    /// The store's sequence at that moment.
    pub sequence: i64,
    pub assets: u64,
    pub clips: u64,
    pub media_secs: f64,
    pub files: Vec<FileEntry>,
    pub media_files: u64,
    pub media_bytes: u64,
    /// Media files copied because no earlier snapshot had them.
    pub copied_files: u64,
    pub copied_bytes: u64,
    /// Uploads that were missing or damaged in the data folder.
    pub lacking: u64,
    /// Assets indexed by path, whose files are not included.
    pub by_path: u64,
}

impl Manifest {
    pub(super) fn encode(&self) -> Result<Vec<u8>, BackupError> {
        let json = serde_json::to_string(self).map_err(std::io::Error::from)?;
        let sum = hex::encode(Sha256::digest(&json));
        Ok([HEAD, &sum, MIDDLE, &json, TAIL].concat().into_bytes())
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, BackupError> {
        let damaged = || BackupError::damaged(MANIFEST, "does not match its checksum");
        let json = checked_json(bytes).ok_or_else(damaged)?;
        let value: serde_json::Value = serde_json::from_str(json).map_err(|_| damaged())?;
        match value.get("format").and_then(serde_json::Value::as_u64) {
            Some(FORMAT) => {}
            Some(other) => return Err(BackupError::Format(other)),
            None => return Err(damaged()),
        }
        let manifest: Self = serde_json::from_value(value).map_err(|_| damaged())?;
        let names = |wanted: &str| manifest.files.iter().any(|file| file.path == wanted);
        if !manifest.files.iter().all(|file| is_plain(&file.path)) || !names(STORE) || !names(MEDIA) {
            return Err(damaged());
        }
        Ok(manifest)
    }

    pub(super) fn file_bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.size_bytes))
    }
}

fn checked_json(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (sum, rest) = text.strip_prefix(HEAD)?.split_at_checked(64)?;
    let json = rest.strip_prefix(MIDDLE)?.strip_suffix(TAIL)?;
    (hex::encode(Sha256::digest(json)) == sum).then_some(json)
}

/// Whether a path stays in its folder: its parts consist of letters, digits, `.`, `_` and `-`, and none is
/// hidden.
pub(super) fn is_plain(path: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    path.split('/').all(|part| !part.is_empty() && !part.starts_with('.') && part.bytes().all(plain))
}

/// Whether a text is a SHA-256 in the form that the manifest uses.
pub(super) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
}

/// Location of a file of a snapshot.
pub(super) fn file_key(id: SnapshotId, path: &str) -> String {
    format!("snapshots/{id}/{path}")
}

/// Location of the media file with this hash.
pub(super) fn media_key(sha256: &str) -> String {
    format!("media/{}/{sha256}", sha256.get(..2).unwrap_or("00"))
}

/// Encodes the media list, one line per entry.
pub(super) fn encode_media(media: &[MediaEntry]) -> Result<Vec<u8>, BackupError> {
    let mut lines = Vec::new();
    for entry in media {
        serde_json::to_writer(&mut lines, entry).map_err(std::io::Error::from)?;
        lines.push(b'\n');
    }
    Ok(lines)
}

/// Decodes the media list of a snapshot, whose bytes were verified before.
pub(super) fn decode_media(bytes: &[u8]) -> Result<Vec<MediaEntry>, BackupError> {
    let damaged = || BackupError::damaged(MEDIA, "cannot be read");
    let line = |line: &[u8]| {
        let entry: MediaEntry = serde_json::from_slice(line).map_err(|_| damaged())?;
        if is_sha256(&entry.sha256) { Ok(entry) } else { Err(damaged()) }
    };
    bytes.split(|b| *b == b'\n').filter(|text| !text.is_empty()).map(line).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::fuzzed::sample as manifest;
    use super::*;

    #[test]
    fn no_flipped_bit_and_no_cut_is_believed() {
        let written = manifest();
        let good = written.encode().unwrap();
        assert_eq!(Manifest::decode(&good).unwrap(), written);
        assert!(serde_json::from_slice::<serde_json::Value>(&good).is_ok());
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            assert_eq!(Manifest::decode(&bad).unwrap_err().code(), "snapshot_damaged", "byte {at}");
            assert_eq!(Manifest::decode(&good[..at]).unwrap_err().code(), "snapshot_damaged", "cut at {at}");
        }
        let later = Manifest { format: 2, ..manifest() }.encode().unwrap();
        assert_eq!(Manifest::decode(&later).unwrap_err().code(), "snapshot_format");
        for path in ["../store.db", "/etc/passwd", "a//b", "index/.hidden", ""] {
            let mut wrong = manifest();
            wrong.files.push(FileEntry { path: path.into(), size_bytes: 0, sha256: "0".repeat(64) });
            let code = Manifest::decode(&wrong.encode().unwrap()).unwrap_err().code();
            assert_eq!(code, "snapshot_damaged", "{path}");
        }
    }
}

/// See [`crate::fuzz`].
#[cfg(test)]
pub(crate) mod fuzzed {
    use super::*;

    /// A manifest of every kind of file.
    pub(in crate::backup) fn sample() -> Manifest {
        let file = |path: &str| FileEntry { path: path.into(), size_bytes: 3, sha256: "0".repeat(64) };
        Manifest {
            format: FORMAT,
            id: SnapshotId::generate(),
            created_unix_ms: 1,
            scheduled: false,
            version: "1".into(),
            model: ModelId("m".into()),
            sequence: 5,
            assets: 1,
            clips: 2,
            media_secs: 6.4,
            files: vec![file(STORE), file(MEDIA), file("index/audio-fine.snapshot")],
            media_files: 1,
            media_bytes: 2,
            copied_files: 1,
            copied_bytes: 2,
            lacking: 0,
            by_path: 0,
        }
    }

    pub(crate) fn manifest_seeds() -> Vec<Vec<u8>> {
        let manifest = sample();
        vec![manifest.encode().unwrap(), serde_json::to_vec(&manifest).unwrap()]
    }

    /// Parses the input as it stands, and with a right checksum. An accepted manifest names only files in its
    /// folder, and encodes to the same bytes.
    pub(crate) fn manifest(bytes: &[u8]) {
        let _ = Manifest::decode(bytes);
        let Ok(json) = std::str::from_utf8(bytes) else { return };
        let sum = hex::encode(Sha256::digest(json));
        let Ok(manifest) = Manifest::decode([HEAD, &sum, MIDDLE, json, TAIL].concat().as_bytes()) else {
            return;
        };
        assert!(manifest.files.iter().all(|file| is_plain(&file.path)));
        let _ = manifest.file_bytes();
        let again = Manifest::decode(&manifest.encode().unwrap()).unwrap();
        assert_eq!((again.id, again.files), (manifest.id, manifest.files));
    }

    pub(crate) fn media_seeds() -> Vec<Vec<u8>> {
        let entry = |lacking| MediaEntry { sha256: "ab".repeat(32), size_bytes: 7, lacking };
        vec![encode_media(&[entry(None), entry(Some("missing".into()))]).unwrap()]
    }

    /// Accepted entries are in the media folder, and encode to the same bytes.
    pub(crate) fn media(bytes: &[u8]) {
        let Ok(media) = decode_media(bytes) else { return };
        assert!(
            media
                .iter()
                .all(|entry| media_key(&entry.sha256).starts_with("media/") && is_sha256(&entry.sha256))
        );
        assert_eq!(decode_media(&encode_media(&media).unwrap()).unwrap(), media);
    }
}
