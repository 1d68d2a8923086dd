use std::collections::BTreeMap;

use super::*;
use crate::store::{AssetStore, NewAsset};
use crate::types::ModelId;

fn new_asset(n: u8) -> NewAsset {
    NewAsset {
        given: None,
        sha256: format!("{n:02x}").repeat(32),
        model: ModelId("m".into()),
        segmentation: "w1/s1".to_owned(),
        choice: Default::default(),
        name: format!("{n}.wav"),
        path: format!("/media/{n}.wav"),
        owned: false,
        size_bytes: 3,
        metadata: serde_json::json!({"n": n}),
    }
}

async fn verdict(store: &SqliteStore, replay: &Replay, uploads: bool) -> Verdict {
    compare(store, replay, &Census::of(store, replay).await.unwrap(), uploads).await.unwrap()
}

#[test]
fn only_damage_lets_a_store_be_rebuilt() {
    assert!(matches!(readable(Ok(1), true), Ok(Some(1))));
    assert!(matches!(readable::<()>(Err(StoreError::Malformed("x".into())), true), Ok(None)));
    let unreadable = readable::<()>(Err(StoreError::Malformed("x".into())), false).unwrap_err();
    assert_eq!(unreadable.code(), "store_unreadable");
    for wanted in [true, false] {
        let too_few = StoreError::Database("(code: 14) unable to open database file".into());
        assert_eq!(readable::<()>(Err(too_few), wanted).unwrap_err().code(), "store_failed");
    }
}

#[tokio::test]
async fn a_store_is_whole_lacking_or_behind() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&dir.path().join("store"), &ModelId("m".into())).await.unwrap();
    let none = Replay::default();
    assert_eq!(verdict(&store, &none, false).await, Verdict::Whole);
    assert!(matches!(verdict(&store, &none, true).await, Verdict::Behind(_)));

    let (first, _) = store.begin_asset(new_asset(1)).await.unwrap();
    let (second, _) = store.begin_asset(new_asset(2)).await.unwrap();
    let entry = |asset: &AssetRecord| match put(asset) {
        Entry::Put(entry) => entry,
        other => panic!("{other:?}"),
    };
    let live = |assets: &[&AssetRecord]| -> BTreeMap<_, _> {
        assets.iter().map(|asset| (asset.id, entry(asset))).collect()
    };
    let acknowledged = store.acknowledged().await.unwrap();
    assert_eq!(acknowledged, 2);
    let replay = Replay { exists: true, acknowledged, live: live(&[&first, &second]), ..Replay::default() };
    assert_eq!(verdict(&store, &replay, true).await, Verdict::Whole);
    // An older folder, without a ledger.
    assert_eq!(verdict(&store, &none, true).await, Verdict::Whole);

    // A deletion that a crash kept out of the ledger.
    store.delete_asset(second.id).await.unwrap();
    assert_eq!(verdict(&store, &replay, true).await, Verdict::Whole);
    // The same count, but one row fewer.
    let damaged = Replay { acknowledged: store.acknowledged().await.unwrap(), ..replay.clone() };
    let mut renamed = entry(&first);
    renamed.name = "as it was".to_owned();
    let mut altered = damaged.clone();
    altered.live.insert(first.id, renamed.clone());
    let lacks = |altered: Vec<AssetEntry>| Verdict::Damaged { missing: vec![entry(&second)], altered };
    assert_eq!(verdict(&store, &damaged, true).await, lacks(vec![]));
    assert_eq!(verdict(&store, &altered, true).await, lacks(vec![renamed]));
    let older = Replay { acknowledged: acknowledged + 7, ..replay };
    let shortfall = Shortfall { acknowledged: 9, stored: 3, missing_assets: 1 };
    assert_eq!(verdict(&store, &older, true).await, Verdict::Behind(shortfall));
    assert!(shortfall.to_string().contains("3 of 9"));
}

#[tokio::test]
async fn the_ledger_is_brought_to_what_the_store_says() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().canonicalize().unwrap();
    let quarantine = Quarantine::of(&data);
    let store = SqliteStore::open(&data, &ModelId("m".into())).await.unwrap();
    let (first, _) = store.begin_asset(new_asset(1)).await.unwrap();
    let replay = Ledger::read(&data).unwrap();
    drop(settle(&store, &replay, &data, &quarantine).await.unwrap());
    let replay = Ledger::read(&data).unwrap();
    assert_eq!((replay.acknowledged, replay.live.len()), (1, 1));

    // Deleted but not in the ledger: a crash.
    store.delete_asset(first.id).await.unwrap();
    drop(settle(&store, &replay, &data, &quarantine).await.unwrap());
    let replay = Ledger::read(&data).unwrap();
    assert_eq!((replay.acknowledged, replay.live.len()), (2, 0));

    // A damaged ledger is quarantined.
    let path = data.join(LEDGER);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[12] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let replay = Ledger::read(&data).unwrap();
    assert_eq!(replay.damaged_lines, 1);
    drop(settle(&store, &replay, &data, &quarantine).await.unwrap());
    assert_eq!(Ledger::read(&data).unwrap().damaged_lines, 0);
    assert_eq!(crate::files::quarantined(&data).unwrap().len(), 1);
}
