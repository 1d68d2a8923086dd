//! What a poll of a watched folder found, compared with the last one.

use crate::jobs::SeenFile;
use crate::store::WatchedFile;

/// Number of consecutive polls that must miss a file before it counts as gone. One more than it takes to find
/// a moved file under its new name.
pub(super) const GONE_LOOKS: u32 = 3;

/// Changes found by a poll: one page of known and of seen files, both sorted by path.
pub(super) fn changes(known: Vec<WatchedFile>, seen: &[SeenFile], whole: bool) -> Vec<WatchedFile> {
    let mut changed = Vec::new();
    let mut seen = seen.iter().peekable();
    let new = |file: &SeenFile| WatchedFile {
        path: file.path.clone(),
        size_bytes: file.size_bytes,
        mtime_ns: file.mtime_ns,
        stable: false,
        missing_looks: 0,
        taken: None,
        asset: None,
    };
    for before in known {
        while let Some(file) = seen.next_if(|file| file.path < before.path) {
            changed.push(new(file));
        }
        let now = match seen.next_if(|file| file.path == before.path) {
            Some(file) => {
                let same = (file.size_bytes, file.mtime_ns) == (before.size_bytes, before.mtime_ns);
                let stable = same && before.missing_looks == 0;
                WatchedFile { stable, taken: before.taken, asset: before.asset, ..new(file) }
            }
            None if whole => {
                let missing_looks = (before.missing_looks + 1).min(GONE_LOOKS);
                WatchedFile { stable: false, missing_looks, ..before.clone() }
            }
            None => continue,
        };
        if now != before {
            changed.push(now);
        }
    }
    changed.extend(seen.map(new));
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(path: &str, size_bytes: u64) -> SeenFile {
        SeenFile { path: path.to_owned(), size_bytes, mtime_ns: 1 }
    }

    /// Polls these states of a folder in turn; returns the known files after the last one.
    fn looks(states: &[(&[SeenFile], bool)]) -> Vec<WatchedFile> {
        let mut known: Vec<WatchedFile> = Vec::new();
        for (files, whole) in states {
            for file in changes(known.clone(), files, *whole) {
                known.retain(|before| before.path != file.path);
                known.push(file);
            }
            known.sort_by(|a, b| a.path.cmp(&b.path));
        }
        known
    }

    #[test]
    fn a_file_is_stable_when_two_looks_agree() {
        let (small, large) = ([seen("/a", 1)], [seen("/a", 2)]);
        let stable = |states: &[(&[SeenFile], bool)]| looks(states)[0].stable;
        assert!(!stable(&[(&small, true)]));
        assert!(stable(&[(&small, true), (&small, true)]));
        assert!(!stable(&[(&small, true), (&small, true), (&large, true)]));
        assert!(!stable(&[(&small, true), (&[], true), (&small, true)]), "it was away in between");
        assert!(
            changes(looks(&[(&small, true), (&small, true)]), &small, true).is_empty(),
            "nothing to write"
        );
    }

    #[test]
    fn a_file_is_gone_after_three_whole_looks_in_turn() {
        let (both, one) = ([seen("/a", 1), seen("/b", 1)], [seen("/a", 1)]);
        let missing = |states: &[(&[SeenFile], bool)]| looks(states)[1].missing_looks;
        assert_eq!(missing(&[(&both, true), (&one, true), (&one, true)]), 2);
        assert_eq!(
            missing(&[(&both, true), (&one, true), (&one, true), (&one, true), (&one, true)]),
            GONE_LOOKS
        );
        assert_eq!(missing(&[(&both, true), (&one, false), (&one, false)]), 0, "not all could be read");
        assert_eq!(missing(&[(&both, true), (&one, true), (&both, true), (&one, true)]), 1);
    }

    #[test]
    fn pages_are_merged_in_order() {
        let known = looks(&[(&[seen("/b", 1), seen("/d", 1)], true)]);
        let now = [seen("/a", 1), seen("/b", 2), seen("/c", 1), seen("/e", 1)];
        let changed = changes(known, &now, true);
        let paths: Vec<&str> = changed.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["/a", "/b", "/c", "/d", "/e"]);
    }
}
