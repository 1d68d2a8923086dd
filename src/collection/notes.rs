//! Ledger entries of a collection.

use std::path::Path;
use std::sync::Arc;

use super::recovery::{put, write};
use super::{Collection, LibraryError, blocking};
use crate::files::kept_name;
use crate::ledger::{Entry, Ticket, WorkKind};
use crate::store::AssetRecord;
use crate::types::AssetId;

impl Collection {
    /// Writes the ledger if startup could not. Nothing is being accepted yet.
    pub(crate) async fn settle_ledger(&self) -> Result<(), LibraryError> {
        if self.data.ledger.is_written() {
            Ok(())
        } else {
            write(self.store.as_ref(), &self.data.ledger).await
        }
    }

    /// Appends committed changes to the ledger; [`Self::noted`] makes it durable. A model beside appends
    /// nothing: its assets are the serving model's.
    pub(crate) async fn note(&self, entries: Vec<Entry>) -> Result<Option<Ticket>, LibraryError> {
        if entries.is_empty() || !self.life.serves() {
            return Ok(None);
        }
        let acknowledged = self.store.acknowledged().await?;
        let ledger = Arc::clone(&self.data.ledger);
        blocking(move || Ok(Some(ledger.append(acknowledged, &entries)?))).await
    }

    /// Returns once the appended entries are on disk.
    pub(crate) async fn noted(&self, ticket: Option<Ticket>) -> Result<(), LibraryError> {
        let Some(ticket) = ticket else { return Ok(()) };
        let ledger = Arc::clone(&self.data.ledger);
        blocking(move || {
            ledger.sync(ticket)?;
            Ok(ledger.compact_if_due()?)
        })
        .await
    }

    /// Durably records that a user setting was created, changed or removed.
    pub(crate) async fn note_work(
        &self,
        kind: WorkKind,
        id: impl std::fmt::Display,
        exists: bool,
    ) -> Result<(), LibraryError> {
        let ticket = self.note(vec![Entry::Work { kind, id: id.to_string(), exists }]).await?;
        self.noted(ticket).await
    }

    /// Appends assets to the ledger as these records describe them.
    pub(crate) async fn note_put(&self, assets: &[AssetRecord]) -> Result<Option<Ticket>, LibraryError> {
        self.note(assets.iter().map(put).collect()).await
    }

    /// Appends the removal of assets to the ledger, each with the path of its file if it was an upload.
    pub(crate) async fn note_gone<'a>(
        &self,
        assets: impl IntoIterator<Item = (AssetId, Option<&'a Path>)>,
    ) -> Result<Option<Ticket>, LibraryError> {
        let entry =
            |(id, path): (AssetId, Option<&Path>)| Entry::Gone { id, upload: path.and_then(kept_name) };
        self.note(assets.into_iter().map(entry).collect()).await
    }
}
