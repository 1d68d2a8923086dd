//! Converts texts to token ids, as in docs/bundle.md.
//!
//! A word list knows some words and drops the others, before it cuts and pads. Any other tokenizer can say
//! everything; its special tokens, truncation and padding are those that the reference implementation applies.

#[cfg(test)]
mod reference_tests;
mod understood;

use std::collections::HashSet;

use tokenizers::normalizers::{Lowercase, Sequence};
use tokenizers::utils::truncation::{TruncationDirection, TruncationParams, TruncationStrategy};
use tokenizers::{NormalizerWrapper, PostProcessor, Tokenizer};

use super::ModelError;
use super::tower::{Input, Tensor, Values};
use crate::manifest::{Padding, Side, Supply, TextSpec, TokenSpec, TowerSpec, WordSpec};

/// Longest text in characters. Only the first words count anyway; this limits the work.
pub const MAX_TEXT_CHARS: usize = 8192;

/// How many unknown words an error or an answer names, and how many characters of each.
const NAMED_WORDS: usize = 10;
const NAMED_CHARS: usize = 40;

/// What a text is for; some models are told with a prompt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Role {
    /// It is searched with.
    #[default]
    Query,
    /// It is what is found.
    Document,
}

/// The tokenizer of one text tower.
pub(super) struct TextTokenizer {
    tokenizer: Tokenizer,
    kind: TextSpec,
    /// Function words of a word list's languages.
    function_words: HashSet<&'static str>,
}

/// A text as a tower takes it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Encoded {
    pub ids: Box<[i64]>,
    /// 1 for the ids of the text, 0 for padding.
    pub mask: Box<[i64]>,
    /// Words that count for calibration: of a word list, those that it knows.
    pub words: usize,
    /// Words with a meaning that the tower never sees.
    pub ignored: Vec<String>,
    /// Share of the words with a meaning that the tower sees.
    pub understood: f32,
}

impl Encoded {
    /// The input of a text tower.
    pub fn input(self, spec: &TowerSpec) -> Input {
        let Self { ids, mask, .. } = self;
        let tensor = |supply: Supply, row: &[Option<usize>]| {
            let values = if supply == Supply::AttentionMask { &mask } else { &ids };
            Tensor::of(Values::I64(values.clone()), row)
        };
        Input(spec.inputs.iter().map(|input| tensor(input.supply, &input.row)).collect())
    }

    /// Number of ids that are not padding.
    pub fn tokens(&self) -> usize {
        self.mask.iter().filter(|one| **one == 1).count()
    }
}

impl TextTokenizer {
    /// Reads `tokenizer.json`; the error is a message.
    pub fn new(bytes: &[u8], kind: &TextSpec) -> Result<Self, String> {
        let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(|e| e.to_string())?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|e| e.to_string())?;
        match kind {
            // Truncation must come after the removal of unknown words, so it is done here.
            TextSpec::Words(words) => {
                for id in [words.pad_id, words.unknown_id] {
                    tokenizer.id_to_token(id).ok_or_else(|| format!("no token has the id {id}"))?;
                }
            }
            TextSpec::Tokens(tokens) => prepare(&mut tokenizer, tokens)?,
        }
        let function_words = match kind {
            TextSpec::Words(words) => understood::function_words(&words.languages),
            TextSpec::Tokens(_) => HashSet::new(),
        };
        Ok(Self { tokenizer, kind: kind.clone(), function_words })
    }

    /// The token ids of a text.
    ///
    /// # Errors
    /// `text_too_long`, `no_known_words`.
    pub fn encode(&self, text: &str, role: Role) -> Result<Encoded, ModelError> {
        // A text has at least as many bytes as characters, so most texts need no counting.
        if text.len() > MAX_TEXT_CHARS && text.chars().count() > MAX_TEXT_CHARS {
            return Err(ModelError::TextTooLong { max_chars: MAX_TEXT_CHARS });
        }
        match &self.kind {
            TextSpec::Words(words) => self.words(text, words),
            TextSpec::Tokens(tokens) => self.tokens(text, role, tokens),
        }
    }

    fn words(&self, text: &str, spec: &WordSpec) -> Result<Encoded, ModelError> {
        let encoding = self.tokenizer.encode(text, false).map_err(failed)?;
        let known = encoding.get_ids().iter().filter(|id| **id != spec.unknown_id);
        let mut ids: Vec<i64> = known.take(spec.max_words).map(|id| i64::from(*id)).collect();
        let words = ids.len();
        let said = |is_known: bool| {
            let said = encoding.get_ids().iter().zip(encoding.get_offsets());
            said.filter(move |(id, _)| (**id != spec.unknown_id) == is_known)
                .filter_map(|(_, (start, end))| text.get(*start..*end))
        };
        if words == 0 {
            let named = shortened(said(false));
            let words = if named.is_empty() { "the text has no words".to_owned() } else { named.join(", ") };
            return Err(ModelError::NoKnownWords { words });
        }
        let is_meaningful = |word: &&str| understood::is_meaningful(word, &self.function_words);
        let ignored = shortened(said(false).filter(is_meaningful));
        ids.resize(spec.max_words, i64::from(spec.pad_id));
        let mask = (0..ids.len()).map(|at| i64::from(at < words)).collect();
        let understood = understood::understood(said(true), said(false), &self.function_words);
        Ok(Encoded { ids: ids.into(), mask, words, ignored, understood })
    }

    fn tokens(&self, text: &str, role: Role, spec: &TokenSpec) -> Result<Encoded, ModelError> {
        let prompt = match role {
            Role::Query => &spec.prompts.query,
            Role::Document => &spec.prompts.document,
        };
        let said = prompt.as_ref().map(|prompt| prompt.replacen("{text}", text, 1));
        let said = said.as_deref().unwrap_or(text);
        let encoding = self.tokenizer.encode(said, spec.special_tokens).map_err(failed)?;
        let mut ids: Vec<i64> = encoding.get_ids().iter().map(|id| i64::from(*id)).collect();
        if ids.is_empty() {
            return Err(ModelError::NoKnownWords { words: "the text has no tokens".to_owned() });
        }
        let mut mask = vec![1_i64; ids.len()];
        if let (Padding::Max, Some(pad)) = (spec.padding, spec.pad_id) {
            let missing = spec.max_tokens.saturating_sub(ids.len());
            let at = if spec.side == Side::Left { 0 } else { ids.len() };
            ids.splice(at..at, std::iter::repeat_n(i64::from(pad), missing));
            mask.splice(at..at, std::iter::repeat_n(0, missing));
        }
        let (ids, mask, words) = (ids.into(), mask.into(), count_words(text));
        Ok(Encoded { ids, mask, words, ignored: Vec::new(), understood: 1.0 })
    }

    /// Number of words of a word list; `None` for a tokenizer that can say everything.
    pub fn listed_words(&self) -> Option<usize> {
        matches!(self.kind, TextSpec::Words(_))
            .then(|| self.tokenizer.get_vocab_size(false).saturating_sub(2))
    }

    /// Every word that reaches the tower as a text of its own, in the order of the ids; empty for a
    /// tokenizer that can say everything.
    pub fn vocabulary(&self) -> Vec<String> {
        let TextSpec::Words(spec) = &self.kind else { return Vec::new() };
        let mut words: Vec<(u32, String)> =
            self.tokenizer.get_vocab(false).into_iter().map(|(word, id)| (id, word)).collect();
        words.sort_unstable();
        let special = [spec.pad_id, spec.unknown_id];
        let stands = |(id, word): &(u32, String)| {
            !special.contains(id) && self.words(word, spec).is_ok_and(|encoded| encoded.words == 1)
        };
        words.into_iter().filter(stands).map(|(_, word)| word).collect()
    }
}

/// Sets truncation and the lower case; padding is done here, so that the mask is known.
fn prepare(tokenizer: &mut Tokenizer, spec: &TokenSpec) -> Result<(), String> {
    if let (Padding::Max, Some(pad)) = (spec.padding, spec.pad_id) {
        tokenizer.id_to_token(pad).ok_or_else(|| format!("no token has the id {pad}"))?;
    }
    if spec.lowercase {
        let lower = NormalizerWrapper::Lowercase(Lowercase);
        let normalizer = match tokenizer.get_normalizer().cloned() {
            Some(own) => NormalizerWrapper::Sequence(Sequence::new(vec![lower, own])),
            None => lower,
        };
        tokenizer.with_normalizer(Some(normalizer)).map_err(|e| e.to_string())?;
    }
    let special = tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
    if spec.max_tokens <= special {
        return Err(format!(
            "max_tokens is {}, but the tokenizer adds {special} special tokens to each text",
            spec.max_tokens
        ));
    }
    let direction = match spec.truncate {
        Side::Right => TruncationDirection::Right,
        Side::Left => TruncationDirection::Left,
    };
    let strategy = TruncationStrategy::LongestFirst;
    let truncation = TruncationParams { direction, max_length: spec.max_tokens, strategy, stride: 0 };
    tokenizer.with_truncation(Some(truncation)).map_err(|e| e.to_string())?;
    Ok(())
}

fn failed(error: impl ToString) -> ModelError {
    ModelError::tower(crate::types::Modality::Text, error)
}

/// Number of words of a text in any language: runs of letters and digits.
fn count_words(text: &str) -> usize {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).count().max(1)
}

/// Words to be named to the user: each once, not too many, none too long.
fn shortened<'a>(words: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut named: Vec<String> = Vec::new();
    for word in words {
        let short: String = word.chars().filter(|c| !c.is_control()).take(NAMED_CHARS).collect();
        if named.contains(&short) {
            continue;
        }
        if named.len() == NAMED_WORDS {
            named.push("…".to_owned());
            break;
        }
        named.push(short);
    }
    named
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
        let spec =
            WordSpec { tokenizer: String::new(), max_words, pad_id: 0, unknown_id: 1, languages: Vec::new() };
        TextTokenizer::new(json.to_string().as_bytes(), &TextSpec::Words(spec)).unwrap()
    }

    fn ids(tokenizer: &TextTokenizer, text: &str) -> Vec<i64> {
        tokenizer.encode(text, Role::Query).unwrap().ids.to_vec()
    }

    #[test]
    fn unknown_words_go_before_the_cut() {
        let tokenizer = tokenizer(3);
        assert_eq!(ids(&tokenizer, "Red"), [2, 0, 0]);
        assert_eq!(ids(&tokenizer, "one two three four RED, circle!"), [2, 3, 0]);
        assert_eq!(ids(&tokenizer, "red circle red circle"), [2, 3, 2]);
        assert_eq!(ids(&tokenizer, "a child's ｒｅｄ"), [4, 2, 0], "full-width letters are letters");
        assert_eq!(tokenizer.encode("red zebra", Role::Query).unwrap().words, 1);
    }

    #[test]
    fn dropped_words_are_named_once() {
        let encoded = tokenizer(3).encode("a red zebra, a red zebra", Role::Query).unwrap();
        assert_eq!((encoded.words, encoded.tokens()), (2, 2));
        assert_eq!(encoded.ignored, ["zebra"], "`a` says nothing about what is searched for");
        assert_eq!(encoded.understood, 0.5);
    }

    #[test]
    fn the_vocabulary_is_what_can_be_said() {
        assert_eq!(tokenizer(3).vocabulary(), ["red", "circle", "child's"]);
        assert_eq!(tokenizer(3).listed_words(), Some(3));
    }

    #[test]
    fn a_text_without_known_words_names_them() {
        let tokenizer = tokenizer(3);
        let error = tokenizer.encode("Zebra läuft", Role::Query).unwrap_err();
        assert_eq!(error.code(), "no_known_words");
        assert!(error.to_string().ends_with("Zebra, läuft"), "{error}");
        for text in ["", "  \n", "!?"] {
            assert_eq!(tokenizer.encode(text, Role::Query).unwrap_err().code(), "no_known_words", "{text:?}");
        }
        for special in ["<pad>", "<unk>"] {
            assert_eq!(
                tokenizer.encode(special, Role::Query).unwrap_err().code(),
                "no_known_words",
                "{special}"
            );
        }
        let many = "zebra ".repeat(1000);
        assert!(tokenizer.encode(&many, Role::Query).unwrap_err().to_string().len() < 600);
    }

    #[test]
    fn length_is_counted_in_characters() {
        let tokenizer = tokenizer(3);
        let filler = "ä".repeat(MAX_TEXT_CHARS - 4);
        assert!(tokenizer.encode(&format!("red {filler}"), Role::Query).is_ok());
        let error = tokenizer.encode(&format!("red {filler}ä"), Role::Query).unwrap_err();
        assert_eq!(error.code(), "text_too_long");
    }
}
