//! `preprocessing.text` of format version 2, and the text rules of both versions.

use serde::Deserialize;

use super::ensure;

/// How texts become token ids.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum TextSpec {
    Words(WordSpec),
    Tokens(TokenSpec),
}

/// A word list: unknown words are dropped.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WordSpec {
    pub tokenizer: String,
    #[serde(rename = "max_tokens")]
    pub max_words: usize,
    pub pad_id: u32,
    pub unknown_id: u32,
    /// Languages of the words; English if none is named.
    #[serde(default)]
    pub languages: Vec<String>,
}

/// A tokenizer that can say everything.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenSpec {
    pub tokenizer: String,
    /// Most tokens of a text, special ones included.
    pub max_tokens: usize,
    /// Whether the tokenizer's own special tokens are added.
    pub special_tokens: bool,
    pub padding: Padding,
    #[serde(default)]
    pub pad_id: Option<u32>,
    /// Side on which padding is added.
    #[serde(default)]
    pub side: Side,
    /// The side on which a text that is too long loses tokens.
    #[serde(default)]
    pub truncate: Side,
    #[serde(default)]
    pub lowercase: bool,
    #[serde(default)]
    pub prompts: Prompts,
    #[serde(default)]
    pub languages: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Padding {
    Max,
    None,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Side {
    #[default]
    Right,
    Left,
}

/// Prompt around a text, by its role.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Prompts {
    #[serde(default)]
    pub query: Option<String>,
    #[serde(default)]
    pub document: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum TextEntry {
    Words(WordSpec),
    Tokens(TokenSpec),
}

impl TextEntry {
    pub fn spec(self, at: &str) -> Result<TextSpec, String> {
        match self {
            Self::Words(words) => {
                words.check(at, "max_tokens")?;
                Ok(TextSpec::Words(words))
            }
            Self::Tokens(tokens) => {
                tokens.check(at)?;
                Ok(TextSpec::Tokens(tokens))
            }
        }
    }
}

impl TextSpec {
    pub fn tokenizer(&self) -> &str {
        match self {
            Self::Words(words) => &words.tokenizer,
            Self::Tokens(tokens) => &tokens.tokenizer,
        }
    }

    pub const fn max_tokens(&self) -> usize {
        match self {
            Self::Words(words) => words.max_words,
            Self::Tokens(tokens) => tokens.max_tokens,
        }
    }

    pub fn languages(&self) -> impl Iterator<Item = &str> {
        let languages = match self {
            Self::Words(words) => words.languages.as_slice(),
            Self::Tokens(tokens) => tokens.languages.as_slice(),
        };
        languages.iter().map(String::as_str)
    }

    /// Number of ids, if all texts have the same.
    pub fn fixed_length(&self) -> Option<usize> {
        match self {
            Self::Tokens(TokenSpec { padding: Padding::None, .. }) => None,
            _ => Some(self.max_tokens()),
        }
    }
}

impl WordSpec {
    pub fn check(&self, at: &str, field: &str) -> Result<(), String> {
        ensure((1..=4096).contains(&self.max_words), || format!("{at}: {field} {}", self.max_words))?;
        ensure(self.pad_id != self.unknown_id, || format!("{at}: pad_id equals unknown_id"))
    }
}

impl TokenSpec {
    fn check(&self, at: &str) -> Result<(), String> {
        ensure((1..=32_768).contains(&self.max_tokens), || format!("{at}: max_tokens {}", self.max_tokens))?;
        ensure(self.padding == Padding::None || self.pad_id.is_some(), || {
            format!("{at}: `padding` is max, so it needs `pad_id`")
        })?;
        for (role, prompt) in [("query", &self.prompts.query), ("document", &self.prompts.document)] {
            let once = prompt.as_ref().is_none_or(|prompt| prompt.matches("{text}").count() == 1);
            ensure(once, || format!("{at}.prompts.{role} must contain {{text}} once"))?;
        }
        Ok(())
    }
}
