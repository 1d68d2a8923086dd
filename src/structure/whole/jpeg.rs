//! Counts the blocks of a JPEG's coded picture, without computing pixels. A decoder accepts any blocks, so it
//! does not notice if the middle of a picture is missing or belongs to another one.

/// Bytes behind the last block that may be anything, and padding of any length.
const SLACK_BYTES: usize = 16;
/// Bits of a code that are looked up at once.
const FAST_BITS: usize = 9;

/// Whether the coded picture has as many blocks as its header says, and nothing more. `None` for codings that
/// are not examined: progressive, lossless and arithmetic ones, and pictures without tables.
pub fn is_whole(bytes: &[u8]) -> Option<bool> {
    let mut picture = Picture::default();
    let mut at = 2;
    loop {
        let [0xff, kind] = *bytes.get(at..at + 2)? else { return Some(false) };
        if kind == 0xff {
            at += 1;
            continue;
        }
        at += 2;
        match kind {
            0xd9 => return Some(true),
            0x01 | 0xd0..=0xd8 => continue,
            _ => {}
        }
        let size = usize::from(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
        let body = bytes.get(at + 2..at + size)?;
        at += size;
        match kind {
            0xc0 | 0xc1 => picture.frame(body)?,
            0xc2..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcf => return None,
            0xc4 => picture.tables(body)?,
            0xdd => picture.interval = usize::from(u16::from_be_bytes([*body.first()?, *body.get(1)?])),
            0xda => match picture.scan(body, bytes.get(at..)?)? {
                Some(end) => at += end,
                None => return Some(false),
            },
            _ => {}
        }
    }
}

/// A component: its id, its sampling, and the blocks of its own rows and columns.
#[derive(Debug, Clone, Copy, Default)]
struct Component {
    id: u8,
    blocks: usize,
    alone: usize,
}

/// The tables before the coded picture.
#[derive(Default)]
struct Picture {
    components: Vec<Component>,
    units: usize,
    interval: usize,
    direct: [Option<Table>; 4],
    others: [Option<Table>; 4],
}

/// A table of codes.
struct Table {
    /// By the next bits: symbol, and bits of the code; 0 for longer codes.
    fast: Vec<(u8, u8)>,
    /// The end of the codes of each length, left-justified in 16 bits, and their offsets in the symbols.
    ends: [u32; 17],
    offsets: [i32; 17],
    symbols: Vec<u8>,
}

impl Picture {
    fn frame(&mut self, body: &[u8]) -> Option<()> {
        let [_, a, b, c, d, count, rest @ ..] = body else { return None };
        let size = |high: &u8, low: &u8| usize::from(u16::from_be_bytes([*high, *low]));
        let (height, width) = (size(a, b), size(c, d));
        let sampled: Vec<_> =
            rest.chunks_exact(3).map(|c| (c[0], usize::from(c[1] >> 4), usize::from(c[1] & 15))).collect();
        let sane = sampled.iter().all(|(_, h, v)| (1..=4).contains(h) && (1..=4).contains(v));
        if height == 0 || width == 0 || !sane || sampled.is_empty() || sampled.len() != usize::from(*count) {
            return None;
        }
        let most = sampled.iter().fold((1, 1), |most, (_, h, v)| (most.0.max(*h), most.1.max(*v)));
        self.units = width.div_ceil(8 * most.0) * height.div_ceil(8 * most.1);
        let component = |(id, h, v): &(u8, usize, usize)| Component {
            id: *id,
            blocks: h * v,
            alone: (width * h).div_ceil(most.0).div_ceil(8) * (height * v).div_ceil(most.1).div_ceil(8),
        };
        self.components = sampled.iter().map(component).collect();
        Some(())
    }

    fn tables(&mut self, mut body: &[u8]) -> Option<()> {
        while let Some((class, rest)) = body.split_first() {
            let counts = rest.get(..16)?;
            let total = counts.iter().map(|count| usize::from(*count)).sum::<usize>();
            let symbols = rest.get(16..16 + total)?;
            let of_class = if class >> 4 == 0 { &mut self.direct } else { &mut self.others };
            *of_class.get_mut(usize::from(class & 15))? = Some(Table::new(counts, symbols)?);
            body = rest.get(16 + total..)?;
        }
        Some(())
    }

    /// Walks the blocks of a scan. The end of its bytes, or `None` if something is wrong with it.
    fn scan(&self, body: &[u8], bytes: &[u8]) -> Option<Option<usize>> {
        let (count, rest) = body.split_first()?;
        let mut parts = Vec::new();
        for pair in rest.chunks_exact(2).take(usize::from(*count)) {
            let component = self.components.iter().find(|component| component.id == pair[0])?;
            let direct = self.direct.get(usize::from(pair[1] >> 4))?.as_ref()?;
            let others = self.others.get(usize::from(pair[1] & 15))?.as_ref()?;
            parts.push((*component, direct, others));
        }
        if parts.is_empty() || parts.len() != usize::from(*count) {
            return None;
        }
        let alone = Some(&parts).filter(|parts| parts.len() == 1).and_then(|parts| parts.first());
        let units = alone.map_or(self.units, |(component, ..)| component.alone);
        let mut bits = Bits { bytes, at: 0, held: 0, count: 0, short: false };
        for unit in 0..units {
            if self.interval > 0 && unit > 0 && unit % self.interval == 0 {
                let number = 0xd0 + (unit / self.interval - 1) as u8 % 8;
                if !bits.restart(number) {
                    return Some(None);
                }
            }
            for (component, direct, others) in &parts {
                let blocks = if alone.is_some() { 1 } else { component.blocks };
                for _ in 0..blocks {
                    if bits.block(direct, others).is_none() || bits.short {
                        return Some(None);
                    }
                }
            }
        }
        Some(bits.end())
    }
}

impl Table {
    fn new(counts: &[u8], symbols: &[u8]) -> Option<Self> {
        let mut table = Self {
            fast: vec![(0, 0); 1 << FAST_BITS],
            ends: [0; 17],
            offsets: [0; 17],
            symbols: symbols.to_vec(),
        };
        let (mut code, mut index) = (0_u32, 0_usize);
        for (length, count) in (1..=16_usize).zip(counts) {
            let count = u32::from(*count);
            if let Some(offset) = table.offsets.get_mut(length) {
                *offset = index as i32 - code as i32;
            }
            if length <= FAST_BITS {
                for n in 0..count {
                    let symbol = *symbols.get(index + n as usize)?;
                    let shift = FAST_BITS - length;
                    let from = ((code + n) as usize) << shift;
                    table.fast.get_mut(from..from + (1 << shift))?.fill((symbol, length as u8));
                }
            }
            code += count;
            index += count as usize;
            if let Some(end) = table.ends.get_mut(length) {
                *end = code << (16 - length);
            }
            code <<= 1;
        }
        Some(table)
    }
}

/// Reads bits, without the zeros that are stuffed behind 0xff.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    held: u64,
    count: u32,
    /// Whether more was read than there is.
    short: bool,
}

impl Bits<'_> {
    fn fill(&mut self) {
        while self.count <= 48 {
            let byte = match (self.bytes.get(self.at), self.bytes.get(self.at + 1)) {
                (Some(0xff), Some(0)) => {
                    self.at += 2;
                    0xff
                }
                (Some(0xff), _) | (None, _) => break,
                (Some(byte), _) => {
                    self.at += 1;
                    *byte
                }
            };
            self.held |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    fn skip(&mut self, bits: u32) {
        self.short |= bits > self.count;
        self.held <<= bits;
        self.count = self.count.saturating_sub(bits);
    }

    fn symbol(&mut self, table: &Table) -> Option<u8> {
        if self.count < 32 {
            self.fill();
        }
        let (symbol, length) = *table.fast.get((self.held >> (64 - FAST_BITS)) as usize)?;
        if length > 0 {
            self.skip(u32::from(length));
            return Some(symbol);
        }
        let next = (self.held >> 48) as u32;
        let length =
            (FAST_BITS + 1..=16).find(|length| next < table.ends.get(*length).copied().unwrap_or(0))?;
        let index = (next >> (16 - length)) as i32 + table.offsets.get(length)?;
        self.skip(length as u32);
        table.symbols.get(usize::try_from(index).ok()?).copied()
    }

    /// Reads one block; `None` if it is none.
    fn block(&mut self, direct: &Table, others: &Table) -> Option<()> {
        let size = self.symbol(direct)?;
        self.skip(u32::from(size.min(16)));
        let mut coefficient = 1;
        while coefficient < 64 {
            let symbol = self.symbol(others)?;
            let (run, size) = (symbol >> 4, symbol & 15);
            if size == 0 && run < 15 {
                break;
            }
            coefficient += u32::from(run) + 1;
            self.skip(u32::from(size));
        }
        (size <= 16 && coefficient <= 64).then_some(())
    }

    /// Goes on behind a restart mark of this number, if it is next.
    fn restart(&mut self, number: u8) -> bool {
        let Some(end) = self.end() else { return false };
        let found = self.bytes.get(end..end + 2) == Some(&[0xff, number]);
        (self.at, self.held, self.count) = (end + 2, 0, 0);
        found
    }

    /// Position of the next mark, if only padding precedes it.
    fn end(&self) -> Option<usize> {
        // Whole bytes that were read ahead.
        let ahead = (self.count / 8) as usize;
        let rest = self.bytes.get(self.at..)?;
        let length = rest
            .windows(2)
            .position(|two| matches!(two, [0xff, kind] if !matches!(kind, 0 | 0xff)))
            .unwrap_or(rest.len());
        let padding = rest.get(..length)?.iter().all(|byte| matches!(byte, 0 | 0xff));
        (ahead + length <= SLACK_BYTES || padding && ahead <= SLACK_BYTES).then_some(self.at + length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A grey picture of 16 x 16: four blocks, each of a difference of 0 and nothing else.
    fn jpeg(coded: &[u8], interval: u8) -> Vec<u8> {
        // Codes: 0 for the symbol 0, 10 for 0x01.
        let table = |class: u8| [&[0xff, 0xc4, 0, 21, class, 1, 1][..], &[0; 14], &[0, 1]].concat();
        let frame = [0xff, 0xc0, 0, 11, 8, 0, 16, 0, 16, 1, 1, 0x11, 0];
        let restart = [0xff, 0xdd, 0, 4, 0, interval];
        let scan = [0xff, 0xda, 0, 8, 1, 1, 0, 0, 63, 0];
        [&[0xff, 0xd8][..], &table(0), &table(0x10), &frame, &restart, &scan, coded, &[0xff, 0xd9]].concat()
    }

    #[test]
    fn blocks_are_counted() {
        assert_eq!(is_whole(&jpeg(&[0], 0)), Some(true), "eight bits, two for each of four blocks");
        assert_eq!(is_whole(&jpeg(&[], 0)), Some(false));
        assert_eq!(is_whole(&jpeg(&[0b1111_1111, 0], 0)), Some(false), "no code");
        assert_eq!(is_whole(&jpeg(&[0, 0xff, 0xff], 0)), Some(true), "padding");
        assert_eq!(is_whole(&jpeg(&[7; 40], 0)), Some(false));
        assert_eq!(is_whole(&jpeg(&[&[0][..], &[9; 40]].concat(), 0)), Some(false), "more than its blocks");
        // Two blocks, the rest of the byte ones, and a mark.
        assert_eq!(is_whole(&jpeg(&[0x0f, 0xff, 0xd0, 0x0f], 2)), Some(true));
        assert_eq!(is_whole(&jpeg(&[0x0f, 0xff, 0xd1, 0x0f], 2)), Some(false), "another number");
        assert_eq!(is_whole(&jpeg(&[0x0f, 0x0f], 2)), Some(false), "no mark");
    }
}
