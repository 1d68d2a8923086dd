//! The vectors of standing queries: computed when a query is created, and again for another model.

use std::sync::Arc;

use super::spec::{self, StandingInput, StandingPart};
use super::{Entry, StandingQueries};
use crate::collection::ask::{AskPart, Source};
use crate::collection::{LibraryError, StandingError};
use crate::model::Priority;
use crate::search::QueryPart;
use crate::store::{StandingVectors, StoreError};
use crate::types::{StandingId, TrackChoice};

impl StandingQueries {
    /// Embeds the parts of a query; an error names the part that failed.
    pub(super) async fn embed_given(
        &self,
        given: &[StandingPart],
        priority: Priority,
    ) -> Result<Vec<QueryPart>, LibraryError> {
        let mut parts = Vec::with_capacity(given.len());
        // The files are removed when these go.
        let mut files = Vec::new();
        for part in given {
            let source = match &part.given {
                StandingInput::Text(text) => Source::Text(text.clone()),
                StandingInput::Media { modality, bytes, .. } => {
                    let mut writer = self.collection.data.begin_upload(u64::MAX);
                    writer.write(bytes).await?;
                    let file = writer.finish_scratch().await?;
                    let path = file.path.to_path_buf();
                    files.push(file);
                    Source::File { path, modality: *modality, span: None, tracks: TrackChoice::default() }
                }
                StandingInput::Asset { id, start_secs, end_secs, track } => {
                    Source::Asset { id: *id, span: spec::span_of(*start_secs, *end_secs), track: *track }
                }
            };
            parts.push(AskPart { source, weight: part.weight, at: part.at.clone() });
        }
        let embedded = self.collection.embed_parts(&parts, priority, &Arc::default()).await;
        drop(files);
        embedded
    }

    /// Recomputes the vectors of standing queries that have none of the serving model, from the stored
    /// queries. A query that cannot be embedded gets an error and matches nothing.
    ///
    /// # Errors
    /// [`LibraryError`] of the store.
    pub async fn renew_all(&self) -> Result<(), LibraryError> {
        let mut after = None;
        loop {
            let page = self.collection.store.standing_vectors(after, super::PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.record.id);
            for stored in page {
                if self.collection.life.stop.is_cancelled() {
                    return Ok(());
                }
                let id = stored.record.id;
                if self.entries.find(id).is_some_and(|entry| entry.query.is_some()) {
                    continue;
                }
                match super::usable(&stored, self.collection.embedder.bundle()) {
                    None => self.renew(stored).await?,
                    // Taken over from another model's store since this library was opened.
                    Some(parts) => self.take_up(id, parts).await?,
                }
            }
        }
    }

    async fn renew(&self, stored: StandingVectors) -> Result<(), LibraryError> {
        let id = stored.record.id;
        match self.embed_anew(id).await {
            Ok(parts) => {
                let model = self.collection.embedder.bundle().id();
                self.collection.store.set_standing_vectors(id, model, &spec::pack(&parts)).await?;
                tracing::info!(standing_query = %id, "embedded a standing query with this model");
                self.take_up(id, parts).await?;
            }
            Err(error) => {
                tracing::warn!(standing_query = %id, %error, "could not embed a standing query with this model");
                self.collection.store.set_standing_error(id, error.code(), &error.user_message()).await?;
            }
        }
        Ok(())
    }

    /// Starts matching a query as stored now: it may have been changed or deleted in the meantime.
    async fn take_up(&self, id: StandingId, parts: Vec<QueryPart>) -> Result<(), LibraryError> {
        let _change = self.entries.change.lock().await;
        let record = match self.collection.store.standing(id).await {
            Err(StoreError::NotFound(_)) => return Ok(()),
            found => found?,
        };
        match Entry::new(&record, Some(parts), &self.collection.searched.comparable) {
            Ok(entry) => self.entries.put(Arc::new(entry)),
            Err(error) => {
                self.collection.store.set_standing_error(id, error.code(), &error.user_message()).await?
            }
        }
        Ok(())
    }

    async fn embed_anew(&self, id: StandingId) -> Result<Vec<QueryPart>, LibraryError> {
        let source = self.collection.store.standing_source(id).await?;
        let parts: Vec<StandingPart> = serde_json::from_str(&source).map_err(|_| StandingError::Damaged)?;
        self.embed_given(&parts, Priority::Bulk).await
    }
}
