//! The only way from a query to a search. The HTTP API, the command line, standing queries and evaluations
//! all build an [`Ask`], which is validated as a whole before anything is embedded, then embedded and
//! searched.

mod asset;
mod embed;

use std::path::PathBuf;

use super::LibraryError;
use crate::catalog::Filter;
use crate::index::SearchParams;
use crate::search::{
    Fuse, GroupBy, HubCorrection, MAX_LIMIT, MAX_OFFSET, Minimum, QueryPart, SearchError, SearchRequest,
};
use crate::types::{AssetId, Modality, Space, TimeSpan, Track, TrackChoice};

/// Maximum number of parts of a query.
pub const MAX_PARTS: usize = 16;
/// Largest absolute value of a weight.
const MAX_WEIGHT: f32 = 1000.0;
/// Greatest breadth of a graph search.
const MAX_EF: usize = 10_000;

/// Content of one part of a query.
#[derive(Debug)]
pub enum Source {
    /// A text.
    Text(String),
    /// A file.
    File {
        /// Path of the file, readable by the server.
        path: PathBuf,
        /// The modality to embed it as.
        modality: Modality,
        /// The part of it that counts; `None`: all of it.
        span: Option<TimeSpan>,
        /// The tracks that the user chose.
        tracks: TrackChoice,
    },
    /// A stored asset, or a part of it.
    Asset {
        /// Id of the asset.
        id: AssetId,
        /// The part of it that counts; `None`: all of it.
        span: Option<TimeSpan>,
        /// Its picture or its sound; `None`: the picture if there is one.
        track: Option<Track>,
    },
}

/// One part of a query.
#[derive(Debug)]
pub struct AskPart {
    /// The text, file or asset.
    pub source: Source,
    /// Weight relative to the other parts. A negative weight ranks similar clips last.
    pub weight: f32,
    /// The field that it came from, for errors, such as `query[0].text`.
    pub at: String,
}

impl AskPart {
    /// A text alone.
    #[must_use]
    pub fn text(text: impl Into<String>, at: impl Into<String>) -> Self {
        Self { source: Source::Text(text.into()), weight: 1.0, at: at.into() }
    }
}

/// Options of a search, independent of the query.
#[derive(Debug, Clone)]
pub struct AskOptions {
    /// Tracks to search.
    pub targets: Vec<Track>,
    /// How the scores of several tracks are combined.
    pub fuse: Fuse,
    /// Space to search in; `None`: the finest that all sides share.
    pub space: Option<Space>,
    /// The clips to search.
    pub filter: Filter,
    /// What each hit represents.
    pub group_by: GroupBy,
    /// Hits to skip.
    pub offset: usize,
    /// Hits to return.
    pub limit: usize,
    /// Options of the index search.
    pub params: SearchParams,
    /// The minimum that a hit must reach; a search takes a confidence only.
    pub minimum: Option<Minimum>,
    /// Whether to correct for hubs.
    pub hub_correction: HubCorrection,
}

impl Default for AskOptions {
    /// The ten clips of the whole collection whose pictures match best.
    fn default() -> Self {
        let request = SearchRequest::new(Vec::new());
        Self {
            targets: request.targets,
            fuse: request.fuse,
            space: None,
            filter: request.filter,
            group_by: request.group_by,
            offset: request.offset,
            limit: request.limit,
            params: request.params,
            minimum: None,
            hub_correction: request.hub_correction,
        }
    }
}

fn bad(at: &str, message: impl Into<String>) -> LibraryError {
    LibraryError::BadField { at: at.to_owned(), message: message.into() }
}

/// A weight that means something.
///
/// # Errors
/// [`LibraryError::BadField`] for the field `at`.
pub fn checked_weight(weight: f32, at: &str) -> Result<f32, LibraryError> {
    if !weight.is_finite() || weight == 0.0 || weight.abs() > MAX_WEIGHT {
        let message = format!("`weight` must be a number from -{MAX_WEIGHT} to {MAX_WEIGHT} other than 0");
        return Err(bad(at, message));
    }
    Ok(weight)
}

/// Refuses a text without a word; the model refuses words that it does not know.
///
/// # Errors
/// [`LibraryError::BadField`] for the field `at`.
pub fn check_text(text: &str, at: &str) -> Result<(), LibraryError> {
    if text.trim().is_empty() {
        return Err(bad(at, "the text is empty; send at least one word"));
    }
    Ok(())
}

/// Checks a minimum.
///
/// # Errors
/// [`LibraryError::BadField`].
pub fn check_minimum(minimum: Minimum) -> Result<(), LibraryError> {
    match minimum {
        Minimum::Confidence(minimum) if !(0.0..=1.0).contains(&minimum) => {
            Err(bad("min_confidence", "`min_confidence` must be from 0 to 1"))
        }
        Minimum::Score(minimum) if !(-1.0..=1.0).contains(&minimum) => {
            Err(bad("min_score", "`min_score` must be from -1 to 1"))
        }
        _ => Ok(()),
    }
}

impl AskOptions {
    /// Checks the options for a query of parts with these weights. Repeated targets count once.
    ///
    /// # Errors
    /// [`LibraryError::BadField`] with the name of the field, or [`SearchError::BadFilter`].
    pub fn checked(mut self, weights: &[f32]) -> Result<Self, LibraryError> {
        let parts = weights.len();
        self.targets.sort_unstable();
        self.targets.dedup();
        if self.targets.is_empty() {
            return Err(bad("targets", "`targets` must name video, audio or both"));
        }
        if !(1..=MAX_LIMIT).contains(&self.limit) {
            return Err(bad("limit", format!("`limit` must be from 1 to {MAX_LIMIT}")));
        }
        if self.offset > MAX_OFFSET {
            return Err(bad("offset", format!("`offset` must be at most {MAX_OFFSET}")));
        }
        if self.params.ef.is_some_and(|ef| !(1..=MAX_EF).contains(&ef)) {
            return Err(bad("params.ef", format!("`ef` must be from 1 to {MAX_EF}")));
        }
        if self.params.recall_target.is_some_and(|target| !(target > 0.0 && target <= 1.0)) {
            return Err(bad("params.recall_target", "`recall_target` must be above 0 and at most 1"));
        }
        self.minimum.map_or(Ok(()), check_minimum)?;
        self.filter.check().map_err(SearchError::from)?;
        if !(1..=MAX_PARTS).contains(&parts) {
            return Err(bad("query", format!("expected 1 to {MAX_PARTS} query parts")));
        }
        if !weights.iter().any(|weight| *weight > 0.0) {
            return Err(bad("query", "at least one part of the query must have a weight above 0"));
        }
        if self.hub_correction != HubCorrection::Off && !self.has_bank(parts) {
            let message = "`hub_correction` needs a single query part, and one target or `fuse: best`";
            return Err(bad("params.hub_correction", message));
        }
        Ok(self)
    }

    /// Whether a bank of queries is comparable to the query; none is to several parts or to a mean of tracks.
    fn has_bank(&self, parts: usize) -> bool {
        parts == 1 && (self.fuse == Fuse::Best || self.targets.len() < 2)
    }

    /// The search for embedded parts, including those made from assets.
    #[must_use]
    pub fn request(&self, query: Vec<QueryPart>, assets: Vec<AssetId>) -> SearchRequest {
        // A user who names an asset in the filter wants it, even as a hit for itself.
        let exclude_assets = assets.into_iter().filter(|id| !self.filter.asset_ids.contains(id)).collect();
        let min_confidence = match self.minimum {
            Some(Minimum::Confidence(minimum)) => Some(minimum),
            Some(Minimum::Score(_)) | None => None,
        };
        SearchRequest {
            query,
            targets: self.targets.clone(),
            fuse: self.fuse,
            filter: self.filter.clone(),
            exclude_assets,
            space: self.space.clone(),
            group_by: self.group_by,
            offset: self.offset,
            limit: self.limit,
            params: self.params,
            min_confidence,
            hub_correction: self.hub_correction,
        }
    }
}

/// A valid query with its options.
#[derive(Debug)]
pub struct Ask {
    parts: Vec<AskPart>,
    options: AskOptions,
}

impl Ask {
    /// Checks a question as a whole.
    ///
    /// # Errors
    /// [`LibraryError::BadField`] with the name of the field, or [`SearchError::BadFilter`].
    pub fn new(parts: Vec<AskPart>, options: AskOptions) -> Result<Self, LibraryError> {
        let weights: Vec<f32> = parts.iter().map(|part| part.weight).collect();
        let options = options.checked(&weights)?;
        for part in &parts {
            checked_weight(part.weight, &format!("{}.weight", part.at))?;
            if let Source::Text(text) = &part.source {
                check_text(text, &part.at)?;
            }
        }
        Ok(Self { parts, options })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(parts: usize, options: AskOptions) -> String {
        match options.checked(&vec![1.0; parts]) {
            Err(LibraryError::BadField { at, .. }) => at,
            other => format!("{:?}", other.map(|_| ())),
        }
    }

    #[test]
    fn repeated_targets_count_once() {
        let twice = AskOptions {
            targets: vec![Track::Video, Track::Video],
            fuse: Fuse::Mean,
            hub_correction: HubCorrection::Dis,
            ..AskOptions::default()
        };
        assert_eq!(twice.clone().checked(&[1.0]).unwrap().targets, [Track::Video]);
        let both = AskOptions { targets: Track::ALL.to_vec(), ..twice };
        assert_eq!(refused(1, both.clone()), "params.hub_correction");
        assert!(AskOptions { fuse: Fuse::Best, ..both }.checked(&[1.0]).is_ok());
    }

    #[test]
    fn what_cannot_be_answered_is_refused_by_name() {
        let ask = AskOptions::default;
        assert_eq!(refused(0, ask()), "query");
        assert_eq!(refused(MAX_PARTS + 1, ask()), "query");
        assert_eq!(refused(1, AskOptions { targets: Vec::new(), ..ask() }), "targets");
        assert_eq!(refused(1, AskOptions { limit: 0, ..ask() }), "limit");
        assert_eq!(refused(1, AskOptions { offset: MAX_OFFSET + 1, ..ask() }), "offset");
        let confident = AskOptions { minimum: Some(Minimum::Confidence(0.5)), ..ask() };
        assert!(confident.checked(&[1.0, 0.5]).is_ok());
        assert_eq!(
            refused(1, AskOptions { minimum: Some(Minimum::Confidence(1.5)), ..ask() }),
            "min_confidence"
        );
        assert_eq!(refused(1, AskOptions { minimum: Some(Minimum::Score(-1.5)), ..ask() }), "min_score");
        assert!(AskOptions { minimum: Some(Minimum::Score(0.5)), ..ask() }.checked(&[1.0, -0.5]).is_ok());
        assert_eq!(
            refused(2, AskOptions { hub_correction: HubCorrection::Dis, ..ask() }),
            "params.hub_correction"
        );
    }

    #[test]
    fn parts_are_checked_before_anything_is_embedded() {
        let at = |part: AskPart| match Ask::new(vec![part], AskOptions::default()) {
            Err(LibraryError::BadField { at, .. }) => at,
            other => format!("{:?}", other.map(|_| ())),
        };
        assert_eq!(at(AskPart::text(" ", "query.text")), "query.text");
        assert_eq!(at(AskPart { weight: -1.0, ..AskPart::text("dog", "query") }), "query");
        assert_eq!(at(AskPart { weight: 1e9, ..AskPart::text("dog", "query") }), "query.weight");
        assert!(Ask::new(vec![AskPart::text("dog", "query")], AskOptions::default()).is_ok());
    }
}
