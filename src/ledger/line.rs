//! One line of the ledger: `<CRC-32 of the JSON, 8 hex digits> <JSON>\n`.

use std::io;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::types::{AssetId, TrackChoice};

/// Version of the format that this build writes; it reads this one and earlier ones.
const VERSION: u32 = 1;
/// Length of the CRC and the space after it.
const PREFIX_BYTES: usize = 9;

/// An acknowledged change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Entry {
    /// The first line of every ledger.
    Ledger {
        /// Version of the format.
        version: u32,
    },
    /// An asset was accepted, or its name, metadata or path changed.
    Put(AssetEntry),
    /// An asset was deleted.
    Gone {
        /// Id of the asset.
        id: AssetId,
        /// Its file beneath `uploads/`, if it was an upload.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        upload: Option<String>,
    },
    /// A user setting was created, changed or removed.
    Work {
        /// Kind of the setting.
        kind: WorkKind,
        /// Id of the setting.
        id: String,
        /// Whether it exists from now on.
        exists: bool,
    },
}

/// Kinds of user settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkKind {
    /// A batch job.
    Job,
    /// A standing query.
    StandingQuery,
    /// A watched folder.
    Watch,
    /// The retention rules as a whole.
    RetentionRules,
}

/// Everything needed to index an asset again from its bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AssetEntry {
    /// Id of the asset.
    pub id: AssetId,
    /// SHA-256 of the content in lower-case hex.
    pub sha256: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Its file beneath `uploads/`, if it is an upload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<String>,
    /// Path of the user's file, if it is not an upload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Display name.
    pub name: String,
    /// The user's JSON object.
    pub metadata: Value,
    /// When it was accepted, in Unix milliseconds.
    pub created_unix_ms: i64,
    /// The tracks that the user chose.
    #[serde(default, skip_serializing_if = "TrackChoice::is_open")]
    pub choice: TrackChoice,
}

impl Entry {
    /// The first line of a ledger.
    #[must_use]
    pub const fn header() -> Self {
        Self::Ledger { version: VERSION }
    }
}

/// The JSON of a line.
#[derive(Serialize, Deserialize)]
struct Numbered<E> {
    /// The store's count of acknowledged changes.
    n: i64,
    #[serde(flatten)]
    entry: E,
}

/// Appends an encoded line to `out`.
pub(super) fn encode(out: &mut Vec<u8>, acknowledged: i64, entry: &Entry) -> io::Result<()> {
    let json = serde_json::to_vec(&Numbered { n: acknowledged, entry })?;
    out.extend_from_slice(format!("{:08x} ", crc32fast::hash(&json)).as_bytes());
    out.extend_from_slice(&json);
    out.push(b'\n');
    Ok(())
}

/// Decodes a line without its newline; `None` if it is damaged.
///
/// # Errors
/// [`io::ErrorKind::Unsupported`] if a newer version wrote it.
pub(super) fn decode(line: &[u8]) -> io::Result<Option<(i64, Entry)>> {
    let Some((prefix, json)) = line.split_at_checked(PREFIX_BYTES) else { return Ok(None) };
    let crc = std::str::from_utf8(prefix).ok().and_then(|text| text.strip_suffix(' '));
    let crc = crc.and_then(|text| u32::from_str_radix(text, 16).ok());
    if crc != Some(crc32fast::hash(json)) {
        return Ok(None);
    }
    let numbered: Numbered<Value> = match serde_json::from_slice(json) {
        Ok(numbered) => numbered,
        Err(_) => return Ok(None),
    };
    let newer = || {
        let text = "this ledger was written by a newer version of triptych; start that version";
        io::Error::new(io::ErrorKind::Unsupported, text)
    };
    // The checksum is right, so the line was written like this: by a newer version.
    let entry: Entry = serde_json::from_value(numbered.entry).map_err(|_| newer())?;
    if matches!(entry, Entry::Ledger { version } if version > VERSION) {
        return Err(newer());
    }
    Ok(Some((numbered.n, entry)))
}
