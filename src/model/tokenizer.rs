//! Converts texts to token ids, as in docs/bundle.md: drops unknown words first, then truncates, then pads.

use tokenizers::Tokenizer;

use super::ModelError;
use super::manifest::TextPreprocessing;

/// Longest text in characters. Only the first words count anyway; this limits the work.
pub const MAX_TEXT_CHARS: usize = 8192;

/// How many unknown words an error names, and how many characters of each.
const NAMED_WORDS: usize = 10;
const NAMED_CHARS: usize = 40;

/// The tokenizer of a bundle.
pub(super) struct TextTokenizer {
    tokenizer: Tokenizer,
    max_words: usize,
    pad_id: u32,
    unknown_id: u32,
}

impl TextTokenizer {
    /// Reads `tokenizer.json`; the error is a message.
    pub fn new(bytes: &[u8], spec: &TextPreprocessing) -> Result<Self, String> {
        let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(|e| e.to_string())?;
        // Truncation and padding must come after the removal of unknown words, so they are done here.
        tokenizer.with_truncation(None).map_err(|e| e.to_string())?;
        tokenizer.with_padding(None);
        for id in [spec.pad_id, spec.unknown_id] {
            tokenizer.id_to_token(id).ok_or_else(|| format!("no token has the id {id}"))?;
        }
        Ok(Self { tokenizer, max_words: spec.max_words, pad_id: spec.pad_id, unknown_id: spec.unknown_id })
    }

    /// The token ids, `[max_words]`, and how many of them are words of the text.
    ///
    /// # Errors
    /// `text_too_long`, `no_known_words`.
    pub fn encode(&self, text: &str) -> Result<(Box<[i64]>, usize), ModelError> {
        // A text has at least as many bytes as characters, so most texts need no counting.
        if text.len() > MAX_TEXT_CHARS && text.chars().count() > MAX_TEXT_CHARS {
            return Err(ModelError::TextTooLong { max_chars: MAX_TEXT_CHARS });
        }
        let encoding = self
            .tokenizer
            .encode(text, false)
            .map_err(|e| ModelError::tower(crate::types::Modality::Text, e))?;
        let known = encoding.get_ids().iter().filter(|id| **id != self.unknown_id);
        let mut ids: Vec<i64> = known.take(self.max_words).map(|id| i64::from(*id)).collect();
        let words = ids.len();
        if words == 0 {
            let unknown = encoding.get_offsets().iter().filter_map(|(start, end)| text.get(*start..*end));
            return Err(ModelError::NoKnownWords { words: name_words(unknown) });
        }
        ids.resize(self.max_words, i64::from(self.pad_id));
        Ok((ids.into(), words))
    }
}

impl TextTokenizer {
    /// Every word that reaches the tower as a text of its own, in the order of the ids.
    pub fn vocabulary(&self) -> Vec<String> {
        let mut words: Vec<(u32, String)> =
            self.tokenizer.get_vocab(false).into_iter().map(|(word, id)| (id, word)).collect();
        words.sort_unstable();
        let special = [self.pad_id, self.unknown_id];
        let stands = |(id, word): &(u32, String)| {
            !special.contains(id) && self.encode(word).is_ok_and(|(_, words)| words == 1)
        };
        words.into_iter().filter(stands).map(|(_, word)| word).collect()
    }
}

fn name_words<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let mut words = words.peekable();
    if words.peek().is_none() {
        return "the text has no words".to_owned();
    }
    let shorten = |word: &str| word.chars().filter(|c| !c.is_control()).take(NAMED_CHARS).collect::<String>();
    let mut named: Vec<String> = words.by_ref().take(NAMED_WORDS).map(shorten).collect();
    if words.next().is_some() {
        named.push("…".to_owned());
    }
    named.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tokenizer(max_words: usize) -> TextTokenizer {
        let json = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}]},
            "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "[\\w']+"}, "behavior": "Removed", "invert": true},
            "post_processor": null, "decoder": null,
            "model": {"type": "WordLevel", "unk_token": "<unk>",
                      "vocab": {"<pad>": 0, "<unk>": 1, "red": 2, "circle": 3, "child's": 4}}
        });
        let spec = TextPreprocessing { tokenizer: String::new(), max_words, pad_id: 0, unknown_id: 1 };
        TextTokenizer::new(json.to_string().as_bytes(), &spec).unwrap()
    }

    fn ids(tokenizer: &TextTokenizer, text: &str) -> Vec<i64> {
        tokenizer.encode(text).unwrap().0.to_vec()
    }

    #[test]
    fn unknown_words_go_before_the_cut() {
        let tokenizer = tokenizer(3);
        assert_eq!(ids(&tokenizer, "Red"), [2, 0, 0]);
        assert_eq!(ids(&tokenizer, "one two three four RED, circle!"), [2, 3, 0]);
        assert_eq!(ids(&tokenizer, "red circle red circle"), [2, 3, 2]);
        assert_eq!(ids(&tokenizer, "a child's ｒｅｄ"), [4, 2, 0], "full-width letters are letters");
        assert_eq!(tokenizer.encode("red zebra").unwrap().1, 1);
    }

    #[test]
    fn the_vocabulary_is_what_can_be_said() {
        assert_eq!(tokenizer(3).vocabulary(), ["red", "circle", "child's"]);
    }

    #[test]
    fn a_text_without_known_words_names_them() {
        let tokenizer = tokenizer(3);
        let error = tokenizer.encode("Zebra läuft").unwrap_err();
        assert_eq!(error.code(), "no_known_words");
        assert!(error.to_string().ends_with("Zebra, läuft"), "{error}");
        for text in ["", "  \n", "!?"] {
            assert_eq!(tokenizer.encode(text).unwrap_err().code(), "no_known_words", "{text:?}");
        }
        for special in ["<pad>", "<unk>"] {
            assert_eq!(tokenizer.encode(special).unwrap_err().code(), "no_known_words", "{special}");
        }
        let many = "zebra ".repeat(1000);
        assert!(tokenizer.encode(&many).unwrap_err().to_string().len() < 600);
    }

    #[test]
    fn length_is_counted_in_characters() {
        let tokenizer = tokenizer(3);
        let filler = "ä".repeat(MAX_TEXT_CHARS - 4);
        assert!(tokenizer.encode(&format!("red {filler}")).is_ok());
        let error = tokenizer.encode(&format!("red {filler}ä")).unwrap_err();
        assert_eq!(error.code(), "text_too_long");
    }
}
