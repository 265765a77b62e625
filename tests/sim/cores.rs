//! Which worlds are lived through, and on which cores: all.

use std::num::NonZero;
use std::ops::RangeInclusive;
use std::panic::{RefUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// As many as `few`, as many as OCELLUS_SEEDS says, or the one of OCELLUS_SEED.
pub(crate) fn seeds(few: u64) -> RangeInclusive<u64> {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    match number("OCELLUS_SEED") {
        Some(seed) => seed..=seed,
        None => 1..=number("OCELLUS_SEEDS").unwrap_or(few),
    }
}

/// Lives through the worlds of all these seeds, on every core there is; names those that panic.
pub(crate) fn live<T: Send>(
    seeds: &RangeInclusive<u64>,
    world: impl Fn(u64) -> T + Sync + RefUnwindSafe,
) -> Vec<(u64, T)> {
    let next = AtomicU64::new(*seeds.start());
    let lived = Mutex::new(Vec::new());
    let failed = Mutex::new(Vec::new());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed > *seeds.end() {
                return;
            }
            match catch_unwind(|| world(seed)) {
                Ok(outcome) => lived.lock().unwrap().push((seed, outcome)),
                Err(_) => failed.lock().unwrap().push(seed),
            }
        }
    };
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(work))));
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "went wrong: OCELLUS_SEED= {failed:?}");
    let mut lived = lived.into_inner().unwrap();
    lived.sort_by_key(|(seed, _)| *seed);
    lived
}
