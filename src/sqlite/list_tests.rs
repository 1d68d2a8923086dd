//! Tests of lists in a store with a long history.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::store::{JobKind, JobStore, NewItem, WorkState};
use crate::types::JobId;

const JOBS: u64 = 3000;
const ITEMS: i64 = 20_000;

/// A store with 3,000 jobs whose states alternate, and 20,000 items in the second of them. A hundred of the
/// items failed, the last one was left out, the others are done.
async fn store_with_history(dir: &TempDir) -> (SqliteStore, JobId) {
    let store = SqliteStore::open(dir.path(), &ModelId("m1".into())).await.unwrap();
    let mut writer = store.writer().await.unwrap();
    let mut tx = begin(&mut writer).await.unwrap();
    let states = ["done", "failed", "cancelled", "paused", "queued", "running"];
    let ids: Vec<JobId> = (0..JOBS).map(|_| JobId::generate()).collect();
    for (id, state) in ids.iter().zip(states.iter().cycle()) {
        sqlx::query(
            "INSERT INTO jobs (id, kind, request, state, items_total, created_unix_ms) VALUES (?, 'index', ?, ?, 1, 1)",
        )
        .bind(id.to_string())
        .bind(json!({"metadata": {"note": "x".repeat(400)}}).to_string())
        .bind(state)
        .execute(&mut *tx)
        .await
        .unwrap();
    }
    sqlx::query(
        "WITH RECURSIVE seqs (seq) AS (SELECT 0 UNION ALL SELECT seq + 1 FROM seqs WHERE seq < ?1 - 1)
         INSERT INTO job_items (job, seq, path, metadata, state)
         SELECT 2, seq, '/' || seq, '{}',
             CASE WHEN seq = ?1 - 1 THEN 'skipped' WHEN seq % 200 = 7 THEN 'failed' ELSE 'done' END FROM seqs",
    )
    .bind(ITEMS)
    .execute(&mut *tx)
    .await
    .unwrap();
    tx.commit().await.unwrap();
    drop(writer);
    (store, ids[1])
}

#[tokio::test]
async fn every_job_is_on_one_page_also_while_new_ones_come() {
    let dir = TempDir::new().unwrap();
    let (store, _) = store_with_history(&dir).await;
    let item = [NewItem::new("/f".into(), json!({}))];
    let mut seen = Vec::new();
    loop {
        let page = store.list_jobs(None, seen.last().copied(), 700).await.unwrap();
        seen.extend(page.iter().map(|job| job.id));
        store.create_job(JobKind::Index, &json!({}), &item, None).await.unwrap();
        if page.len() < 700 {
            break;
        }
    }
    assert_eq!(seen.len() as u64, JOBS);
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len() as u64, JOBS);
    assert!(seen.is_sorted_by(|a, b| a.to_string() > b.to_string()), "newest first");

    let mut paused = Vec::new();
    loop {
        let page = store.list_jobs(Some(WorkState::Paused), paused.last().copied(), 99).await.unwrap();
        assert!(page.iter().all(|job| job.state == WorkState::Paused));
        paused.extend(page.iter().map(|job| job.id));
        if page.len() < 99 {
            break;
        }
    }
    assert_eq!(paused.len(), 500);
    assert!(paused.is_sorted_by(|a, b| a.to_string() > b.to_string()));
    // A position that no job has: the next older ones follow.
    let newest = store.list_jobs(None, Some(JobId::generate()), 1).await.unwrap();
    assert_eq!(newest[0].id, store.list_jobs(None, None, 1).await.unwrap()[0].id);
    let before_all: JobId = "job_00000000000070008000000000000000".parse().unwrap();
    assert!(store.list_jobs(None, Some(before_all), 1).await.unwrap().is_empty());
}

#[tokio::test]
async fn counts_are_of_all_jobs_and_items_are_found_by_their_state() {
    let dir = TempDir::new().unwrap();
    let (store, job) = store_with_history(&dir).await;
    let counts = store.job_counts().await.unwrap();
    assert_eq!(counts.values().sum::<u64>(), JOBS);
    assert_eq!((counts.len(), counts[&WorkState::Paused]), (6, 500));

    let of = async |state, after| store.job_items(job, state, after, 70).await.unwrap();
    let failed = of(Some(WorkState::Failed), -1).await;
    assert_eq!((failed.len(), failed[0].seq, failed[69].seq), (70, 7, 69 * 200 + 7));
    let rest = of(Some(WorkState::Failed), failed[69].seq).await;
    assert_eq!((rest.len(), rest[29].seq), (30, 99 * 200 + 7));
    let skipped = of(Some(WorkState::Skipped), -1).await;
    assert_eq!(skipped.iter().map(|item| item.seq).collect::<Vec<_>>(), [ITEMS - 1]);
    assert!(of(Some(WorkState::Queued), -1).await.is_empty());
    let end = of(None, ITEMS - 30).await;
    assert_eq!((end.len(), end[28].state), (29, WorkState::Skipped));
}

#[tokio::test]
async fn damaged_rows_leave_no_gap_and_do_not_end_a_list() {
    let dir = TempDir::new().unwrap();
    let (store, job) = store_with_history(&dir).await;
    {
        let mut writer = store.writer().await.unwrap();
        let mut tx = begin(&mut writer).await.unwrap();
        sqlx::query("UPDATE jobs SET request = '{' WHERE n BETWEEN 2900 AND 2999")
            .execute(&mut *tx)
            .await
            .unwrap();
        sqlx::query("UPDATE job_items SET metadata = '{' WHERE seq BETWEEN 10 AND 300")
            .execute(&mut *tx)
            .await
            .unwrap();
        tx.commit().await.unwrap();
    }
    let page = store.list_jobs(None, None, 50).await.unwrap();
    assert_eq!(page.len(), 50);
    let items = store.job_items(job, None, -1, 50).await.unwrap();
    assert_eq!((items.len(), items[9].seq, items[10].seq), (50, 9, 301));
}

/// SQLite's query plan for a statement.
async fn plan(store: &SqliteStore, sql: &str) -> String {
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}")))
        .fetch_all(&store.readers())
        .await
        .unwrap();
    rows.iter().map(|row| row.get::<String, _>("detail")).collect::<Vec<_>>().join("; ")
}

#[tokio::test]
async fn lists_and_counts_read_an_index_and_no_more() {
    let dir = TempDir::new().unwrap();
    let store = SqliteStore::open(dir.path(), &ModelId("m1".into())).await.unwrap();
    for (sql, wanted) in [
        (jobs::COUNTS, "COVERING INDEX jobs_state"),
        (jobs::PAGE.of_state, "INDEX jobs_state (state=? AND rowid<?)"),
        (jobs::PAGE.all, "INTEGER PRIMARY KEY (rowid<?)"),
        (items::PAGE.of_state, "INDEX job_items_state (job=? AND state=? AND seq>?)"),
        (items::CLAIM, "jobs_live"),
        (items::CLAIM, "INDEX job_items_queued (job=?)"),
        (webhooks::PAGE.of_state, "INDEX deliveries_state (state=? AND id<?)"),
        (assets::TOTALS, "COVERING INDEX assets_totals"),
        (export::OF_ASSET, "INDEX clips_asset (asset=?)"),
    ] {
        let plan = plan(&store, sql).await;
        assert!(plan.contains(wanted), "{sql}\n{plan}");
        let sorts = plan.contains("TEMP B-TREE");
        assert!(!sorts || sql == export::OF_ASSET, "{sql}\n{plan}");
    }
}
