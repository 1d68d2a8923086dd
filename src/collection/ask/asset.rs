//! A stored asset, or a part of it, used as a query.

use std::collections::BTreeMap;

use crate::collection::{Collection, LibraryError};
use crate::embed::Vectors;
use crate::search::QueryPart;
use crate::store::ClipVector;
use crate::types::{AssetId, Embedding, Space, TimeSpan, Track};

impl Collection {
    /// Returns, per space, the mean of the stored vectors of an asset's clips, or of those within the span.
    /// Without a track, it uses the picture if the asset has one.
    ///
    /// # Errors
    /// [`LibraryError`]; [`LibraryError::NoSuchTrack`] if the asset has no such vectors there.
    pub(super) async fn query_of_asset(
        &self,
        id: AssetId,
        span: Option<TimeSpan>,
        track: Option<Track>,
    ) -> Result<QueryPart, LibraryError> {
        self.store.asset(id).await?;
        let clips = self.store.clips_of(id).await?;
        let touched: Vec<_> = match span {
            None => clips,
            // A clip counts if at least half of it, or of the span, is inside; its neighbours do not.
            Some(span) => clips.into_iter().filter(|clip| overlaps(clip.span, span)).collect(),
        };
        let spec = self.embedder.bundle().clip_spec(self.embedder.stride_secs);
        let mut sums: BTreeMap<Track, Sums> = BTreeMap::new();
        for clip in touched {
            let secs = span.map_or(clip.span.duration_secs(), |span| common_secs(clip.span, span));
            let windows = windows_of(secs, spec.window_secs(), spec.stride_secs);
            for ClipVector { track, space, vector } in self.store.clip_vectors(clip.id).await? {
                add(sums.entry(track).or_default().entry(space).or_default(), &vector, windows);
            }
        }
        let track = track.or_else(|| sums.keys().next().copied()).unwrap_or(Track::Video);
        let missing = || LibraryError::NoSuchTrack(track.modality());
        let mean = |(space, sum): (_, Vec<f32>)| {
            let dim = sum.len();
            Embedding::new(sum, dim).map(|vector| (space, vector)).map_err(|_| missing())
        };
        let sums = sums.remove(&track).ok_or_else(missing)?;
        let vectors = sums.into_iter().map(mean).collect::<Result<Vectors, _>>()?;
        Ok(QueryPart::new(track.modality(), vectors))
    }
}

type Sums = BTreeMap<Space, Vec<f32>>;

/// Number of windows in a clip of `secs`: one, except for stretches without change.
fn windows_of(secs: f64, window_secs: f64, stride_secs: f64) -> f32 {
    let more = (secs - window_secs) / stride_secs;
    if more.is_finite() { 1.0 + more.round().max(0.0) as f32 } else { 1.0 }
}

fn add(sum: &mut Vec<f32>, vector: &Embedding, times: f32) {
    if sum.is_empty() {
        sum.resize(vector.dim(), 0.0);
    }
    sum.iter_mut().zip(vector.as_slice()).for_each(|(s, v)| *s += v * times);
}

fn common_secs(a: TimeSpan, b: TimeSpan) -> f64 {
    a.end_secs.min(b.end_secs) - a.start_secs.max(b.start_secs)
}

fn overlaps(clip: TimeSpan, span: TimeSpan) -> bool {
    let common = common_secs(clip, span);
    common > 0.0 && common >= 0.5 * clip.duration_secs().min(span.duration_secs()) - 1e-9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clip_of_many_windows_counts_as_these() {
        let windows = |secs| windows_of(secs, 3.2, 3.2);
        assert_eq!([windows(1.0), windows(3.2), windows(6.4), windows(320.0)], [1.0, 1.0, 2.0, 100.0]);
        assert_eq!(windows_of(9.6, 3.2, 0.8), 9.0);
    }

    #[test]
    fn a_neighbouring_clip_does_not_count() {
        let span = |a, b| TimeSpan::new(a, b).unwrap();
        assert!(overlaps(span(3.2, 6.4), span(3.2, 6.4)));
        assert!(!overlaps(span(0.0, 3.2), span(3.2, 6.4)));
        assert!(!overlaps(span(0.0, 3.2), span(3.0, 6.4)));
        assert!(overlaps(span(0.0, 3.2), span(1.0, 1.5)));
        assert!(overlaps(span(0.0, 3.2), span(0.0, f64::MAX)));
    }
}
