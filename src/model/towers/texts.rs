//! What the text towers make of a text, and the words that they know.

use std::sync::Arc;

use tokio::sync::OnceCell;

use super::Towers;
use crate::manifest::TextSpec;
use crate::model::tokenizer::{Encoded, Role, TextTokenizer};
use crate::model::{BankText, ModelError, Priority, SpaceVectors, TextReading};
use crate::types::{Modality, Space};

impl Towers {
    /// Embeds a text as a query, including its tokenization.
    ///
    /// # Errors
    /// [`ModelError`] `no_known_words`, `text_too_long`, `overloaded`, `modality_not_supported`.
    pub async fn text(&self, text: &str, priority: Priority) -> Result<SpaceVectors, ModelError> {
        self.text_as(text, Role::Query, priority).await
    }

    /// Embeds a text in a role. With several text towers, one that knows no word of it is left out.
    ///
    /// # Errors
    /// As [`Towers::text`].
    pub async fn text_as(
        &self,
        text: &str,
        role: Role,
        priority: Priority,
    ) -> Result<SpaceVectors, ModelError> {
        let mut inputs = Vec::new();
        for (tower, encoded) in self.encode(text, role)? {
            let spec = &self.inner.specs[tower];
            let input = encoded.input(spec);
            input.check(spec)?;
            inputs.push((tower, input));
        }
        self.queue(Modality::Text, inputs, priority).await?.vectors().await
    }

    /// A text as each text tower takes it, without those that know no word of it.
    fn encode(&self, text: &str, role: Role) -> Result<Vec<(usize, Encoded)>, ModelError> {
        let mut refused = ModelError::NotSupported(Modality::Text);
        let mut encoded = Vec::new();
        for (tower, tokenizer) in self.inner.tokenizers.iter().enumerate() {
            match tokenizer.as_ref().map(|tokenizer| tokenizer.encode(text, role)) {
                None => {}
                Some(Ok(known)) => encoded.push((tower, known)),
                Some(Err(error @ ModelError::NoKnownWords { .. })) => refused = error,
                Some(Err(error)) => return Err(error),
            }
        }
        if encoded.is_empty() { Err(refused) } else { Ok(encoded) }
    }

    /// The words that a text tower knows, in the order of their ids; empty without a word list.
    #[must_use]
    pub fn vocabulary(&self) -> Vec<String> {
        let mut tokenizers = self.inner.tokenizers.iter().flatten();
        tokenizers.find_map(|t| Some(t.vocabulary()).filter(|words| !words.is_empty())).unwrap_or_default()
    }

    /// Number of words that the text towers know; `None` without one, or if one takes any text.
    #[must_use]
    pub fn vocabulary_len(&self) -> Option<usize> {
        self.inner
            .tokenizers
            .iter()
            .flatten()
            .map(TextTokenizer::listed_words)
            .try_fold(None, |most, listed| listed.map(|listed| most.max(Some(listed))))?
    }

    /// Texts for calibration that come with the bundle; may be empty.
    #[must_use]
    pub fn bank(&self) -> &[String] {
        &self.inner.bank
    }

    /// Where the embedded texts for calibration are kept.
    pub(crate) fn bank_cell(&self) -> &OnceCell<Arc<[BankText]>> {
        &self.inner.bank_cell
    }

    /// The words of the text tower that serves a space; empty without a word list.
    #[must_use]
    pub fn vocabulary_in(&self, space: &Space) -> Vec<String> {
        let mut towers = self.inner.specs.iter().zip(&self.inner.tokenizers);
        let serving = towers.find_map(|(spec, tokenizer)| tokenizer.as_ref().filter(|_| spec.serves(space)));
        serving.map_or_else(Vec::new, TextTokenizer::vocabulary)
    }

    /// A text that the model can embed, for checks; `None` without a text tower.
    #[must_use]
    pub fn probe_text(&self) -> Option<String> {
        let known = self.vocabulary().into_iter().next().or_else(|| self.bank().first().cloned());
        known.or_else(|| self.inner.tokenizers.iter().flatten().next().map(|_| "a".to_owned()))
    }

    /// What the text towers make of a text, without running them.
    ///
    /// # Errors
    /// As [`Towers::text`].
    pub fn read_text(&self, text: &str) -> Result<TextReading, ModelError> {
        let encoded = self.encode(text, Role::Query)?;
        let lists_words = |tower: usize| matches!(self.inner.specs[tower].text(), Some(TextSpec::Words(_)));
        let counted = encoded.iter().find(|(tower, _)| lists_words(*tower)).or(encoded.first());
        // A word counts as dropped only if no tower sees it.
        let all_lists = encoded.iter().all(|(tower, _)| lists_words(*tower));
        let ignored = encoded.first().filter(|_| all_lists).map(|(_, encoded)| encoded.ignored.clone());
        let part = |(tower, encoded): &(usize, Encoded)| {
            let spaces = self.inner.specs[*tower].spaces().map(|(space, _)| space.clone());
            let understood = encoded.understood;
            spaces.filter(move |_| understood < 1.0).map(move |space| (space, understood)).collect::<Vec<_>>()
        };
        Ok(TextReading {
            understood: encoded.iter().flat_map(part).collect(),
            words: counted.map_or(0, |(_, encoded)| encoded.words),
            tokens: encoded.iter().map(|(_, encoded)| encoded.tokens()).max().unwrap_or(0),
            ignored: ignored.unwrap_or_default(),
        })
    }

    /// Number of words of a text that count for calibration; of a word list, those that it knows.
    ///
    /// # Errors
    /// As [`Towers::text`].
    pub fn count_words(&self, text: &str) -> Result<usize, ModelError> {
        self.read_text(text).map(|reading| reading.words)
    }
}
