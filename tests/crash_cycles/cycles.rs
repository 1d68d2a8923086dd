//! Cycles of kill, restart and comparison.

use super::*;

/// How one cycle ends, and when at the latest.
struct Plan {
    /// The fail point at which the server ends by itself.
    point: Option<&'static str>,
    /// Whether the model changes meanwhile.
    changes_model: bool,
    lasts: Duration,
}

impl Plan {
    /// Every third cycle ends at a fail point, every sixth changes the model.
    fn of(cycle: usize, rng: &mut StdRng) -> Self {
        let point = if cycle % 3 == 2 { fail_points::ALL.choose(rng).copied() } else { None };
        let changes_model = cycle % 6 == 4 || point.is_some_and(|point| point.starts_with("models"));
        let millis = match (changes_model, point) {
            (true, _) => rng.random_range(200..4000),
            (false, Some(_)) => rng.random_range(10..900),
            (false, None) => rng.random_range(10..500),
        };
        Self { point, changes_model, lasts: Duration::from_millis(millis) }
    }
}

/// Runs this many cycles; each ends at a fail point or by a signal at a random moment.
fn cycles(count: usize, seed: u64) {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(dir.path());
    let mut rng = StdRng::seed_from_u64(seed);
    let began = Instant::now();
    let mut at_points: BTreeMap<&str, usize> = BTreeMap::new();
    for cycle in 0..count {
        let Plan { point, changes_model, lasts } = Plan::of(cycle, &mut rng);
        let options = match point {
            Some(point) => {
                let passes = rng.random_range(0..6);
                world.options().env("FAILPOINTS", &format!("{point}={passes}*off->return"))
            }
            None => world.options(),
        };
        let Some(server) = Server::try_start(options) else {
            // A fail point at startup: the next cycle finds the leftovers.
            *at_points.entry(point.unwrap_or("start")).or_default() += 1;
            assert!(point.is_some(), "cycle {cycle} of seed {seed}: the server does not start");
            continue;
        };
        if point.is_none() {
            world.check(&server);
        }
        let over = AtomicBool::new(false);
        let seeds: Vec<u64> = (0..CLIENTS).map(|_| rng.random()).collect();
        let died = std::thread::scope(|scope| {
            for seed in seeds {
                let (world, server, over) = (&world, &server, &over);
                scope.spawn(move || {
                    let mut rng = StdRng::seed_from_u64(seed);
                    while !over.load(Ordering::Relaxed) {
                        world.act(server, &mut rng);
                    }
                });
            }
            if changes_model {
                scope.spawn(|| world.change_model(&server));
            }
            let began = Instant::now();
            while began.elapsed() < lasts && server.is_up() {
                std::thread::sleep(Duration::from_millis(5));
            }
            let died = !server.is_up();
            over.store(true, Ordering::Relaxed);
            server.kill_now();
            died
        });
        if let Some(point) = point.filter(|_| died) {
            *at_points.entry(point).or_default() += 1;
        }
        assert!(point.is_some() || !died, "cycle {cycle} of seed {seed}: the server ended by itself");
        drop(server);
    }

    let server = Server::start(world.options());
    world.check(&server);
    eventually("every asset is indexed", || {
        pages(&server, "/v1/assets").iter().all(|asset| asset["state"] == "ready").then_some(())
    });
    server.stop();
    let snapshots = world.truth().snapshots.clone();
    for id in &snapshots {
        let root = world.snapshots.to_str().unwrap();
        let verified = run(&["snapshot", "verify", id, "--snapshot-root", root]);
        assert!(verified.status.success(), "{id}: {}", String::from_utf8_lossy(&verified.stderr));
    }
    eprintln!("{count} cycles in {:.0} s: 0 lost, 0 twice, 0 phantom", began.elapsed().as_secs_f64());
    eprintln!("acknowledged: {:?}", world.truth().counts);
    eprintln!("ended at fail points: {at_points:?}");
}

#[test]
fn a_dozen_kills_lose_nothing() {
    cycles(12, 7);
}

#[test]
#[ignore = "half an hour: `make test-crash`"]
fn a_thousand_kills_lose_nothing() {
    let count = std::env::var("TRIPTYCH_CYCLES").ok().map_or(1000, |text| text.parse().unwrap());
    let seed = std::env::var("TRIPTYCH_SEED").ok().map_or(1, |text| text.parse().unwrap());
    cycles(count, seed);
}
