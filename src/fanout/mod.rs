//! Decides what goes to which viewer next, and who has to wait, skip or leave. No I/O.
//!
//! A viewer is one receiver: a TCP connection, which may carry RTSP replies only, or the RTP port
//! of a UDP client. Each has a bounded queue of its own; what it cannot take in time, it loses
//! alone: whole access units, up to the next IDR. Nobody notices a slow viewer but himself.
//!
//! After any `&mut` call: [`Fanout::poll_transmit`] until `None`, each answered by
//! [`Fanout::sent`]; then [`Fanout::poll_event`]; then wait until [`Fanout::poll_timeout`].
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic))]

mod queue;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use queue::Queue;

use crate::rtp::WireImage;
use crate::time::Instant;

/// One receiver; never reused while somebody may still name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ViewerId {
    index: usize,
    generation: u32,
}

/// How a viewer is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// A byte stream: takes any part of an image, and RTSP replies between images.
    Stream,
    /// Datagrams: take whole packets, in bursts with pauses between them.
    Datagram,
}

/// What to send to whom next.
#[derive(Clone, Debug)]
pub struct Transmit {
    pub viewer: ViewerId,
    pub body: Body,
}

/// What a [`Transmit`] carries.
#[derive(Clone, Debug)]
pub enum Body {
    /// Bytes of the image, framed for channel 0: for a [`Path::Stream`].
    Bytes { image: Arc<WireImage>, range: Range<usize> },
    /// Packets of the image: for a [`Path::Datagram`].
    Packets { image: Arc<WireImage>, packets: Range<usize> },
    /// An RTSP reply or an RTCP packet, from byte `from` on.
    Message { bytes: Arc<[u8]>, from: usize },
}

/// What became of a [`Transmit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// This many bytes (of a stream) or packets (of datagrams; 1 for a message).
    Some(usize),
    /// The socket's buffer is full: a stream waits for [`Fanout::writable`], datagrams for a
    /// moment.
    WouldBlock,
    /// The receiver cannot be reached any more.
    Failed,
}

/// What the owner of the sockets has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing has gone to this viewer for [`STALL_DEADLINE`]: to be closed.
    Stalled(ViewerId),
    /// Its socket failed: to be closed.
    Lost(ViewerId),
}

/// What has happened to one viewer so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// RTP packets put into the queue and not taken out of it unsent.
    pub packets: u64,
    /// Payload octets of these packets.
    pub octets: u64,
    /// Access units the viewer did not get.
    pub dropped: u64,
    /// Times a run of drops began.
    pub drops: u64,
}

/// All viewers of all streams.
#[derive(Debug, Default)]
pub struct Fanout {
    viewers: Vec<Slot>,
    /// Viewers that have something to send and may; each at most once.
    ready: VecDeque<usize>,
    events: VecDeque<Event>,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    viewer: Option<Viewer>,
}

#[derive(Debug)]
struct Viewer {
    path: Path,
    /// The stream that it plays.
    stream: Option<usize>,
    queue: Queue,
    state: State,
    /// When something was last sent, or the queue last began to fill.
    progress: Instant,
    counts: Counts,
}

/// What a viewer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// For something to send.
    Idle,
    /// In `ready`.
    Ready,
    /// For the answer to a [`Transmit`].
    InFlight,
    /// For room in its socket's buffer.
    Blocked,
    /// For its next burst.
    Paced(Instant),
}

impl Fanout {
    /// Adds a viewer that plays nothing yet.
    pub fn add(&mut self, now: Instant, path: Path) -> ViewerId {
        let viewer = Viewer {
            path,
            stream: None,
            queue: Queue::default(),
            state: State::Idle,
            progress: now,
            counts: Counts::default(),
        };
        let index = match self.viewers.iter().position(|slot| slot.viewer.is_none()) {
            Some(index) => index,
            None => {
                self.viewers.push(Slot::default());
                self.viewers.len() - 1
            }
        };
        let mut generation = 0;
        if let Some(slot) = self.viewers.get_mut(index) {
            slot.generation = slot.generation.wrapping_add(1);
            generation = slot.generation;
            slot.viewer = Some(viewer);
        }
        ViewerId { index, generation }
    }

    /// Forgets a viewer and all that was meant for it.
    pub fn remove(&mut self, viewer: ViewerId) -> Counts {
        let id = viewer;
        let Some(viewer) = self.get_mut(id) else { return Counts::default() };
        let unsent = viewer.queue.discard_images(viewer.path);
        viewer.counts.forget(unsent);
        let counts = viewer.counts;
        self.ready.retain(|&index| index != id.index);
        if let Some(slot) = self.viewers.get_mut(id.index) {
            slot.viewer = None;
        }
        counts
    }

    /// From the next IDR of `stream` on, the viewer gets it. Counts start anew.
    pub fn play(&mut self, viewer: ViewerId, stream: usize) {
        if let Some(viewer) = self.get_mut(viewer) {
            viewer.stream = Some(stream);
            viewer.queue.start();
            viewer.counts = Counts::default();
        }
    }

    /// One more receiver shares what goes to this viewer, a group: its reply to PLAY names the next
    /// IDR, which is sent therefore.
    pub fn join(&mut self, viewer: ViewerId) {
        self.get_mut(viewer).into_iter().for_each(|viewer| viewer.queue.join());
    }

    /// The viewer gets no more access units; one that is half sent ends with a whole packet.
    pub fn stop(&mut self, viewer: ViewerId) -> Counts {
        let Some(viewer) = self.get_mut(viewer) else { return Counts::default() };
        viewer.stream = None;
        let unsent = viewer.queue.discard_images(viewer.path);
        viewer.counts.forget(unsent);
        viewer.counts
    }

    /// Queues an RTSP reply or an RTCP packet behind what is already queued.
    ///
    /// `false` when more wait already than any client leaves unread: it is to be closed.
    #[must_use]
    pub fn send(&mut self, now: Instant, viewer: ViewerId, message: Arc<[u8]>) -> bool {
        let index = viewer.index;
        let Some(viewer) = self.get_mut(viewer) else { return true };
        viewer.note_work(now);
        let has_room = viewer.queue.push_message(message);
        self.make_ready(index);
        has_room
    }

    /// Gives an access unit of `stream` to everybody who plays it and can take it.
    pub fn offer(&mut self, now: Instant, stream: usize, image: &Arc<WireImage>) {
        for index in 0..self.viewers.len() {
            let Some(viewer) = self.viewers.get_mut(index).and_then(|slot| slot.viewer.as_mut())
            else {
                continue;
            };
            if viewer.stream != Some(stream) {
                continue;
            }
            viewer.note_work(now);
            if viewer.offer(image) {
                self.make_ready(index);
            }
        }
    }

    /// An access unit of `stream` was lost before it got here: its viewers go on at the next IDR.
    pub fn interrupt(&mut self, stream: usize) {
        for viewer in self.viewers.iter_mut().filter_map(|slot| slot.viewer.as_mut()) {
            if viewer.stream == Some(stream) {
                let unsent = viewer.queue.interrupt(viewer.path);
                viewer.counts.forget(unsent);
            }
        }
    }

    /// The socket's buffer has room again.
    pub fn writable(&mut self, viewer: ViewerId) {
        let index = viewer.index;
        if let Some(viewer) = self.get_mut(viewer)
            && viewer.state == State::Blocked
        {
            viewer.state = State::Idle;
            self.make_ready(index);
        }
    }

    /// The next thing to send. To be answered by [`Fanout::sent`]; until then nothing else is
    /// given for the same viewer.
    ///
    /// New after: `send`, `offer`, `writable`, `sent`, `handle_timeout`.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        while let Some(index) = self.ready.pop_front() {
            let slot = self.viewers.get_mut(index)?;
            let generation = slot.generation;
            let Some(viewer) = slot.viewer.as_mut() else { continue };
            let Some(body) = viewer.queue.next(viewer.path) else {
                viewer.state = State::Idle;
                continue;
            };
            viewer.state = State::InFlight;
            return Some(Transmit { viewer: ViewerId { index, generation }, body });
        }
        None
    }

    /// Says what became of the viewer's [`Transmit`].
    pub fn sent(&mut self, now: Instant, viewer: ViewerId, sent: Sent) {
        let (index, id) = (viewer.index, viewer);
        let Some(viewer) = self.get_mut(viewer) else { return };
        viewer.state = State::Idle;
        match sent {
            Sent::Some(count) => {
                let is_burst = viewer.path == Path::Datagram && count >= BURST_PACKETS;
                viewer.queue.advance(count, viewer.path);
                if count > 0 {
                    viewer.progress = now;
                }
                if is_burst && !viewer.queue.is_empty() {
                    viewer.state = State::Paced(now + BURST_PAUSE);
                } else {
                    self.make_ready(index);
                }
            }
            Sent::WouldBlock if viewer.path == Path::Datagram => {
                viewer.state = State::Paced(now + BURST_PAUSE);
            }
            Sent::WouldBlock => viewer.state = State::Blocked,
            Sent::Failed => {
                viewer.queue.clear();
                self.events.push_back(Event::Lost(id));
            }
        }
    }

    /// Whether the viewer waits for room in its socket's buffer.
    #[must_use]
    pub fn is_blocked(&self, viewer: ViewerId) -> bool {
        self.get(viewer).is_some_and(|viewer| viewer.state == State::Blocked)
    }

    /// Whether everything for the viewer has been sent.
    #[must_use]
    pub fn is_drained(&self, viewer: ViewerId) -> bool {
        self.get(viewer).is_none_or(|viewer| viewer.queue.is_empty())
    }

    #[must_use]
    pub fn counts(&self, viewer: ViewerId) -> Counts {
        self.get(viewer).map(|viewer| viewer.counts).unwrap_or_default()
    }

    /// When the picture was captured that the viewer is sent next; `None` when none waits.
    #[must_use]
    pub fn oldest(&self, viewer: ViewerId) -> Option<Instant> {
        self.get(viewer)?.queue.oldest()
    }

    /// When something was last sent to the viewer.
    #[must_use]
    pub fn progress(&self, viewer: ViewerId) -> Option<Instant> {
        self.get(viewer).map(|viewer| viewer.progress)
    }

    /// New after: `sent`, `handle_timeout`.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Continues bursts that are due, and gives up on viewers that take nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        for index in 0..self.viewers.len() {
            let Some(slot) = self.viewers.get_mut(index) else { continue };
            let id = ViewerId { index, generation: slot.generation };
            let Some(viewer) = slot.viewer.as_mut() else { continue };
            match viewer.deadline() {
                Some(deadline) if deadline <= now => {}
                _ => continue,
            }
            let stalled_at = viewer.progress + STALL_DEADLINE;
            if stalled_at > now {
                viewer.state = State::Idle;
                self.make_ready(index);
            } else if stalled_at + STOOD_STILL <= now {
                viewer.progress = now;
                if matches!(viewer.state, State::Paced(_)) {
                    viewer.state = State::Idle;
                    self.make_ready(index);
                }
            } else {
                viewer.queue.clear();
                viewer.progress = now;
                self.events.push_back(Event::Stalled(id));
            }
        }
    }

    /// When [`Fanout::handle_timeout`] is next due. May change after any `&mut` call.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let viewers = self.viewers.iter().filter_map(|slot| slot.viewer.as_ref());
        viewers.filter_map(Viewer::deadline).min()
    }

    fn make_ready(&mut self, index: usize) {
        if let Some(viewer) = self.viewers.get_mut(index).and_then(|slot| slot.viewer.as_mut())
            && viewer.state == State::Idle
            && !viewer.queue.is_empty()
        {
            viewer.state = State::Ready;
            self.ready.push_back(index);
        }
    }

    fn get(&self, id: ViewerId) -> Option<&Viewer> {
        let slot = self.viewers.get(id.index)?;
        (slot.generation == id.generation).then_some(slot.viewer.as_ref()?)
    }

    fn get_mut(&mut self, id: ViewerId) -> Option<&mut Viewer> {
        let slot = self.viewers.get_mut(id.index)?;
        if slot.generation == id.generation { slot.viewer.as_mut() } else { None }
    }
}

impl Viewer {
    /// Queues `image` if it fits and can be decoded; `false` when it is dropped.
    fn offer(&mut self, image: &Arc<WireImage>) -> bool {
        let was_broken = self.queue.is_broken();
        let unsent = self.queue.make_way_for(image, self.path);
        self.counts.drops += u64::from(unsent.images > 0 && !was_broken);
        self.counts.forget(unsent);
        if self.queue.offer(image) {
            self.counts
                .remember(image.packet_count(), image.payload_octets(0..image.packet_count()));
            return true;
        }
        // Before the first IDR nothing has been promised, so nothing is lost.
        if self.queue.has_started() {
            self.counts.dropped += 1;
            self.counts.drops += u64::from(!was_broken);
        }
        false
    }

    /// The stall deadline runs from when there is something to send.
    fn note_work(&mut self, now: Instant) {
        if self.queue.is_empty() {
            self.progress = now;
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Paced(until) => Some(until.min(self.progress + STALL_DEADLINE)),
            _ if self.queue.is_empty() => None,
            _ => Some(self.progress + STALL_DEADLINE),
        }
    }
}

impl Counts {
    fn remember(&mut self, packets: usize, octets: u32) {
        self.packets += packets as u64;
        self.octets += u64::from(octets);
    }

    /// Takes back what was discarded before it was sent.
    fn forget(&mut self, unsent: queue::Unsent) {
        self.packets = self.packets.saturating_sub(unsent.packets.into());
        self.octets = self.octets.saturating_sub(unsent.octets.into());
        self.dropped += unsent.images;
    }
}

/// How long a viewer may take nothing while something waits for it.
pub const STALL_DEADLINE: Duration = Duration::from_secs(10);
/// A deadline that is found out about so late was missed because the whole process stood still, the
/// viewer's next chance with it: he gets another.
const STOOD_STILL: Duration = Duration::from_secs(1);
/// Packets that go to a UDP viewer at once: 44 kB, a fifth of a default receive buffer.
const BURST_PACKETS: usize = 32;
/// Between two bursts: a 200 kB picture takes 8 ms.
const BURST_PAUSE: Duration = Duration::from_millis(2);
