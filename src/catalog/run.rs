//! Compact form of the clip ids of an asset: first id and count.

use super::ClipEntry;
use crate::types::ClipId;

/// Clip ids of one asset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Run {
    /// First id and number of consecutive ids.
    Of(ClipId, u32),
    /// The ids have gaps; only the asset's entry lists them.
    Scattered,
}

impl Run {
    pub const NONE: Self = Self::Of(ClipId(0), 0);

    /// The run with more clips appended.
    pub fn with(self, clips: &[ClipEntry]) -> Self {
        let (Some(new), Ok(more)) = (clips.first(), u32::try_from(clips.len())) else { return self };
        let in_a_row = clips.is_sorted_by(|a, b| a.id.0 + 1 == b.id.0);
        match self {
            Self::Of(_, 0) if in_a_row => Self::Of(new.id, more),
            Self::Of(first, count) if in_a_row && first.0 + i64::from(count) == new.id.0 => {
                count.checked_add(more).map_or(Self::Scattered, |count| Self::Of(first, count))
            }
            _ => Self::Scattered,
        }
    }
}
