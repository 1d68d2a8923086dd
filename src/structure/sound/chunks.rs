//! The chunks of RIFF, W64, CAF and AIFF files.

use crate::structure::window::Window;

/// How a format's chunks are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// RIFF, RF64 and BW64.
    Riff,
    /// W64: each chunk has a GUID that begins with four letters, and a size that includes these 24 bytes.
    Wave64,
    /// Apple's Core Audio Format (CAF).
    Core,
    /// AIFF and AIFC.
    Aiff,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    pub id: [u8; 4],
    /// Position behind its head.
    pub body: u64,
    /// Bytes without the head.
    pub size: u64,
    /// Position of the next chunk.
    pub next: u64,
}

/// How GUIDs of chunks of a W64 file end, except those of lists.
const GUID_END: [u8; 6] = [0x00, 0xc0, 0x4f, 0x8e, 0xdb, 0x8a];
/// How that of a list begins.
const LIST: &[u8] = b"list\x2f\x91\xcf\x11";

impl Form {
    /// Position of the first chunk.
    pub const fn first(self) -> u64 {
        match self {
            Self::Riff | Self::Aiff => 12,
            Self::Wave64 => 40,
            Self::Core => 8,
        }
    }

    /// The chunk at a position; `None` at the end of the file.
    pub fn chunk(self, window: &mut Window<'_>, at: u64) -> Option<Chunk> {
        let id = <[u8; 4]>::try_from(window.at(at, 4)).ok()?;
        let (head, size) = match self {
            Self::Riff => (8, window.number(at + 4, 4, true)?),
            Self::Aiff => (8, window.number(at + 4, 4, false)?),
            Self::Core => (12, window.number(at + 4, 8, false)?),
            Self::Wave64 => (24, window.number(at + 16, 8, true)?.saturating_sub(24)),
        };
        let body = at.checked_add(head)?;
        let padding = match self {
            Self::Riff | Self::Aiff => size % 2,
            Self::Core => 0,
            Self::Wave64 => (8 - size % 8) % 8,
        };
        Some(Chunk { id, body, size, next: body.saturating_add(size).saturating_add(padding) })
    }

    /// Whether there is the name of a chunk at a position.
    pub fn is_chunk(self, window: &mut Window<'_>, at: u64) -> bool {
        if self == Self::Wave64 {
            let head = window.at(at, 16);
            return head.get(10..16) == Some(&GUID_END[..]) || head.starts_with(LIST);
        }
        let name = window.at(at, 4);
        name.len() == 4 && name.iter().all(|c| c.is_ascii_graphic() || *c == b' ')
    }
}
