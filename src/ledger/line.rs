//! One line of the ledger: `<CRC-32 of the JSON, 8 hex digits> <JSON>\n`.

use std::io;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::types::{AssetId, TrackChoice};

/// Version of the format that this build writes; it reads this one and earlier ones.
const VERSION: u32 = 1;
/// Length of the CRC and the space behind it.
const PREFIX_BYTES: usize = 9;

/// What was acknowledged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Entry {
    /// First line of every ledger.
    Ledger {
        /// Version of the format.
        version: u32,
    },
    /// An asset was accepted, or its name, metadata or place changed.
    Put(AssetEntry),
    /// An asset was deleted.
    Gone {
        /// Id of the asset.
        id: AssetId,
        /// Its file beneath `uploads/`, if the bytes were our own copy.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        upload: Option<String>,
    },
    /// A user setting was created, changed or removed.
    Work {
        /// What kind of thing.
        kind: WorkKind,
        /// Id.
        id: String,
        /// Whether it is there from now on.
        exists: bool,
    },
}

/// User settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkKind {
    /// A batch job.
    Job,
    /// A standing query.
    StandingQuery,
    /// A watched folder.
    Watch,
    /// The rules of retention, as a whole.
    RetentionRules,
}

/// What is needed to index an asset again from its bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AssetEntry {
    /// Id.
    pub id: AssetId,
    /// Content SHA-256, lower-case hex.
    pub sha256: String,
    /// Bytes.
    pub size_bytes: u64,
    /// Its file beneath `uploads/`, if the bytes are our own copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<String>,
    /// Where the user's file is, if the bytes are not our own copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Display name.
    pub name: String,
    /// Your JSON object.
    pub metadata: Value,
    /// Unix milliseconds.
    pub created_unix_ms: i64,
    /// The tracks that somebody chose.
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

/// Appends one line to `out`.
pub(super) fn encode(out: &mut Vec<u8>, acknowledged: i64, entry: &Entry) -> io::Result<()> {
    let json = serde_json::to_vec(&Numbered { n: acknowledged, entry })?;
    out.extend_from_slice(format!("{:08x} ", crc32fast::hash(&json)).as_bytes());
    out.extend_from_slice(&json);
    out.push(b'\n');
    Ok(())
}

/// Reads a line without its newline; `None` where it is not as it was written.
///
/// # Errors
/// [`io::ErrorKind::Unsupported`] where a newer version wrote it.
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
    // Its checksum is right, so it was written like this: by somebody who knows more than we do.
    let entry: Entry = serde_json::from_value(numbered.entry).map_err(|_| newer())?;
    if matches!(entry, Entry::Ledger { version } if version > VERSION) {
        return Err(newer());
    }
    Ok(Some((numbered.n, entry)))
}
