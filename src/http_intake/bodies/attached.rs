//! Media in a JSON body: small files stay in the text, large ones are decoded into files beside it.

use std::cell::RefCell;

use serde::de::{Deserialize, Deserializer, Visitor};

use crate::files::Upload;

/// The decoded bytes of a large `data:` URI, or why it cannot be decoded.
pub type Attached = Result<Upload, String>;

/// The content of a field for media: a `data:` URI, or (in `/v1/embeddings`) a path or a text.
#[derive(Debug)]
pub enum MediaField {
    /// The text as the client sent it.
    Written(String),
    /// A large `data:` URI, decoded.
    Large(Box<LargeMedia>),
}

/// A large `data:` URI.
#[derive(Debug)]
pub struct LargeMedia {
    /// The URI up to its comma.
    pub head: String,
    /// The data after the comma.
    pub bytes: Attached,
}

thread_local! {
    /// The files of the text that this thread is parsing. Serde has no other way to hand them to the fields.
    static ATTACHED: RefCell<Vec<Option<Attached>>> = const { RefCell::new(Vec::new()) };
}

/// Parses with these files at hand; also returns how many of them no field has claimed.
pub fn with_attached<R>(attached: Vec<Attached>, parse: impl FnOnce() -> R) -> (R, usize) {
    ATTACHED.set(attached.into_iter().map(Some).collect());
    let parsed = parse();
    (parsed, ATTACHED.take().into_iter().flatten().count())
}

/// Claims the file whose marker a text ends with.
fn claim(text: &str) -> Option<MediaField> {
    let (head, number) = text.split_once(",\u{0}")?;
    let number: usize = number.parse().ok()?;
    let bytes = ATTACHED.with_borrow_mut(|all| all.get_mut(number)?.take())?;
    Some(MediaField::Large(Box::new(LargeMedia { head: head.to_owned(), bytes })))
}

impl<'de> Deserialize<'de> for MediaField {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = MediaField;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string")
            }
            fn visit_str<E>(self, text: &str) -> Result<MediaField, E> {
                Ok(claim(text).unwrap_or_else(|| MediaField::Written(text.to_owned())))
            }
            fn visit_string<E>(self, text: String) -> Result<MediaField, E> {
                Ok(claim(&text).unwrap_or(MediaField::Written(text)))
            }
        }
        deserializer.deserialize_string(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_find_their_files_once_and_strays_are_counted() {
        let text = r#"["data:a/b;base64,\u00001", "data:a/b;base64,\u00001", "x"]"#;
        let attached = || vec![Err("first".to_owned()), Err("second".to_owned())];
        let (parsed, strays) = with_attached(attached(), || serde_json::from_str::<Vec<MediaField>>(text));
        let parsed = parsed.unwrap();
        assert_eq!(strays, 1);
        let MediaField::Large(large) = &parsed[0] else { panic!("{:?}", parsed[0]) };
        assert_eq!(
            (large.head.as_str(), large.bytes.as_ref().unwrap_err().as_str()),
            ("data:a/b;base64", "second")
        );
        assert!(matches!(&parsed[1], MediaField::Written(text) if text.ends_with("\u{0}1")));
        assert!(matches!(&parsed[2], MediaField::Written(text) if text == "x"));
        // In another text, the markers claim nothing.
        let (parsed, strays) = with_attached(Vec::new(), || serde_json::from_str::<Vec<MediaField>>(text));
        assert!(matches!(&parsed.unwrap()[0], MediaField::Written(_)));
        assert_eq!(strays, 0);
    }
}
