//! Files of a data folder and of users: paths below allowed roots, uploads, quarantine, free space, and which model
//! serves.

mod ballast;
mod disk;
mod error;
mod paths;
mod quarantine;
mod registry;
mod shortfall;
mod uploads;

pub use disk::Disk;
pub use error::FileError;
pub use paths::{AllowedRoots, open_resolved};
pub use quarantine::{Quarantine, Quarantined, empty_quarantine, measure, move_away, quarantined};
pub(crate) use registry::{Known, Registry};
pub use shortfall::{Shortfall, shortfall_of, stray_log};
pub use uploads::{Content, LOST_AND_FOUND, Upload, UploadWriter, Uploads, hash_file, kept_name, let_settle};
