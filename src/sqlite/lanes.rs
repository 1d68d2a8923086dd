//! Where a clip's vectors are: row ids, and the bits of the mask in the clip's row.
//!
//! Both are on disk, so a lane never changes its meaning. The first two tracks take turns (`space * 2 + track`), as
//! there once were only two; each track after them has a block of its own, from the end.

use crate::types::{ClipId, Track};

/// Row ids that a clip owns, and bits of its mask.
pub(super) const LANES: i64 = 32;
/// Tracks that take turns.
const IN_TURNS: i64 = 2;
/// Lanes of each track after those.
const BLOCK: i64 = 8;

/// The lanes of this many tracks.
struct Layout<const TRACKS: usize>;

impl<const TRACKS: usize> Layout<TRACKS> {
    /// Number of spaces with lanes for vectors.
    const SPACES: i64 = {
        let later = (TRACKS as i64 - IN_TURNS) * BLOCK;
        assert!(later <= LANES - IN_TURNS * BLOCK, "more tracks than lanes");
        if later > 0 { BLOCK } else { LANES / IN_TURNS }
    };

    const fn lane(track: usize, space: i64) -> i64 {
        let track = track as i64;
        if track < IN_TURNS {
            return space * IN_TURNS + track;
        }
        LANES - (track - IN_TURNS + 1) * BLOCK + space
    }

    /// Track and number of the space of a lane; `None` if it belongs to no track.
    const fn of_lane(lane: i64) -> Option<(usize, i64)> {
        if lane < Self::SPACES * IN_TURNS {
            return Some(((lane % IN_TURNS) as usize, lane / IN_TURNS));
        }
        let track = (LANES - 1 - lane) / BLOCK + IN_TURNS;
        if track < TRACKS as i64 { Some((track as usize, lane % BLOCK)) } else { None }
    }

    /// Bits of all lanes of a track.
    const fn mask(track: usize) -> i64 {
        let (mut mask, mut space) = (0, 0);
        while space < Self::SPACES {
            mask |= 1 << Self::lane(track, space);
            space += 1;
        }
        mask
    }
}

type Stored = Layout<{ Track::COUNT }>;

/// Maximum number of spaces of a library.
pub(super) const MAX_SPACES: i64 = Stored::SPACES;

/// The lane of a vector.
pub(super) const fn lane(track: Track, space: i64) -> i64 {
    Stored::lane(track.index(), space)
}

/// Track and number of the space of a lane; `None` if it belongs to no track.
pub(super) fn of_lane(lane: i64) -> Option<(Track, i64)> {
    let (track, space) = Stored::of_lane(lane)?;
    Some((*Track::ALL.get(track)?, space))
}

/// Row id of a clip's lane.
pub(super) const fn row_id(clip: ClipId, lane: i64) -> i64 {
    clip.0 * LANES + lane
}

/// Bit mask of the lanes in which a clip has vectors, for the clip's row.
pub(super) fn lane_mask(lanes: impl IntoIterator<Item = i64>) -> i64 {
    lanes.into_iter().fold(0, |mask, lane| mask | (1 << lane))
}

/// Bits of all lanes of a track.
pub(super) const fn track_mask(track: Track) -> i64 {
    Stored::mask(track.index())
}

/// The tracks for which a clip has vectors, from the mask in its row.
pub(super) fn tracks_of(lanes: i64) -> Vec<Track> {
    Track::ALL.into_iter().filter(|track| lanes & track_mask(*track) != 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each_lane_is_of_one_track_and_space<const TRACKS: usize>() {
        let mut taken = 0_i64;
        for track in 0..TRACKS {
            let mut mask = 0;
            for space in 0..Layout::<TRACKS>::SPACES {
                let lane = Layout::<TRACKS>::lane(track, space);
                assert!(
                    (0..LANES).contains(&lane) && taken & (1 << lane) == 0,
                    "{TRACKS}: lane {lane} twice"
                );
                assert_eq!(Layout::<TRACKS>::of_lane(lane), Some((track, space)));
                taken |= 1 << lane;
                mask |= 1 << lane;
            }
            assert_eq!(Layout::<TRACKS>::mask(track), mask);
        }
        let of_none = (0..LANES).filter(|lane| Layout::<TRACKS>::of_lane(*lane).is_none());
        assert!(of_none.into_iter().all(|lane| taken & (1 << lane) == 0));
    }

    #[test]
    fn a_third_and_a_fourth_track_find_lanes_and_move_none() {
        each_lane_is_of_one_track_and_space::<2>();
        each_lane_is_of_one_track_and_space::<3>();
        each_lane_is_of_one_track_and_space::<4>();
        assert_eq!((Layout::<2>::mask(0), Layout::<2>::mask(1)), (0x5555_5555, 0xAAAA_AAAA));
        for space in 0..BLOCK {
            for track in 0..2 {
                assert_eq!(Layout::<3>::lane(track, space), Layout::<2>::lane(track, space));
            }
            for track in 0..3 {
                assert_eq!(Layout::<4>::lane(track, space), Layout::<3>::lane(track, space));
            }
        }
    }
}
