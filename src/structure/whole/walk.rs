//! Walks through files from part to part, to their ends.

use std::fs::File;

use super::{Lack, read};

/// Bytes per read of a walk.
const WALK_BYTES: u64 = 1 << 16;

/// Walks through a file from part to part.
pub(super) struct Walk<'a> {
    file: &'a File,
    at: u64,
    buffer: Vec<u8>,
    buffer_at: u64,
}

/// Header fields of an ASF file.
struct AsfHeader {
    /// Where its data begin.
    length: u64,
    /// Length of each packet; 0 if not declared.
    packet: u64,
    /// Whether it is a broadcast, whose length was unknown when it was written.
    live: bool,
}

impl<'a> Walk<'a> {
    pub(super) const fn new(file: &'a File) -> Self {
        Self { file, at: 0, buffer: Vec::new(), buffer_at: 0 }
    }

    /// The next `N` bytes, if there are that many.
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let within = |walk: &Self| {
            let from = usize::try_from(walk.at.checked_sub(walk.buffer_at)?).ok()?;
            <[u8; N]>::try_from(walk.buffer.get(from..from.checked_add(N)?)?).ok()
        };
        let bytes = within(self).or_else(|| {
            (self.buffer, self.buffer_at) = (read(self.file, self.at, WALK_BYTES), self.at);
            within(self)
        })?;
        self.at += N as u64;
        Some(bytes)
    }

    /// Walks to the end mark of a GIF, if only blocks precede it.
    pub(super) fn gif(&mut self) -> Option<()> {
        let colours = |flags: u8| if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) };
        let [.., flags, _, _] = self.take::<13>()?;
        self.at += colours(flags);
        loop {
            match self.take::<1>()? {
                [b';'] => return Some(()),
                [b'!'] => self.at += 1,
                [b','] => {
                    let [.., flags] = self.take::<9>()?;
                    self.at += colours(flags) + 1;
                }
                _ => return None,
            }
            loop {
                let [length] = self.take()?;
                if length == 0 {
                    break;
                }
                self.at += u64::from(length);
            }
        }
    }

    /// Position of the end of a WebP, if it consists of named chunks.
    pub(super) fn webp(&mut self, bytes: u64) -> Option<u64> {
        let [_, _, _, _, a, b, c, d, ..] = self.take::<12>()?;
        let end = 8 + u64::from(u32::from_le_bytes([a, b, c, d]));
        while self.at < end.min(bytes) {
            let [name @ .., a, b, c, d] = self.take::<8>()?;
            let name: [u8; 4] = name;
            if !name.iter().all(|c| c.is_ascii_graphic() || *c == b' ') {
                return None;
            }
            let size = u64::from(u32::from_le_bytes([a, b, c, d]));
            self.at += size + size % 2;
        }
        // The padding byte of the last chunk may be missing.
        (end <= bytes && self.at <= end + 1).then_some(end)
    }

    /// Whether a Flash video consists of tags, each of which is followed by its length.
    pub(super) fn flv(&mut self, bytes: u64) -> Option<Lack> {
        const NO_TAG: Option<Lack> = Some(Lack::Cut("expected a tag, got other data"));
        self.at = 13;
        while self.at < bytes {
            let Some([kind, a, b, c, ..]) = self.take::<11>() else { return NO_TAG };
            if [kind, a, b] == *b"FLV" {
                return Some(Lack::Joined);
            }
            let size = u64::from(u32::from_be_bytes([0, a, b, c]));
            self.at += size;
            let Some(length) = self.take::<4>().map(u32::from_be_bytes) else { return NO_TAG };
            // Some writers leave the length 0.
            if length != 0 && u64::from(length) != size + 11 {
                return NO_TAG;
            }
        }
        None
    }

    /// Whether an AVI consists of named chunks, including those of its pictures and sound. A recording that
    /// was never finished does not know its lengths, so it passes.
    pub(super) fn avi(&mut self, bytes: u64) -> bool {
        let mut at = 0;
        while at < bytes {
            self.at = at;
            let Some([name @ .., a, b, c, d]) = self.take::<8>() else { return true };
            let end = self.at + u64::from(u32::from_le_bytes([a, b, c, d]));
            let name: [u8; 4] = name;
            // Whatever follows the last part does not belong to the file.
            if name != *b"RIFF" || end == self.at || end > bytes {
                return true;
            }
            self.at += 4;
            if !self.chunks(end) {
                return false;
            }
            at = end + end % 2;
        }
        true
    }

    /// Whether there are only chunks up to `end`, including those in the lists of pictures and sound.
    fn chunks(&mut self, end: u64) -> bool {
        while self.at + 8 <= end {
            let Some([name @ .., a, b, c, d]) = self.take::<8>() else { return false };
            let (name, size): ([u8; 4], u64) = (name, u64::from(u32::from_le_bytes([a, b, c, d])));
            if !name.iter().all(|c| c.is_ascii_graphic() || *c == b' ') {
                return false;
            }
            let body = self.at;
            let film = name == *b"LIST" && matches!(self.take::<4>().as_ref(), Some(b"movi" | b"rec "));
            if !film || size < 4 {
                self.at = body + size;
                // Some writers omit the padding byte.
                let named = |walk: &mut Self, at: u64| {
                    walk.at = at;
                    let name = walk.take::<4>();
                    walk.at = at;
                    name.is_none_or(|name| name.iter().all(|c| c.is_ascii_graphic() || *c == b' '))
                };
                let (after, even) = (self.at, self.at + size % 2);
                if after != even && !named(self, even) {
                    self.at = after;
                } else {
                    self.at = even;
                }
            }
        }
        true
    }

    /// Reads the header of an ASF file.
    fn asf_header(&mut self, bytes: u64) -> Option<AsfHeader> {
        const PROPERTIES: [u8; 16] = *b"\xa1\xdc\xab\x8c\x47\xa9\xcf\x11\x8e\xe4\x00\xc0\x0c\x20\x53\x65";
        self.at = 16;
        let length = u64::from_le_bytes(self.take()?);
        self.at = 30;
        let (mut packet, mut live) = (0, false);
        while self.at < length.min(bytes) {
            let at = self.at;
            let id = self.take::<16>()?;
            let size = u64::from_le_bytes(self.take()?);
            if id == PROPERTIES {
                self.at = at + 88;
                live = u32::from_le_bytes(self.take()?) & 1 != 0;
                packet = u64::from(u32::from_le_bytes(self.take()?));
            }
            self.at = at.checked_add(size.max(24))?;
        }
        Some(AsfHeader { length, packet, live })
    }

    /// Whether an ASF file has the packets that its header promises, and whether they begin like the first
    /// one, since all have the same length.
    pub(super) fn asf(&mut self, bytes: u64) -> Option<Lack> {
        const SHORTER: Option<Lack> = Some(Lack::Cut("it contains fewer packets than its header declares"));
        /// How headers and the two kinds of index begin.
        const OBJECTS: [[u8; 3]; 3] = [[0x30, 0x26, 0xb2], [0x90, 0x08, 0x00], [0xd3, 0x29, 0xe2]];
        let AsfHeader { length: header, packet, live } = self.asf_header(bytes)?;
        self.at = header.checked_add(16)?;
        let data = u64::from_le_bytes(self.take()?);
        self.at = header.checked_add(40)?;
        let count = u64::from_le_bytes(self.take()?);
        let first = header.checked_add(50)?;
        // A broadcast does not declare its length.
        let declared = if live {
            None
        } else if data > 50 {
            header.checked_add(data)
        } else {
            count.checked_mul(packet).filter(|size| *size > 0).and_then(|size| first.checked_add(size))
        };
        if declared.is_some_and(|declared| declared > bytes) {
            return SHORTER;
        }
        let end = declared.unwrap_or(bytes);
        self.at = first;
        let beginning = self.take::<3>()?;
        if packet == 0 || beginning[0] & 0x80 == 0 {
            return None;
        }
        while self.at - 3 + packet <= end {
            self.at = self.at - 3 + packet;
            if self.at + 3 > end {
                break;
            }
            let next = self.take::<3>()?;
            if next != beginning {
                // Without a declared end, an index or another file ends the packets.
                let ended = declared.is_none() && OBJECTS.contains(&next);
                let at = self.at - 3;
                return if ended {
                    self.objects(at)
                } else {
                    Some(Lack::Cut("expected a packet, got other data"))
                };
            }
        }
        self.objects(end)
    }

    /// Whether another file follows the last objects of an ASF file.
    fn objects(&mut self, end: u64) -> Option<Lack> {
        const HEADER: [u8; 16] = *b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c";
        let mut at = end;
        for _ in 0..super::MOST_CHUNKS {
            self.at = at;
            if self.take::<16>()? == HEADER {
                return Some(Lack::Joined);
            }
            let size = u64::from_le_bytes(self.take()?);
            at = at.checked_add(size).filter(|_| size >= 24)?;
        }
        None
    }

    /// Position of the end of an MXF file, if it consists of keys with their values.
    pub(super) fn mxf(&mut self, bytes: u64) -> Option<u64> {
        const LAST: [u8; 10] = [0x02, 0x05, 0x01, 0x01, 0x0d, 0x01, 0x02, 0x01, 0x01, 0x11];
        while self.at < bytes {
            let [0x06, 0x0e, 0x2b, 0x34, key @ .., first] = self.take::<17>()? else { return None };
            let key: [u8; 12] = key;
            let size = if first < 0x80 {
                u64::from(first)
            } else {
                let mut size = 0_u64;
                for _ in 0..(first & 0x7f).min(8) {
                    let [byte] = self.take()?;
                    size = size << 8 | u64::from(byte);
                }
                size
            };
            self.at = self.at.checked_add(size)?;
            if key.starts_with(&LAST) {
                break;
            }
        }
        (self.at <= bytes).then_some(self.at)
    }

    /// Whether a DV film consists of complete frames.
    pub(super) fn dv(&mut self, bytes: u64) -> bool {
        self.at = 3;
        let Some([lines]) = self.take() else { return false };
        let frame = if lines & 0x80 == 0 { 120_000 } else { 144_000 };
        let mut at = 0;
        while at < bytes {
            self.at = at;
            // The second byte identifies the channel within the frame.
            if !matches!(self.take(), Some([0x1f, 0x07 | 0x0f])) {
                return false;
            }
            at += frame;
        }
        at == bytes
    }
}
