//! Reads lists page by page.

use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Decode, Row, Sqlite, Type};

use super::SqliteStore;
use crate::store::StoreError;

/// A list that is read page by page.
pub(super) struct List<T> {
    pub table: &'static str,
    /// The column that orders the list and marks the end of a page.
    pub cursor: &'static str,
    pub read: fn(&SqliteRow) -> Result<T, StoreError>,
}

/// The statements of a list, of all states and of one. They are two: `? IS NULL OR state = ?` could not use an index.
pub(super) struct ByState {
    pub all: &'static str,
    /// Its last parameter is the state.
    pub of_state: &'static str,
}

type Rows = Query<'static, Sqlite, SqliteArguments>;

impl ByState {
    /// The statement for this state, with the parameters that both have.
    pub fn query(&self, state: Option<&'static str>, bind: impl FnOnce(Rows) -> Rows) -> Rows {
        match state {
            None => bind(sqlx::query(self.all)),
            Some(state) => bind(sqlx::query(self.of_state)).bind(state),
        }
    }
}

impl SqliteStore {
    /// The `limit` entries of a list after `after`. `rows` reads a number of rows after a position.
    ///
    /// A damaged row is noted and left out, and the next one takes its place: only the last page is short.
    pub(super) async fn page<T, C, F>(
        &self,
        list: List<T>,
        mut after: C,
        limit: u32,
        rows: impl Fn(C, u32) -> F,
    ) -> Result<Vec<T>, StoreError>
    where
        C: for<'r> Decode<'r, Sqlite> + Type<Sqlite>,
        F: Future<Output = Result<Vec<SqliteRow>, sqlx::Error>>,
    {
        let mut page = Vec::new();
        loop {
            let wanted = limit.saturating_sub(u32::try_from(page.len()).unwrap_or(limit));
            let found = rows(after, wanted).await?;
            page.extend(self.readable(list.table, &found, list.read));
            let more = page.len() < limit as usize && found.len() == wanted as usize;
            match found.last().map(|last| last.try_get(list.cursor)) {
                Some(Ok(next)) if more => after = next,
                _ => return Ok(page),
            }
        }
    }
}
