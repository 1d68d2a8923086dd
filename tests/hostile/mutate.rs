//! Turns a file into a hostile one. The same random numbers give the same file.

use super::seeds::Seed;

/// SplitMix64: small, and good enough to choose bytes with.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64, number: u64) -> Self {
        let mut random = Self(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        random.next();
        random
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to `below` - 1; 0 where there is nothing below.
    pub fn below(&mut self, below: usize) -> usize {
        (self.next() % below.max(1) as u64) as usize
    }

    pub fn choose<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// No mutant is larger: the bound on CPU time is for files of this size.
pub const MAX_BYTES: usize = 100_000;
/// Where headers are.
const HEAD: usize = 512;

/// Numbers that lengths, counts, rates and samples are not.
const EXTREMES: &[u64] = &[
    0,
    1,
    2,
    7,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0x8000,
    0xffff,
    0x00ff_ffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0xffff_fffe,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_ffff_ffff,
    0x7fc0_0000,           // NaN
    0x7f80_0000,           // infinity
    0x7f7f_ffff,           // 3.4e38
    0xff7f_ffff,           // -3.4e38
    0x60ad_78ec,           // 1e20
    0x0000_0001,           // the smallest denormal
    0x7ff8_0000_0000_0000, // NaN, f64
    0x7fef_ffff_ffff_ffff, // 1.8e308
];

/// The mutant of this number; and what was done.
pub fn mutant(seeds: &[Seed], random: &mut Random) -> (usize, Vec<u8>, &'static str) {
    let which = random.below(seeds.len());
    let mut bytes = seeds[which].bytes.clone();
    let rounds = 1 + random.below(3);
    let mut done = "";
    for _ in 0..rounds {
        done = once(seeds, &mut bytes, random);
    }
    bytes.truncate(MAX_BYTES);
    if bytes.is_empty() {
        bytes.push(0);
    }
    (which, bytes, done)
}

fn once(seeds: &[Seed], bytes: &mut Vec<u8>, random: &mut Random) -> &'static str {
    if bytes.len() < 16 {
        bytes.extend_from_slice(&[0; 16]);
    }
    match random.below(12) {
        0 => flip(bytes, usize::MAX, random),
        1 => flip(bytes, HEAD, random),
        2 => {
            let len = random.below(bytes.len());
            bytes.truncate(len);
            "cut"
        }
        3 => splice(bytes, &random.choose(seeds).bytes, random),
        4 | 5 => length_field(bytes, random),
        6 => extreme(bytes, usize::MAX, random),
        7 | 8 => extreme(bytes, HEAD, random),
        9 => move_part(bytes, random),
        10 => floats(bytes, random),
        _ => {
            let at = random.below(bytes.len());
            let noise: Vec<u8> = (0..random.below(64)).map(|_| random.next() as u8).collect();
            let end = (at + noise.len()).min(bytes.len());
            bytes.splice(at..end, noise);
            "noise"
        }
    }
}

fn flip(bytes: &mut [u8], within: usize, random: &mut Random) -> &'static str {
    for _ in 0..=random.below(24) {
        let at = random.below(bytes.len().min(within));
        bytes[at] ^= 1 << random.below(8);
    }
    "flips"
}

/// The beginning of one file and the end of another.
fn splice(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) -> &'static str {
    bytes.truncate(1 + random.below(bytes.len()));
    bytes.extend_from_slice(&other[random.below(other.len())..]);
    "splice"
}

/// Containers keep a length beside a name of four letters.
fn length_field(bytes: &mut [u8], random: &mut Random) -> &'static str {
    let named = |window: &[u8]| window.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b' ');
    let places: Vec<usize> = bytes
        .windows(4)
        .enumerate()
        .filter(|(_, window)| named(window))
        .map(|(at, _)| at)
        .take(4096)
        .collect();
    if places.is_empty() {
        return extreme(bytes, HEAD, random);
    }
    let at = *random.choose(&places);
    let at = if random.below(2) == 0 { at.saturating_sub(4) } else { at + 4 };
    put(bytes, at, 4, random);
    "length"
}

fn extreme(bytes: &mut [u8], within: usize, random: &mut Random) -> &'static str {
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len().min(within));
        let width = *random.choose(&[1, 2, 3, 4, 8]);
        put(bytes, at, width, random);
    }
    "extreme"
}

fn put(bytes: &mut [u8], at: usize, width: usize, random: &mut Random) {
    let value = *random.choose(EXTREMES);
    let (little, big) = (value.to_le_bytes(), value.to_be_bytes());
    let value = if random.below(2) == 0 { &little[..width] } else { &big[8 - width..] };
    for (to, from) in bytes.iter_mut().skip(at).zip(value) {
        *to = *from;
    }
}

/// A part doubled, left out, or put elsewhere.
fn move_part(bytes: &mut Vec<u8>, random: &mut Random) -> &'static str {
    let start = random.below(bytes.len());
    let end = (start + 1 + random.below(4096)).min(bytes.len());
    let part = bytes[start..end].to_vec();
    if random.below(3) > 0 {
        bytes.drain(start..end);
    }
    if random.below(3) > 0 {
        let at = random.below(bytes.len());
        bytes.splice(at..at, part);
    }
    "move"
}

/// Samples that no sound has, one or a run of them.
fn floats(bytes: &mut [u8], random: &mut Random) -> &'static str {
    let value = *random.choose(&[
        f32::NAN,
        f32::INFINITY,
        f32::MIN,
        f32::MAX,
        1e20,
        -1e20,
        65_536.0,
        -65_536.0,
        1e-40,
        f32::MIN_POSITIVE,
    ]);
    let start = random.below(bytes.len()) & !3;
    let run = *random.choose(&[1, 2, 100, 10_000]);
    for (at, word) in bytes[start..].chunks_exact_mut(4).take(run).enumerate() {
        let value = if at % 2 == 0 { value } else { -value };
        word.copy_from_slice(&value.to_le_bytes());
    }
    "floats"
}
