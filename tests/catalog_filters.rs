//! Filters against a slow reference without indexes, which walks the JSON of every asset.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;
use serde_json::{Value, json};
use triptych::catalog::{Catalog, ClipEntry, Condition, Filter, Selection};
use triptych::store::{AssetRecord, AssetState};
use triptych::types::{AssetId, AssetKind, ClipId, TimeSpan};

fn asset(n: usize, metadata: &Value) -> AssetRecord {
    AssetRecord {
        choice: Default::default(),
        tracks: Vec::new(),
        id: AssetId::generate(),
        sha256: n.to_string(),
        name: format!("asset {}", n % 3),
        path: String::new(),
        owned: false,
        size_bytes: 1,
        kind: [None, Some(AssetKind::Video), Some(AssetKind::Audio)][n % 3],
        duration_secs: n as f64,
        width: 0,
        height: 0,
        state: AssetState::Ready,
        error: None,
        metadata: metadata.clone(),
        clips: 0,
        created_unix_ms: 86_400_000 * n as i64,
        updated_unix_ms: 0,
        file_mtime_ns: None,
        damage: None,
    }
}

/// Every value of a key, in the metadata's own JSON.
fn values_at<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Array(list) => list.iter().for_each(|value| values_at(value, key, found)),
        Value::Null => {}
        _ if key.is_empty() => found.push(value),
        Value::Object(object) => {
            for (name, value) in object {
                if key == name {
                    // A list is there, whatever is in it.
                    found.extend(value.is_array().then_some(value));
                    values_at(value, "", found);
                } else if let Some(rest) = key.strip_prefix(name.as_str()).and_then(|r| r.strip_prefix('.')) {
                    values_at(value, rest, found);
                }
            }
        }
        _ => {}
    }
}

fn instant(value: &Value) -> Option<i64> {
    let text = value.as_str()?;
    let whole = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    chrono::DateTime::parse_from_rfc3339(&whole).ok().map(|at| at.timestamp_micros())
}

fn compare(value: &Value, limit: &Value) -> Option<std::cmp::Ordering> {
    match (value.as_f64(), limit.as_f64()) {
        (Some(value), Some(limit)) => value.partial_cmp(&limit),
        _ => Some(instant(value)?.cmp(&instant(limit)?)),
    }
}

fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

fn holds(condition: &Condition, asset: &AssetRecord, clip: &ClipEntry) -> bool {
    if let Some(filter) = &condition.filter {
        return passes(filter, asset, clip);
    }
    let key = condition.key.as_deref().unwrap();
    let own = json!({
        "asset_id": asset.id.to_string(),
        "name": asset.name,
        "kind": asset.kind.map(AssetKind::as_str),
        "duration_secs": asset.duration_secs,
        "created_at": triptych::types::rfc3339_millis(asset.created_unix_ms),
        "start_secs": clip.span.start_secs,
        "end_secs": clip.span.end_secs,
        "agreement": clip.agreement,
        "metadata": asset.metadata,
    });
    let mut values = Vec::new();
    values_at(&own, key, &mut values);
    if let Some(exists) = condition.exists {
        return exists != values.is_empty();
    }
    values.into_iter().any(|value| {
        use std::cmp::Ordering::{Equal, Greater, Less};
        let within = |limit: &Option<Value>, allowed: &[std::cmp::Ordering]| {
            limit.as_ref().is_none_or(|limit| compare(value, limit).is_some_and(|o| allowed.contains(&o)))
        };
        condition.eq.as_ref().is_none_or(|eq| same(value, eq))
            && condition.one_of.as_ref().is_none_or(|list| list.iter().any(|one| same(value, one)))
            && within(&condition.gt, &[Greater])
            && within(&condition.gte, &[Greater, Equal])
            && within(&condition.lt, &[Less])
            && within(&condition.lte, &[Less, Equal])
    })
}

fn passes(filter: &Filter, asset: &AssetRecord, clip: &ClipEntry) -> bool {
    let holds = |condition: &Condition| holds(condition, asset, clip);
    (filter.asset_ids.is_empty() || filter.asset_ids.contains(&asset.id))
        && filter.must.iter().all(holds)
        && (filter.should.is_empty() || filter.should.iter().any(holds))
        && !filter.must_not.iter().any(holds)
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        (-2_i64..4).prop_map(|n| json!(n)),
        (-2_i64..4).prop_map(|n| json!(n as f64 / 2.0)),
        any::<bool>().prop_map(|b| json!(b)),
        prop::sample::select(vec!["", "a", "b", "asset 1", "video", "0"]).prop_map(|t| json!(t)),
        (1_u32..5).prop_map(|day| json!(format!("1970-01-{day:02}"))),
        (1_u32..5).prop_map(|day| json!(format!("1970-01-{day:02}T01:30:00+01:00"))),
    ]
}

fn metadata() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![4 => scalar(), 1 => Just(Value::Null)];
    let value = leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            prop::collection::btree_map("[xyz]", inner, 0..3).prop_map(|map| json!(map)),
        ]
    });
    prop::collection::btree_map("[xyz](\\.[xy])?", value, 0..4).prop_map(|map| json!(map))
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "metadata\\.[xyz](\\.[xyz]){0,2}",
        3 => prop::sample::select(vec![
            "asset_id", "name", "kind", "duration_secs", "created_at", "start_secs", "end_secs", "agreement",
        ]).prop_map(str::to_owned),
    ]
}

fn limit() -> impl Strategy<Value = Option<Value>> {
    let value = prop_oneof![
        (-2_i64..8).prop_map(|n| json!(n)),
        (1_u32..6).prop_map(|day| json!(format!("1970-01-{day:02}"))),
    ];
    prop::option::weighted(0.4, value)
}

fn condition() -> BoxedStrategy<Condition> {
    let tests = (
        prop::option::weighted(0.4, scalar()),
        prop::option::weighted(0.3, prop::collection::vec(scalar(), 0..4)),
    );
    let plain = (key(), tests, limit(), limit(), limit(), limit()).prop_map(
        |(key, (eq, one_of), gt, gte, lt, lte)| {
            let none = eq.is_none() && one_of.is_none();
            let unlimited = gt.is_none() && gte.is_none() && lt.is_none() && lte.is_none();
            let exists = (none && unlimited).then_some(key.len().is_multiple_of(2));
            Condition { key: Some(key), eq, one_of, gt, gte, lt, lte, exists, filter: None }
        },
    );
    plain
        .prop_recursive(2, 8, 3, |inner| {
            filter_of(inner)
                .prop_map(|filter| Condition { filter: Some(Box::new(filter)), ..Condition::default() })
        })
        .boxed()
}

fn filter_of(condition: impl Strategy<Value = Condition> + Clone) -> impl Strategy<Value = Filter> {
    let list = || prop::collection::vec(condition.clone(), 0..3);
    (list(), list(), list()).prop_map(|(must, should, must_not)| Filter {
        must,
        should,
        must_not,
        asset_ids: Vec::new(),
    })
}

#[derive(Debug, Clone)]
enum Change {
    Remove(usize),
    Rewrite(usize, Value),
    Drop(usize),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        (0_usize..12).prop_map(Change::Remove),
        ((0_usize..12), metadata()).prop_map(|(n, value)| Change::Rewrite(n, value)),
        (0_usize..12).prop_map(Change::Drop),
    ];
    prop::collection::vec(change, 0..4)
}

fn clips_of(n: usize) -> Vec<ClipEntry> {
    let clip = |at: usize| ClipEntry {
        id: ClipId((n * 4 + at) as i64 + 1),
        span: TimeSpan::new(at as f64, at as f64 + 1.5).unwrap(),
        agreement: (at != 1).then_some(at as f32 / 2.0 - 0.5),
    };
    (0..n % 4 + 1).map(clip).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_filter_keeps_what_walking_the_json_keeps(
        all in prop::collection::vec(metadata(), 1..12),
        changes in changes(),
        filters in prop::collection::vec(filter_of(condition()), 1..6),
        named in prop::collection::vec(0_usize..12, 0..3),
    ) {
        let catalog = Catalog::default();
        let mut truth: Vec<Option<(AssetRecord, Vec<ClipEntry>)>> = Vec::new();
        for (n, metadata) in all.iter().enumerate() {
            let record = asset(n, metadata);
            catalog.put_asset(&record);
            catalog.add_clips(record.id, &clips_of(n));
            truth.push(Some((record, clips_of(n))));
        }
        for change in changes {
            // What is remembered must not outlive the change.
            filters.iter().for_each(|filter| drop(catalog.select(filter)));
            let (Change::Remove(n) | Change::Rewrite(n, _) | Change::Drop(n)) = change;
            let Some(Some((record, clips))) = truth.get_mut(n) else { continue };
            match change {
                Change::Rewrite(_, metadata) => {
                    record.metadata = metadata;
                    catalog.put_asset(record);
                }
                Change::Drop(_) => {
                    clips.clear();
                    catalog.drop_clips(record.id);
                }
                Change::Remove(_) => {
                    catalog.remove_asset(record.id);
                    truth[n] = None;
                }
            }
        }
        let everything: Vec<(&AssetRecord, ClipEntry)> = truth
            .iter()
            .flatten()
            .flat_map(|(record, clips)| clips.iter().map(move |clip| (record, *clip)))
            .collect();
        for (n, mut filter) in filters.into_iter().enumerate() {
            if n == 0 {
                let ids = named.iter().filter_map(|n| truth.get(*n)?.as_ref()).map(|(record, _)| record.id);
                filter.asset_ids = ids.collect();
            }
            prop_assert!(filter.check().is_ok(), "{:?}", filter.check());
            let selection = catalog.select(&filter);
            prop_assert_eq!(&catalog.select(&filter), &selection);
            if let Selection::Only(ids) | Selection::Except(ids) = &*selection {
                prop_assert!(ids.is_sorted_by(|a, b| a < b));
            }
            for (record, clip) in &everything {
                prop_assert_eq!(selection.has(clip.id), passes(&filter, record, clip), "{:?} {:?}", filter, record);
            }
        }
    }
}

/// Clips whose ids follow each other, or lie between other assets' clips; in two batches.
fn batches(n: usize) -> [Vec<ClipEntry>; 2] {
    let id = |at: usize| if n.is_multiple_of(3) { at * 1000 + n } else { 10_000 + n * 5 + at };
    let clip = |at: usize| ClipEntry {
        id: ClipId(id(at) as i64),
        span: TimeSpan::new(at as f64, at as f64 + 1.5).unwrap(),
        agreement: None,
    };
    [(0..n % 3).map(clip).collect(), (n % 3..n % 5).map(clip).collect()]
}

/// So few values that each has many assets, and one of its own for each asset.
fn many() -> impl Strategy<Value = Vec<Value>> {
    let one = (0_u32..4, prop::option::weighted(0.3, 0_u32..3), prop::collection::vec(0_u32..3, 0..3));
    prop::collection::vec(one, 1..200).prop_map(|all| {
        let metadata = |(n, (x, y, z)): (usize, (u32, Option<u32>, Vec<u32>))| {
            json!({"x": x, "y": y, "z": z, "own": n, "rare": (n % 50 == 7).then_some(true)})
        };
        all.into_iter().enumerate().map(metadata).collect()
    })
}

fn plain_condition() -> BoxedStrategy<Condition> {
    let of = |key: &str, rest: Value| {
        let mut whole = json!({"key": format!("metadata.{key}")});
        whole.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        serde_json::from_value::<Condition>(whole).unwrap()
    };
    let key = || prop::sample::select(vec!["x", "y", "z"]);
    prop_oneof![
        (key(), 0_u32..4).prop_map(move |(key, value)| of(key, json!({"eq": value}))),
        (key(), prop::collection::vec(0_u32..4, 0..4))
            .prop_map(move |(key, values)| of(key, json!({"in": values}))),
        (key(), any::<bool>()).prop_map(move |(key, exists)| of(key, json!({"exists": exists}))),
        (0_u32..200, 0_u32..200)
            .prop_map(move |(from, to)| of("own", json!({"gte": from.min(to), "lt": from.max(to)}))),
        any::<bool>().prop_map(move |exists| of("rare", json!({"exists": exists}))),
        Just(serde_json::from_value(json!({"key": "start_secs", "gt": 0.5})).unwrap()),
    ]
    .boxed()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_filter_keeps_what_walking_the_json_keeps_among_many_assets(
        all in many(),
        gone in prop::collection::hash_set(0_usize..200, 0..60),
        moved in prop::collection::hash_set(0_usize..200, 0..20),
        emptied in prop::collection::hash_set(0_usize..200, 0..20),
        filters in prop::collection::vec(filter_of(plain_condition()), 1..6),
    ) {
        let catalog = Catalog::default();
        let mut truth = Vec::new();
        for (n, metadata) in all.iter().enumerate() {
            let mut record = asset(n, metadata);
            catalog.put_asset(&record);
            let mut clips = Vec::new();
            for batch in batches(n) {
                catalog.add_clips(record.id, &batch);
                clips.extend(batch);
            }
            if moved.contains(&n) {
                record.metadata = json!({"x": 3, "own": -1});
                catalog.put_asset(&record);
            }
            if emptied.contains(&n) {
                catalog.drop_clips(record.id);
                clips = batches(n)[0].clone();
                catalog.add_clips(record.id, &clips);
            }
            truth.push((record, clips));
        }
        for n in gone.iter().filter(|n| **n < all.len()) {
            catalog.remove_asset(truth[*n].0.id);
        }
        for filter in &filters {
            let selection = catalog.select(filter);
            if let Selection::Only(ids) | Selection::Except(ids) = &*selection {
                prop_assert!(ids.is_sorted_by(|a, b| a < b));
            }
            for (n, (record, clips)) in truth.iter().enumerate() {
                for clip in clips.iter().filter(|_| !gone.contains(&n)) {
                    let passes = passes(filter, record, clip);
                    prop_assert_eq!(selection.has(clip.id), passes, "{:?} {:?}", filter, record);
                }
                if let (true, Selection::Only(ids)) = (gone.contains(&n), &*selection) {
                    prop_assert!(clips.iter().all(|clip| ids.binary_search(&clip.id).is_err()));
                }
            }
        }
    }
}
