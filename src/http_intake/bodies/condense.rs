//! Filters a JSON text while it is received: extracts large `data:` URIs and decodes them piece by piece.
//! Sixty megabytes of base64 are never in memory, and the remaining text is small and quick to parse.

mod base64;

use self::base64::Base64;

/// Shorter base64 stays in the text; metadata, which may contain pictures of its own, is shorter.
pub const INLINE_BYTES: usize = 96 << 10;
/// Longest text between `data:` and the comma, in bytes.
const MAX_HEAD_BYTES: usize = 256;

/// The parts extracted from the text, in order.
#[derive(Debug, PartialEq)]
pub enum Event {
    /// A large `data:` URI begins; the JSON has a marker in its place.
    Open,
    /// Decoded bytes of the URI opened last.
    Bytes(Vec<u8>),
    /// The URI has ended, or is not valid base64, with the reason.
    Close(Result<(), String>),
}

/// Position of the condenser in the text.
#[derive(Debug, Default)]
enum Place {
    /// Outside of strings.
    #[default]
    Structure,
    /// In a string that is passed on.
    Passed(Escape),
    /// In a string that may be a `data:` URI and is buffered.
    Held(Escape),
    /// In the data of a large URI.
    Media(Escape),
}

/// Position in an escape sequence.
#[derive(Debug, Clone, Copy, Default)]
enum Escape {
    #[default]
    None,
    Begun,
    /// Hex digits of `\uXXXX` still to come, and the value so far.
    Unicode(u8, u32),
}

impl Escape {
    /// Consumes a byte; returns the character that it completes, if any. Bytes beyond ASCII pass unchanged.
    fn next(&mut self, byte: u8) -> Option<u8> {
        match *self {
            Self::None if byte == b'\\' => {
                *self = Self::Begun;
                None
            }
            Self::None => Some(byte),
            Self::Begun if byte == b'u' => {
                *self = Self::Unicode(4, 0);
                None
            }
            Self::Begun => {
                *self = Self::None;
                Some(match byte {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'f' => 12,
                    other => other,
                })
            }
            Self::Unicode(left, value) => {
                let digit = (byte as char).to_digit(16).unwrap_or(0x1_0000);
                let value = value.saturating_mul(16).saturating_add(digit);
                *self = if left > 1 { Self::Unicode(left - 1, value) } else { Self::None };
                (left == 1).then(|| u8::try_from(value).unwrap_or(0xff))
            }
        }
    }

    const fn is_open(self) -> bool {
        !matches!(self, Self::None)
    }
}

/// Processes a JSON text piece by piece.
#[derive(Debug, Default)]
pub struct Condenser {
    place: Place,
    /// JSON that may be passed on.
    json: Vec<u8>,
    /// The undecided string as written, without its opening quote.
    held: Vec<u8>,
    /// The unescaped text of the undecided string, up to its comma.
    head: Vec<u8>,
    /// Whether the head is complete.
    has_head: bool,
    base64: Base64,
    opened: usize,
}

impl Condenser {
    /// Processes a piece; returns the extracted parts.
    pub fn push(&mut self, piece: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        let mut rest = piece;
        while let [byte, tail @ ..] = rest {
            match self.place {
                // Takes the bulk of a long string at once.
                Place::Media(Escape::None) => {
                    let run = rest.iter().position(|b| matches!(b, b'"' | b'\\')).unwrap_or(rest.len());
                    if run > 0 {
                        self.base64.push(&rest[..run], &mut events);
                        rest = &rest[run..];
                        continue;
                    }
                    self.media(*byte, &mut events);
                }
                Place::Media(_) => self.media(*byte, &mut events),
                Place::Structure => {
                    self.json.push(*byte);
                    if *byte == b'"' {
                        self.held.clear();
                        self.head.clear();
                        self.has_head = false;
                        self.place = Place::Held(Escape::None);
                    }
                }
                Place::Passed(ref mut escape) => {
                    let ends = *byte == b'"' && !escape.is_open();
                    escape.next(*byte);
                    self.json.push(*byte);
                    if ends {
                        self.place = Place::Structure;
                    }
                }
                Place::Held(escape) => self.undecided(escape, *byte, &mut events),
            }
            rest = tail;
        }
        events
    }

    /// Takes the JSON that came out since the last call.
    pub fn take_json(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.json)
    }

    /// Number of buffered bytes, besides those of [`Condenser::take_json`].
    pub fn held_bytes(&self) -> usize {
        self.held.len()
    }

    /// Ends the text and returns the remaining JSON. A text that ends within a string is invalid JSON, and
    /// stays so.
    pub fn finish(mut self) -> Vec<u8> {
        if matches!(self.place, Place::Held(_)) {
            self.json.append(&mut self.held);
        }
        self.json
    }

    fn undecided(&mut self, mut escape: Escape, byte: u8, events: &mut Vec<Event>) {
        if byte == b'"' && !escape.is_open() {
            self.json.append(&mut self.held);
            self.json.push(byte);
            self.place = Place::Structure;
            return;
        }
        self.held.push(byte);
        let character = escape.next(byte);
        self.place = Place::Held(escape);
        if self.has_head {
            if self.held.len() > INLINE_BYTES && !escape.is_open() {
                self.open(events);
            }
            return;
        }
        let Some(character) = character else { return };
        self.head.push(character);
        let prefix = b"data:";
        let fits = if self.head.len() <= prefix.len() {
            prefix.starts_with(&self.head)
        } else if character == b',' {
            self.has_head = true;
            is_plain(&self.head) && says_base64(&self.head)
        } else {
            self.head.len() <= MAX_HEAD_BYTES
        };
        if !fits {
            self.json.append(&mut self.held);
            self.place = Place::Passed(escape);
        }
    }

    /// The buffered string is a large URI: replaces it by a marker.
    fn open(&mut self, events: &mut Vec<Event>) {
        self.json.extend_from_slice(&self.head);
        self.json.extend_from_slice(format!("\\u0000{}\"", self.opened).as_bytes());
        self.opened += 1;
        events.push(Event::Open);
        self.base64 = Base64::default();
        self.place = Place::Media(Escape::None);
        let held = std::mem::take(&mut self.held);
        let mut escape = Escape::None;
        let mut in_head = true;
        let mut text = Vec::with_capacity(held.len());
        for byte in held {
            match escape.next(byte) {
                Some(b',') if in_head => in_head = false,
                Some(character) if !in_head => text.push(character),
                _ => {}
            }
        }
        self.base64.push(&text, events);
    }

    fn media(&mut self, byte: u8, events: &mut Vec<Event>) {
        let Place::Media(ref mut escape) = self.place else { return };
        if byte == b'"' && !escape.is_open() {
            let closed = self.base64.finish(events);
            events.push(Event::Close(closed));
            self.place = Place::Structure;
        } else if let Some(character) = escape.next(byte) {
            self.base64.push(&[character], events);
        }
    }
}

/// Whether a head needs no escapes in JSON.
fn is_plain(head: &[u8]) -> bool {
    head.iter().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\'))
}

fn says_base64(head: &[u8]) -> bool {
    let parameters = head.strip_suffix(b",").unwrap_or(head).split(|byte| *byte == b';').skip(1);
    parameters.into_iter().any(|part| part.trim_ascii().eq_ignore_ascii_case(b"base64"))
}

#[cfg(test)]
mod tests {
    use ::base64::Engine;
    use ::base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;

    /// The remaining JSON, and the bytes or the error of each URI.
    fn condense(text: &[u8], piece: usize) -> (Vec<u8>, Vec<Result<Vec<u8>, String>>) {
        let mut condenser = Condenser::default();
        let (mut json, mut media) = (Vec::new(), Vec::new());
        for piece in text.chunks(piece) {
            for event in condenser.push(piece) {
                match event {
                    Event::Open => media.push(Ok(Vec::new())),
                    Event::Bytes(bytes) => {
                        if let Some(Ok(all)) = media.last_mut() {
                            all.extend(bytes);
                        }
                    }
                    Event::Close(Ok(())) => {}
                    Event::Close(Err(problem)) => *media.last_mut().unwrap() = Err(problem),
                }
            }
            json.extend(condenser.take_json());
        }
        json.extend(condenser.finish());
        (json, media)
    }

    fn bytes(count: usize) -> Vec<u8> {
        (0..count).map(|n| (n * 31 % 251) as u8).collect()
    }

    #[test]
    fn large_uris_leave_and_the_rest_stays() {
        let large = bytes(150_000);
        let small = STANDARD.encode(bytes(100));
        let text = format!(
            r#"{{"a\"b": "data:image/png;base64,{small}", "query": {{"image":"data:image/png;base64,{}"}},"x":["data:,", "déjà \\", 1e5]}}"#,
            STANDARD.encode(&large)
        );
        for piece in [1, 7, 1000, 1 << 20] {
            let (json, media) = condense(text.as_bytes(), piece);
            assert_eq!(media, [Ok(large.clone())], "{piece}");
            let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
            assert_eq!(value["query"]["image"], "data:image/png;base64,\u{0}0");
            assert_eq!(value["a\"b"], format!("data:image/png;base64,{small}"));
            assert_eq!(value["x"], serde_json::json!(["data:,", "déjà \\", 1e5]));
        }
    }

    #[test]
    fn escapes_and_white_space_are_read_as_json_and_base64_mean_them() {
        let large = bytes(200_001);
        let base64 = STANDARD.encode(&large);
        let escaped = base64.replace('/', "\\/").replace('+', "\\u002b");
        let text = format!(r#"["d\u0061ta:video\/mp4; BASE64,\n {escaped}\r\n", 2]"#);
        for piece in [1, 4096, 1 << 20] {
            let (json, media) = condense(text.as_bytes(), piece);
            assert_eq!(media, [Ok(large.clone())]);
            let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
            assert_eq!(value, serde_json::json!(["data:video/mp4; BASE64,\u{0}0", 2]));
        }
    }

    #[test]
    fn bad_base64_is_told_and_what_follows_is_read() {
        let good = "QUJD".repeat(40_000);
        for bad in [
            format!("{good}!{good}"),
            format!("{good}QQ=={good}"),
            format!("{good}A"),
            format!("{good} {good}"),
            format!("{good}\\u0100{good}"),
            format!("{good}{}{good}", " ".repeat(100_000)),
            format!("{good}=="),
        ] {
            let text = format!(r#"["data:a/b;base64,{bad}", "data:a/b;base64,{good}"]"#);
            for piece in [4093, 1 << 22] {
                let (json, media) = condense(text.as_bytes(), piece);
                assert!(media[0].is_err(), "{}", &bad[bad.len() - 20..]);
                assert_eq!(media[1], Ok(b"ABC".repeat(40_000)));
                assert!(serde_json::from_slice::<serde_json::Value>(&json).is_ok());
            }
        }
    }

    #[test]
    fn a_text_that_breaks_off_stays_broken() {
        let large = "QUJD".repeat(40_000);
        for text in [
            r#"{"a": "data:image/png;base64,QUJD"#.to_owned(),
            r#"{"a": "da"#.to_owned(),
            format!(r#"{{"a": "data:image/png;base64,{large}"#),
        ] {
            let (json, _) = condense(text.as_bytes(), 100);
            assert!(serde_json::from_slice::<serde_json::Value>(&json).is_err(), "{text:.60}");
        }
    }

    proptest! {
        #[test]
        fn what_holds_no_large_uri_comes_out_as_it_went_in(text in ".{0,300}", piece in 1_usize..40) {
            let text = format!("{{\"data:\": [{}, \"data:x;base64,{}\", {text:?}]}}", 1, text.replace(['"', '\\'], ""));
            prop_assert_eq!(condense(text.as_bytes(), piece), (text.into_bytes(), Vec::new()));
        }

        #[test]
        fn any_bytes_come_back(extra in 0_usize..5000, piece in 1_usize..50_000) {
            let large = bytes(100_000 + extra);
            let text = format!("\"data:a/b;base64,{}\"", STANDARD.encode(&large));
            prop_assert_eq!(condense(text.as_bytes(), piece).1, vec![Ok(large)]);
        }
    }
}
