#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::json;
use tempfile::TempDir;

use super::tests::{asset_with, open};
use crate::store::*;
use crate::types::JobId;

fn items(n: usize) -> Vec<NewItem> {
    (0..n).map(|i| NewItem::new(format!("/f{i}"), json!({ "i": i }))).collect()
}

#[tokio::test]
async fn jobs_are_claimed_in_order_counted_once_and_end_with_their_last_item() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir).await;
    let request = json!({"path": "/x"});
    let first = store.create_job(JobKind::Index, &request, &items(300), Some("key")).await.unwrap();
    let same = store.create_job(JobKind::Index, &request, &items(2), Some("key")).await.unwrap();
    assert_eq!((same.id, same.items_total), (first.id, 300));
    let second = store.create_job(JobKind::Index, &request, &items(1), None).await.unwrap();
    assert_eq!(
        store.list_jobs(None, None, 9).await.unwrap().iter().map(|j| j.id).collect::<Vec<_>>(),
        [second.id, first.id]
    );
    let (asset, _) = asset_with(&store, "a", 1).await;

    for seq in 0..300 {
        let (job, mut item) = store.claim_item().await.unwrap().unwrap();
        assert_eq!((job, item.seq, item.state), (first.id, seq, WorkState::Running));
        assert_eq!(item.metadata, json!({ "i": seq }));
        item.state = if seq == 5 { WorkState::Failed } else { WorkState::Done };
        (item.asset, item.clips, item.media_secs) = (Some(asset.id), 2, 6.4);
        let now = store.finish_item(job, &item).await.unwrap();
        let again = store.finish_item(job, &item).await.unwrap();
        assert_eq!((again.items_done, again.clips), (now.items_done, now.clips), "counted twice");
        assert_eq!(now.state, if seq == 299 { WorkState::Done } else { WorkState::Running });
    }
    let done = store.job(first.id).await.unwrap();
    assert_eq!((done.items_done, done.items_failed, done.clips), (299, 1, 600));
    assert!((done.media_secs - 1920.0).abs() < 1e-6 && done.ended_unix_ms >= done.started_unix_ms);
    let page = store.job_items(first.id, None, 4, 2).await.unwrap();
    assert_eq!(
        page.iter().map(|i| (i.seq, i.state)).collect::<Vec<_>>(),
        [(5, WorkState::Failed), (6, WorkState::Done)]
    );

    let (job, mut item) = store.claim_item().await.unwrap().unwrap();
    assert_eq!(job, second.id);
    item.state = WorkState::Failed;
    let failed = store.finish_item(job, &item).await.unwrap();
    assert_eq!((failed.state, failed.error.unwrap().code.as_str()), (WorkState::Failed, "all_items_failed"));
    assert!(store.claim_item().await.unwrap().is_none());
    let left_out =
        NewItem { skipped: Some(WorkError::new("hidden", "x")), ..NewItem::new("/.h".into(), json!({})) };
    let nothing =
        store.create_job(JobKind::Index, &request, std::slice::from_ref(&left_out), None).await.unwrap();
    assert_eq!((nothing.state, nothing.items_total, nothing.items_skipped), (WorkState::Failed, 1, 1));
    assert_eq!(nothing.error.unwrap().code.as_str(), "no_media");
    let some =
        store.create_job(JobKind::Index, &request, &[items(1), vec![left_out]].concat(), None).await.unwrap();
    let (job, mut item) = store.claim_item().await.unwrap().unwrap();
    (item.state, item.error) = (WorkState::Done, Some(WorkError::new("truncated", "x")));
    let ended = store.finish_item(job, &item).await.unwrap();
    assert_eq!((ended.id, ended.state), (some.id, WorkState::Done));
    assert_eq!((ended.items_done, ended.items_skipped, ended.items_partial), (1, 1, 1));
    let told = &store.job_items(some.id, None, 0, 9).await.unwrap()[0];
    assert_eq!((told.state, told.error.as_ref().unwrap().code.as_str()), (WorkState::Skipped, "hidden"));
}

#[tokio::test]
async fn items_that_were_put_off_wait_for_their_time() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir).await;
    let job = store.create_job(JobKind::Index, &json!({}), &items(2), None).await.unwrap().id;
    let (_, mut item) = store.claim_item().await.unwrap().unwrap();
    (item.state, item.attempts) = (WorkState::Queued, 1);
    item.not_before_unix_ms = i64::MAX;
    item.error = Some(WorkError::new("io", "for now"));
    assert_eq!(store.finish_item(job, &item).await.unwrap().state, WorkState::Running);
    let (_, mut other) = store.claim_item().await.unwrap().unwrap();
    assert_eq!(other.seq, 1, "another one is taken meanwhile");
    other.state = WorkState::Done;
    assert_eq!(store.finish_item(job, &other).await.unwrap().state, WorkState::Running);
    assert!(store.claim_item().await.unwrap().is_none());
    // After a start, the time already waited is unknown.
    drop(store);
    let store = open(&dir).await;
    assert_eq!(store.requeue_running().await.unwrap(), 0);
    let (_, mut again) = store.claim_item().await.unwrap().unwrap();
    assert_eq!((again.seq, again.attempts), (0, 1));
    again.state = WorkState::Failed;
    let ended = store.finish_item(job, &again).await.unwrap();
    assert_eq!((ended.state, ended.items_done, ended.items_failed), (WorkState::Done, 1, 1));

    let (retried, count) = store.retry_failed(job).await.unwrap();
    assert_eq!(
        (retried.state, retried.items_failed, retried.ended_unix_ms, count),
        (WorkState::Running, 0, 0, 1)
    );
    let (_, mut last) = store.claim_item().await.unwrap().unwrap();
    assert_eq!((last.seq, last.attempts, last.error.is_none()), (0, 0, true));
    last.state = WorkState::Done;
    let ended = store.finish_item(job, &last).await.unwrap();
    assert_eq!((ended.state, ended.items_done, ended.items_failed), (WorkState::Done, 2, 0));
    assert_eq!(store.retry_failed(job).await.unwrap().1, 0);
}

#[tokio::test]
async fn a_paused_job_lets_others_by() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir).await;
    let first = store.create_job(JobKind::Index, &json!({}), &items(2), None).await.unwrap().id;
    let second = store.create_job(JobKind::Index, &json!({}), &items(1), None).await.unwrap().id;
    let (job, mut running) = store.claim_item().await.unwrap().unwrap();
    assert_eq!(job, first);
    assert_eq!(store.pause_job(first, true).await.unwrap().state, WorkState::Paused);
    assert_eq!(store.claim_item().await.unwrap().unwrap().0, second);
    assert!(store.claim_item().await.unwrap().is_none());
    // Running items finish, and the job stays paused over a restart.
    running.state = WorkState::Done;
    assert_eq!(store.finish_item(first, &running).await.unwrap().state, WorkState::Paused);
    drop(store);
    let store = open(&dir).await;
    store.requeue_running().await.unwrap();
    let (job, mut other) = store.claim_item().await.unwrap().unwrap();
    assert_eq!(job, second);
    other.state = WorkState::Done;
    assert_eq!(store.finish_item(second, &other).await.unwrap().state, WorkState::Done);
    assert_eq!(store.pause_job(second, true).await.unwrap().state, WorkState::Done, "it has ended");
    assert_eq!(store.pause_job(first, false).await.unwrap().state, WorkState::Running);
    let (_, mut last) = store.claim_item().await.unwrap().unwrap();
    assert_eq!(store.pause_job(first, true).await.unwrap().state, WorkState::Paused);
    last.state = WorkState::Done;
    assert_eq!(store.finish_item(first, &last).await.unwrap().state, WorkState::Done, "nothing is left");
    let third = store.create_job(JobKind::Index, &json!({}), &items(1), None).await.unwrap().id;
    assert_eq!(store.pause_job(third, true).await.unwrap().state, WorkState::Paused);
    let cancelled = store.cancel_job(third).await.unwrap();
    assert!(cancelled.state == WorkState::Cancelled && cancelled.ended_unix_ms > 0);
}

#[tokio::test]
async fn cancelled_and_crashed_jobs_settle() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir).await;
    let job = store.create_job(JobKind::Index, &json!({}), &items(4), None).await.unwrap().id;
    let (_, mut a) = store.claim_item().await.unwrap().unwrap();
    let (_, mut b) = store.claim_item().await.unwrap().unwrap();
    let cancelled = store.cancel_job(job).await.unwrap();
    assert_eq!((cancelled.state, cancelled.ended_unix_ms), (WorkState::Cancelled, 0));
    assert!(store.claim_item().await.unwrap().is_none());
    a.state = WorkState::Done;
    assert_eq!(store.finish_item(job, &a).await.unwrap().ended_unix_ms, 0);
    // Handed back to a cancelled job: nobody may claim it again.
    b.state = WorkState::Queued;
    let ended = store.finish_item(job, &b).await.unwrap();
    assert_eq!((ended.state, ended.items_done), (WorkState::Cancelled, 1));
    assert!(ended.ended_unix_ms > 0);
    assert!(store.claim_item().await.unwrap().is_none());

    let live = store.create_job(JobKind::Index, &json!({}), &items(2), None).await.unwrap().id;
    let gone = store.create_job(JobKind::Index, &json!({}), &items(1), None).await.unwrap().id;
    for _ in 0..3 {
        store.claim_item().await.unwrap().unwrap();
    }
    store.cancel_job(gone).await.unwrap();
    drop(store);
    let store = open(&dir).await;
    assert_eq!(store.requeue_running().await.unwrap(), 2);
    assert_eq!(store.job(gone).await.unwrap().state, WorkState::Cancelled);
    assert!(store.job(gone).await.unwrap().ended_unix_ms > 0);
    assert_eq!(store.claim_item().await.unwrap().unwrap().0, live);
    assert!(matches!(store.cancel_job(JobId::generate()).await, Err(StoreError::NotFound("job"))));
}
