//! Shortens the texts of error answers: they quote the client's input, which may be as long as a body, and
//! answers have no memory budget.

use std::fmt::{self, Display, Write};

/// Longest message of an error, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 1000;
/// Longest name of the field at fault, in bytes.
pub const MAX_PARAM_BYTES: usize = 100;
/// Replaces the omitted part.
const ELLIPSIS: &str = "…";

/// The text in at most `most_bytes`, without its middle: the end of a message says what was expected. Never
/// stores the whole text.
#[must_use]
pub fn brief(text: &(impl Display + ?Sized), most_bytes: usize) -> String {
    let room = most_bytes.saturating_sub(ELLIPSIS.len());
    let mut ends = Ends { most: (room - room / 3, room / 3), ..Ends::default() };
    // Writing to it cannot fail; if the text itself fails to format, it is cut off there.
    let _ = write!(ends, "{text}");
    let whole = ends.tail.len() == ends.rest_bytes;
    format!("{}{}{}", ends.head, if whole { "" } else { ELLIPSIS }, ends.tail)
}

/// Like [`brief`], without copying a short text.
#[must_use]
pub fn shortened(text: String, most_bytes: usize) -> String {
    if text.len() <= most_bytes { text } else { brief(&text, most_bytes) }
}

/// Stores the beginning and the end of the written text.
#[derive(Default)]
struct Ends {
    /// Length of each part, in bytes.
    most: (usize, usize),
    head: String,
    tail: String,
    /// Length of all that did not fit into the beginning.
    rest_bytes: usize,
}

impl fmt::Write for Ends {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        if self.rest_bytes == 0 {
            let (fits, beyond) = text.split_at(text.floor_char_boundary(self.most.0 - self.head.len()));
            self.head.push_str(fits);
            rest = beyond;
        }
        self.rest_bytes += rest.len();
        let from = rest.ceil_char_boundary(rest.len().saturating_sub(self.most.1));
        self.tail.push_str(rest.split_at(from).1);
        let surplus = self.tail.ceil_char_boundary(self.tail.len().saturating_sub(self.most.1));
        self.tail.drain(..surplus);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_a_long_text_is_left_out() {
        assert_eq!(brief("short", 20), "short");
        assert_eq!(brief("exactly so many b", 20), "exactly so many b");
        assert_eq!(brief("abcdefghijklmnopqrstuvwxyz", 12), "abcdef…xyz");
        assert_eq!(brief(&format_args!("{}{}", "a".repeat(50), "z".repeat(50)), 12), "aaaaaa…zzz");
        for text in ["ä", "日本語", "👍", "x"] {
            for most in [3, 4, 7, 50, 1000] {
                let cut = brief(&text.repeat(1500), most);
                assert!(cut.len() <= most && cut.contains(ELLIPSIS), "{most}: {cut}");
            }
        }
        // In pieces, as errors write themselves.
        struct Pieces;
        impl Display for Pieces {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                (0..100).try_for_each(|n| write!(f, "{n},"))
            }
        }
        assert_eq!(brief(&Pieces, 15), "0,1,2,3,…,99,");
        assert_eq!(brief(&Pieces, 1000).len(), 290);
        assert_eq!(shortened("x".repeat(100), 100), "x".repeat(100));
        assert!(shortened("x".repeat(101), 100).len() <= 100);
    }
}
