//! The models of a data folder: one serves, others are kept up to date beside it, and one of those can be
//! promoted while searches continue. Vectors of two models never mix: each has its own store, indexes and
//! catalog, and a request uses one library from beginning to end.

mod beside;
mod follow;
mod hand_over;
mod open;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

use self::beside::{Beside, is, stop_beside};
use self::hand_over::{hand_over, leave_snapshots, revive};
use self::open::{open_bundle, open_serving, remove_vectors};
use super::Library;
use crate::backup::BackupError;
use crate::collection::{LibraryConfig, LibraryError, blocking};
use crate::embed::Embedder;
use crate::files::{AllowedRoots, Known, Registry};
use crate::model::ModelError;
use crate::store::StoreError;

pub use self::follow::Progress;

/// How often to check whether a model can be promoted.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Loads and verifies the bundle in a folder. Blocking.
pub type OpenEmbedder = Arc<dyn Fn(&Path) -> Result<Embedder, ModelError> + Send + Sync>;

/// How to open the models of a data folder.
#[derive(Clone)]
pub struct ModelsConfig {
    /// Settings of each library.
    pub library: LibraryConfig,
    /// Folders beneath which bundles may be loaded at run time.
    pub model_roots: Vec<PathBuf>,
    /// Function that opens a bundle folder.
    pub open: OpenEmbedder,
}

/// Role of a loaded model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Answers requests that name no model, and takes work.
    Serving,
    /// Has the same assets; answers what names it.
    Beside,
}

/// A loaded model, for display.
pub struct ModelEntry {
    /// The library of this model.
    pub library: Arc<Library>,
    /// Role of the model.
    pub role: Role,
    /// How far it has caught up with the serving model.
    pub progress: Progress,
    /// Whether it is promoted as soon as it has caught up.
    pub promote: bool,
    /// Why it cannot keep up, if so.
    pub error: Option<String>,
}

/// All loaded models of one data folder.
pub struct Models {
    config: ModelsConfig,
    roots: AllowedRoots,
    serving: watch::Sender<Arc<Library>>,
    beside: RwLock<Vec<Arc<Beside>>>,
    /// Held while a model is loaded, unloaded or promoted.
    registry: Mutex<Registry>,
}

impl Models {
    /// Opens the serving model of a data folder, and the models beside it.
    ///
    /// `given` is the bundle that the user named. If another model was promoted since, that one is opened
    /// instead; a bundle that the data folder has never had is refused.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn open(config: ModelsConfig, given: &Path) -> Result<Arc<Self>, LibraryError> {
        let (library, registry) = open_serving(&config, given).await?;
        let models = Arc::new(Self {
            roots: AllowedRoots::new(&config.model_roots)?,
            config,
            serving: watch::Sender::new(library),
            beside: RwLock::default(),
            registry: Mutex::new(registry),
        });
        let waiting = models.registry.lock().await.beside.clone();
        for known in waiting {
            match models.attach(known.clone()).await {
                Err(error) if error.storage_full().is_some() => {
                    tokio::spawn(Arc::clone(&models).attach_once_there_is_room(known));
                }
                Err(error) => not_attached(&known, &error),
                Ok(()) => {}
            }
        }
        Ok(models)
    }

    /// Opens only the serving model, for a short-lived command.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn open_alone(config: &ModelsConfig, given: &Path) -> Result<Arc<Library>, LibraryError> {
        Ok(open_serving(config, given).await?.0)
    }

    /// The library that serves now. Hold it for one request, not longer.
    #[must_use]
    pub fn serving(&self) -> Arc<Library> {
        Arc::clone(&self.serving.borrow())
    }

    /// The library of a model, by name or digest; if names are equal, the serving one's.
    ///
    /// # Errors
    /// [`LibraryError::UnknownModel`].
    pub fn named(&self, model: &str) -> Result<Arc<Library>, LibraryError> {
        let serving = self.serving();
        if is(&serving, model) {
            return Ok(serving);
        }
        Ok(Arc::clone(&self.beside_named(model)?.library))
    }

    /// Every loaded model, the serving one first.
    #[must_use]
    pub fn list(&self) -> Vec<ModelEntry> {
        let serving = self.serving();
        let assets = serving.catalog().len().0;
        let whole = Progress { caught_up: true, assets, assets_total: assets };
        let first = ModelEntry {
            library: serving,
            role: Role::Serving,
            progress: whole,
            promote: false,
            error: None,
        };
        let of = |beside: &Arc<Beside>| ModelEntry {
            library: Arc::clone(&beside.library),
            role: Role::Beside,
            progress: Progress {
                caught_up: beside.caught_up(),
                assets: beside.library.catalog().len().0,
                assets_total: assets,
            },
            promote: beside.known.promote,
            error: beside.follower.error(),
        };
        std::iter::once(first).chain(self.all_beside().iter().map(of)).collect()
    }

    /// Loads a bundle beside the serving model; it embeds all assets and follows changes. With `promote`, it
    /// is promoted once it has caught up.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn load(self: &Arc<Self>, path: &Path, promote: bool) -> Result<ModelEntry, LibraryError> {
        let bundle = self.roots.resolve(path)?;
        self.load_resolved(bundle, promote).await
    }

    /// Like `load`, for a bundle that the operator named at startup.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn load_resolved(
        self: &Arc<Self>,
        bundle: PathBuf,
        promote: bool,
    ) -> Result<ModelEntry, LibraryError> {
        let mut registry = self.registry.lock().await;
        let embedder = self.open_bundle(&bundle).await?;
        let digest = embedder.bundle().id().to_string();
        if self.named(&digest).is_ok() {
            return Err(LibraryError::ModelLoaded(embedder.bundle().name().to_owned()));
        }
        let data_dir = &self.config.library.data_dir;
        let known = Known { folder: registry.folder_of(&digest, data_dir), digest, bundle, promote };
        let mut changed = registry.clone();
        changed.forget(&known.digest);
        changed.beside.push(known.clone());
        let beside = Arc::clone(self).attach_embedder(known, embedder).await?;
        // Only now: a bundle that could not be opened must not be tried at every start.
        if let Err(error) = changed.write(data_dir) {
            self.take_out(&beside);
            stop_beside(beside).await;
            return Err(error.into());
        }
        *registry = changed;
        drop(registry);
        let digest = &beside.known.digest;
        let entry = |entry: &ModelEntry| entry.library.embedder().bundle().id().to_string() == *digest;
        self.list().into_iter().find(entry).ok_or_else(|| LibraryError::UnknownModel(digest.clone()))
    }

    /// Retries attaching a model beside whose first writes found the disk full.
    async fn attach_once_there_is_room(self: Arc<Self>, known: Known) {
        let serving = self.serving();
        if !serving.collection.data.disk.writable(&serving.collection.life.stop).await {
            return;
        }
        drop(serving);
        let _registry = self.registry.lock().await;
        if let Err(error) = self.attach(known.clone()).await {
            not_attached(&known, &error);
        }
    }

    async fn attach(self: &Arc<Self>, known: Known) -> Result<(), LibraryError> {
        let embedder = self.open_bundle(&known.bundle).await?;
        let found = embedder.bundle().id().to_string();
        if found != known.digest {
            return Err(StoreError::OtherModel { found: known.digest, wanted: found }.into());
        }
        Arc::clone(self).attach_embedder(known, embedder).await.map(|_| ())
    }

    async fn attach_embedder(
        self: Arc<Self>,
        known: Known,
        embedder: Embedder,
    ) -> Result<Arc<Beside>, LibraryError> {
        let folder = self.config.library.data_dir.join(&known.folder);
        let serving = self.serving();
        // Opening may build an index.
        let library = blocking(move || {
            tokio::runtime::Handle::current().block_on(serving.open_beside(&folder, embedder))
        })
        .await?;
        library.start_workers();
        let beside = Arc::new(Beside {
            library,
            known,
            follower: Arc::default(),
            stop: CancellationToken::new(),
            task: Mutex::default(),
        });
        self.follow(&beside).await;
        self.beside.write().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&beside));
        if beside.known.promote {
            tokio::spawn(promote_when_caught_up(Arc::clone(&self), Arc::clone(&beside)));
        }
        Ok(beside)
    }

    async fn follow(&self, beside: &Arc<Beside>) {
        let (side, serving, stop) =
            (Arc::clone(&beside.library.ingest), self.serving.subscribe(), beside.stop.clone());
        let follower = Arc::clone(&beside.follower);
        let task = tokio::spawn(async move { follower.run(side, serving, stop).await });
        *beside.task.lock().await = Some(task);
    }

    /// Promotes a model beside. Searches continue; for the moment that it takes, changes are refused with a
    /// request to retry. The previous model is unloaded, and its vectors stay on disk.
    ///
    /// # Errors
    /// [`LibraryError`]; the previous model then still serves.
    pub async fn promote(self: &Arc<Self>, model: &str) -> Result<(), LibraryError> {
        let mut registry = self.registry.lock().await;
        let next = self.beside_named(model)?;
        if !next.caught_up() {
            return Err(LibraryError::ModelBehind(model.to_owned()));
        }
        let old = self.serving();
        // A running snapshot would be cut off.
        let turn = old.collection.data.keeper.take_turn().await?;
        next.stop_following().await;
        let mut changed = registry.clone();
        let before = std::mem::replace(&mut changed.serving, Known { promote: false, ..next.known.clone() });
        changed.forget(&next.known.digest);
        changed.earlier.retain(|digest| *digest != before.digest);
        changed.earlier.push(before.digest.clone());
        changed.kept.push(before);
        let write = || Ok(changed.write(&self.config.library.data_dir)?);
        if let Err(error) = hand_over(&old, &next.library, write).await {
            let revived = revive(&old).await;
            revived.start_workers();
            self.serving.send_replace(revived);
            self.take_out(&next);
            // Settings copied so far are dropped when it is loaded again.
            tokio::spawn(stop_beside(next));
            return Err(error);
        }
        *registry = changed;
        self.take_out(&next);
        self.serving.send_replace(Arc::clone(&next.library));
        tracing::info!(model = next.library.embedder().bundle().name(), "another model serves");
        drop(turn);
        tokio::spawn(async move { leave_snapshots(&old).await });
        Ok(())
    }

    /// Unloads a model beside; removes its vectors unless `keep`.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn unload(&self, model: &str, keep: bool) -> Result<(), LibraryError> {
        let mut registry = self.registry.lock().await;
        let beside = match self.beside_named(model) {
            Err(_) if is(&self.serving(), model) => return Err(LibraryError::ModelServes(model.to_owned())),
            found => found?,
        };
        let mut changed = registry.clone();
        changed.forget(&beside.known.digest);
        if keep {
            changed.kept.push(Known { promote: false, ..beside.known.clone() });
        }
        changed.write(&self.config.library.data_dir)?;
        *registry = changed;
        self.take_out(&beside);
        stop_beside(Arc::clone(&beside)).await;
        if keep { Ok(()) } else { remove_vectors(&self.config.library.data_dir, &beside.known) }
    }

    /// Stops all models; the next start resumes unfinished work.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn shutdown(&self) -> Result<(), LibraryError> {
        for beside in self.all_beside() {
            stop_beside(beside).await;
        }
        self.serving().shutdown().await
    }

    fn all_beside(&self) -> Vec<Arc<Beside>> {
        self.beside.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn beside_named(&self, model: &str) -> Result<Arc<Beside>, LibraryError> {
        let found = self.all_beside().into_iter().find(|beside| beside.is(model));
        found.ok_or_else(|| LibraryError::UnknownModel(model.to_owned()))
    }

    fn take_out(&self, gone: &Arc<Beside>) {
        let mut all = self.beside.write().unwrap_or_else(PoisonError::into_inner);
        all.retain(|beside| !Arc::ptr_eq(beside, gone));
    }

    async fn open_bundle(&self, path: &Path) -> Result<Embedder, LibraryError> {
        open_bundle(&self.config.open, path).await
    }
}

fn not_attached(known: &Known, error: &LibraryError) {
    tracing::error!(bundle = %known.bundle.display(), %error, "could not load an additional model");
}

async fn promote_when_caught_up(models: Arc<Models>, beside: Arc<Beside>) {
    loop {
        tokio::select! {
            () = beside.stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        if !beside.caught_up() {
            continue;
        }
        match models.promote(&beside.known.digest).await {
            // Something got in between; try again.
            Err(LibraryError::ModelBehind(_) | LibraryError::Backup(BackupError::Running)) => {}
            Err(error) => return tracing::error!(%error, "could not promote a model"),
            Ok(()) => return,
        }
    }
}
