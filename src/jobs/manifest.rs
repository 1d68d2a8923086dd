//! A JSONL manifest: one file a line, with metadata of its own.

use std::io::BufRead;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// Longest line, bytes.
const MAX_LINE_BYTES: usize = 256 << 10;

/// One file to index.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ManifestItem {
    /// The file; in a manifest, a relative path is relative to the manifest's folder.
    pub path: String,
    /// Any JSON object; its keys win over those of the job's metadata.
    #[schema(value_type = Option<Object>)]
    #[serde(default)]
    pub metadata: Map<String, Value>,
}

/// Why a manifest was refused.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// More files than one job takes.
    #[error("more than {0} files")]
    TooMany(usize),
    /// A line that is not an item.
    #[error("line {line}: {reason}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// Input/output.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Reads a manifest that lies in `folder`: empty lines are skipped, anything else that is not
/// `{"path": …, "metadata": {…}}` is refused with its line. Blocking.
///
/// # Errors
/// [`ManifestError`].
pub fn read_manifest(
    mut reader: impl BufRead,
    folder: &Path,
    most: usize,
) -> Result<Vec<ManifestItem>, ManifestError> {
    let mut items = Vec::new();
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        let refused = |reason: String| ManifestError::Line { line, reason };
        // One byte more than is allowed tells a line that is too long.
        let mut limited = std::io::Read::take(&mut reader, MAX_LINE_BYTES as u64 + 1);
        if limited.read_until(b'\n', &mut text)? == 0 {
            break;
        }
        if text.len() > MAX_LINE_BYTES {
            return Err(refused(format!("it is longer than {MAX_LINE_BYTES} bytes")));
        }
        // Editors on Windows put a mark before the first line.
        let line_text = if line == 1 { text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text) } else { &text };
        if line_text.trim_ascii().is_empty() {
            continue;
        }
        let mut item: ManifestItem =
            serde_json::from_slice(line_text).map_err(|error| refused(error.to_string()))?;
        if item.path.is_empty() {
            return Err(refused("`path` is empty".to_owned()));
        }
        if items.len() == most {
            return Err(ManifestError::TooMany(most));
        }
        if !Path::new(&item.path).is_absolute() {
            let joined = folder.join(&item.path);
            let joined = joined.to_str().ok_or_else(|| refused("its folder's name is not UTF-8".into()))?;
            item.path = joined.to_owned();
        }
        items.push(item);
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Result<Vec<ManifestItem>, String> {
        read_manifest(text.as_bytes(), Path::new("/m"), 3).map_err(|error| error.to_string())
    }

    #[test]
    fn lines_are_files() {
        let items = read(
            "\u{feff}{\"path\": \"a.mp4\", \"metadata\": {\"n\": 1}}\r\n\n{\"path\": \"/b/ü.wav\"}\n  \n{\"path\":\"../c\"}",
        )
        .unwrap();
        let paths: Vec<&str> = items.iter().map(|item| item.path.as_str()).collect();
        assert_eq!(paths, ["/m/a.mp4", "/b/ü.wav", "/m/../c"]);
        assert_eq!(Value::Object(items[0].metadata.clone()), json!({"n": 1}));
        assert!(items[1].metadata.is_empty());
        assert_eq!(read("").unwrap(), []);
    }

    #[test]
    fn what_is_no_item_is_refused_with_its_line() {
        for (text, says) in [
            ("{\"path\":\"a\"}\nb.mp4\n", "line 2: "),
            ("{\"path\":\"a\",\"meta\":{}}", "line 1: unknown field `meta`"),
            ("{\"path\":\"a\",\"metadata\":[]}", "line 1: invalid type"),
            ("\n\n{\"path\":\"\"}", "line 3: `path` is empty"),
            ("{}", "line 1: missing field `path`"),
            ("{\"path\":\"a\"}\n{\"path\":\"b\"}\n{\"path\":\"c\"}\n{\"path\":\"d\"}", "more than 3 files"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with(says), "{text}: {error}");
        }
        let long = format!("{{\"path\":\"{}\"}}", "x".repeat(MAX_LINE_BYTES));
        assert!(read(&long).unwrap_err().contains("longer than"));
        assert!(read_manifest(&b"{\"path\":\"\xff\"}"[..], Path::new("/m"), 3).is_err());
    }
}
