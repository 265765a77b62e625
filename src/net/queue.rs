//! Turns queued Ethernet frames into a smoltcp device: frames in at one end, frames out at the other.
//!
//! Both queues are bounded. When the input is full the new frame is dropped, as a network card does;
//! when the output is full smoltcp is told that the device is busy.

use std::collections::VecDeque;

use smoltcp::phy::{self, Checksum, ChecksumCapabilities, DeviceCapabilities, Medium};
use smoltcp::time::Instant;

#[derive(Debug, Default)]
pub struct QueueDevice {
    received: VecDeque<Vec<u8>>,
    transmitted: VecDeque<Vec<u8>>,
}

impl QueueDevice {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Queues a frame for smoltcp; false when there was no room.
    pub fn receive(&mut self, frame: &[u8]) -> bool {
        let room = self.received.len() < MAX_FRAMES && frame.len() <= MAX_FRAME_LEN;
        if room {
            self.received.push_back(frame.to_vec());
        }
        room
    }

    /// Queues a frame that somebody else than smoltcp made; false when there was no room.
    pub fn transmit(&mut self, frame: Vec<u8>) -> bool {
        let room = self.transmitted.len() < MAX_FRAMES;
        if room {
            self.transmitted.push_back(frame);
        }
        room
    }

    /// The next frame for the wire.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.transmitted.pop_front()
    }

    /// How many frames wait for the wire.
    #[must_use]
    pub fn transmit_len(&self) -> usize {
        self.transmitted.len()
    }
}

impl phy::Device for QueueDevice {
    type RxToken<'a> = RxToken;
    type TxToken<'a> = TxToken<'a>;

    fn receive(&mut self, _timestamp: Instant) -> Option<(RxToken, TxToken<'_>)> {
        // A received frame may be answered at once, so it waits for room in the output.
        if self.transmitted.len() >= MAX_FRAMES {
            return None;
        }
        let frame = self.received.pop_front()?;
        Some((RxToken(frame), TxToken(&mut self.transmitted)))
    }

    fn transmit(&mut self, _timestamp: Instant) -> Option<TxToken<'_>> {
        (self.transmitted.len() < MAX_FRAMES).then_some(TxToken(&mut self.transmitted))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut checksum = ChecksumCapabilities::default();
        // A DHCP server on the same host (a hypervisor's bridge) leaves the UDP checksum to a card
        // that never sees the packet; Ethernet's own checksum has vouched for all others.
        checksum.udp = Checksum::Tx;
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = MAX_FRAME_LEN;
        capabilities.checksum = checksum;
        capabilities
    }
}

#[derive(Debug)]
pub struct RxToken(Vec<u8>);

impl phy::RxToken for RxToken {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

#[derive(Debug)]
pub struct TxToken<'a>(&'a mut VecDeque<Vec<u8>>);

impl phy::TxToken for TxToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut frame = vec![0; len];
        let result = write(&mut frame);
        self.0.push_back(frame);
        result
    }
}

/// Frames in each direction: configuring an interface takes a handful, so more is a flood.
const MAX_FRAMES: usize = 32;
/// An Ethernet frame without its checksum.
const MAX_FRAME_LEN: usize = 1514;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a failing test")]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_bounded_in_both_directions() {
        let mut device = QueueDevice::new();
        for count in 0..2 * MAX_FRAMES {
            assert_eq!(device.receive(&[0; 60]), count < MAX_FRAMES);
            assert_eq!(device.transmit(vec![0; 60]), count < MAX_FRAMES);
        }
        assert!(phy::Device::receive(&mut device, Instant::ZERO).is_none());
        assert!(phy::Device::transmit(&mut device, Instant::ZERO).is_none());
        assert!(device.poll_transmit().is_some());
        assert!(phy::Device::receive(&mut device, Instant::ZERO).is_some());
    }

    #[test]
    fn a_frame_longer_than_ethernet_allows_is_dropped() {
        let mut device = QueueDevice::new();
        assert!(device.receive(&[0; MAX_FRAME_LEN]));
        assert!(!device.receive(&[0; MAX_FRAME_LEN + 1]));
    }
}
