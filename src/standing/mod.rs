//! Standing queries: created once, matched against each asset that becomes searchable from then on.

mod embed;
mod matcher;
mod spec;

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::Mutex;

pub use spec::{StandingInput, StandingPart, StandingSpec};

use crate::collection::ask::AskOptions;
use crate::collection::{Collection, LibraryError, MAX_GIVEN_BYTES, MAX_STANDING, StandingError};
use crate::fail_points::crash_point;
use crate::ingest::Ingest;
use crate::ledger::WorkKind;
use crate::model::{Bundle, Priority};
use crate::search::{Comparable, MATCHES_FROM, Minimum, QueryPart, Standing};
use crate::store::{
    MatchRecord, NewStanding, StandingChange, StandingRecord, StandingVectors, Store, StoreError,
};
use crate::types::{MatchId, Space, StandingId};
use crate::webhooks::Webhook;

/// Queries read from the store at a time.
const PAGE: u32 = 200;

/// A standing query to create.
#[derive(Debug)]
pub struct NewStandingQuery {
    /// Display name.
    pub name: Option<String>,
    /// The query to match.
    pub parts: Vec<StandingPart>,
    /// How to look for it; only the targets, their fusion, the space, the filter and the minimum count.
    pub options: AskOptions,
    /// Webhook for matches.
    pub webhook: Option<Webhook>,
    /// The user's JSON object, sent along with every match.
    pub metadata: serde_json::Value,
    /// Whether it is enabled.
    pub enabled: bool,
    /// Whether to match it against existing assets too.
    pub backfill: bool,
}

/// Changes to a standing query; `None`: no change.
#[derive(Debug, Default)]
pub struct StandingPatch {
    /// New name.
    pub name: Option<String>,
    /// Whether it is enabled.
    pub enabled: Option<bool>,
    /// New minimum of a match.
    pub minimum: Option<Minimum>,
    /// Whether to match it against existing assets too.
    pub backfill: bool,
}

/// A standing query for display.
#[derive(Debug, Clone)]
pub struct StandingQuery {
    /// The query as stored.
    pub record: StandingRecord,
    /// Its options, and the query for display.
    pub spec: StandingSpec,
    /// Space of its scores; `None` if the serving model cannot run the query.
    pub space: Option<Space>,
    /// Whether it can match now: false if it needs a confidence that is not calibrated yet.
    pub is_calibrated: bool,
}

/// A standing query in memory.
#[derive(Debug)]
struct Entry {
    id: StandingId,
    name: Option<String>,
    metadata: serde_json::Value,
    enabled: bool,
    has_webhook: bool,
    /// `None` without vectors of the serving model.
    query: Option<Standing>,
}

impl Entry {
    fn new(
        record: &StandingRecord,
        parts: Option<Vec<QueryPart>>,
        comparable: &Comparable,
    ) -> Result<Self, LibraryError> {
        let spec = spec_of(record)?;
        let query =
            parts.map(|parts| Standing::new(comparable, spec.request(parts), spec.minimum())).transpose()?;
        Ok(Self { query, ..Self::without_query(record, spec) })
    }

    fn without_query(record: &StandingRecord, spec: StandingSpec) -> Self {
        Self {
            id: record.id,
            name: record.name.clone(),
            metadata: spec.metadata,
            enabled: record.enabled,
            has_webhook: record.webhook_url.is_some(),
            query: None,
        }
    }
}

fn spec_of(record: &StandingRecord) -> Result<StandingSpec, LibraryError> {
    serde_json::from_value(record.spec.clone()).map_err(|_| StandingError::Damaged.into())
}

/// The vectors of a stored query, if they are of this model.
fn usable(stored: &StandingVectors, bundle: &Bundle) -> Option<Vec<QueryPart>> {
    let bytes = stored.vectors.as_ref().filter(|_| stored.model == *bundle.id())?;
    spec::unpack(bytes, bundle)
}

/// All standing queries of a library, ready to be matched.
#[derive(Debug, Default)]
struct Entries {
    all: RwLock<Arc<Vec<Arc<Entry>>>>,
    /// Held while a query is created, changed or deleted, so that store and memory change in the same order.
    change: Mutex<()>,
}

impl Entries {
    /// Loads the queries again, replacing those in memory.
    pub(crate) async fn refresh(
        &self,
        store: &dyn Store,
        bundle: &Bundle,
        comparable: &Comparable,
    ) -> Result<(), LibraryError> {
        let _change = self.change.lock().await;
        *self.all.write().unwrap_or_else(PoisonError::into_inner) = Arc::default();
        let mut after = None;
        loop {
            let page = store.standing_vectors(after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.record.id);
            for stored in page {
                match Entry::new(&stored.record, usable(&stored, bundle), comparable) {
                    Ok(entry) => self.put(Arc::new(entry)),
                    Err(error) => {
                        let id = stored.record.id;
                        tracing::error!(standing_query = %id, %error, "cannot run a standing query");
                    }
                }
            }
        }
    }

    fn now(&self) -> Arc<Vec<Arc<Entry>>> {
        Arc::clone(&self.all.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// All queries, once no change is in progress: includes whatever the store had before this call.
    async fn settled(&self) -> Arc<Vec<Arc<Entry>>> {
        let _change = self.change.lock().await;
        self.now()
    }

    fn find(&self, id: StandingId) -> Option<Arc<Entry>> {
        self.now().iter().find(|entry| entry.id == id).cloned()
    }

    fn put(&self, entry: Arc<Entry>) {
        let mut entries = self.all.write().unwrap_or_else(PoisonError::into_inner);
        let entries = Arc::make_mut(&mut entries);
        match entries.iter_mut().find(|known| known.id == entry.id) {
            Some(known) => *known = entry,
            None => entries.push(entry),
        }
    }

    fn remove(&self, id: StandingId) {
        let mut entries = self.all.write().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut entries).retain(|entry| entry.id != id);
    }
}

/// The standing queries of a library.
pub struct StandingQueries {
    collection: Arc<Collection>,
    ingest: Arc<Ingest>,
    entries: Arc<Entries>,
}

impl StandingQueries {
    /// Loads the standing queries of a collection.
    pub(crate) async fn open(ingest: Arc<Ingest>) -> Result<Arc<Self>, LibraryError> {
        let collection = Arc::clone(&ingest.collection);
        let entries = Arc::new(Entries::default());
        let standing = Arc::new(Self { collection, ingest, entries });
        standing.refresh().await?;
        Ok(standing)
    }

    /// The same queries for new work.
    pub(crate) fn revived(&self, ingest: Arc<Ingest>) -> Arc<Self> {
        let collection = Arc::clone(&ingest.collection);
        Arc::new(Self { collection, ingest, entries: Arc::clone(&self.entries) })
    }

    /// Loads the queries again, replacing those in memory.
    pub(crate) async fn refresh(&self) -> Result<(), LibraryError> {
        let (store, bundle) = (self.collection.store.as_ref(), self.collection.embedder.bundle());
        self.entries.refresh(store, bundle, &self.collection.searched.comparable).await
    }

    /// Matches assets until the collection's work is stopped.
    pub(crate) fn start(self: &Arc<Self>) {
        self.collection.life.tasks.spawn(matcher::run(Arc::clone(self)));
    }

    /// Creates a standing query. Also returns the webhook, with its secret if the server generated one.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn create(
        &self,
        new: NewStandingQuery,
    ) -> Result<(StandingQuery, Option<Webhook>), LibraryError> {
        let webhook =
            new.webhook.as_ref().map(|asked| self.collection.data.webhooks.checked(asked)).transpose()?;
        let (webhook, given) = webhook.unzip();
        let weights: Vec<f32> = new.parts.iter().map(|part| part.weight).collect();
        let options = new.options.clone().checked(&weights)?;
        check_size(&new.parts)?;
        let minimum = options.minimum.unwrap_or(Minimum::Confidence(MATCHES_FROM));
        let mut spec = spec_of_new(&new, options);
        spec.set_least(minimum);
        let parts = self.embed_given(&new.parts, Priority::Interactive).await?;
        let query =
            Standing::new(&self.collection.searched.comparable, spec.request(parts.clone()), minimum)?;
        let stored = NewStanding {
            id: StandingId::generate(),
            name: new.name,
            spec: json(&spec)?,
            enabled: new.enabled,
            vectors: spec::pack(&parts),
            model: self.collection.embedder.bundle().id().clone(),
            source: json(&new.parts)?.to_string(),
            webhook,
            backfill: new.backfill,
        };
        let _change = self.entries.change.lock().await;
        if self.entries.now().len() >= MAX_STANDING {
            return Err(StandingError::TooMany.into());
        }
        let record = self.collection.store.create_standing(&stored).await?;
        crash_point!("standing-committed");
        let entry = Entry { query: Some(query), ..Entry::without_query(&record, spec) };
        self.entries.put(Arc::new(entry));
        self.collection.life.searchable.notify_one();
        self.collection.note_work(WorkKind::StandingQuery, record.id, true).await?;
        Ok((self.standing_view(record)?, given))
    }

    /// Looks up one standing query.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn find(&self, id: StandingId) -> Result<StandingQuery, LibraryError> {
        self.standing_view(self.collection.store.standing(id).await?)
    }

    /// Standing queries, newest first; `after` is the last id of the previous page.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn list(
        &self,
        after: Option<StandingId>,
        limit: u32,
    ) -> Result<Vec<StandingQuery>, LibraryError> {
        let records = self.collection.store.list_standing(after, limit).await?;
        records.into_iter().map(|record| self.standing_view(record)).collect()
    }

    /// Changes a standing query.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn update(&self, id: StandingId, patch: StandingPatch) -> Result<StandingQuery, LibraryError> {
        let _change = self.entries.change.lock().await;
        let mut spec = spec_of(&self.collection.store.standing(id).await?)?;
        let known = self.entries.find(id);
        let mut query = known.as_ref().and_then(|entry| entry.query.clone());
        if let Some(minimum) = patch.minimum {
            spec.set_least(minimum);
            query = query.map(|query| query.with_minimum(minimum)).transpose()?;
        }
        let change = StandingChange {
            name: patch.name,
            spec: patch.minimum.is_some().then(|| json(&spec)).transpose()?,
            enabled: patch.enabled,
            backfill: patch.backfill,
        };
        let record = self.collection.store.update_standing(id, &change).await?;
        crash_point!("standing-committed");
        self.entries.put(Arc::new(Entry { query, ..Entry::without_query(&record, spec) }));
        self.collection.life.searchable.notify_one();
        self.collection.note_work(WorkKind::StandingQuery, id, true).await?;
        self.standing_view(record)
    }

    /// Deletes a standing query with its matches and its pending deliveries.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn delete(&self, id: StandingId) -> Result<(), LibraryError> {
        let _change = self.entries.change.lock().await;
        self.collection.store.delete_standing(id).await?;
        self.entries.remove(id);
        self.collection.note_work(WorkKind::StandingQuery, id, false).await
    }

    /// Matches of a standing query, newest first; `after` is the last id of the previous page.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn matches(
        &self,
        id: StandingId,
        after: Option<MatchId>,
        limit: u32,
    ) -> Result<Vec<MatchRecord>, LibraryError> {
        Ok(self.collection.store.standing_matches(id, after, limit).await?)
    }

    fn standing_view(&self, record: StandingRecord) -> Result<StandingQuery, LibraryError> {
        let spec = spec_of(&record)?;
        let entry = self.entries.find(record.id);
        let query = entry.as_ref().and_then(|entry| entry.query.as_ref());
        Ok(StandingQuery {
            is_calibrated: query.is_some_and(|query| query.is_calibrated(&self.collection.searched)),
            space: query.and_then(|query| query.space().cloned()),
            record,
            spec,
        })
    }
}

fn check_size(parts: &[StandingPart]) -> Result<(), StandingError> {
    let bytes = parts.iter().map(|part| match &part.given {
        StandingInput::Text(text) => text.len(),
        StandingInput::Media { bytes, .. } => bytes.len(),
        StandingInput::Asset { .. } => 0,
    });
    if bytes.sum::<usize>() > MAX_GIVEN_BYTES { Err(StandingError::TooLarge) } else { Ok(()) }
}

fn spec_of_new(new: &NewStandingQuery, options: AskOptions) -> StandingSpec {
    let asset = |part: &StandingPart| match &part.given {
        // A user who names an asset in the filter wants it even as a match of itself.
        StandingInput::Asset { id, .. } if !options.filter.asset_ids.contains(id) => Some(*id),
        _ => None,
    };
    let exclude_assets = new.parts.iter().filter_map(asset).collect();
    StandingSpec {
        targets: options.targets,
        fuse: options.fuse,
        space: options.space,
        filter: options.filter,
        min_confidence: None,
        min_score: None,
        metadata: new.metadata.clone(),
        query: new.parts.iter().map(StandingPart::shown).collect(),
        exclude_assets,
    }
}

fn json<T: serde::Serialize>(value: &T) -> Result<serde_json::Value, LibraryError> {
    serde_json::to_value(value).map_err(|error| StoreError::Database(error.to_string()).into())
}
