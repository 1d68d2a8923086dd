//! Texts that a calibration embeds: many at a time, and none twice.

use std::collections::HashMap;

use futures::future::try_join_all;

use crate::collection::LibraryError;
use crate::embed::{EmbedError, Embedder, Vectors};
use crate::model::Priority;
use crate::types::{Embedding, Space};

/// Texts in the tower queue at the same time: enough to fill a batch for each of a few workers. The queue puts
/// interactive work before each batch, and limits the time of one.
const AT_ONCE: usize = 128;
/// Most texts whose vectors are kept for the next index. At 512 values these take 16 MiB.
const MOST_KEPT: usize = 8192;

/// The texts of one calibration. One run of a tower gives the vectors of all its spaces, and the descriptions of one
/// index begin with the same words as those of the next.
pub(super) struct Texts<'a> {
    embedder: &'a Embedder,
    kept: HashMap<String, Vectors>,
}

impl<'a> Texts<'a> {
    pub(super) fn new(embedder: &'a Embedder) -> Self {
        Self { embedder, kept: HashMap::new() }
    }

    pub(super) const fn embedder(&self) -> &'a Embedder {
        self.embedder
    }

    /// Vectors of these texts in a space, each with the caller's mark, in the same order. A text without a vector in
    /// that space is left out.
    pub(super) async fn embed<T>(
        &mut self,
        space: &Space,
        texts: Vec<(String, T)>,
    ) -> Result<Vec<(T, Embedding)>, LibraryError> {
        let mut found = Vec::with_capacity(texts.len());
        let mut texts = texts.into_iter().peekable();
        while texts.peek().is_some() {
            let part: Vec<(String, T)> = texts.by_ref().take(AT_ONCE).collect();
            let asked = part.iter().map(|(text, _)| self.vectors(text));
            let vectors = try_join_all(asked).await?;
            for ((text, mark), vectors) in part.into_iter().zip(vectors) {
                found.extend(vectors.get(space).map(|vector| (mark, vector.clone())));
                if self.kept.len() < MOST_KEPT {
                    self.kept.entry(text).or_insert(vectors);
                }
            }
        }
        Ok(found)
    }

    async fn vectors(&self, text: &str) -> Result<Vectors, EmbedError> {
        match self.kept.get(text) {
            Some(vectors) => Ok(vectors.clone()),
            None => self.embedder.text(text, Priority::Bulk).await,
        }
    }
}
