//! Maps errors of SQLite and of the driver to those of the store.

use sqlx::error::DatabaseError;

use crate::store::{StorageFull, StoreError};

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        // Damaged pages, and a file that is not a database.
        const MALFORMED: [i32; 2] = [11, 26];
        let code = error.as_database_error().and_then(sqlite_code);
        if code.is_some_and(|code| MALFORMED.contains(&(code & 0xff))) {
            return Self::Malformed(error.to_string());
        }
        let full = match &error {
            sqlx::Error::Database(_) => code.and_then(full_of),
            sqlx::Error::Io(inner) => StorageFull::of_io(inner),
            _ => None,
        };
        full.map_or_else(|| Self::Database(error.to_string()), Self::StorageFull)
    }
}

impl From<sqlx::migrate::MigrateError> for StoreError {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        match error {
            sqlx::migrate::MigrateError::Execute(error) => error.into(),
            error => Self::Database(format!("cannot migrate the database to this version: {error}")),
        }
    }
}

/// SQLite's extended result code.
pub(super) fn sqlite_code(error: &dyn DatabaseError) -> Option<i32> {
    error.code()?.parse().ok()
}

/// Recognises storage that accepts no more bytes by an extended result code of SQLite.
fn full_of(code: i32) -> Option<StorageFull> {
    const READONLY: i32 = 8;
    const READONLY_DBMOVED: i32 = READONLY | (4 << 8);
    const IOERR: i32 = 10;
    const FULL: i32 = 13;
    // Write, sync, sync of the folder, truncate, size and creation of the shared-memory index.
    const WRITING: [i32; 6] = [3, 4, 5, 6, 19, 18];
    match (code, code & 0xff) {
        (READONLY_DBMOVED, _) => None,
        (_, READONLY) => Some(StorageFull::ReadOnly.met()),
        (_, IOERR) if WRITING.contains(&(code >> 8)) => Some(StorageFull::WriteFailed.met()),
        (_, FULL) => Some(StorageFull::NoSpace.met()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_means_no_room_is_one_kind() {
        for full in [13, 8, 8 | (1 << 8), 778, 1034, 1290, 1546, 4874] {
            assert!(full_of(full).is_some(), "{full}");
        }
        // A busy, damaged or moved database, and a failed read, are other conditions.
        for other in [5, 11, 8 | (4 << 8), 266, 522] {
            assert!(full_of(other).is_none(), "{other}");
        }
    }
}
