//! What the camera does with what the hub wants sent: writes it to sockets, as far as they take it.

use std::borrow::Cow;
use std::net::SocketAddr;

use ocellus::fanout::{Body, Sent, Transmit};
use ocellus::rtp::WireImage;
use ocellus::rtsp::ConnectionId;
use ocellus::serve::Target;
use ocellus::time::Instant;

use super::super::planted::{Bug, Hoarded};
use super::super::truth::{Checked, Rule, hold};
use super::{Camera, smol_address};

impl Camera {
    pub(super) fn transmit(&mut self, now: Instant) -> Checked<()> {
        let mut count = 0;
        while !self.is_held_up(now)
            && let Some((transmit, target)) = self.hub.poll_transmit()
        {
            count += 1;
            hold(count < 10_000, Rule::Standstill, || format!("no end of {transmit:?}"))?;
            let sent = if self.planted.swallows(now, &transmit.body) {
                Sent::Some(len(&transmit.body))
            } else {
                match target {
                    Target::Connection(id, channel) => self.write(now, id, channel, &transmit)?,
                    Target::Udp { rtp, rtcp, .. } => self.send(now, (rtp, rtcp), &transmit)?,
                }
            };
            self.hub.sent(now, &transmit, sent);
        }
        self.write_hoards(now)
    }

    fn is_held_up(&self, now: Instant) -> bool {
        let mut viewers = self.connections.values().map(|connection| connection.viewer);
        self.planted.has(now, Bug::LetsOneBlockAll) && viewers.any(|it| self.hub.is_blocked(it))
    }

    /// What waited longer than two groups of pictures had to make way for an IDR. But not the IDR
    /// that a viewer begins with: it was told to expect that one.
    fn check_age(&self, now: Instant, captured: Option<Instant>) -> Checked<()> {
        let age = captured.map(|at| now.since(at)).unwrap_or_default();
        hold(age <= self.age_max, Rule::Queue, || format!("a picture waited {age:?}"))
    }

    fn write(
        &mut self,
        now: Instant,
        id: ConnectionId,
        channel: u8,
        transmit: &Transmit,
    ) -> Checked<Sent> {
        let captured = begins(&transmit.body);
        let bytes: Cow<'_, [u8]> = match &transmit.body {
            Body::Bytes { image, range } => {
                let whole = match self.planted.image(image) {
                    Some(changed) => changed.into(),
                    None => Cow::Borrowed(image.bytes()),
                };
                match reframed(image, whole, channel) {
                    Cow::Borrowed(bytes) => Cow::Borrowed(&bytes[range.clone()]),
                    Cow::Owned(bytes) => bytes[range.clone()].to_vec().into(),
                }
            }
            Body::Message { bytes, from } => match self.planted.message(now, bytes) {
                Some(changed) => changed[*from..].to_vec().into(),
                None => Cow::Borrowed(&bytes[*from..]),
            },
            Body::Packets { .. } => return Ok(Sent::Failed),
        };
        if self.planted.has(now, Bug::QueuesWithoutEnd) {
            self.planted.hoard(id, Hoarded { captured, bytes: bytes.to_vec() });
            return Ok(Sent::Some(bytes.len()));
        }
        let Some(connection) = self.connections.get(&id) else { return Ok(Sent::Failed) };
        Ok(match self.stack.tcp(connection.socket).send_slice(&bytes) {
            Ok(0) => Sent::WouldBlock,
            Ok(count) => {
                self.check_age(now, captured)?;
                Sent::Some(count)
            }
            Err(_) => Sent::Failed,
        })
    }

    /// Writes what was taken from the hub before there was room for it.
    fn write_hoards(&mut self, now: Instant) -> Checked<()> {
        for (&id, connection) in &self.connections {
            let Some(hoard) = self.planted.hoarded(id) else { continue };
            let tcp = self.stack.tcp(connection.socket);
            let mut begun = Vec::new();
            while let Some(first) = hoard.front_mut() {
                let count = tcp.send_slice(&first.bytes).unwrap_or(0);
                if count > 0 {
                    begun.push(first.captured.take());
                }
                first.bytes.drain(..count);
                if !first.bytes.is_empty() {
                    break;
                }
                hoard.pop_front();
            }
            begun.into_iter().try_for_each(|captured| self.check_age(now, captured))?;
        }
        Ok(())
    }

    fn send(
        &mut self,
        now: Instant,
        (rtp, rtcp): (SocketAddr, SocketAddr),
        transmit: &Transmit,
    ) -> Checked<Sent> {
        match &transmit.body {
            Body::Packets { image, packets } => {
                self.planted.know(rtcp);
                let whole = self.planted.image(image);
                let whole = whole.as_deref().unwrap_or_else(|| image.bytes());
                let udp = self.stack.udp(self.rtp);
                let mut count = 0;
                for index in packets.clone() {
                    let end = image.packet_end(index);
                    let packet = &whole[end - image.packet(index).len()..end];
                    if udp.send_slice(packet, smol_address(rtp)).is_err() {
                        break;
                    }
                    count += 1;
                    if self.planted.has(now, Bug::SendsToAStranger) {
                        let stranger = SocketAddr::new(rtp.ip(), rtp.port() ^ 0x100);
                        let _ = udp.send_slice(packet, smol_address(stranger));
                    }
                }
                if count == 0 {
                    return Ok(Sent::WouldBlock);
                }
                self.check_age(now, begins(&transmit.body))?;
                Ok(Sent::Some(count))
            }
            Body::Message { bytes, from } => {
                let changed = self.planted.message(now, bytes);
                let bytes = &changed.as_deref().unwrap_or(bytes)[*from..];
                // The kernel keeps the order of calls, smoltcp that of each socket alone.
                self.stack.poll(now);
                let sent = self.stack.udp(self.rtcp).send_slice(bytes, smol_address(rtcp));
                self.stack.poll(now);
                Ok(if sent.is_ok() { Sent::Some(1) } else { Sent::WouldBlock })
            }
            Body::Bytes { .. } => Ok(Sent::Failed),
        }
    }
}

/// When the picture was captured that begins here, if one does, and is no IDR.
fn begins(body: &Body) -> Option<Instant> {
    match body {
        Body::Bytes { image, range } if range.start == 0 => Some(image),
        Body::Packets { image, packets } if packets.start == 0 => Some(image),
        _ => None,
    }
    .filter(|image| !image.is_idr())
    .map(|image| image.captured())
}

/// Bytes of a stream, or packets.
fn len(body: &Body) -> usize {
    match body {
        Body::Bytes { range, .. } => range.len(),
        Body::Packets { packets, .. } => packets.len(),
        Body::Message { bytes, from } => bytes.len() - from,
    }
}

/// The bytes of `image`, with another channel in every prefix.
fn reframed<'a>(image: &WireImage, bytes: Cow<'a, [u8]>, channel: u8) -> Cow<'a, [u8]> {
    if channel == 0 {
        return bytes;
    }
    let mut bytes = bytes.into_owned();
    let ends = (0..image.packet_count()).map(|index| image.packet_end(index));
    for prefix in std::iter::once(0).chain(ends).take(image.packet_count()) {
        bytes[prefix + 1] = channel;
    }
    bytes.into()
}
