#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::store::*;
use crate::types::*;

async fn open(dir: &TempDir) -> SqliteStore {
    SqliteStore::open(dir.path(), &ModelId("m1".into())).await.unwrap()
}

async fn asset(store: &SqliteStore, sha256: &str, state: AssetState) -> AssetId {
    let new = NewAsset {
        given: None,
        sha256: sha256.into(),
        model: ModelId("m1".into()),
        segmentation: "w".into(),
        choice: Default::default(),
        name: format!("{sha256}.mp4"),
        path: "p".into(),
        owned: false,
        size_bytes: 1,
        metadata: json!({}),
    };
    let id = store.begin_asset(new).await.unwrap().0.id;
    let outcome = AssetOutcome {
        state,
        kind: None,
        duration_secs: 1.0,
        width: 0,
        height: 0,
        error: None,
        tracks: Vec::new(),
    };
    store.finish_asset(id, outcome).await.unwrap();
    id
}

fn webhook(host: &str) -> NewWebhook {
    NewWebhook { url: format!("http://{host}/x"), host: host.into(), secret: "whsec_s".into() }
}

fn query(told: bool, backfill: bool) -> NewStanding {
    NewStanding {
        id: StandingId::generate(),
        name: None,
        spec: json!({"a": 1}),
        enabled: true,
        vectors: vec![1, 2, 3],
        model: ModelId("m1".into()),
        source: "given".into(),
        webhook: told.then(|| webhook("h:1")),
        backfill,
    }
}

fn found(query: StandingId) -> NewMatch {
    let moment = MatchedMoment {
        start_secs: 0.0,
        end_secs: 1.5,
        peak_secs: 0.5,
        score: 0.7,
        confidence: None,
        matched: Track::Audio,
    };
    NewMatch {
        id: MatchId::generate(),
        query,
        space: Space::new("s"),
        moments: vec![moment],
        body: "told".into(),
    }
}

#[tokio::test]
async fn what_becomes_searchable_is_on_the_list_until_it_is_settled() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir).await;
    asset(&store, "before", AssetState::Ready).await;
    assert!(store.pending_assets(9).await.unwrap().is_empty(), "nobody asks");
    let told = store.create_standing(&query(true, false)).await.unwrap();
    let silent = store.create_standing(&query(false, true)).await.unwrap();
    let backfilled = store.pending_assets(9).await.unwrap();
    assert_eq!((backfilled.len(), backfilled[0].query), (1, Some(silent.id)));
    let ready = asset(&store, "ready", AssetState::Ready).await;
    let partial = asset(&store, "partial", AssetState::Partial).await;
    asset(&store, "failed", AssetState::Failed).await;
    drop(store);

    let store = open(&dir).await;
    let pending = store.pending_assets(9).await.unwrap();
    let assets: Vec<_> = pending[1..].iter().map(|pending| (pending.asset, pending.query)).collect();
    assert_eq!(assets, [(ready, None), (partial, None)]);
    let settled = |at: usize, matches: Vec<NewMatch>, end| Settled {
        ticket: pending[at].ticket,
        asset: pending[at].asset,
        matches,
        end,
    };
    let first = [
        settled(1, vec![found(told.id), found(silent.id)], PendingEnd::Waits),
        settled(2, vec![found(told.id)], PendingEnd::Done),
    ];
    assert_eq!(store.settle(&first).await.unwrap(), 3);
    // Settled again, as after a crash or a wait: nothing is stored or reported twice.
    assert_eq!(store.settle(&[settled(1, vec![found(told.id)], PendingEnd::Stays)]).await.unwrap(), 0);
    assert_eq!(store.pending_assets(9).await.unwrap().len(), 1);
    assert_eq!((store.wake_pending().await.unwrap(), store.wake_pending().await.unwrap()), (1, 0));
    assert_eq!(store.pending_assets(9).await.unwrap().len(), 2);
    let due = store.due_deliveries(&[], &[], 9).await.unwrap();
    assert_eq!(
        due.iter().map(|due| (due.body.as_str(), due.attempts)).collect::<Vec<_>>(),
        [("told", 0), ("told", 0)]
    );

    let matches = store.standing_matches(told.id, None, 1).await.unwrap();
    assert_eq!((matches[0].asset, matches[0].asset_name.as_str()), (partial, "partial.mp4"));
    assert_eq!(matches[0].moments, found(told.id).moments);
    let rest = store.standing_matches(told.id, Some(matches[0].id), 9).await.unwrap();
    assert_eq!(rest.iter().map(|found| found.asset).collect::<Vec<_>>(), [ready]);
    assert_eq!(store.standing(told.id).await.unwrap().matches, 2);
    // Deleting an asset deletes its matches and its pending entry.
    store.delete_asset(ready).await.unwrap();
    assert_eq!(store.standing(told.id).await.unwrap().matches, 1);
    assert_eq!(store.pending_assets(9).await.unwrap().len(), 1);
    // A disabled or deleted query matches nothing.
    let off = StandingChange { enabled: Some(false), name: Some("n".into()), ..StandingChange::default() };
    let changed = store.update_standing(silent.id, &off).await.unwrap();
    assert_eq!(
        (changed.enabled, changed.name.as_deref(), &changed.spec),
        (false, Some("n"), &json!({"a": 1}))
    );
    store.delete_standing(told.id).await.unwrap();
    let late =
        Settled { asset: partial, ..settled(0, vec![found(silent.id), found(told.id)], PendingEnd::Done) };
    assert_eq!(store.settle(&[late]).await.unwrap(), 0);
    assert!(store.deliveries(None, None, 9).await.unwrap().is_empty());
    assert!(matches!(store.delete_standing(told.id).await, Err(StoreError::NotFound("standing query"))));
}

#[tokio::test]
async fn vectors_of_queries_know_their_model_and_their_checksum() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir).await;
    let id = store.create_standing(&query(false, false)).await.unwrap().id;
    let stored = || async { store.standing_vectors(None, 9).await.unwrap().remove(0) };
    assert_eq!((stored().await.vectors, &*stored().await.model.0), (Some(vec![1, 2, 3]), "m1"));
    store.set_standing_error(id, "code", "why").await.unwrap();
    assert_eq!(stored().await.record.error, Some(WorkError::new("code", "why")));
    store.set_standing_vectors(id, &ModelId("m2".into()), &[7]).await.unwrap();
    assert_eq!((stored().await.vectors, &*stored().await.model.0), (Some(vec![7]), "m2"));
    assert_eq!(stored().await.record.error, None);
    sqlx::query("UPDATE standing_queries SET vectors = x'08'")
        .execute(&mut *store.writer().await.unwrap())
        .await
        .unwrap();
    assert_eq!(stored().await.vectors, None);
    assert_eq!(store.standing_source(id).await.unwrap(), "given");
    assert!(store.list_standing(Some(id), 9).await.unwrap().is_empty());
}

#[tokio::test]
async fn every_way_a_job_ends_is_told_once() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir).await;
    let none: &[NewItem] = &[];
    let one = &[NewItem::new("/f".to_owned(), json!({}))];
    let (hook, request) = (webhook("h:1"), json!({"path": "/p", "metadata": {"k": 1}}));
    let (empty, new) =
        store.create_job_with_webhook(JobKind::Index, &request, none, Some("key"), &hook).await.unwrap();
    assert!(new && empty.state == WorkState::Failed);
    let (same, new) =
        store.create_job_with_webhook(JobKind::Index, &request, one, Some("key"), &hook).await.unwrap();
    assert!(!new && same.id == empty.id);
    let mut jobs = vec![empty.id];
    for state in [WorkState::Done, WorkState::Failed] {
        let job = store.create_job_with_webhook(JobKind::Index, &request, one, None, &hook).await.unwrap().0;
        let (_, mut item) = store.claim_item().await.unwrap().unwrap();
        item.state = state;
        store.finish_item(job.id, &item).await.unwrap();
        store.finish_item(job.id, &item).await.unwrap();
        jobs.push(job.id);
    }
    let cancelled =
        store.create_job_with_webhook(JobKind::Index, &request, one, None, &hook).await.unwrap().0;
    store.cancel_job(cancelled.id).await.unwrap();
    store.cancel_job(cancelled.id).await.unwrap();
    jobs.push(cancelled.id);
    // A job without a webhook.
    store.create_job(JobKind::Index, &request, &[], None).await.unwrap();

    let due = store.due_deliveries(&[], &[], 99).await.unwrap();
    let told: Vec<(String, String)> = due
        .iter()
        .map(|due| {
            let body: serde_json::Value = serde_json::from_str(&due.body).unwrap();
            assert_eq!(body["data"]["metadata"], json!({"k": 1}));
            (body["data"]["id"].as_str().unwrap().to_owned(), body["type"].as_str().unwrap().to_owned())
        })
        .collect();
    let wanted: Vec<(String, String)> = jobs
        .iter()
        .zip(["job.failed", "job.done", "job.failed", "job.cancelled"])
        .map(|(id, event)| (id.to_string(), event.to_owned()))
        .collect();
    assert_eq!(told, wanted);
}

#[tokio::test]
async fn deliveries_wait_for_their_time_and_leave_busy_hosts_alone() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir).await;
    for host in ["a:1", "a:1", "b:2"] {
        store.create_job_with_webhook(JobKind::Index, &json!({}), &[], None, &webhook(host)).await.unwrap();
    }
    let ids =
        |due: Vec<crate::store::DueDelivery>| due.into_iter().map(|due| due.id).collect::<Vec<DeliveryId>>();
    let all = ids(store.due_deliveries(&[], &[], 9).await.unwrap());
    assert_eq!(all.len(), 3);
    assert_eq!(ids(store.due_deliveries(&["a:1".into()], &[], 9).await.unwrap()), all[2..]);
    assert_eq!(ids(store.due_deliveries(&[], &all[..1], 1).await.unwrap()), all[1..2]);
    let attempt =
        |state, next_unix_ms| Attempt { state, next_unix_ms, status: Some(500), error: Some("e".into()) };
    store.note_attempt(all[0], &attempt(DeliveryState::Pending, i64::MAX)).await.unwrap();
    store.note_attempt(all[1], &attempt(DeliveryState::Failed, 0)).await.unwrap();
    assert_eq!(ids(store.due_deliveries(&[], &[], 9).await.unwrap()), all[2..]);
    let failed = store.deliveries(Some(DeliveryState::Failed), None, 9).await.unwrap();
    assert_eq!((failed.len(), failed[0].id, failed[0].attempts, failed[0].status), (1, all[1], 1, Some(500)));
    assert_eq!(store.retry_delivery(all[1]).await.unwrap().state, DeliveryState::Pending);
    assert_eq!(store.due_deliveries(&[], &[], 9).await.unwrap().len(), 2);
    assert!(matches!(
        store.retry_delivery(DeliveryId::generate()).await,
        Err(StoreError::NotFound("delivery"))
    ));

    store.note_attempt(all[2], &attempt(DeliveryState::Delivered, 0)).await.unwrap();
    assert_eq!(store.prune_deliveries(0).await.unwrap(), 0);
    assert_eq!(store.prune_deliveries(i64::MAX).await.unwrap(), 1, "what is pending stays");
}
