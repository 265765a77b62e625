//! What waits for one viewer, in the order in which it must arrive.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{BURST_PACKETS, Body, Path};
use crate::h264::Continuity;
use crate::rtp::WireImage;
use crate::time::Instant;

/// One viewer's queue: at most one GOP of images, or [`QUEUED_BYTES_MAX`].
#[derive(Debug)]
pub(super) struct Queue {
    items: VecDeque<Item>,
    /// Bytes of all images in `items`.
    image_bytes: usize,
    image_count: usize,
    message_bytes: usize,
    continuity: Continuity,
    /// Whether an image has been queued since the viewer began to play.
    has_started: bool,
    /// Whether a reply names the next IDR.
    is_joined: bool,
}

#[derive(Debug)]
pub(super) struct Item {
    kind: Kind,
    /// Bytes (of a stream) or packets (of datagrams) that have been sent.
    sent: usize,
}

#[derive(Debug)]
enum Kind {
    /// `end`: bytes of the image that are to be sent; all but when the viewer was stopped.
    /// `is_named`: a reply to PLAY names it as the first one, so it stays.
    Image {
        image: Arc<WireImage>,
        end: usize,
        is_named: bool,
    },
    Message(Arc<[u8]>),
}

/// What was taken out of a queue before it was sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unsent {
    pub(super) images: u64,
    pub(super) packets: u32,
    pub(super) octets: u32,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            items: VecDeque::with_capacity(ITEMS_CAPACITY),
            image_bytes: 0,
            image_count: 0,
            message_bytes: 0,
            continuity: Continuity::START,
            has_started: false,
            is_joined: false,
        }
    }
}

impl Item {
    fn is_image(&self) -> bool {
        matches!(self.kind, Kind::Image { .. })
    }

    fn is_done(&self, path: Path) -> bool {
        match (&self.kind, path) {
            (Kind::Image { end, .. }, Path::Stream) => self.sent >= *end,
            (Kind::Image { image, .. }, Path::Datagram) => self.sent >= image.packet_count(),
            (Kind::Message(bytes), Path::Stream) => self.sent >= bytes.len(),
            (Kind::Message(_), Path::Datagram) => self.sent >= 1,
        }
    }
}

impl Queue {
    /// Begins to play: nothing is admitted before an IDR.
    pub(super) fn start(&mut self) {
        self.continuity = Continuity::START;
        (self.has_started, self.is_joined) = (false, false);
    }

    /// One more begins to share what goes to this viewer, with the next IDR.
    pub(super) const fn join(&mut self) {
        self.is_joined = true;
    }

    /// Something was lost on the way here: nothing is admitted before an IDR, and what waits until
    /// then makes room for it.
    pub(super) fn interrupt(&mut self, path: Path) -> Unsent {
        self.continuity.interrupt();
        self.discard_unstarted(path, true)
    }

    pub(super) fn has_started(&self) -> bool {
        self.has_started
    }

    pub(super) fn is_broken(&self) -> bool {
        self.continuity.is_broken()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// When the first image that waits was captured.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.items.iter().find_map(|item| match &item.kind {
            Kind::Image { image, .. } => Some(image.captured()),
            Kind::Message(_) => None,
        })
    }

    /// Queues a message; `false` when too many wait already.
    pub(super) fn push_message(&mut self, bytes: Arc<[u8]>) -> bool {
        let message_count = self.items.len() - self.image_count;
        if message_count >= MESSAGES_MAX || self.message_bytes >= MESSAGE_BYTES_MAX {
            return false;
        }
        self.message_bytes += bytes.len();
        self.items.push_back(Item { kind: Kind::Message(bytes), sent: 0 });
        true
    }

    pub(super) fn clear(&mut self) {
        self.items.clear();
        (self.image_bytes, self.image_count, self.message_bytes) = (0, 0, 0);
        self.continuity.interrupt();
    }

    /// An IDR makes what was queued before it worthless to a viewer that is behind by a GOP or
    /// has lost something: it goes on there, and is no longer late.
    pub(super) fn make_way_for(&mut self, image: &WireImage, path: Path) -> Unsent {
        let is_behind = self.items.iter().any(|item| match &item.kind {
            Kind::Image { image, .. } => image.is_idr() && item.sent == 0,
            Kind::Message(_) => false,
        });
        let is_late = self.has_started && (is_behind || self.continuity.is_broken());
        if image.is_idr() && is_late {
            self.discard_unstarted(path, true)
        } else {
            Unsent::default()
        }
    }

    /// Queues `image`; `false` when there is no room, or it could not be decoded.
    pub(super) fn offer(&mut self, image: &Arc<WireImage>) -> bool {
        let len = image.bytes().len();
        // An image that is longer than the whole allowance is still sent to an idle viewer.
        let has_room = self.image_count == 0
            || (self.image_bytes + len <= QUEUED_BYTES_MAX && self.image_count < QUEUED_IMAGES_MAX);
        if !self.continuity.admit(image.is_idr(), has_room) {
            return false;
        }
        let is_joined = image.is_idr() && std::mem::take(&mut self.is_joined);
        let is_named = !std::mem::replace(&mut self.has_started, true) || is_joined;
        self.image_bytes += len;
        self.image_count += 1;
        let kind = Kind::Image { image: Arc::clone(image), end: len, is_named };
        self.items.push_back(Item { kind, sent: 0 });
        true
    }

    /// Takes every image out; of one that is half sent, what follows the packet it stands in.
    pub(super) fn discard_images(&mut self, path: Path) -> Unsent {
        let mut unsent = self.discard_unstarted(path, false);
        unsent.images = 0;
        if let Some(Item { kind: Kind::Image { image, end, .. }, sent }) = self.items.front_mut() {
            // It has begun, or it would be gone by now.
            let kept = match path {
                Path::Datagram => *sent,
                // Up to the end of the packet that has begun.
                Path::Stream => image.packet_at((*sent).saturating_sub(1)) + 1,
            };
            let rest = kept..image.packet_count();
            unsent.packets += u32::try_from(rest.len()).unwrap_or(0);
            unsent.octets += image.payload_octets(rest);
            *end = image.packet_end(kept.saturating_sub(1));
        }
        if path == Path::Datagram {
            self.items.retain(|item| !item.is_image());
            (self.image_bytes, self.image_count) = (0, 0);
        }
        self.pop_done(path);
        self.continuity = Continuity::START;
        unsent
    }

    /// Takes out every image of which nothing has been sent, but for those that replies name if
    /// `keeps_named`.
    fn discard_unstarted(&mut self, path: Path, keeps_named: bool) -> Unsent {
        let mut unsent = Unsent::default();
        let mut bytes = 0;
        self.items.retain(|item| {
            let Kind::Image { image, is_named, .. } = &item.kind else { return true };
            if item.sent > 0 || (keeps_named && *is_named) {
                return true;
            }
            bytes += image.bytes().len();
            unsent.images += 1;
            unsent.packets += u32::try_from(image.packet_count()).unwrap_or(0);
            unsent.octets += image.payload_octets(0..image.packet_count());
            false
        });
        self.image_bytes -= bytes;
        self.image_count -= usize::try_from(unsent.images).unwrap_or(0);
        // A started image whose successors are gone ends in a gap, whole packets first.
        debug_assert!(path == Path::Datagram || self.items.iter().skip(1).all(|i| i.sent == 0));
        unsent
    }

    /// What to send next.
    pub(super) fn next(&self, path: Path) -> Option<Body> {
        let item = self.items.front()?;
        Some(match (&item.kind, path) {
            (Kind::Image { image, end, .. }, Path::Stream) => {
                Body::Bytes { image: Arc::clone(image), range: item.sent..*end }
            }
            (Kind::Image { image, .. }, Path::Datagram) => {
                let end = image.packet_count().min(item.sent + BURST_PACKETS);
                Body::Packets { image: Arc::clone(image), packets: item.sent..end }
            }
            (Kind::Message(bytes), _) => {
                Body::Message { bytes: Arc::clone(bytes), from: item.sent }
            }
        })
    }

    /// Notes that `count` bytes or packets of the first item have been sent.
    pub(super) fn advance(&mut self, count: usize, path: Path) {
        if let Some(item) = self.items.front_mut() {
            item.sent += count;
        }
        self.pop_done(path);
    }

    fn pop_done(&mut self, path: Path) {
        while self.items.front().is_some_and(|item| item.is_done(path)) {
            match self.items.pop_front().map(|item| item.kind) {
                Some(Kind::Image { image, .. }) => {
                    self.image_bytes -= image.bytes().len();
                    self.image_count -= 1;
                }
                Some(Kind::Message(bytes)) => self.message_bytes -= bytes.len(),
                None => {}
            }
        }
    }
}

/// Of images that wait for one viewer: four seconds at 2 Mbit/s. A GOP is the other limit.
const QUEUED_BYTES_MAX: usize = 1 << 20;
/// Of images that wait for one viewer: two seconds at 60 fps, so that one viewer alone cannot hold
/// all that there are.
const QUEUED_IMAGES_MAX: usize = 120;
/// Replies and reports that may wait for one viewer.
pub(super) const MESSAGES_MAX: usize = 64;
/// Of replies and reports that wait: one more is taken while they are fewer. A client that asks
/// much and reads nothing is closed.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// Room for a GOP of 30 and some messages, so that the steady state allocates nothing.
const ITEMS_CAPACITY: usize = 40;
