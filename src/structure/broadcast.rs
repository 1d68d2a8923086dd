//! Samples broadcast streams. Their clocks show whether one is several recordings joined end to end: the time
//! stamps start again, so that a position found by its time stamp may be in another recording. Their packets
//! say whether they are scrambled.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::RangeInclusive;
use std::os::unix::fs::FileExt;

/// Packet sizes of a transport stream in bytes, and where the packet begins in them: plain, after a timecode, and
/// before an error-correcting code.
const TS_PACKETS: [(usize, usize); 3] = [(188, 0), (192, 4), (204, 0)];
const TS_BYTES: usize = 188;
const SYNC: u8 = 0x47;
/// Begins a pack of a program stream.
const PACK: [u8; 4] = [0, 0, 1, 0xba];
/// Places at which the clock is read.
const PLACES: u64 = 512;
/// Bytes read at most at one place: a tenth of a second of 20 Mbit/s.
const PLACE_BYTES: u64 = 256 << 10;
/// Bytes per read at a place.
const READ_BYTES: u64 = 32 << 10;
/// Number of places in which a stream must occur to count, and maximum number of reported streams.
const MIN_PLACES: u32 = 3;
const MOST_PARTS: usize = 64;
/// Packets, and their scrambled share, from which on a part counts as scrambled.
const MIN_PACKETS: u32 = 10;
const MIN_SHARE: f64 = 0.05;
/// The clocks count 1/90,000 s, in 33 bits.
const HZ: u64 = 90_000;
const WRAP: u64 = 1 << 33;
/// A recording that was cut and put together again, each part at its time, may go back by the time that its packets
/// are sent ahead.
const STEP_BACK: u64 = HZ;
/// A jump by more than an hour joins two recordings, as in the decode of the whole.
const GAP: u64 = 3600 * HZ;

/// Which clock a stream has.
#[derive(Debug, Clone, Copy)]
enum Clock {
    /// Of a transport stream: packet size, and where a packet begins.
    Transport(usize, usize),
    Program,
}

/// Where a file of this size is sampled.
fn places_in(bytes: u64) -> impl Iterator<Item = u64> {
    (0..PLACES).map(move |place| (u128::from(bytes) * u128::from(place) / u128::from(PLACES)) as u64)
}

/// Whether a broadcast stream is several recordings: its clock jumps, or another clock replaces it.
/// `None` for a file without such a clock.
pub fn joined(file: &File) -> Option<bool> {
    let bytes = file.metadata().map(|data| data.len()).ok()?;
    let head = read(file, 0, READ_BYTES);
    let clock = clock_of(&head)?;
    // The last time of each program's clock, and the places where it was read.
    let mut clocks: BTreeMap<u16, (u64, RangeInclusive<u64>)> = BTreeMap::new();
    for (place, from) in (0..).zip(places_in(bytes)) {
        let Some((pid, now)) = time_at(file, from, clock) else { continue };
        let (last, places) = clocks.entry(pid).or_insert((now, place..=place));
        if !follows(*last, now) {
            return Some(true);
        }
        (*last, *places) = (now, *places.start()..=place);
    }
    let mut places: Vec<_> = clocks.into_values().map(|(_, places)| places).collect();
    places.sort_by_key(|places| *places.start());
    // Programs that are sent together take turns.
    let takes_over = |pair: &[RangeInclusive<u64>]| matches!(pair, [a, b] if a.end() < b.start());
    (!places.is_empty()).then(|| places.windows(2).any(takes_over))
}

/// The elementary streams of pictures and sound that occur in several places.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parts {
    /// Their numbers: PIDs of a transport stream, and ffmpeg's numbers for those of a program stream.
    pub streams: Vec<u16>,
    /// Whether one PID carries pictures in some places and sound in others: a later table redefines the PIDs,
    /// which ffmpeg ignores.
    pub exchanged: bool,
}

/// Samples the elementary streams of a broadcast stream.
pub fn parts(file: &File) -> Parts {
    let Some(bytes) = file.metadata().map(|data| data.len()).ok() else { return Parts::default() };
    let Some(clock) = clock_of(&read(file, 0, READ_BYTES)) else { return Parts::default() };
    // Places with pictures, and with sound.
    let mut places: BTreeMap<u16, [u32; 2]> = BTreeMap::new();
    // No packet may count at two places.
    let most = (bytes / PLACES).min(READ_BYTES / 2);
    for from in places_in(bytes) {
        let found: BTreeSet<(u16, bool)> = match clock {
            Clock::Program => {
                let parts = program_parts(&read(file, from, READ_BYTES), most as usize).collect::<Vec<_>>();
                parts.into_iter().map(|part| (part, false)).collect()
            }
            Clock::Transport(size, first) => {
                let from = from.next_multiple_of(size as u64);
                let bytes = read(file, from, most.next_multiple_of(size as u64));
                bytes.chunks_exact(size).filter_map(|packet| transport_part(packet.get(first..)?)).collect()
            }
        };
        for (part, sounds) in found {
            let [pictures, sound] = places.entry(part).or_default();
            *(if sounds { sound } else { pictures }) += 1;
        }
    }
    let exchanged = places.values().any(|counts| counts.iter().all(|count| *count >= MIN_PLACES));
    let often = places.into_iter().filter(|(_, counts)| counts.iter().any(|count| *count >= MIN_PLACES));
    Parts { streams: often.map(|(part, _)| part).take(MOST_PARTS).collect(), exchanged }
}

/// The stream of a packet in which a picture or a block of sound begins, and whether it is sound.
fn transport_part(packet: &[u8]) -> Option<(u16, bool)> {
    let &[SYNC, high, low, control, length, ..] = packet else { return None };
    let field = if control & 0x20 != 0 { 1 + usize::from(length) } else { 0 };
    let begins = high & 0x40 != 0 && control & 0x10 != 0;
    let kind = packet.get(4 + field..8 + field).filter(|_| begins)?;
    let part = u16::from(high & 0x1f) << 8 | u16::from(low);
    match kind {
        [0, 0, 1, 0xc0..=0xdf] => Some((part, true)),
        [0, 0, 1, 0xe0..=0xef] => Some((part, false)),
        _ => None,
    }
}

/// The streams of the packets that begin in the first `most` bytes, and that another packet or pack follows.
fn program_parts(bytes: &[u8], most: usize) -> impl Iterator<Item = u16> {
    let packet = |at: usize| -> Option<u16> {
        let &[0, 0, 1, kind, high, low, ..] = bytes.get(at..)? else { return None };
        let next = at + 6 + usize::from(u16::from_be_bytes([high, low]));
        matches!(bytes.get(next..next + 4)?, [0, 0, 1, 0xba..=0xef]).then_some(())?;
        match kind {
            0xc0..=0xef => Some(0x100 | u16::from(kind)),
            // AC-3, DTS and PCM share one number; the next one follows the header.
            0xbd => {
                let header = usize::from(*bytes.get(at + 8)?);
                bytes.get(at + 9 + header).copied().filter(|sub| (0x80..=0xaf).contains(sub)).map(u16::from)
            }
            _ => None,
        }
    };
    (0..bytes.len().min(most)).filter_map(packet)
}

/// How much of a transport stream is scrambled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scrambled {
    /// Most of each part.
    Whole,
    /// One part of several, or some of the time.
    Partly,
}

/// Whether packets of a transport stream are marked as scrambled.
pub fn scrambled(file: &File) -> Option<Scrambled> {
    let bytes = file.metadata().map(|data| data.len()).ok()?;
    let Clock::Transport(size, first) = clock_of(&read(file, 0, READ_BYTES))? else { return None };
    // Packets and scrambled packets of each part.
    let mut parts: BTreeMap<u16, (u32, u32)> = BTreeMap::new();
    for from in places_in(bytes) {
        let from = from - from % size as u64;
        for packet in read(file, from, READ_BYTES / 4).chunks_exact(size) {
            let Some(&[SYNC, high, low, flags]) = packet.get(first..first + 4) else { continue };
            let of = u16::from(high & 0x1f) << 8 | u16::from(low);
            // Tables and padding are not scrambled.
            if flags & 0x10 != 0 && of >= 0x20 && of != 0x1fff {
                let (all, scrambled) = parts.entry(of).or_default();
                *all += 1;
                *scrambled += u32::from(flags & 0x80 != 0);
            }
        }
    }
    // A few packets of a part, or marks in damaged ones, mean nothing.
    parts.retain(|_, (all, _)| *all >= MIN_PACKETS);
    let share = |(all, scrambled): &(u32, u32)| f64::from(*scrambled) / f64::from(*all);
    if !parts.is_empty() && parts.values().all(|part| share(part) > 0.5) {
        return Some(Scrambled::Whole);
    }
    parts.values().any(|part| share(part) > MIN_SHARE).then_some(Scrambled::Partly)
}

/// Whether a clock may have run from one time to the other in one recording.
const fn follows(before: u64, now: u64) -> bool {
    // The clock starts again after 26.5 hours, too.
    let wrapped = before > now && before - now > WRAP / 2;
    if before > now && !wrapped {
        return before - now <= STEP_BACK;
    }
    let forward = if wrapped { now + WRAP - before } else { now - before };
    forward <= GAP
}

fn clock_of(head: &[u8]) -> Option<Clock> {
    if head.starts_with(&PACK) {
        return Some(Clock::Program);
    }
    let fits = |(size, first): &(usize, usize)| (0..5).all(|n| head.get(first + n * size) == Some(&SYNC));
    TS_PACKETS.into_iter().find(fits).map(|(size, first)| Clock::Transport(size, first))
}

/// The first time at or after a place, and whose clock it is.
fn time_at(file: &File, from: u64, clock: Clock) -> Option<(u16, u64)> {
    let mut at = from;
    while at < from + PLACE_BYTES {
        let bytes = read(file, at, READ_BYTES);
        let (time, used) = match clock {
            Clock::Program => program_time(&bytes),
            Clock::Transport(size, first) => transport_time(&bytes, at, (size, first)),
        };
        if time.is_some() || used == 0 {
            return time;
        }
        at += used as u64;
    }
    None
}

/// The time of the first pack, and how many bytes were examined.
fn program_time(bytes: &[u8]) -> (Option<(u16, u64)>, usize) {
    let time = bytes.windows(10).find(|window| window.starts_with(&PACK)).and_then(|pack| match *pack {
        // MPEG-2: two bits, and three parts with a mark after each.
        [_, _, _, _, a, b, c, d, e, _] if a & 0xc4 == 0x44 => Some(
            u64::from(a >> 3 & 7) << 30
                | u64::from(a & 3) << 28
                | u64::from(b) << 20
                | u64::from(c >> 3) << 15
                | u64::from(c & 3) << 13
                | u64::from(d) << 5
                | u64::from(e >> 3),
        ),
        // MPEG-1: four bits, and the same.
        [_, _, _, _, a, b, c, d, e, _] if a & 0xf1 == 0x21 => Some(
            u64::from(a >> 1 & 7) << 30
                | u64::from(b) << 22
                | u64::from(c >> 1) << 15
                | u64::from(d) << 7
                | u64::from(e >> 1),
        ),
        _ => None,
    });
    (time.map(|time| (0, time)), bytes.len().saturating_sub(9))
}

/// The first clock reference of the program, and how many bytes were examined. `at` is where the bytes begin.
fn transport_time(bytes: &[u8], at: u64, (size, first): (usize, usize)) -> (Option<(u16, u64)>, usize) {
    let mut begin = (size - (at % size as u64) as usize) % size;
    while let Some(packet) = bytes.get(begin + first..begin + first + TS_BYTES) {
        begin += size;
        // The adaptation field of at least seven bytes, with a clock reference.
        let &[SYNC, high, low, control, length, flags, a, b, c, d, e, ..] = packet else { continue };
        let of = u16::from(high & 0x1f) << 8 | u16::from(low);
        let referenced = control & 0x20 != 0 && length >= 7 && flags & 0x10 != 0;
        if referenced {
            let base = u64::from(u32::from_be_bytes([a, b, c, d])) << 1 | u64::from(e >> 7);
            return (Some((of, base)), begin);
        }
    }
    (None, begin.min(bytes.len()))
}

fn read(file: &File, at: u64, most: u64) -> Vec<u8> {
    let mut bytes = vec![0; most as usize];
    let count = file.read_at(&mut bytes, at).unwrap_or(0);
    bytes.truncate(count);
    bytes
}

#[cfg(test)]
mod tests;
