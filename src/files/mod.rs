//! Files of a data folder and of users: paths below allowed roots, uploads, quarantine.

mod error;
mod paths;
mod quarantine;
mod uploads;

pub use error::FileError;
pub use paths::{AllowedRoots, open_resolved};
pub use quarantine::{Quarantine, Quarantined, empty_quarantine, measure, quarantined};
pub use uploads::{Content, Upload, UploadWriter, Uploads, hash_file, kept_name, let_settle};
