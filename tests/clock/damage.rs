//! Clocks that are cut, zeroed and spliced.
#![allow(dead_code)]

/// What happens to a file, at a share of its length.
#[derive(Debug, Clone, Copy)]
pub enum Damage {
    /// It ends there.
    Cut,
    /// A quarter of it is zero from there on.
    Zeroed,
    /// A twentieth of it is missing there.
    Robbed,
    /// A twentieth of it, from another place, is put in there.
    Spliced,
}

/// All of them, where they happen in hundredths.
pub fn all() -> impl Iterator<Item = (Damage, usize)> {
    let kinds = [Damage::Cut, Damage::Zeroed, Damage::Robbed, Damage::Spliced];
    kinds.into_iter().flat_map(|kind| [10, 50, 90].map(|percent| (kind, percent)))
}

impl Damage {
    /// The file afterwards.
    pub fn done_to(self, whole: &[u8], percent: usize) -> Vec<u8> {
        let at = whole.len() * percent / 100;
        let mut bytes = whole.to_vec();
        match self {
            Self::Cut => bytes.truncate(at),
            Self::Zeroed => {
                let end = (at + whole.len() / 4).min(whole.len());
                bytes[at..end].fill(0);
            }
            Self::Spliced => {
                let from = if percent < 50 { whole.len() * 7 / 10 } else { whole.len() / 5 };
                bytes.splice(at..at, whole[from..from + whole.len() / 20].iter().copied());
            }
            Self::Robbed => {
                bytes.drain(at..(at + whole.len() / 20).min(whole.len()));
            }
        }
        bytes
    }
}
