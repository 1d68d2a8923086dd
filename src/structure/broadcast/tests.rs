use std::io::Write;

use super::*;

fn of(bytes: &[u8]) -> Option<bool> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    joined(&file)
}

/// Ten packets a second. Every other one has a clock: one program's, or that of another, which is ahead.
fn transport(secs: std::ops::Range<u64>, size: usize, first: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    for tick in secs.start * 10..secs.end * 10 {
        let (pid, ahead) = if tick % 3 == 0 { (first, 0) } else { (first + 16, 9000 * HZ) };
        let time = (tick * HZ / 10 + ahead) % WRAP;
        let mut packet = vec![0xff; size];
        let at = if size == 192 { 4 } else { 0 };
        packet[at..at + 4].copy_from_slice(&[SYNC, 0, pid, 0x30]);
        packet[at + 4..at + 6].copy_from_slice(&[7, if tick % 2 == 0 { 0x10 } else { 0 }]);
        packet[at + 6..at + 10].copy_from_slice(&((time >> 1) as u32).to_be_bytes());
        packet[at + 10] = (time as u8 & 1) << 7;
        bytes.extend(packet);
    }
    bytes
}

fn program(secs: std::ops::Range<u64>) -> Vec<u8> {
    let pack = |sec: u64| {
        let t = sec * HZ % WRAP;
        let scr = [
            0x44 | (t >> 27) as u8 & 0x38 | (t >> 28) as u8 & 3,
            (t >> 20) as u8,
            (t >> 12) as u8 & 0xf8 | 4 | (t >> 13) as u8 & 3,
            (t >> 5) as u8,
            (t << 3) as u8 | 4,
            1,
        ];
        [&PACK[..], &scr, &[7; 2038]].concat()
    };
    secs.flat_map(pack).collect()
}

#[test]
fn one_recording_is_not_joined_and_two_are() {
    let wrap = WRAP / HZ;
    let (one, two) = (Some(false), Some(true));
    for size in [188, 192, 204] {
        let film = |secs| transport(secs, size, 0x31);
        assert_eq!(of(&film(5..900)), one, "{size}");
        assert_eq!(of(&film(wrap - 300..wrap + 300)), one, "{size}: the clock starts again after 26.5 hours");
        assert_eq!(of(&[film(5..400), film(5..400)].concat()), two, "{size}");
        assert_eq!(of(&[film(5..400), film(360..700)].concat()), two, "{size}");
        assert_eq!(of(&[film(5..400), film(9000..9400)].concat()), two, "{size}: a leap");
        assert_eq!(of(&[film(5..400), film(800..1200)].concat()), one, "{size}: a gap");
        let other = transport(5..400, size, 0x32);
        assert_eq!(of(&[film(500..900), other].concat()), two, "{size}: another clock");
    }
    let film = program;
    assert_eq!((of(&film(0..900)), of(&film(wrap - 300..wrap + 300))), (one, one));
    assert_eq!(of(&[film(0..400), film(0..400)].concat()), two);
}

#[test]
fn scrambled_packets_are_seen_wherever_they_are() {
    let packets = |pid: u8, flags: u8| [&[SYNC, 1, pid, flags][..], &[0; 184]].concat();
    let of = |parts: &[(u8, u8)]| {
        let mut file = tempfile::tempfile().unwrap();
        let packets = parts.iter().flat_map(|(pid, flags)| packets(*pid, *flags));
        file.write_all(&packets.collect::<Vec<u8>>()).unwrap();
        scrambled(&file)
    };
    assert_eq!(of(&[(0, 0x10)].repeat(100)), None);
    assert_eq!(of(&[(0, 0x90)].repeat(100)), Some(Scrambled::Whole));
    assert_eq!(of(&[(0, 0x10), (0, 0x10), (1, 0x90)].repeat(100)), Some(Scrambled::Partly));
    assert_eq!(of(&[[(0, 0x10)].repeat(3000), [(0, 0x90)].repeat(1500)].concat()), Some(Scrambled::Partly));
    assert_eq!(of(&[[(0, 0x10)].repeat(3000), [(0, 0x90)].repeat(2)].concat()), None, "a damaged packet");
}

#[test]
fn streams_that_begin_late_are_seen() {
    let file = tempfile::tempfile().unwrap();
    let of = |bytes: &[u8]| {
        file.set_len(0).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        let found = parts(&file);
        assert!(!found.exchanged);
        found.streams
    };
    let pes = |kind: u8, inside: &[u8]| {
        [&[0, 0, 1, kind][..], &(inside.len() as u16).to_be_bytes(), inside].concat()
    };
    let picture = pes(0xe0, &[0x80, 0, 0, 9, 9, 9]);
    let dolby = pes(0xbd, &[0x80, 0, 2, 7, 7, 0x80, 1, 2]);
    let pack = |inside: &[u8]| [&program(3..4)[..14], inside, &pes(0xbe, &[0xff; 3000])].concat();
    let (film, late) = (pack(&picture).repeat(600), pack(&dolby).repeat(60));
    assert_eq!(of(&film), [0x1e0]);
    assert_eq!(of(&[film, late].concat()), [0x80, 0x1e0]);
    let packet = |pid: u8, kind: u8| [&[SYNC, 0x40, pid, 0x10, 0, 0, 1, kind][..], &[0; 180]].concat();
    let other = packet(9, 0xe0).repeat(500);
    assert_eq!(of(&[packet(7, 0xe1).repeat(4000), other, packet(8, 0xbf).repeat(500)].concat()), [7, 9]);
}

#[test]
fn pids_that_change_places_are_seen() {
    let packet = |pid: u8, kind: u8| [&[SYNC, 0x40, pid, 0x10, 0, 0, 1, kind][..], &[0; 180]].concat();
    let part = |picture: u8, sound: u8| [packet(picture, 0xe0), packet(sound, 0xc0)].concat().repeat(700);
    let of = |bytes: &[u8]| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        parts(&file)
    };
    assert_eq!(of(&part(7, 8).repeat(2)), Parts { streams: vec![7, 8], exchanged: false });
    assert_eq!(of(&[part(7, 8), part(8, 7)].concat()), Parts { streams: vec![7, 8], exchanged: true });
    let damaged = [part(7, 8), packet(7, 0xc0), part(7, 8)].concat();
    assert!(!of(&damaged).exchanged, "one packet is damage");
}

#[test]
fn other_files_have_no_clock() {
    for bytes in [&b""[..], b"\0\0\x01\xba", &[SYNC; 40_000], &[0; 70_000]] {
        assert_eq!(of(bytes), None);
    }
}
