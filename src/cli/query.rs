//! One query from the command line: a text, or a file with an optional span.

use std::path::{Path, PathBuf};

use clap::Args;

use super::CliError;
use crate::types::{Modality, TimeSpan};

/// Exactly one of a text, a sound, a picture or a clip.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub struct QueryArgs {
    /// Text to search for.
    pub text: Option<String>,
    /// Sound file, or part of it in seconds: f.wav@12.5-16
    #[arg(long, value_name = "FILE[@START-END]")]
    pub audio: Option<String>,
    /// Image file.
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,
    /// Video file, or part of it in seconds: f.mp4@12.5-16
    #[arg(long, value_name = "FILE[@START-END]")]
    pub video: Option<String>,
}

/// The query that was requested.
#[derive(Debug, PartialEq)]
pub enum Query {
    /// Text.
    Text(String),
    /// A file, the modality to embed it as, and the span that counts.
    Media(Modality, PathBuf, Option<TimeSpan>),
}

impl QueryArgs {
    /// The single query given.
    pub fn query(&self) -> Result<Query, CliError> {
        if let Some(text) = &self.text {
            return Ok(Query::Text(text.clone()));
        }
        if let Some(path) = &self.image {
            return media(Modality::Image, path.clone(), None);
        }
        let (modality, argument) = match (&self.audio, &self.video) {
            (Some(argument), _) => (Modality::Audio, argument),
            (None, Some(argument)) => (Modality::Video, argument),
            (None, None) => {
                return Err(CliError::input(
                    "missing_field",
                    "expected a text, or a file given with --audio, --image or --video",
                ));
            }
        };
        let (path, span) = split_span(argument)?;
        media(modality, path, span)
    }
}

fn media(modality: Modality, path: PathBuf, span: Option<TimeSpan>) -> Result<Query, CliError> {
    if path.is_file() {
        Ok(Query::Media(modality, path, span))
    } else {
        Err(CliError::input("path_missing", format!("{}: no such file", path.display())))
    }
}

/// Splits `f.mp4@12.5-16` into file and span. If a file has that very name, the whole argument is the file.
fn split_span(argument: &str) -> Result<(PathBuf, Option<TimeSpan>), CliError> {
    let whole = PathBuf::from(argument);
    if whole.exists() {
        return Ok((whole, None));
    }
    let Some((path, span)) = argument.rsplit_once('@') else { return Ok((whole, None)) };
    let parsed = span
        .split_once('-')
        .and_then(|(start, end)| Some((start.trim().parse().ok()?, end.trim().parse().ok()?)))
        .and_then(|(start, end)| TimeSpan::new(start, end).ok());
    match parsed {
        Some(span) => Ok((Path::new(path).to_owned(), Some(span))),
        None => Err(CliError::input(
            "invalid_value",
            format!("expected START-END in seconds after `@`, got `{span}`"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_follows_the_last_at_sign() {
        let (path, span) = split_span("a@b.mp4@12.5-16").unwrap();
        assert_eq!(path, PathBuf::from("a@b.mp4"));
        assert_eq!(span, Some(TimeSpan { start_secs: 12.5, end_secs: 16.0 }));
        assert_eq!(split_span("a.mp4").unwrap().1, None);
        for bad in ["a.mp4@5-2", "a.mp4@x", "a.mp4@-1-2", "a.mp4@1-"] {
            assert_eq!(split_span(bad).unwrap_err().code, "invalid_value", "{bad}");
        }
    }
}
