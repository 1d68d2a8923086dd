//! The index in the first frame of an MP3 file (Xing, Info, VBRI), which says how many frames follow.

/// Where Xing's mark is in its frame: behind the head, perhaps a checksum, and as many zeros as the version
/// and the channels require.
const XING_AT: [usize; 6] = [13, 15, 21, 23, 36, 38];
/// Where VBRI's is, always.
const VBRI_AT: usize = 36;
/// Bytes of a frame that [`read`] needs.
pub const HEAD_BYTES: usize = 64;
/// An index may count itself.
const TOLERANCE: u64 = 1;

/// Fields of an index; 0 for absent ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Index {
    /// Number of frames behind it.
    frames: u64,
    /// Bytes of all frames.
    bytes: u64,
}

/// The index in a frame, if there is one.
pub fn read(head: &[u8]) -> Option<Index> {
    let number = |at: usize| {
        let bytes = head.get(at..at + 4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
        bytes.map_or(0, |bytes| u64::from(u32::from_be_bytes(bytes)))
    };
    let marked = |at: usize, mark: &[u8]| head.get(at..at + 4) == Some(mark);
    if marked(VBRI_AT, b"VBRI") {
        return Some(Index { bytes: number(VBRI_AT + 10), frames: number(VBRI_AT + 14) });
    }
    let at = XING_AT.into_iter().find(|at| marked(*at, b"Xing") || marked(*at, b"Info"))?;
    let flags = number(at + 4);
    let has_frames = flags & 1 != 0;
    let frames = if has_frames { number(at + 8) } else { 0 };
    let bytes = if flags & 2 == 0 { 0 } else { number(at + if has_frames { 12 } else { 8 }) };
    Some(Index { frames, bytes })
}

/// Compares the frames that follow an index with what it says.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Section {
    index: Index,
    frames: u64,
    bytes: u64,
    /// Number of places where a frame was interrupted.
    torn: u64,
}

impl Section {
    /// Begins at an index in a frame of this many bytes.
    pub fn new(index: Index, bytes: u64) -> Self {
        Self { index, bytes, ..Self::default() }
    }

    pub fn frame(&mut self, bytes: u64) {
        self.frames += 1;
        self.bytes += bytes;
    }

    pub fn torn(&mut self) {
        self.torn += 1;
    }

    /// Number of frames that are missing. An index whose number of bytes is right is wrong about the frames.
    pub fn lacking(&self) -> u64 {
        let Index { frames, bytes } = self.index;
        let missing = frames.saturating_sub(self.frames);
        if missing <= TOLERANCE || (bytes > 0 && bytes <= self.bytes) { 0 } else { missing }
    }

    /// Whether other frames were put in between. Those of a joined file follow whole ones.
    pub fn is_spliced(&self) -> bool {
        self.index.frames > 0 && self.frames > self.index.frames + TOLERANCE && self.torn > 0
    }
}
