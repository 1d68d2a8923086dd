//! A JSONL manifest: one file or URL per line, each with its own metadata.

use std::io::BufRead;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Place;
use crate::types::TrackChoice;

/// Longest line in bytes.
const MAX_LINE_BYTES: usize = 256 << 10;

/// One file to index: exactly one of `path` and `url`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ManifestItem {
    /// Path of the file; in a manifest, relative paths start at the manifest's folder.
    pub path: Option<String>,
    /// `http://` or `https://` URL on an allowed host.
    pub url: Option<String>,
    /// Display name; default: the file's name.
    pub name: Option<String>,
    /// Any JSON object; its keys take precedence over the job's metadata.
    #[schema(value_type = Option<Object>)]
    #[serde(default)]
    pub metadata: Map<String, Value>,
    /// Index of the video track to read, as listed in the asset's tracks; default: chosen by the server.
    pub video_track: Option<u16>,
    /// Index of the audio track to read, as listed in the asset's tracks; default: chosen by the server.
    pub audio_track: Option<u16>,
}

impl ManifestItem {
    /// The tracks chosen by this line.
    #[must_use]
    pub const fn choice(&self) -> TrackChoice {
        TrackChoice { video: self.video_track, audio: self.audio_track }
    }

    /// Takes the tracks of the whole list, unless the item chooses its own.
    pub fn choose(&mut self, of_all: TrackChoice) {
        self.video_track = self.video_track.or(of_all.video);
        self.audio_track = self.audio_track.or(of_all.audio);
    }

    /// Checks that the item has exactly one source.
    ///
    /// # Errors
    /// A message.
    pub fn check(&self) -> Result<(), &'static str> {
        match (self.path.as_deref(), self.url.as_deref()) {
            (Some(""), None) => Err("`path` is empty"),
            (None, Some(url)) if !matches!(Place::of(url), Place::Url(_)) => {
                Err("`url` must begin with http:// or https://")
            }
            (Some(path), None) if !matches!(Place::of(path), Place::Path(_)) => {
                Err("`path` must be a path; put a URL into `url`")
            }
            (Some(_), None) | (None, Some(_)) => Ok(()),
            (Some(_), Some(_)) => Err("expected either `path` or `url`, got both"),
            (None, None) => Err("expected `path` or `url`, got neither"),
        }
    }
}

/// Why a manifest was refused.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// More files than one job takes.
    #[error("expected at most {0} files")]
    TooMany(usize),
    /// A line is not a valid item.
    #[error("line {line}: {reason}")]
    Line {
        /// Line number, from 1.
        line: usize,
        /// What is wrong with the line.
        reason: String,
    },
    /// Input or output failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Reads a manifest in `folder`. Skips empty lines; refuses anything else that is not
/// `{"path" or "url": …, "name": …, "metadata": {…}}`, with the line number. Blocking.
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
        // One byte more than allowed, to detect a line that is too long.
        let mut limited = std::io::Read::take(&mut reader, MAX_LINE_BYTES as u64 + 1);
        if limited.read_until(b'\n', &mut text)? == 0 {
            break;
        }
        if text.len() > MAX_LINE_BYTES {
            return Err(refused(format!("expected at most {MAX_LINE_BYTES} bytes in a line")));
        }
        // Editors on Windows write a byte order mark before the first line.
        let line_text = if line == 1 { text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text) } else { &text };
        if line_text.trim_ascii().is_empty() {
            continue;
        }
        let mut item: ManifestItem =
            serde_json::from_slice(line_text).map_err(|error| refused(error.to_string()))?;
        item.check().map_err(|reason| refused(reason.to_owned()))?;
        if items.len() == most {
            return Err(ManifestError::TooMany(most));
        }
        if let Some(path) = item.path.as_mut().filter(|path| !Path::new(path.as_str()).is_absolute()) {
            let joined = folder.join(&*path);
            let joined =
                joined.to_str().ok_or_else(|| refused("the name of its folder is not UTF-8".into()))?;
            *path = joined.to_owned();
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
        let paths: Vec<&str> = items.iter().filter_map(|item| item.path.as_deref()).collect();
        assert_eq!(paths, ["/m/a.mp4", "/b/ü.wav", "/m/../c"]);
        assert_eq!(Value::Object(items[0].metadata.clone()), json!({"n": 1}));
        assert!(items[1].metadata.is_empty());
        assert_eq!(read("").unwrap(), []);
        let url = &read("{\"url\": \"https://a.b/c.mp4\", \"name\": \"C\"}").unwrap()[0];
        let (place, name) = (url.url.as_deref(), url.name.as_deref());
        assert_eq!((place, name, &url.path), (Some("https://a.b/c.mp4"), Some("C"), &None));
    }

    #[test]
    fn what_is_no_item_is_refused_with_its_line() {
        for (text, says) in [
            ("{\"path\":\"a\"}\nb.mp4\n", "line 2: "),
            ("{\"path\":\"a\",\"meta\":{}}", "line 1: unknown field `meta`"),
            ("{\"path\":\"a\",\"metadata\":[]}", "line 1: invalid type"),
            ("\n\n{\"path\":\"\"}", "line 3: `path` is empty"),
            ("{}", "line 1: expected `path` or `url`, got neither"),
            ("{\"path\":\"a\",\"url\":\"http://a/b\"}", "line 1: expected either `path` or `url`, got both"),
            ("{\"url\":\"a/b.mp4\"}", "line 1: `url` must begin with"),
            ("{\"path\":\"HTTPS://a/b.mp4\"}", "line 1: `path` must be a path"),
            (
                "{\"path\":\"a\"}\n{\"path\":\"b\"}\n{\"path\":\"c\"}\n{\"path\":\"d\"}",
                "expected at most 3 files",
            ),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with(says), "{text}: {error}");
        }
        let long = format!("{{\"path\":\"{}\"}}", "x".repeat(MAX_LINE_BYTES));
        assert!(read(&long).unwrap_err().contains("expected at most"));
        assert!(read_manifest(&b"{\"path\":\"\xff\"}"[..], Path::new("/m"), 3).is_err());
    }
}
