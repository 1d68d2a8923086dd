//! Retention rules and their runs in SQLite.

use async_trait::async_trait;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::rows::unsigned;
use super::{SqliteStore, begin, from_json, now_unix_ms, to_json};
use crate::store::{RetentionRule, RetentionRun, RetentionStore, StoreError};

/// Number of runs kept in the history.
const RUNS_KEPT: i64 = 1000;

pub(super) fn rule(row: &SqliteRow) -> Result<RetentionRule, StoreError> {
    Ok(RetentionRule {
        name: row.try_get("name")?,
        filter: from_json(row.try_get("filter")?)?,
        older_than_secs: unsigned(row, "older_than_secs")?,
        by: row.try_get("by")?,
    })
}

pub(super) fn run(row: &SqliteRow) -> Result<RetentionRun, StoreError> {
    Ok(RetentionRun {
        n: row.try_get("n")?,
        started_unix_ms: row.try_get("started_unix_ms")?,
        ended_unix_ms: row.try_get("ended_unix_ms")?,
        assets: unsigned(row, "assets")?,
        clips: unsigned(row, "clips")?,
        by_rule: from_json(row.try_get("by_rule")?)?,
    })
}

#[async_trait]
impl RetentionStore for SqliteStore {
    async fn retention_rules(&self) -> Result<Vec<RetentionRule>, StoreError> {
        let rows =
            sqlx::query("SELECT name, filter, older_than_secs, by FROM retention_rules ORDER BY position")
                .fetch_all(&self.readers())
                .await?;
        // Leave out none: other rules may delete what a missing one was to spare.
        rows.iter().map(rule).collect()
    }
    async fn set_retention_rules(&self, rules: &[RetentionRule]) -> Result<(), StoreError> {
        let mut writer = self.writer().await?;
        let mut tx = begin(&mut writer).await?;
        sqlx::query("DELETE FROM retention_rules").execute(&mut *tx).await?;
        for (position, rule) in (0_i64..).zip(rules) {
            sqlx::query(
                "INSERT INTO retention_rules (position, name, filter, older_than_secs, by) VALUES (?, ?, ?, ?, ?)",
            )
            .bind(position)
            .bind(&rule.name)
            .bind(to_json(&rule.filter))
            .bind(i64::try_from(rule.older_than_secs).unwrap_or(i64::MAX))
            .bind(&rule.by)
            .execute(&mut *tx)
            .await?;
        }
        Ok(tx.commit().await?)
    }
    async fn begin_retention_run(&self) -> Result<RetentionRun, StoreError> {
        let started_unix_ms = now_unix_ms();
        let mut writer = self.writer().await?;
        let mut tx = begin(&mut writer).await?;
        let n: i64 =
            sqlx::query_scalar("INSERT INTO retention_runs (started_unix_ms) VALUES (?) RETURNING n")
                .bind(started_unix_ms)
                .fetch_one(&mut *tx)
                .await?;
        sqlx::query("DELETE FROM retention_runs WHERE n <= ?").bind(n - RUNS_KEPT).execute(&mut *tx).await?;
        tx.commit().await?;
        let by_rule = serde_json::json!({});
        Ok(RetentionRun { n, started_unix_ms, ended_unix_ms: 0, assets: 0, clips: 0, by_rule })
    }
    async fn note_retention_run(&self, run: &RetentionRun) -> Result<(), StoreError> {
        let count = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let mut writer = self.writer().await?;
        sqlx::query(
            "UPDATE retention_runs SET ended_unix_ms = ?, assets = ?, clips = ?, by_rule = ? WHERE n = ?",
        )
        .bind(run.ended_unix_ms)
        .bind(count(run.assets))
        .bind(count(run.clips))
        .bind(to_json(&run.by_rule))
        .bind(run.n)
        .execute(&mut *writer)
        .await?;
        Ok(())
    }
    async fn retention_runs(&self, limit: u32) -> Result<Vec<RetentionRun>, StoreError> {
        let rows = sqlx::query("SELECT * FROM retention_runs ORDER BY n DESC LIMIT ?")
            .bind(limit)
            .fetch_all(&self.readers())
            .await?;
        Ok(self.readable("retention_runs", &rows, run))
    }
}
