//! Searches beside changes, and graphs that grew.

use super::*;

#[test]
fn searches_and_changes_go_on_side_by_side() {
    GRAPHS.into_iter().for_each(changes_with);
}

fn changes_with((engine, _): (GraphEngine, &str)) {
    let mut rng = StdRng::seed_from_u64(9);
    let all = clustered(&mut rng, 3000, 30, 32);
    let index = HybridIndex::with_graph(Rows::new(32), engine, 800);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for reader in 0..3 {
            let (index, all, done) = (&index, &all, &done);
            scope.spawn(move || {
                let mut n = reader;
                while !done.load(Ordering::Relaxed) {
                    let query = &all[n % all.len()];
                    for hit in index.search(query, 10, USUAL, None).unwrap() {
                        // A hit is scored with the vector its clip has, never with another row's.
                        let own = &all[hit.clip.0 as usize - 1];
                        assert!((own.cosine(query) - hit.score).abs() < 1e-5);
                    }
                    n += 7;
                }
            });
        }
        for (id, vector) in numbered(&all) {
            index.upsert(id, vector).unwrap();
            if id.0 % 3 == 0 {
                index.remove(ClipId(id.0 / 3));
            }
        }
        std::thread::sleep(Duration::from_millis(50));
        done.store(true, Ordering::Relaxed);
    });
    index.wait_for_graph();
    assert_eq!(index.len(), 2000);
    for (id, vector) in numbered(&all).skip(1000).step_by(17) {
        assert!(finds_itself(&index, id, vector, USUAL));
    }
}

/// Our own graph is never rebuilt: it grows, shrinks and moves what changes.
#[test]
fn a_graph_that_grew_and_changed_finds_what_a_new_one_finds() {
    let mut rng = StdRng::seed_from_u64(10);
    let dim = 48;
    let all = clustered(&mut rng, 6000, 60, dim);
    let index = index_of(GraphEngine::Own, dim, 1000, numbered(&all[..1500]));
    let mut live: BTreeMap<ClipId, Embedding> =
        numbered(&all[..1500]).map(|(id, vector)| (id, vector.clone())).collect();
    let put = |live: &mut BTreeMap<ClipId, Embedding>, id: i64, vector: &Embedding| {
        index.upsert(ClipId(id), vector).unwrap();
        live.insert(ClipId(id), vector.clone());
    };
    for (n, vector) in all.iter().enumerate().skip(1500) {
        put(&mut live, n as i64 + 1, vector);
        assert!(index.has_graph(), "it answers while it grows");
    }
    // Half goes, and others take their slots; some clips get another vector; still scenes arrive.
    for id in (1..6000).step_by(2) {
        assert!(index.remove(ClipId(id)));
        live.remove(&ClipId(id));
    }
    let still = unit(random(&mut rng, dim));
    for n in 0..2000_i64 {
        let vector =
            if n % 4 == 0 { near(&mut rng, &still, 0.01) } else { near(&mut rng, &all[n as usize], 0.3) };
        put(&mut live, 10_000 + n, &vector);
        put(&mut live, 2 * n + 2, &near(&mut rng, &all[5999 - n as usize], 0.5));
        if n % 10 == 0 {
            let doubled = live[&ClipId(10_000 + n)].clone();
            put(&mut live, 20_000 + n, &doubled);
        }
    }
    for settled in [false, true] {
        let lost = live.iter().filter(|(id, vector)| !finds_itself(&index, **id, vector, USUAL)).count();
        assert_eq!(lost, 0, "of {}, settled: {settled}", live.len());
        index.wait_for_graph();
        assert!(index.has_graph());
    }
    let beside = index.scanned_beside_graph();
    assert!(beside.new == 0 && beside.unreachable * 50 < live.len(), "{beside:?} of {}", live.len());
    let anew = index_of(GraphEngine::Own, dim, 1000, live.iter().map(|(id, vector)| (*id, vector)));
    let mut recalls = [0.0; 2];
    for n in 0..300 {
        let query = near(&mut rng, &all[n * 19], 0.4);
        let truth = index.search(&query, 10, EXACT, None).unwrap();
        for (sum, index) in recalls.iter_mut().zip([&index, &anew]) {
            *sum += recall(&index.search(&query, 10, USUAL, None).unwrap(), &truth) / 300.0;
        }
    }
    eprintln!("recall@10: {:.4} after changes, {:.4} anew", recalls[0], recalls[1]);
    assert!(recalls[0] > 0.98 && recalls[0] > recalls[1] - 0.01, "{recalls:?}");
    // All of it goes, and it starts again.
    for id in live.keys() {
        assert!(index.remove(*id));
    }
    index.wait_for_graph();
    assert!(!index.has_graph() && index.search(&still, 3, USUAL, None).unwrap().is_empty());
    for (id, vector) in numbered(&all[..2000]) {
        index.upsert(id, vector).unwrap();
    }
    index.wait_for_graph();
    assert!(index.has_graph() && numbered(&all[..2000]).all(|(id, v)| finds_itself(&index, id, v, USUAL)));
}
