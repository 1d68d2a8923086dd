//! From a question to vectors.

use std::sync::Arc;

use super::{Ask, AskPart, Source};
use crate::collection::{Collection, LibraryError};
use crate::model::{Priority, TextReading, Timings};
use crate::search::{QueryPart, SearchRequest};
use crate::store::StoreError;
use crate::types::{AssetId, Modality};

impl Collection {
    /// Embeds a question; `timings` sums the time in the towers.
    ///
    /// # Errors
    /// [`LibraryError::Part`] with the name of the part that cannot be embedded.
    pub async fn embed(
        &self,
        ask: &Ask,
        priority: Priority,
        timings: &Arc<Timings>,
    ) -> Result<SearchRequest, LibraryError> {
        let query = self.embed_parts(&ask.parts, priority, timings).await?;
        Ok(ask.options.request(query, assets_of(&ask.parts)))
    }

    /// Embeds the parts of a query.
    pub(crate) async fn embed_parts(
        &self,
        parts: &[AskPart],
        priority: Priority,
        timings: &Arc<Timings>,
    ) -> Result<Vec<QueryPart>, LibraryError> {
        let mut embedded = Vec::with_capacity(parts.len());
        for part in parts {
            let named = |error: LibraryError| {
                let unknown = matches!(
                    (&part.source, &error),
                    (Source::Asset { .. }, LibraryError::Store(StoreError::NotFound(_)))
                );
                let at = if unknown { format!("{}.id", part.at) } else { part.at.clone() };
                LibraryError::Part { at, error: Box::new(error) }
            };
            let found = self.embed_part(&part.source, priority, timings).await.map_err(named)?;
            embedded.push(QueryPart { weight: part.weight, ..found });
        }
        Ok(embedded)
    }

    async fn embed_part(
        &self,
        source: &Source,
        priority: Priority,
        timings: &Arc<Timings>,
    ) -> Result<QueryPart, LibraryError> {
        let embedder = self.embedder.timed(Arc::clone(timings));
        match source {
            Source::Text(text) => {
                let vectors = embedder.text(text, priority).await?;
                let reading = embedder.towers.read_text(text).unwrap_or_default();
                let part = QueryPart::new(Modality::Text, vectors);
                let TextReading { words, ignored, understood, .. } = reading;
                Ok(QueryPart { words, ignored, understood, ..part })
            }
            Source::File { path, modality, span, tracks } => {
                let vectors = embedder.query_tracks(path, *modality, *span, *tracks).await?;
                Ok(QueryPart::new(*modality, vectors))
            }
            Source::Asset { id, span, track } => self.query_of_asset(*id, *span, *track).await,
        }
    }
}

/// The assets that parts are made from, which are no answers to themselves.
fn assets_of(parts: &[AskPart]) -> Vec<AssetId> {
    let asset = |part: &AskPart| match part.source {
        Source::Asset { id, .. } => Some(id),
        Source::Text(_) | Source::File { .. } => None,
    };
    parts.iter().filter_map(asset).collect()
}
