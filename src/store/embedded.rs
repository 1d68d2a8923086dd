//! Operations of a store on this machine.

use std::path::Path;

use async_trait::async_trait;

use super::{Store, StoreError};

/// Disk space of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreSpace {
    /// Size of the store's files in bytes.
    pub file_bytes: u64,
    /// Bytes of them that are free pages.
    pub free_bytes: u64,
    /// Whether free pages can be released step by step; otherwise only a rewrite frees them.
    pub releases: bool,
}

/// Operations that are possible because the data are files on this machine, open in this process alone.
#[async_trait]
pub trait EmbeddedStore: Store {
    /// Writes the state of one moment, between two transactions, to a new file. Readers and the writer
    /// continue meanwhile.
    async fn copy_to(&self, to: &Path) -> Result<(), StoreError>;
    /// Problems that SQLite's own check finds in the database; empty if it is intact.
    async fn integrity(&self) -> Result<Vec<String>, StoreError>;
    /// The disk space of the store.
    async fn space(&self) -> Result<StoreSpace, StoreError>;
    /// Frees up to `pages` unused pages in one short transaction.
    async fn release_pages(&self, pages: u32) -> Result<(), StoreError>;
    /// Rewrites the store without its free pages. For a while, this needs room for two copies, and writers
    /// wait until it is done.
    async fn rewrite(&self) -> Result<(), StoreError>;
    /// Moves the write-ahead log into the database file, as far as readers allow (a checkpoint).
    async fn checkpoint(&self) -> Result<(), StoreError>;
    /// Sets the paths of uploads to this folder, wherever they were before; returns how many changed.
    async fn adopt_uploads(&self, kept: &Path) -> Result<u64, StoreError>;
    /// Until unsealed, every change is refused with [`StoreError::Sealed`]; changes already begun have ended
    /// when this returns.
    async fn seal(&self, sealed: bool);
    /// Deletes everything that was not derived from media: jobs and other user settings.
    async fn clear_work(&self) -> Result<(), StoreError>;
    /// Copies jobs and other user settings from the sealed store in another folder, in one transaction.
    async fn adopt_work(&self, from: &Path) -> Result<(), StoreError>;
}
