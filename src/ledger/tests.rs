use std::io::Write;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::types::AssetId;

fn asset(name: &str) -> AssetEntry {
    AssetEntry {
        id: AssetId::generate(),
        sha256: "ab".repeat(32),
        size_bytes: 7,
        upload: Some(format!("ab/{name}")),
        path: None,
        name: name.to_owned(),
        metadata: json!({"who": "me\n", "n": 1.5}),
        created_unix_ms: 12,
        choice: Default::default(),
    }
}

fn created(dir: &Path, acknowledged: i64) -> Ledger {
    let ledger = Ledger::unwritten(dir);
    assert_eq!(ledger.append(0, &[Entry::header()]).unwrap_err().kind(), io::ErrorKind::StorageFull);
    ledger.write(acknowledged, &[]).unwrap();
    ledger
}

fn noted(ledger: &Ledger, acknowledged: i64, entries: &[Entry]) {
    let ticket = ledger.append(acknowledged, entries).unwrap();
    ledger.sync(ticket).unwrap();
}

#[test]
fn what_is_noted_is_replayed_and_a_torn_line_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let empty = Ledger::read(dir.path()).unwrap();
    assert!(!empty.exists && empty.live.is_empty());
    let ledger = created(dir.path(), 3);
    let (a, b) = (asset("a"), asset("b"));
    noted(&ledger, 4, &[Entry::Put(a.clone())]);
    noted(&ledger, 6, &[Entry::Put(b.clone()), Entry::Gone { id: b.id, upload: b.upload.clone() }]);
    let work = |exists| Entry::Work { kind: WorkKind::Job, id: "job_1".to_owned(), exists };
    noted(&ledger, 7, &[work(true)]);
    let renamed = AssetEntry { name: "anew".to_owned(), ..a.clone() };
    noted(&ledger, 8, &[Entry::Put(renamed.clone())]);
    drop(ledger);

    let whole = Ledger::read(dir.path()).unwrap();
    assert_eq!((whole.acknowledged, whole.damaged_lines), (8, 0));
    assert_eq!(whole.live.values().collect::<Vec<_>>(), [&renamed]);
    assert!(whole.deleted_uploads.contains("ab/b"));
    assert!(whole.work.contains(&(WorkKind::Job, "job_1".to_owned())));

    let path = dir.path().join(LEDGER);
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"0badc0de {\"n\":9,").unwrap();
    assert_eq!(Ledger::read(dir.path()).unwrap(), whole);
    let ledger = Ledger::open(dir.path(), &whole).unwrap();
    noted(&ledger, 9, &[work(false)]);
    let after = Ledger::read(dir.path()).unwrap();
    assert_eq!((after.acknowledged, after.damaged_lines, after.work.len()), (9, 0, 0));
}

#[test]
fn a_ledger_written_anew_amounts_to_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = created(dir.path(), 0);
    let kept = asset("kept");
    noted(&ledger, 1, &[Entry::Put(kept.clone())]);
    for n in 0..50 {
        let one = asset(&n.to_string());
        let gone = Entry::Gone { id: one.id, upload: one.upload.clone() };
        noted(&ledger, 2 + n, &[Entry::Put(one), gone]);
    }
    let before = Ledger::read(dir.path()).unwrap();
    ledger.writer().as_mut().unwrap().suspect = true;
    noted(&ledger, 60, &[Entry::Put(kept)]);
    let after = Ledger::read(dir.path()).unwrap();
    assert!(after.whole_bytes < before.whole_bytes / 2);
    assert_eq!((&after.live, &after.deleted_uploads), (&before.live, &before.deleted_uploads));
    assert_eq!(after.acknowledged, 60);
}

#[test]
fn damage_is_counted_and_a_newer_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = created(dir.path(), 0);
    let (a, b) = (asset("a"), asset("b"));
    noted(&ledger, 1, &[Entry::Put(a)]);
    noted(&ledger, 2, &[Entry::Put(b.clone())]);
    let path = dir.path().join(LEDGER);
    let mut bytes = fs::read(&path).unwrap();
    let second = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 30;
    bytes[second] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let replay = Ledger::read(dir.path()).unwrap();
    assert_eq!((replay.damaged_lines, replay.acknowledged), (1, 2));
    assert_eq!(replay.live.keys().collect::<Vec<_>>(), [&b.id]);

    let mut newer = Vec::new();
    encode(&mut newer, 0, &Entry::Ledger { version: 99 }).unwrap();
    fs::write(&path, &newer).unwrap();
    assert_eq!(Ledger::read(dir.path()).unwrap_err().kind(), io::ErrorKind::Unsupported);
}

#[test]
fn callers_side_by_side_all_get_their_lines_to_disk() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = created(dir.path(), 0);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let ledger = &ledger;
            scope.spawn(move || {
                for n in 0..20 {
                    noted(ledger, thread * 20 + n, &[Entry::Put(asset(&format!("{thread}-{n}")))]);
                }
            });
        }
    });
    let replay = Ledger::read(dir.path()).unwrap();
    assert_eq!((replay.live.len(), replay.damaged_lines, replay.acknowledged), (160, 0, 159));
}

/// Fuzz target for reading a ledger.
pub(crate) mod fuzzed {
    use super::*;

    pub fn seeds() -> Vec<Vec<u8>> {
        let work = |exists| Entry::Work { kind: WorkKind::Watch, id: "wch_1".to_owned(), exists };
        let by_path = AssetEntry { upload: None, path: Some("/media/a.wav".to_owned()), ..asset("c") };
        let gone = Entry::Gone { id: by_path.id, upload: None };
        let entries =
            [Entry::header(), Entry::Put(asset("a")), work(true), Entry::Put(by_path), gone, work(false)];
        let mut whole = Vec::new();
        entries.iter().enumerate().for_each(|(n, entry)| encode(&mut whole, n as i64, entry).unwrap());
        let second = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        vec![whole[second..].to_vec(), whole, Vec::new()]
    }

    /// Whatever the bytes, reading ends, and the result can be written and read again.
    pub fn run(bytes: &[u8]) {
        let Ok(replay) = replay::read_from(bytes) else { return };
        assert!(replay.whole_bytes <= bytes.len() as u64);
        let mut again = Vec::new();
        replay.entries().iter().for_each(|entry| encode(&mut again, replay.acknowledged, entry).unwrap());
        let read = replay::read_from(&again[..]).unwrap();
        assert_eq!(
            (&read.live, &read.deleted_uploads, &read.work),
            (&replay.live, &replay.deleted_uploads, &replay.work)
        );
        assert_eq!(read.damaged_lines, 0);
    }
}

proptest! {
    /// One changed byte never turns an entry into another one: its line is damaged, or two lines become one,
    /// or one becomes two.
    #[test]
    fn a_changed_byte_loses_lines_but_invents_none(at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let entries: Vec<Entry> = (0..5).map(|n| Entry::Put(asset(&n.to_string()))).collect();
        let mut bytes = Vec::new();
        entries.iter().enumerate().for_each(|(n, entry)| encode(&mut bytes, n as i64, entry).unwrap());
        let whole = replay::read_from(&bytes[..]).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = to;
        // One changed byte cannot make a line of a newer version: the checksum fails first.
        let found = replay::read_from(&bytes[..]).unwrap();
        prop_assert!(found.live.iter().all(|(id, entry)| whole.live.get(id) == Some(entry)));
        prop_assert!(found.live.len() + 2 >= whole.live.len());
    }
}
