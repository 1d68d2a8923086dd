//! Addresses of buckets, folders and objects.

use std::fmt;
use std::str::FromStr;

use object_store::path::Path;

use crate::outbound::OutboundError;

/// Longest key in bytes.
const MAX_KEY_BYTES: usize = 1024;

/// `s3://bucket/key`, with the key as stored, without escapes. As a folder, the key is a prefix of complete
/// path parts: `s3://b/films` contains `films/a.mp4` but not `films-old/a.mp4`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketUrl {
    /// Name of the bucket.
    pub bucket: String,
    /// Key of an object or folder, without a slash at either end; empty for the whole bucket.
    pub key: String,
}

impl FromStr for BucketUrl {
    type Err = OutboundError;

    fn from_str(text: &str) -> Result<Self, OutboundError> {
        let refused = |why: &str| OutboundError::NotAllowed(format!("expected s3://BUCKET/KEY: {why}"));
        let rest = text.strip_prefix("s3://").ok_or_else(|| refused("it does not begin with s3://"))?;
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_');
        if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(fits) || bucket.contains("..") {
            return Err(refused("the name of the bucket"));
        }
        let key = key.trim_matches('/');
        if !key.is_empty() && !Self::is_key(key) {
            return Err(refused(BAD_KEY));
        }
        Ok(Self { bucket: bucket.to_owned(), key: key.to_owned() })
    }
}

impl fmt::Display for BucketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}

/// The fault of a key that [`BucketUrl::is_key`] refuses.
const BAD_KEY: &str = "its key has an empty part, `.` or `..`, a control character, or more than 1024 bytes";

impl BucketUrl {
    /// Whether an object of this key can be read: no other key or URL must mean the same object.
    #[must_use]
    pub fn is_key(key: &str) -> bool {
        let plain = !key.is_empty() && key.len() <= MAX_KEY_BYTES && !key.chars().any(char::is_control);
        plain && Path::parse(key).is_ok_and(|path| path.as_ref() == key)
    }

    /// The place of one object, with its key taken literally: `s3://b//a` is not `s3://b/a`.
    ///
    /// # Errors
    /// [`OutboundError::NotAllowed`].
    pub fn of_object(text: &str) -> Result<Self, OutboundError> {
        let key = text.strip_prefix("s3://").and_then(|rest| rest.split_once('/')).map_or("", |(_, key)| key);
        if Self::is_key(key) {
            return text.parse();
        }
        Err(OutboundError::NotAllowed(format!("cannot read this object: {BAD_KEY}")))
    }

    /// Whether another place is this one or within it.
    #[must_use]
    pub fn holds(&self, other: &Self) -> bool {
        let beneath =
            || other.key.strip_prefix(&self.key).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        self.bucket == other.bucket && (self.key.is_empty() || beneath())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_hold_each_other_by_whole_names() {
        let place = |text: &str| text.parse::<BucketUrl>();
        assert_eq!(place("s3://films/2024/a b%20ü.mp4").unwrap().to_string(), "s3://films/2024/a b%20ü.mp4");
        assert_eq!(place("s3://films").unwrap(), place("s3://films/").unwrap());
        for bad in [
            "films/a",
            "s3://",
            "s3:///a",
            "s3://a/b",
            "s3://Films/a",
            "s3://films/../a",
            "s3://films/a//b",
            "s3://f@b/a",
        ] {
            assert_eq!(place(bad).map_err(|error| error.code()), Err("url_not_allowed"), "{bad}");
        }
        let object = |text: &str| BucketUrl::of_object(text).map(|place| place.key);
        assert_eq!(object("s3://films/a b%20ü.mp4").unwrap(), "a b%20ü.mp4");
        for bad in [
            "s3://films//a",
            "s3://films/a/",
            "s3://films/a//b",
            "s3://films/./a",
            "s3://films/a\nb",
            "s3://films",
        ] {
            assert_eq!(object(bad).map_err(|error| error.code()), Err("url_not_allowed"), "{bad}");
        }
        let holds = |a: &str, b: &str| place(a).unwrap().holds(&place(b).unwrap());
        assert!(holds("s3://films", "s3://films/a") && holds("s3://films/a", "s3://films/a/b"));
        assert!(holds("s3://films/a", "s3://films/a"));
        assert!(!holds("s3://films/a", "s3://films/ab") && !holds("s3://films/a", "s3://films"));
        assert!(!holds("s3://films", "s3://other/a"));
    }
}
