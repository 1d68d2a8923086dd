//! Tracks: those of a stored clip, which vectors describe, and those of a file, which are read.

use std::ops::{Index, IndexMut};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Modality, TypeError};

/// The tracks of a stored clip, one a line: its name in JSON and in the store, and the modalities whose towers make
/// its vectors, its own first. The store counts on their order: a new track is the last line.
macro_rules! tracks {
    ($(#[$about:meta])* $tracks:ident: $($(#[$doc:meta])* $name:ident = $text:literal of $first:ident $(, $more:ident)*;)+) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum $tracks {
            $($(#[$doc])* $name,)+
        }

        impl $tracks {
            /// All tracks, in order.
            pub const ALL: [Self; Self::COUNT] = [$(Self::$name),+];

            /// Number of tracks.
            pub const COUNT: usize = [$($text),+].len();

            /// Position among all tracks, below [`COUNT`](Self::COUNT).
            #[must_use]
            pub const fn index(self) -> usize {
                self as usize
            }

            /// The name used in JSON and in the store.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }

            /// The modalities whose towers make vectors of this track, its own first.
            #[must_use]
            pub const fn modalities(self) -> &'static [Modality] {
                match self {
                    $(Self::$name => &[Modality::$first $(, Modality::$more)*],)+
                }
            }

            /// The track's own modality.
            #[must_use]
            pub const fn modality(self) -> Modality {
                match self {
                    $(Self::$name => Modality::$first,)+
                }
            }
        }
    };
}

tracks! {
    /// Which track of a stored clip a vector describes. A picture's vectors are on the video track.
    Track:
    /// The picture.
    Video = "video" of Video, Image;
    /// The sound.
    Audio = "audio" of Audio;
}

impl Track {
    /// The two tracks whose vectors are compared to tell whether a clip's picture and sound agree.
    pub const AGREEING: [Self; 2] = [Self::Video, Self::Audio];

    /// The track on which vectors of this modality are; `None` for texts.
    #[must_use]
    pub fn of(modality: Modality) -> Option<Self> {
        Self::ALL.into_iter().find(|track| track.modalities().contains(&modality))
    }
}

impl FromStr for Track {
    type Err = TypeError;
    fn from_str(text: &str) -> Result<Self, TypeError> {
        let named = Self::ALL.into_iter().find(|track| track.as_str() == text);
        named.ok_or_else(|| TypeError::BadName(super::quoted(text), "the tracks of a clip"))
    }
}

/// One value for each track.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PerTrack<T>([T; Track::COUNT]);

impl<T> PerTrack<T> {
    /// The value of each track.
    pub fn from_fn(mut value: impl FnMut(Track) -> T) -> Self {
        Self(Track::ALL.map(&mut value))
    }

    /// The values with their tracks, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Track, &T)> {
        Track::ALL.into_iter().zip(&self.0)
    }

    /// The values alone, in order.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }
}

impl<T> IntoIterator for PerTrack<T> {
    type Item = (Track, T);
    type IntoIter = std::iter::Zip<
        std::array::IntoIter<Track, { Track::COUNT }>,
        std::array::IntoIter<T, { Track::COUNT }>,
    >;
    fn into_iter(self) -> Self::IntoIter {
        Track::ALL.into_iter().zip(self.0)
    }
}

impl<T> Index<Track> for PerTrack<T> {
    type Output = T;
    fn index(&self, track: Track) -> &T {
        &self.0[track.index()]
    }
}

impl<T> IndexMut<Track> for PerTrack<T> {
    fn index_mut(&mut self, track: Track) -> &mut T {
        &mut self.0[track.index()]
    }
}

/// The file tracks that a client chose, by `index` as the asset lists them. `None` lets the server choose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrackChoice {
    /// Index of the file track to read pictures from.
    #[serde(rename = "video_track", skip_serializing_if = "Option::is_none")]
    pub video: Option<u16>,
    /// Index of the file track to read sound from.
    #[serde(rename = "audio_track", skip_serializing_if = "Option::is_none")]
    pub audio: Option<u16>,
}

impl TrackChoice {
    /// Whether the client chose no track.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.video.is_none() && self.audio.is_none()
    }

    /// Suffix for an asset's identity: the same bytes read with other tracks are another asset. Empty if
    /// nothing was chosen.
    #[must_use]
    pub fn key(&self) -> String {
        let part =
            |name, index: Option<u16>| index.map_or_else(String::new, |index| format!("/{name}{index}"));
        part("v", self.video) + &part("a", self.audio)
    }
}

/// Kind of a track of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TrackKind {
    /// Moving pictures.
    Video,
    /// Sound, including that of films.
    Audio,
    /// Cover art and chapter pictures: never read.
    Cover,
    /// Subtitles: never read.
    Subtitle,
    /// Anything else: never read.
    Data,
}

/// A track of a file, as described by its container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TrackInfo {
    /// Index of the track in its file.
    pub index: u16,
    /// Kind.
    pub kind: TrackKind,
    /// Name of the codec in ffmpeg, such as `h264` or `aac`; `none` if unknown.
    pub codec: String,
    /// Language code, usually three letters.
    pub language: Option<String>,
    /// Title.
    pub title: Option<String>,
    /// Number of audio channels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<u16>,
    /// Audio sample rate in Hz.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_rate_hz: Option<u32>,
    /// Width in square pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// Whether the container marks it as the default track.
    pub default: bool,
    /// Whether it is used; several one-channel audio tracks may be used together.
    pub used: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    tracks! {
        /// The result of a third line.
        Three:
        /// The picture.
        Video = "video" of Video, Image;
        /// The sound.
        Audio = "audio" of Audio;
        /// What is said.
        Speech = "speech" of Text;
    }

    #[test]
    fn a_third_track_is_one_line() {
        assert_eq!((Three::COUNT, Three::ALL.map(Three::index)), (3, [0, 1, 2]));
        assert_eq!(Three::ALL.map(Three::as_str), ["video", "audio", "speech"]);
        assert_eq!(Three::ALL.map(Three::modality), [Modality::Video, Modality::Audio, Modality::Text]);
        assert_eq!(Three::Video.modalities(), [Modality::Video, Modality::Image]);
        assert_eq!(
            serde_json::to_value(Three::ALL).unwrap(),
            serde_json::json!(Three::ALL.map(Three::as_str))
        );
    }

    #[test]
    fn names_are_those_of_json_and_come_back() {
        for track in Track::ALL {
            assert_eq!(serde_json::to_value(track).unwrap(), track.as_str());
            assert_eq!(track.as_str().parse(), Ok(track));
            assert!(track.modalities().iter().all(|modality| Track::of(*modality) == Some(track)));
        }
        assert!("text".parse::<Track>().is_err() && Track::of(Modality::Text).is_none());
    }

    #[test]
    fn each_track_has_a_value_of_its_own() {
        let mut counts = PerTrack::<usize>::from_fn(Track::index);
        counts[Track::Audio] += 10;
        assert!(
            counts
                .iter()
                .all(|(track, count)| *count == track.index() + 10 * usize::from(track == Track::Audio))
        );
        assert_eq!(counts.into_iter().map(|(track, _)| track).collect::<Vec<_>>(), Track::ALL);
    }
}
