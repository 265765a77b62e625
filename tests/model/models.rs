//! Loom models: every interleaving, not a lucky one.

use std::collections::VecDeque;
use std::time::Duration;

use loom::sync::{Arc, Mutex};
use loom::thread;

use crate::h264::Continuity;
use crate::ring::{IdrRequests, Newest, Taken};
use crate::stats::Counter;
use crate::time::Instant;

fn at(millis: u64) -> Instant {
    Instant::from_micros(millis * 1_000)
}

#[test]
fn counts_are_never_lost() {
    loom::model(|| {
        let counter = Arc::new(Counter::default());
        let other = Arc::clone(&counter);
        let thread = thread::spawn(move || other.add(2));
        counter.increment();
        thread.join().unwrap();
        assert_eq!(counter.get(), 3);
    });
}

#[test]
fn an_idr_that_was_granted_is_made_and_the_bucket_is_never_overdrawn() {
    loom::model(|| {
        let requests = Arc::new(IdrRequests::default());
        let viewer = Arc::clone(&requests);
        let thread = thread::spawn(move || u32::from(viewer.request(at(10_000))));
        let own = u32::from(requests.request(at(10_000)));
        let mut made = u32::from(requests.take(at(10_000), at(0)));
        let granted = own + thread.join().unwrap();
        made += u32::from(requests.take(at(10_300), at(10_000)));
        assert_eq!(granted, 2, "the bucket holds four");
        assert!((1..=2).contains(&made), "requests that wait are one, but none is forgotten");
        assert!(!requests.take(at(10_600), at(10_300)));
        // Two tokens at most are spent, so two at least are left.
        for _ in 0..2 {
            assert!(requests.request(at(10_600)));
            requests.clear();
        }
    });
}

#[test]
fn the_newest_value_is_taken_and_every_other_one_comes_back() {
    loom::model(|| {
        let slot = Arc::new(Newest::default());
        let camera = Arc::clone(&slot);
        let thread = thread::spawn(move || {
            let mut replaced = Vec::new();
            for value in 1..=2 {
                replaced.extend(camera.put(value));
            }
            camera.close();
            replaced
        });
        let mut seen = Vec::new();
        loop {
            match slot.take(Duration::MAX) {
                Taken::Value(value) => seen.push(value),
                Taken::TimedOut => {}
                Taken::Closed => break,
            }
        }
        let replaced = thread.join().unwrap();
        assert_eq!(seen.last(), Some(&2), "the newest is never lost");
        assert!(seen.is_sorted());
        let mut all = [seen, replaced].concat();
        all.sort_unstable();
        assert_eq!(all, [1, 2], "each is taken or replaced, once");
    });
}

/// A bounded queue as `heapless::spsc` promises to be one: full or not, in order, nothing lost.
#[derive(Clone)]
struct ModelQueue(Arc<Mutex<VecDeque<u32>>>);

impl ModelQueue {
    const CAPACITY: usize = 1;

    fn has_room(&self) -> bool {
        self.0.lock().unwrap().len() < Self::CAPACITY
    }

    fn push(&self, value: u32) {
        let mut queue = self.0.lock().unwrap();
        assert!(queue.len() < Self::CAPACITY, "only the producer makes a queue fuller");
        queue.push_back(value);
    }

    fn pop(&self) -> Option<u32> {
        self.0.lock().unwrap().pop_front()
    }
}

#[test]
fn a_consumer_never_sees_a_picture_without_its_references() {
    const IDR: [u32; 2] = [0, 2];
    const COUNT: u32 = 4;
    loom::model(|| {
        let queue = ModelQueue(Arc::new(Mutex::new(VecDeque::new())));
        let consumer = queue.clone();
        let thread = thread::spawn(move || (0..2).filter_map(|_| consumer.pop()).collect());
        let mut continuity = Continuity::START;
        for number in 0..COUNT {
            if continuity.admit(IDR.contains(&number), queue.has_room()) {
                queue.push(number);
            }
        }
        let mut seen: Vec<u32> = thread.join().unwrap();
        seen.extend(std::iter::from_fn(|| queue.pop()));
        for (index, number) in seen.iter().enumerate() {
            let has_reference = index > 0 && seen[index - 1] + 1 == *number;
            assert!(IDR.contains(number) || has_reference, "{seen:?}");
        }
    });
}
