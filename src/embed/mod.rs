//! Turns assets and queries into embeddings. The only module that knows both media and towers.

mod stream;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use futures::future::try_join_all;

pub use stream::AssetStream;

use crate::media::{Decoder, Lane, MediaError};
use crate::model::{BankText, Bundle, ModelError, Priority, Role, SpaceVectors, Timings, Towers};
use crate::preprocess::ClipReader;
use crate::types::{
    AssetKind, Embedding, Modality, PerTrack, Space, TimeSpan, Track, TrackChoice, TypeError,
};

/// Unit vectors of one input, one per space its tower serves.
pub type Vectors = BTreeMap<Space, Embedding>;

/// Texts of a bank in the towers' queue at the same time; interactive work goes before each.
const BANK_AT_ONCE: usize = 8;

/// Why an input could not be embedded.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    /// Decoding failed.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// A tower failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A tower returned an invalid vector.
    #[error("the model's {modality} encoder returned an invalid vector: {source}")]
    BadVector {
        /// Modality of the tower.
        modality: Modality,
        /// What is wrong with the vector.
        source: TypeError,
    },
    /// The bundle has no tower for this modality.
    #[error("this model cannot embed {0}")]
    NoTower(Modality),
    /// The file is of another kind than the query's modality.
    #[error("this file is {}, not {}; set the query's modality to match", kind_name(*.got), modality_name(*.wanted))]
    WrongKind {
        /// Modality of the query.
        wanted: Modality,
        /// Kind of the file.
        got: AssetKind,
    },
    /// The file has no track that the tower accepts.
    #[error("{0}")]
    NoTrack(String),
}

const fn kind_name(kind: AssetKind) -> &'static str {
    match kind {
        AssetKind::Video => "a video",
        AssetKind::Audio => "a sound",
        AssetKind::Image => "a picture",
    }
}

const fn modality_name(modality: Modality) -> &'static str {
    match modality {
        Modality::Text => "a text",
        Modality::Image => "a picture",
        Modality::Audio => "a sound",
        Modality::Video => "a video",
    }
}

impl EmbedError {
    /// Stable error code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Media(error) => error.code(),
            Self::Model(error) => error.code(),
            Self::BadVector { .. } => "bad_vector",
            Self::NoTower(_) => "modality_not_supported",
            Self::WrongKind { .. } => "wrong_media_kind",
            Self::NoTrack(_) => "no_usable_track",
        }
    }
}

/// Embeddings of one clip; at least one track has some.
#[derive(Debug, Clone)]
pub struct ClipVectors {
    /// Time span within the asset.
    pub span: TimeSpan,
    /// Number of consecutive windows with these same vectors that the clip stands for; 1 for most clips.
    pub windows: u64,
    /// Embeddings of each track that the clip has.
    pub tracks: PerTrack<Option<Vectors>>,
}

impl ClipVectors {
    /// The embeddings of the track on which vectors of this modality are.
    #[must_use]
    pub fn of(&self, modality: Modality) -> Option<&Vectors> {
        self.tracks[Track::of(modality)?].as_ref()
    }
}

/// Embeds queries and assets with the towers of one bundle.
#[derive(Clone)]
pub struct Embedder {
    /// Towers of the bundle.
    pub towers: Towers,
    /// Decoder for media files.
    pub decoder: Decoder,
    /// Seconds between the starts of successive clips; `None` means the length of one window.
    pub stride_secs: Option<f64>,
}

impl Embedder {
    /// The bundle of the towers.
    #[must_use]
    pub fn bundle(&self) -> &Arc<Bundle> {
        self.towers.bundle()
    }

    /// The same embedder, which also adds its towers' work to `timings`.
    #[must_use]
    pub fn timed(&self, timings: Arc<Timings>) -> Self {
        Self { towers: self.towers.timed(timings), ..self.clone() }
    }

    /// Embeds a text query.
    ///
    /// # Errors
    /// [`EmbedError`].
    pub async fn text(&self, text: &str, priority: Priority) -> Result<Vectors, EmbedError> {
        let raw = self.towers.text(text, priority).await?;
        unit_vectors(self.bundle(), Modality::Text, raw)
    }

    /// Embeds a text in a role.
    ///
    /// # Errors
    /// [`EmbedError`].
    pub async fn text_as(&self, text: &str, role: Role, priority: Priority) -> Result<Vectors, EmbedError> {
        let raw = self.towers.text_as(text, role, priority).await?;
        unit_vectors(self.bundle(), Modality::Text, raw)
    }

    /// The texts for calibration that come with the bundle, embedded in bulk on the first call; empty if it
    /// has none.
    ///
    /// # Errors
    /// [`EmbedError`].
    pub async fn bank(&self) -> Result<Arc<[BankText]>, EmbedError> {
        let made = self.towers.bank_cell().get_or_try_init(async || {
            let mut bank = Vec::new();
            for texts in self.towers.bank().chunks(BANK_AT_ONCE) {
                let asked = texts.iter().map(|text| self.bank_text(text));
                bank.extend(try_join_all(asked).await?.into_iter().flatten());
            }
            Ok::<_, EmbedError>(Arc::from(bank))
        });
        made.await.cloned()
    }

    /// One text of the bank; `None` if no tower knows a word of it.
    async fn bank_text(&self, text: &str) -> Result<Option<BankText>, EmbedError> {
        let words = match self.towers.count_words(text) {
            Ok(words) => words,
            Err(ModelError::NoKnownWords { .. } | ModelError::TextTooLong { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let raw = self.towers.text(text, Priority::Bulk).await?;
        Ok(Some(BankText { words, vectors: unit_vectors(self.bundle(), Modality::Text, raw)? }))
    }

    /// Embeds a file as a query. `modality` selects what is embedded (a video's sound is `Audio`). A file
    /// longer than one window gives the mean of its clips' unit vectors.
    ///
    /// # Errors
    /// [`EmbedError`]; `wrong_media_kind` if a picture is given for a video or the reverse, `no_usable_track`
    /// if the file has no such track.
    pub async fn query_media(
        &self,
        path: &Path,
        modality: Modality,
        span: Option<TimeSpan>,
    ) -> Result<Vectors, EmbedError> {
        self.query_tracks(path, modality, span, TrackChoice::default()).await
    }

    /// Like [`Embedder::query_media`], for chosen file tracks.
    ///
    /// # Errors
    /// As [`Embedder::query_media`]; `unknown_track`.
    pub async fn query_tracks(
        &self,
        path: &Path,
        modality: Modality,
        span: Option<TimeSpan>,
        tracks: TrackChoice,
    ) -> Result<Vectors, EmbedError> {
        let mut clips = self.open_track(path, modality, span, tracks, Priority::Interactive).await?;
        let mut mean = Mean::default();
        while let Some(clip) = clips.next().await? {
            clip.of(modality).into_iter().for_each(|vectors| mean.add(vectors, clip.windows));
        }
        mean.finish(self.bundle(), modality)
    }

    /// Opens the one track of a file that a query or `/v1/embeddings` needs: the picture (`Video`) or sound
    /// (`Audio`) of a video, a sound, or a picture. Other tracks are not embedded.
    ///
    /// # Errors
    /// As [`Embedder::query_media`].
    pub async fn open_track(
        &self,
        path: &Path,
        modality: Modality,
        span: Option<TimeSpan>,
        tracks: TrackChoice,
        priority: Priority,
    ) -> Result<AssetStream, EmbedError> {
        if modality == Modality::Text || !self.bundle().has_tower(modality) {
            return Err(EmbedError::NoTower(modality));
        }
        self.read(path, span, tracks, priority, lane_of(priority), Some(modality)).await
    }

    /// Opens an asset for embedding: a video, sound or picture, detected from its bytes.
    ///
    /// # Errors
    /// [`EmbedError`].
    pub async fn open(
        &self,
        path: &Path,
        span: Option<TimeSpan>,
        priority: Priority,
    ) -> Result<AssetStream, EmbedError> {
        self.open_tracks(path, span, TrackChoice::default(), priority).await
    }

    /// Like [`Embedder::open`], for chosen file tracks.
    ///
    /// # Errors
    /// As [`Embedder::open`]; `unknown_track`.
    pub async fn open_tracks(
        &self,
        path: &Path,
        span: Option<TimeSpan>,
        tracks: TrackChoice,
        priority: Priority,
    ) -> Result<AssetStream, EmbedError> {
        self.refuse_without_media_tower()?;
        self.read(path, span, tracks, priority, lane_of(priority), None).await
    }

    /// Opens an asset that has been accepted for ingest. Like [`Embedder::open`], but it waits in the bulk
    /// queue of the decoder for as long as necessary, whatever its priority.
    ///
    /// # Errors
    /// As [`Embedder::open`].
    pub async fn open_accepted(
        &self,
        path: &Path,
        tracks: TrackChoice,
        priority: Priority,
    ) -> Result<AssetStream, EmbedError> {
        self.refuse_without_media_tower()?;
        self.read(path, None, tracks, priority, Lane::Bulk, None).await
    }

    fn refuse_without_media_tower(&self) -> Result<(), EmbedError> {
        let takes_media = [Modality::Video, Modality::Audio, Modality::Image];
        if !takes_media.iter().any(|modality| self.bundle().has_tower(*modality)) {
            return Err(EmbedError::NoTower(Modality::Video));
        }
        Ok(())
    }

    async fn read(
        &self,
        path: &Path,
        span: Option<TimeSpan>,
        tracks: TrackChoice,
        priority: Priority,
        lane: Lane,
        only: Option<Modality>,
    ) -> Result<AssetStream, EmbedError> {
        let spec = self.bundle().clip_spec(self.stride_secs);
        let reader = ClipReader::open_tracks(&self.decoder.on(lane), path, &spec, span, tracks).await?;
        Ok(AssetStream::start(self.towers.clone(), reader, priority, only))
    }
}

const fn lane_of(priority: Priority) -> Lane {
    match priority {
        Priority::Interactive => Lane::Interactive,
        Priority::Bulk => Lane::Bulk,
    }
}

/// Normalises a tower's raw output to unit vectors.
fn unit_vectors(bundle: &Bundle, modality: Modality, raw: SpaceVectors) -> Result<Vectors, EmbedError> {
    raw.into_iter()
        .map(|(space, values)| {
            let dim = bundle.dim(&space).unwrap_or(0);
            let vector =
                Embedding::new(values, dim).map_err(|source| EmbedError::BadVector { modality, source })?;
            Ok((space, vector))
        })
        .collect()
}

/// Mean of the unit vectors of several clips, per space.
#[derive(Default)]
struct Mean {
    clips: usize,
    windows: u64,
    first: Option<Vectors>,
    sums: BTreeMap<Space, Vec<f64>>,
}

impl Mean {
    /// Adds a clip, weighted by its number of windows.
    fn add(&mut self, vectors: &Vectors, windows: u64) {
        self.clips += 1;
        self.windows += windows;
        if self.first.is_none() {
            self.first = Some(vectors.clone());
        }
        for (space, vector) in vectors {
            let sum = self.sums.entry(space.clone()).or_insert_with(|| vec![0.0; vector.dim()]);
            for (sum, value) in sum.iter_mut().zip(vector.as_slice()) {
                *sum += f64::from(*value) * windows as f64;
            }
        }
    }

    fn finish(self, bundle: &Bundle, modality: Modality) -> Result<Vectors, EmbedError> {
        match (self.clips, self.first) {
            // Return a single clip's vector unchanged: a query clip then finds its stored self with cosine 1.
            (1, Some(vectors)) => Ok(vectors),
            (0, _) | (_, None) => Err(no_track(modality)),
            _ => {
                let windows = self.windows as f64;
                let mean = |sum: Vec<f64>| sum.iter().map(|value| (value / windows) as f32).collect();
                let means = self.sums.into_iter().map(|(space, sum)| (space, mean(sum))).collect();
                unit_vectors(bundle, modality, means)
            }
        }
    }
}

fn no_track(modality: Modality) -> EmbedError {
    EmbedError::NoTrack(format!(
        "this file has nothing that can be used as {}",
        if modality == Modality::Audio { "sound" } else { modality_name(modality) }
    ))
}
