//! Fail points: places where a test ends the process as `kill -9` would, named in the variable
//! `FAILPOINTS` (`ledger-sync=3*off->return` passes three times, then ends it). They exist in test builds
//! alone, where the feature `failpoints` of the crate `fail` is on; in any other build they are nothing.

pub use fail::{FailScenario, has_failpoints};

/// Every fail point, in the order in which an upload, a snapshot and a change of models pass them.
pub const ALL: [&str; 13] = [
    "upload-received",
    "upload-rename",
    "upload-renamed",
    "upload-committed",
    "standing-committed",
    "ledger-write",
    "ledger-written",
    "ledger-rename",
    "index-snapshot-rename",
    "snapshot-rename",
    "snapshot-renamed",
    "models-rename",
    "models-renamed",
];

/// A place where a test may end the process at once.
macro_rules! crash_point {
    ($name:literal) => {
        fail::fail_point!($name, |_| std::process::abort())
    };
}

pub(crate) use crash_point;
