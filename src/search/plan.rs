//! Chooses the space of a search, or one space per target where no single one serves all.

use super::SearchError;
use crate::types::{Modality, Space, Track};

/// Why parts that can each be compared with the targets cannot be asked together.
const PARTS_APART: &str = "this model has no space in which all parts of the query are compared with the same target; send them as queries of their own";

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
        self.finest_of(modalities, &|_| true)
    }

    /// The finest space of a query and its targets. Vectors of still pictures are on the video track, so a
    /// space of pictures serves it where none of videos does.
    fn finest_for(
        &self,
        query: &[Modality],
        targets: &[Track],
        usable: &dyn Fn(&Space) -> bool,
    ) -> Option<&Space> {
        let [moving, still] = sides(query, targets);
        self.finest_of(&moving, usable).or_else(|| self.finest_of(&still, usable))
    }

    /// The finest space of these that serves all modalities.
    fn finest_of(&self, modalities: &[Modality], usable: &dyn Fn(&Space) -> bool) -> Option<&Space> {
        let serves = |members: &[Modality]| modalities.iter().all(|modality| members.contains(modality));
        let mut spaces = self.spaces.iter();
        spaces.find(|(space, members)| serves(members) && usable(space)).map(|(space, _)| space)
    }
}

/// Modalities of a query and its targets, with videos on the video track, and with still pictures.
fn sides(query: &[Modality], targets: &[Track]) -> [Vec<Modality>; 2] {
    // A track's last modality: pictures on the video track, its own on others.
    let still = |track: &Track| track.modalities().last().copied().unwrap_or(track.modality());
    [
        query.iter().copied().chain(targets.iter().map(|track| track.modality())).collect(),
        query.iter().copied().chain(targets.iter().map(still)).collect(),
    ]
}

/// Targets that are searched in one space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Space of the scores.
    pub space: Space,
    /// Tracks searched in it.
    pub targets: Vec<Track>,
}

/// The spaces of a search: one for all targets, as [`plan`] chooses it, or else the finest for each target.
/// `usable` tells whether the query has vectors in a space; a word list can know none of its words. A target
/// that only such spaces serve is left out where others remain.
///
/// # Errors
/// As [`plan`].
pub fn routes(
    comparable: &Comparable,
    query: &[Modality],
    targets: &[Track],
    asked: Option<&Space>,
    usable: &dyn Fn(&Space) -> bool,
) -> Result<Vec<Route>, SearchError> {
    if asked.is_none()
        && !targets.is_empty()
        && let Some(space) = comparable.finest_for(query, targets, usable)
    {
        return Ok(vec![Route { space: space.clone(), targets: targets.to_vec() }]);
    }
    let mut routes: Vec<Route> = Vec::new();
    for target in targets {
        let Some(space) = comparable.finest_for(query, &[*target], usable).filter(|_| asked.is_none()) else {
            if asked.is_none() && comparable.finest_for(query, &[*target], &|_| true).is_some() {
                continue;
            }
            let space = plan(comparable, query, targets, asked)?;
            return Ok(vec![Route { space, targets: targets.to_vec() }]);
        };
        match routes.iter_mut().find(|route| route.space == *space) {
            Some(route) => route.targets.push(*target),
            None => routes.push(Route { space: space.clone(), targets: vec![*target] }),
        }
    }
    if routes.is_empty() {
        let space = plan(comparable, query, targets, asked)?;
        return Ok(vec![Route { space, targets: targets.to_vec() }]);
    }
    Ok(routes)
}

/// The space of a search: the requested one, or the finest that all parts of the query share with all
/// targets.
///
/// # Errors
/// [`SearchError::NotComparable`], [`SearchError::BadSpace`], [`SearchError::BadRequest`] without
/// a target.
fn plan(
    comparable: &Comparable,
    query: &[Modality],
    targets: &[Track],
    asked: Option<&Space>,
) -> Result<Space, SearchError> {
    if targets.is_empty() {
        return Err(SearchError::bad("targets", "`targets` must name at least one of: video, audio"));
    }
    let [moving, still] = sides(query, targets);
    if let Some(asked) = asked {
        let known = comparable.spaces.iter().find(|(space, _)| space == asked);
        let all = |sides: &[Modality], members: &[Modality]| sides.iter().all(|side| members.contains(side));
        let serves = known.is_some_and(|(_, members)| all(&moving, members) || all(&still, members));
        return if serves { Ok(asked.clone()) } else { Err(SearchError::BadSpace(asked.clone())) };
    }
    if let Some(space) = comparable.finest_for(query, targets, &|_| true) {
        return Ok(space.clone());
    }
    let pairs = query.iter().flat_map(|query| targets.iter().map(move |target| (*query, target.modality())));
    let alone = pairs.clone().find(|(query, target)| comparable.finest(&[*query, *target]).is_none());
    match (alone, pairs.last()) {
        (Some((query, target)), _) => Err(SearchError::NotComparable { query, target }),
        (None, Some(_)) if query.len() > 1 => Err(SearchError::bad("query", PARTS_APART)),
        (None, Some((query, target))) => Err(SearchError::NotComparable { query, target }),
        (None, None) => Err(SearchError::bad("query", "the query has no parts; send at least one")),
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
        // Two spaces that each serve one part: no scores to rank together.
        let (a, i) = (Space::new("a"), Space::new("i"));
        let split = Comparable::new([&a, &i], |m, space| match m {
            Modality::Text => space.as_str() == "a",
            Modality::Image => space.as_str() == "i",
            Modality::Audio | Modality::Video => true,
        });
        let parts = [Modality::Text, Modality::Image];
        let error = plan(&split, &parts, &[Track::Audio], None).unwrap_err();
        assert_eq!(
            (error.code(), error.to_string().contains("queries of their own")),
            ("invalid_value", true)
        );
    }

    #[test]
    fn pictures_alone_serve_the_video_track() {
        let (pictures, films) = (Space::new("pictures"), Space::new("films"));
        let only = Comparable::new([&pictures], |m, _| matches!(m, Modality::Text | Modality::Image));
        assert_eq!(plan(&only, &[Modality::Text], &[Track::Video], None).unwrap(), pictures);
        assert_eq!(plan(&only, &[Modality::Text], &[Track::Video], Some(&pictures)).unwrap(), pictures);
        assert!(plan(&only, &[Modality::Text], &[Track::Audio], None).is_err());
        // A space of films is preferred, even if it is coarser.
        let both = Comparable::new([&pictures, &films], |m, space| {
            m == Modality::Text || m == Modality::Image || (m == Modality::Video && *space == films)
        });
        assert_eq!(plan(&both, &[Modality::Text], &[Track::Video], None).unwrap(), films);
    }

    #[test]
    fn each_target_has_a_space_of_its_own_where_none_serves_all() {
        let (a, v) = (Space::new("a"), Space::new("v"));
        let split = Comparable::new([&a, &v], |m, space| {
            m == Modality::Text || (m == Modality::Audio) == (space.as_str() == "a")
        });
        let any = |_: &Space| true;
        let found = routes(&split, &[Modality::Text], &Track::ALL, None, &any).unwrap();
        let route = |space: &Space, target| Route { space: space.clone(), targets: vec![target] };
        assert_eq!(found, [route(&v, Track::Video), route(&a, Track::Audio)]);
        // A space in which the query has no vector cannot be used; the other target still can.
        let only_v = |space: &Space| *space == v;
        let found = routes(&split, &[Modality::Text], &Track::ALL, None, &only_v).unwrap();
        assert_eq!(found, [route(&v, Track::Video)]);
        assert_eq!(routes(&split, &[Modality::Text], &[Track::Video], None, &only_v).unwrap().len(), 1);
        // Where one space serves all, it is taken; so is the one that was asked for.
        let whole = routes(&shared(), &[Modality::Text], &Track::ALL, None, &any).unwrap();
        assert_eq!((whole.len(), whole[0].space.as_str()), (1, "coarse"));
        assert_eq!(
            routes(&split, &[Modality::Text], &Track::ALL, Some(&a), &any).unwrap_err().code(),
            "bad_space"
        );
        assert_eq!(routes(&split, &[Modality::Text], &[], None, &any).unwrap_err().code(), "invalid_value");
        let sound = [Modality::Audio];
        assert_eq!(routes(&split, &sound, &Track::ALL, None, &any).unwrap_err().code(), "not_comparable");
    }
}
