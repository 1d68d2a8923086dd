//! Chooses the space of a search.

use super::SearchError;
use crate::types::{Modality, Space, Track};

/// Which modalities have vectors in which space, which is all that planning needs of a model.
#[derive(Debug, Clone)]
pub struct Comparable {
    /// Ordered from the finest to the coarsest.
    spaces: Vec<(Space, Vec<Modality>)>,
}

impl Comparable {
    /// `spaces` are ordered from the finest to the coarsest. `has` returns whether a modality has vectors in
    /// a space.
    pub fn new<'a>(
        spaces: impl IntoIterator<Item = &'a Space>,
        has: impl Fn(Modality, &Space) -> bool,
    ) -> Self {
        const ALL: [Modality; 4] = [Modality::Text, Modality::Image, Modality::Audio, Modality::Video];
        let members = |space: &Space| ALL.into_iter().filter(|modality| has(*modality, space)).collect();
        Self { spaces: spaces.into_iter().map(|space| (space.clone(), members(space))).collect() }
    }

    fn finest(&self, modalities: &[Modality]) -> Option<&Space> {
        let serves = |members: &[Modality]| modalities.iter().all(|modality| members.contains(modality));
        self.spaces.iter().find(|(_, members)| serves(members)).map(|(space, _)| space)
    }
}

/// The space of a search: the requested one, or the finest that all parts of the query share with all
/// targets. Scores of different spaces cannot be ranked together.
///
/// # Errors
/// [`SearchError::NotComparable`], [`SearchError::BadSpace`], [`SearchError::BadRequest`] without
/// a target.
pub fn plan(
    comparable: &Comparable,
    query: &[Modality],
    targets: &[Track],
    asked: Option<&Space>,
) -> Result<Space, SearchError> {
    if targets.is_empty() {
        return Err(SearchError::bad("targets", "`targets` must name at least one of: video, audio"));
    }
    let sides: Vec<Modality> =
        query.iter().copied().chain(targets.iter().map(|track| track.modality())).collect();
    if let Some(asked) = asked {
        let known = comparable.spaces.iter().find(|(space, _)| space == asked);
        let serves = known.is_some_and(|(_, members)| sides.iter().all(|side| members.contains(side)));
        return if serves { Ok(asked.clone()) } else { Err(SearchError::BadSpace(asked.clone())) };
    }
    if let Some(space) = comparable.finest(&sides) {
        return Ok(space.clone());
    }
    // Name two sides that share no space or, if every pair shares one, the last pair.
    let pairs = query.iter().flat_map(|query| sides.iter().map(move |target| (*query, *target)));
    let alone = pairs.clone().find(|(query, target)| comparable.finest(&[*query, *target]).is_none());
    match alone.or(pairs.last()) {
        Some((query, target)) => Err(SearchError::NotComparable { query, target }),
        None => Err(SearchError::bad("query", "the query has no parts; send at least one")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn shared() -> Comparable {
        let (fine, coarse) = (Space::new("fine"), Space::new("coarse"));
        Comparable::new([&fine, &coarse], |m, space| space.as_str() == "coarse" || m != Modality::Text)
    }

    #[test]
    fn the_finest_shared_space_is_chosen() {
        let video_and_audio = Track::ALL;
        for (query, targets, want) in [
            (Modality::Text, &video_and_audio[..1], "coarse"),
            (Modality::Audio, &video_and_audio[..1], "fine"),
            (Modality::Image, &video_and_audio[..], "fine"),
            (Modality::Text, &video_and_audio[..], "coarse"),
        ] {
            assert_eq!(plan(&shared(), &[query], targets, None).unwrap().as_str(), want);
        }
        let both = [Modality::Audio, Modality::Text];
        assert_eq!(plan(&shared(), &both, &[Track::Video], None).unwrap().as_str(), "coarse");
        let coarse = Space::new("coarse");
        assert_eq!(plan(&shared(), &[Modality::Audio], &[Track::Video], Some(&coarse)).unwrap(), coarse);
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        let fine = Space::new("fine");
        for asked in [&fine, &Space::new("nowhere")] {
            let error = plan(&shared(), &[Modality::Text], &[Track::Video], Some(asked)).unwrap_err();
            assert_eq!(error.code(), "bad_space");
        }
        assert_eq!(plan(&shared(), &[Modality::Text], &[], None).unwrap_err().code(), "invalid_value");
        // A CLAP-like model: text and sound.
        let clap = Comparable::new([&fine], |m, _| matches!(m, Modality::Text | Modality::Audio));
        let error = plan(&clap, &[Modality::Text], &Track::ALL, None).unwrap_err();
        assert!(matches!(
            error,
            SearchError::NotComparable { query: Modality::Text, target: Modality::Video }
        ));
        assert!(plan(&clap, &[Modality::Text], &[Track::Audio], None).is_ok());
        // Two spaces that each serve one target: no scores to rank together.
        let (a, v) = (Space::new("a"), Space::new("v"));
        let split = Comparable::new([&a, &v], |m, space| {
            m == Modality::Text || (m == Modality::Audio) == (space.as_str() == "a")
        });
        assert_eq!(plan(&split, &[Modality::Text], &Track::ALL, None).unwrap_err().code(), "not_comparable");
    }
}
