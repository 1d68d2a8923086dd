//! Where the bytes of an item are.

use std::path::Path;

use percent_encoding::percent_decode_str;

/// Where the bytes of an item are, recognised by how the text begins; paths are absolute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// A path on this machine.
    Path(&'a Path),
    /// An http or https URL.
    Url(&'a str),
    /// An object in a bucket, as `s3://bucket/key`.
    Object(&'a str),
}

impl<'a> Place<'a> {
    /// The place that a text names.
    #[must_use]
    pub fn of(text: &'a str) -> Self {
        let has =
            |scheme: &str| text.get(..scheme.len()).is_some_and(|head| head.eq_ignore_ascii_case(scheme));
        if has("http://") || has("https://") {
            Self::Url(text)
        } else if has("s3://") {
            Self::Object(text)
        } else {
            Self::Path(Path::new(text))
        }
    }

    /// The last part of the name, for display.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Path(path) => path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
            Self::Object(place) => place.rsplit('/').next().unwrap_or(place).to_owned(),
            Self::Url(url) => {
                let end = url.find(['?', '#']).unwrap_or(url.len());
                let rest = url[..end].split_once("://").map_or("", |(_, rest)| rest).trim_end_matches('/');
                let last = rest.rsplit('/').next().unwrap_or(rest);
                percent_decode_str(last).decode_utf8_lossy().into_owned()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_have_names_for_people() {
        for (place, name) in [
            ("/films/a b.mp4", "a b.mp4"),
            ("s3://films/2024/a%20b.mp4", "a%20b.mp4"),
            ("https://media.example/x/a%20b.mp4?sig=1/2#t", "a b.mp4"),
            ("https://media.example/x/", "x"),
            ("https://media.example", "media.example"),
            ("HTTP://media.example/?x=/y", "media.example"),
            ("/", "/"),
        ] {
            assert_eq!(Place::of(place).name(), name, "{place}");
        }
        assert!(matches!(Place::of("http:/x"), Place::Path(_)));
        assert!(matches!(Place::of("/http://x"), Place::Path(_)));
    }
}
