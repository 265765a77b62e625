//! Follows the packets that are sent to one viewer, in the order in which they are sent, and takes
//! no excuse.
//!
//! Written from RFC 3550 5.1 and RFC 6184 alone: it shares nothing with the packetizer.

use super::truth::{Checked, Rule, SLICE_HEAD_LEN, Truth, broken, filler, hold};

#[derive(Debug, Default)]
pub(crate) struct Strict {
    /// Of the last packet.
    sequence: Option<u16>,
    /// The last access unit that was whole: its serial number and its timestamp.
    last: Option<(u32, u32)>,
    open: Option<Open>,
    /// Whether it ever went on with a later access unit than the next.
    pub(crate) has_gap: bool,
}

/// An access unit of which some packets have come.
#[derive(Debug)]
struct Open {
    timestamp: u32,
    first: u16,
    /// Whether its first packet follows the last one of the unit before.
    follows: bool,
    has_sps: bool,
    has_pps: bool,
    slice: Vec<u8>,
}

/// A whole access unit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived {
    pub(crate) serial: u32,
    pub(crate) is_idr: bool,
}

/// The header of an RTP packet, and what is behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet<'a> {
    pub(crate) has_marker: bool,
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    pub(crate) payload: &'a [u8],
}

impl<'a> Packet<'a> {
    pub(crate) fn parse(bytes: &'a [u8], truth: &Truth) -> Checked<Self> {
        let well = bytes.len() > 12
            && bytes[0] == 0x80
            && bytes[1] & 0x7f == 96
            && bytes[8..12] == truth.ssrc.to_be_bytes();
        hold(well, Rule::Payload, || format!("no RTP packet of the stream: {bytes:02x?}"))?;
        Ok(Self {
            has_marker: bytes[1] & 0x80 != 0,
            sequence: u16::from_be_bytes([bytes[2], bytes[3]]),
            timestamp: u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
            payload: &bytes[12..],
        })
    }

    pub(crate) const fn is_sps(&self) -> bool {
        self.payload[0] & 0x1f == 7
    }
}

impl Strict {
    /// Takes the next packet; the access unit that it completes.
    pub(crate) fn packet(&mut self, truth: &Truth, bytes: &[u8]) -> Checked<Option<Arrived>> {
        let packet = Packet::parse(bytes, truth)?;
        let sequence = packet.sequence;
        let step = self.sequence.map(|last| sequence.wrapping_sub(last));
        let mut open = match self.open.take() {
            Some(open) => {
                hold(step == Some(1), Rule::Sequence, || {
                    format!("{sequence} is {step:?} further, within an access unit")
                })?;
                hold(packet.timestamp == open.timestamp, Rule::Timestamp, || {
                    format!("{} and {} in one unit", open.timestamp, packet.timestamp)
                })?;
                open
            }
            None => {
                hold(step.is_none_or(|step| (1..0x8000).contains(&step)), Rule::Sequence, || {
                    format!("{sequence} is {step:?} further")
                })?;
                Open::new(&packet, step.is_none_or(|step| step == 1))
            }
        };
        self.sequence = Some(sequence);
        let is_whole = open.append(packet.payload)?;
        hold(packet.has_marker == is_whole, Rule::Marker, || {
            format!("{sequence}: marker {}, last packet {is_whole}", packet.has_marker)
        })?;
        if is_whole {
            return self.finish(truth, &open).map(Some);
        }
        self.open = Some(open);
        Ok(None)
    }

    /// Delivery was stopped: what has begun need not be ended.
    pub(crate) fn cut(&mut self) {
        self.open = None;
    }

    fn finish(&mut self, truth: &Truth, open: &Open) -> Checked<Arrived> {
        let (serial, is_idr) = open.check(truth)?;
        let last = self.last.map(|(serial, _)| serial);
        let is_next = last.is_some_and(|last| serial == last + 1);
        self.has_gap |= last.is_some() && !is_next;
        hold(is_next || is_idr, Rule::Sequence, || {
            format!("unit {serial} is no IDR and comes after {last:?}")
        })?;
        hold(last.is_none_or(|last| serial > last), Rule::Sequence, || {
            format!("unit {serial} comes after {last:?}")
        })?;
        hold(!is_next || open.follows, Rule::Sequence, || {
            format!("{}: a gap before unit {serial}, with none lost", open.first)
        })?;
        if let Some((_, before)) = self.last {
            let ahead = open.timestamp.wrapping_sub(before);
            hold((1..1 << 31).contains(&ahead), Rule::Timestamp, || {
                format!("unit {serial}: {} after {before}", open.timestamp)
            })?;
        }
        self.last = Some((serial, open.timestamp));
        Ok(Arrived { serial, is_idr })
    }
}

impl Open {
    const fn new(packet: &Packet<'_>, follows: bool) -> Self {
        Self {
            timestamp: packet.timestamp,
            first: packet.sequence,
            follows,
            has_sps: false,
            has_pps: false,
            slice: Vec::new(),
        }
    }

    /// Takes a payload; whether the slice is whole.
    fn append(&mut self, payload: &[u8]) -> Checked<bool> {
        let bad = |why: &str| broken(Rule::Payload, format!("{why}: {:02x?}", &payload[..2]));
        match payload[0] & 0x1f {
            7 if self.slice.is_empty() => self.has_sps = true,
            8 if self.slice.is_empty() => self.has_pps = true,
            1 | 5 if self.slice.is_empty() => {
                self.slice.extend_from_slice(payload);
                return Ok(true);
            }
            28 => {
                let (is_start, is_end) = (payload[1] & 0x80 != 0, payload[1] & 0x40 != 0);
                if is_start != self.slice.is_empty() || (is_start && is_end) {
                    return bad("fragments out of order");
                }
                if is_start {
                    self.slice.push((payload[0] & 0xe0) | (payload[1] & 0x1f));
                }
                self.slice.extend_from_slice(&payload[2..]);
                return Ok(is_end);
            }
            _ => return bad("not a packet of this stream"),
        }
        Ok(false)
    }

    /// Whether it is what the encoder made.
    fn check(&self, truth: &Truth) -> Checked<(u32, bool)> {
        let bad = |why: String| broken(Rule::Payload, why);
        let Some(head) = self.slice.get(2..SLICE_HEAD_LEN) else { return bad("cut".into()) };
        let serial = u32::from_be_bytes(head.try_into().unwrap());
        let Some(unit) = truth.unit(serial) else { return bad(format!("no unit {serial}")) };
        let is_same = self.slice.len() == unit.slice_len
            && (self.slice[0] == 0x65) == unit.is_idr
            && self.slice[SLICE_HEAD_LEN..].iter().all(|&byte| byte == filler(serial));
        if !is_same {
            return bad(format!("unit {serial} was changed"));
        }
        if unit.is_idr && !(self.has_sps && self.has_pps) {
            return bad(format!("IDR {serial} without parameter sets"));
        }
        if unit.is_later {
            let right = truth.timestamp(unit.captured);
            hold(self.timestamp == right, Rule::Timestamp, || {
                format!("unit {serial}: {} and not {right}", self.timestamp)
            })?;
        }
        Ok((serial, unit.is_idr))
    }
}
