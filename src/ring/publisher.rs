//! Access units from one producer to several consumers, without locks and without waiting.
//!
//! Built on `heapless::spsc`, whose `enqueue` and `dequeue` pair a release with an acquire; its
//! `peek` does not and is never used.

use std::fmt;
use std::sync::Arc;

use heapless::spsc;

use crate::h264::{AccessUnit, Continuity};
use crate::stats::Pipeline;

/// Makes the producing end and `consumer_count` consuming ends.
///
/// `unit_capacity` bytes are set aside for every access unit of the pool, so that the steady
/// state allocates nothing. The queues live as long as the process: a camera has one ring.
#[must_use]
pub fn publisher(
    consumer_count: usize,
    unit_capacity: usize,
    stats: Arc<Pipeline>,
) -> (Publisher, Vec<Consumer>) {
    let (outlets, consumers) = (0..consumer_count)
        .map(|_| {
            let queue: &'static mut spsc::Queue<Arc<AccessUnit>, RING_LEN> =
                Box::leak(Box::new(spsc::Queue::new()));
            let (tx, rx) = queue.split();
            (Outlet { tx, continuity: Continuity::START }, Consumer { rx })
        })
        .unzip();
    // Every ring full, one unit in each consumer's hands, one being written.
    let pool_len = consumer_count * RING_LEN + 1;
    let pool = (0..pool_len).map(|_| Arc::new(AccessUnit::with_capacity(unit_capacity))).collect();
    (Publisher { pool, next: 0, outlets, stats }, consumers)
}

/// The producing end.
pub struct Publisher {
    pool: Vec<Arc<AccessUnit>>,
    /// Where the search for a free slot begins: slots come free in the order of their use.
    next: usize,
    outlets: Vec<Outlet>,
    stats: Arc<Pipeline>,
}

/// What became of an access unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// It is in the ring of every consumer that could take it.
    Yes,
    /// The writer had nothing to say.
    Nothing,
    /// No slot was free; nothing was written, and every consumer goes on at the next IDR.
    NoSlot,
}

impl Publisher {
    /// Lets `write` fill a free access unit, and passes it on if it says so.
    ///
    /// # Errors
    ///
    /// Whatever `write` returns; nothing is passed on then.
    ///
    /// # Panics
    ///
    /// Never: a slot that was found free stays free, because the pool alone refers to it.
    ///
    /// # Cost
    ///
    /// One `Arc` clone per consumer; no allocation, no lock, no system call.
    pub fn publish<E>(
        &mut self,
        write: impl FnOnce(&mut AccessUnit) -> Result<bool, E>,
    ) -> Result<Published, E> {
        let Some(index) = self.free_slot() else {
            self.stats.pool_empty.increment();
            for outlet in &mut self.outlets {
                outlet.continuity.interrupt();
            }
            return Ok(Published::NoSlot);
        };
        let slot = &mut self.pool[index];
        let unit = Arc::get_mut(slot).expect("free_slot found no other reference");
        if !write(unit)? || unit.is_empty() {
            return Ok(Published::Nothing);
        }
        for outlet in &mut self.outlets {
            if !outlet.offer(slot) {
                self.stats.ring_full.increment();
            }
        }
        self.next = index + 1;
        Ok(Published::Yes)
    }

    fn free_slot(&mut self) -> Option<usize> {
        let len = self.pool.len();
        (0..len)
            .map(|step| (self.next + step) % len)
            .find(|&index| Arc::get_mut(&mut self.pool[index]).is_some())
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("pool", &self.pool.len()).finish_non_exhaustive()
    }
}

/// The publisher's side of one consumer's queue.
struct Outlet {
    tx: spsc::Producer<'static, Arc<AccessUnit>>,
    continuity: Continuity,
}

impl Outlet {
    /// Passes `unit` on; `false` when it was dropped for want of room, now or earlier.
    fn offer(&mut self, unit: &Arc<AccessUnit>) -> bool {
        if !self.continuity.admit(unit.is_idr(), self.tx.ready()) {
            return false;
        }
        self.tx.enqueue(Arc::clone(unit)).is_ok()
    }
}

/// One consuming end.
pub struct Consumer {
    rx: spsc::Consumer<'static, Arc<AccessUnit>>,
}

impl Consumer {
    /// The oldest access unit that has not been taken.
    ///
    /// To be let go of soon: it is one of the pool's.
    pub fn pop(&mut self) -> Option<Arc<AccessUnit>> {
        self.rx.dequeue()
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").finish_non_exhaustive()
    }
}

/// Access units per consumer, plus one (a full queue keeps one place empty): half a second of
/// 30 fps video, more than a healthy consumer is ever late.
const RING_LEN: usize = 16;

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used, reason = "tests may fail")]
mod tests {
    use std::convert::Infallible;
    use std::thread;

    use super::*;
    use crate::time::Instant;

    fn nal(is_idr: bool, number: u32) -> Vec<u8> {
        let mut nal = vec![if is_idr { 0x65 } else { 0x41 }];
        nal.extend(number.to_be_bytes());
        nal
    }

    fn publish(publisher: &mut Publisher, is_idr: bool, number: u32) -> Published {
        let written: Result<_, Infallible> = publisher.publish(|unit| {
            unit.reset(Instant::from_micros(u64::from(number)));
            unit.push(&nal(is_idr, number)).unwrap();
            Ok(true)
        });
        written.unwrap()
    }

    fn number(unit: &AccessUnit) -> u32 {
        let nal = unit.nal_units().next().unwrap();
        u32::from_be_bytes(nal[1..5].try_into().unwrap())
    }

    #[test]
    fn a_full_ring_loses_units_up_to_the_next_idr_and_nobody_else_does() {
        let stats = Arc::new(Pipeline::default());
        let (mut publisher, mut consumers) = publisher(2, 64, Arc::clone(&stats));
        let mut slow = consumers.pop().unwrap();
        let mut quick = consumers.pop().unwrap();
        let (mut all, sent) = (Vec::new(), 45);
        for n in 0..sent {
            assert_eq!(publish(&mut publisher, n % 10 == 0, n), Published::Yes);
            all.extend(quick.pop().map(|unit| number(&unit)));
        }
        assert_eq!(all, (0..sent).collect::<Vec<_>>());
        let kept: Vec<u32> = std::iter::from_fn(|| slow.pop()).map(|u| number(&u)).collect();
        assert_eq!(kept, (0..15).collect::<Vec<_>>(), "the oldest stay, the rest is dropped whole");
        assert_eq!(stats.ring_full.get(), 30);
        for n in 45..55 {
            publish(&mut publisher, n % 10 == 0, n);
        }
        let after: Vec<u32> = std::iter::from_fn(|| slow.pop()).map(|u| number(&u)).collect();
        assert_eq!(after, (50..55).collect::<Vec<_>>(), "it goes on at an IDR");
    }

    #[test]
    fn nothing_is_passed_on_that_the_writer_does_not_call_a_unit() {
        let (mut publisher, mut consumers) = publisher(1, 64, Arc::default());
        let mut consumer = consumers.pop().unwrap();
        for (is_written, says) in [(true, false), (false, true)] {
            let published = publisher.publish(|unit| {
                unit.reset(Instant::ZERO);
                if is_written {
                    unit.push(&nal(true, 1)).unwrap();
                }
                Ok::<_, Infallible>(says)
            });
            assert_eq!((published, consumer.pop().is_none()), (Ok(Published::Nothing), true));
        }
        assert_eq!(publisher.publish(|_| Err::<bool, _>("broken")), Err("broken"));
        assert_eq!(publish(&mut publisher, true, 2), Published::Yes);
        assert_eq!(number(&consumer.pop().unwrap()), 2);
    }

    #[test]
    fn the_pool_is_a_full_ring_and_a_unit_in_hand_for_each_consumer_and_one_to_write() {
        for (consumer_count, pool_len) in [(1, 17), (2, 33), (3, 49)] {
            let (mut publisher, mut consumers) = publisher(consumer_count, 64, Arc::default());
            let mut held = Vec::new();
            while publish(&mut publisher, true, 0) == Published::Yes {
                held.extend(consumers[0].pop());
                assert!(held.len() < 100);
            }
            assert_eq!(held.len(), pool_len);
        }
        let (mut publisher, mut consumers) = publisher(1, 64, Arc::default());
        let mut held: Vec<_> = std::iter::from_fn(|| {
            publish(&mut publisher, true, 0);
            consumers[0].pop()
        })
        .collect();
        held.swap_remove(3);
        assert_eq!(publish(&mut publisher, true, 1), Published::Yes, "wherever the free one is");
        held.extend(consumers[0].pop());
        assert_eq!(publish(&mut publisher, true, 2), Published::NoSlot);
    }

    #[test]
    fn units_that_consumers_hold_are_never_written_again() {
        let (mut publisher, mut consumers) = publisher(1, 64, Arc::default());
        let mut consumer = consumers.pop().unwrap();
        let mut held = Vec::new();
        let mut refused = 0;
        for n in 0..40 {
            match publish(&mut publisher, true, n) {
                Published::NoSlot => refused += 1,
                _ => held.extend(consumer.pop()),
            }
        }
        assert_eq!(held.len() + refused, 40);
        assert!(refused > 0, "the pool is bounded");
        let numbers: Vec<u32> = held.iter().map(|unit| number(unit)).collect();
        assert_eq!(numbers, (0..u32::try_from(held.len()).unwrap()).collect::<Vec<_>>());
        held.clear();
        assert_eq!(publish(&mut publisher, false, 99), Published::Yes);
        assert!(consumer.pop().is_none(), "after an empty pool, only an IDR is passed on");
        publish(&mut publisher, true, 100);
        assert_eq!(number(&consumer.pop().unwrap()), 100);
    }

    #[test]
    fn two_threads_never_see_a_torn_or_misplaced_unit() {
        let rounds = if cfg!(miri) { 150 } else { 100_000 };
        let (mut publisher, mut consumers) = publisher(2, 64, Arc::default());
        let readers: Vec<_> = consumers
            .drain(..)
            .map(|mut consumer| {
                thread::spawn(move || {
                    let mut last = None;
                    while last != Some(rounds) {
                        let Some(unit) = consumer.pop() else {
                            thread::yield_now();
                            continue;
                        };
                        let n = number(&unit);
                        assert_eq!(unit.captured(), Instant::from_micros(u64::from(n)));
                        assert!(last.is_none_or(|last| last < n));
                        assert!(last.is_some_and(|last| last + 1 == n) || unit.is_idr());
                        last = Some(n);
                    }
                })
            })
            .collect();
        for n in 0..rounds {
            publish(&mut publisher, n % 7 == 0, n);
        }
        // The last one must arrive, or the readers would wait for ever.
        while readers.iter().any(|reader| !reader.is_finished()) {
            publish(&mut publisher, true, rounds);
            thread::yield_now();
        }
        for reader in readers {
            reader.join().unwrap();
        }
    }
}
