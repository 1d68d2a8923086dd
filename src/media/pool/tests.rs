#![allow(clippy::unwrap_used)]
use super::*;

fn pool(workers: usize, memory_bytes: u64, wait_ms: u64) -> Arc<DecodePool> {
    DecodePool::new(PoolLimits { workers, memory_bytes, wait: Duration::from_millis(wait_ms) })
}

fn never() -> bool {
    false
}

#[tokio::test]
async fn bulk_work_leaves_a_seat_and_interactive_work_takes_all() {
    let pool = pool(4, 100, 20);
    let bulk = [pool.seat(Lane::Bulk).await.unwrap(), pool.seat(Lane::Bulk).await.unwrap()];
    let third = pool.seat(Lane::Bulk).await.unwrap();
    let fourth = tokio::time::timeout(Duration::from_millis(30), pool.seat(Lane::Bulk)).await;
    assert!(fourth.is_err(), "the last seat is not for bulk work");
    let person = pool.seat(Lane::Interactive).await.unwrap();
    let late = pool.seat(Lane::Interactive).await.unwrap_err();
    assert_eq!(late.code(), "overloaded");
    drop(third);
    let more = pool.seat(Lane::Interactive).await.unwrap();
    drop((bulk, person, more));
    let state = pool.lock();
    assert_eq!((state.running, state.waiting[0].len(), state.waiting[1].len()), ([0, 0], 0, 0));
}

#[tokio::test]
async fn those_who_went_away_hold_no_place_and_those_who_came_first_go_first() {
    let pool = pool(1, 100, 5000);
    let first = pool.seat(Lane::Interactive).await.unwrap();
    let wait = |lane| {
        let pool = Arc::clone(&pool);
        tokio::spawn(async move { pool.seat(lane).await })
    };
    let gone = wait(Lane::Interactive);
    tokio::task::yield_now().await;
    let (bulk, person) = (wait(Lane::Bulk), wait(Lane::Interactive));
    tokio::task::yield_now().await;
    gone.abort();
    assert!(gone.await.is_err());
    drop(first);
    let person = person.await.unwrap().unwrap();
    assert!(!bulk.is_finished());
    drop(person);
    assert_eq!(bulk.await.unwrap().unwrap().lane(), Lane::Bulk);
}

#[tokio::test]
async fn bulk_work_is_not_starved() {
    let pool = pool(1, 100, 60_000);
    let seat = pool.seat(Lane::Interactive).await.unwrap();
    let wait = |lane| {
        let pool = Arc::clone(&pool);
        tokio::spawn(async move { pool.seat(lane).await })
    };
    let bulk = wait(Lane::Bulk);
    tokio::task::yield_now().await;
    let persons: Vec<_> = (0..3).map(|_| wait(Lane::Interactive)).collect();
    tokio::time::sleep(BULK_WAITS_AT_MOST).await;
    drop(seat);
    assert_eq!(bulk.await.unwrap().unwrap().lane(), Lane::Bulk);
    for person in persons {
        person.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_full_queue_is_told_at_once() {
    let pool = pool(1, 100, 60_000);
    let _seat = pool.seat(Lane::Interactive).await.unwrap();
    let wait = || {
        let pool = Arc::clone(&pool);
        tokio::spawn(async move { pool.seat(Lane::Interactive).await })
    };
    let waiting: Vec<_> = (0..WAITING_PER_WORKER).map(|_| wait()).collect();
    tokio::task::yield_now().await;
    assert_eq!(pool.seat(Lane::Interactive).await.unwrap_err().code(), "overloaded");
    waiting.into_iter().for_each(|task| task.abort());
}

#[test]
fn memory_stays_within_the_budget_and_large_files_have_it_to_themselves() {
    let pool = pool(8, 100, 50);
    let small = pool.reserve(Lane::Bulk, 40, &mut never).unwrap();
    let mut give_up = || true;
    assert!(pool.reserve(Lane::Bulk, 40, &mut give_up).is_err(), "a quarter is kept from bulk work");
    let mut person = pool.reserve(Lane::Interactive, 60, &mut never).unwrap();
    assert_eq!(pool.reserve(Lane::Interactive, 1, &mut never).unwrap_err().code(), "overloaded");
    person.shrink(10);
    drop(pool.reserve(Lane::Interactive, 50, &mut never).unwrap());
    drop(small);
    let large = pool.reserve(Lane::Bulk, 1000, &mut never).unwrap();
    assert_eq!((large.bytes, large.charged), (1000, 75));
    assert!(pool.reserve(Lane::Bulk, 1, &mut give_up).is_err());
    drop(pool.reserve(Lane::Interactive, 15, &mut never).unwrap());
    drop((large, person));
    let state = pool.lock();
    assert_eq!((state.reserved, state.tickets[0].len(), state.tickets[1].len()), ([0, 0], 0, 0));
}

#[test]
fn many_threads_never_hold_more_than_the_budget() {
    let pool = pool(8, 1000, 60_000);
    let most = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for n in 0..16_u64 {
            let (pool, most) = (&pool, &most);
            scope.spawn(move || {
                for round in 0..40 {
                    let lane = if n % 2 == 0 { Lane::Bulk } else { Lane::Interactive };
                    let bytes = 1 + (n * 7919 + round * 104_729) % 900;
                    let memory = pool.reserve(lane, bytes, &mut never).unwrap();
                    let held = pool.lock().reserved.iter().sum();
                    most.fetch_max(held, std::sync::atomic::Ordering::Relaxed);
                    drop(memory);
                }
            });
        }
    });
    let most = most.into_inner();
    assert!(most <= 1000 && most > 500, "{most}");
    assert_eq!(pool.lock().reserved, [0, 0]);
}

#[test]
fn defaults_leave_room_for_both_lanes() {
    for workers in 1..40 {
        let limits = PoolLimits { workers, ..PoolLimits::default() };
        let bulk = limits.bulk_workers();
        assert!(bulk >= 1 && (workers == 1 || bulk < workers), "{workers}: {bulk}");
    }
}
