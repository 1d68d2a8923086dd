//! The clips of an asset in two numbers.

use super::ClipEntry;
use crate::types::ClipId;

/// Clips of one asset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Run {
    /// This many, with consecutive ids.
    Of(ClipId, u32),
    /// Their ids have gaps: they are in the asset's entry only.
    Scattered,
}

impl Run {
    pub const NONE: Self = Self::Of(ClipId(0), 0);

    /// With further clips behind its own.
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
