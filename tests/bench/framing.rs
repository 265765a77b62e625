//! Cuts what a viewer reads into packets, and looks at their first bytes only.
//!
//! RFC 2326 10.12 (`$`, channel, length), RFC 3550 5.1 and 6.4.1, RFC 6184 5.8.

/// Finds the packets of an interleaved byte stream, wherever the reads cut it.
#[derive(Default)]
pub(crate) struct Framing {
    /// The first bytes of the current packet, prefix included.
    head: [u8; PREFIX_LEN + HEAD_LEN],
    head_len: usize,
    /// Bytes of the current packet that are still to come; 0 until the prefix is complete.
    rest: usize,
    /// The last four bytes of an RTSP reply that is being skipped.
    reply: Option<[u8; 4]>,
}

impl Framing {
    /// Calls `packet(is_rtcp, head)` at the end of every packet.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut packet: impl FnMut(bool, &[u8])) {
        while let Some(&first) = bytes.first() {
            if let Some(last) = &mut self.reply {
                *last = [last[1], last[2], last[3], first];
                if last == b"\r\n\r\n" {
                    self.reply = None;
                }
                bytes = &bytes[1..];
            } else if self.head_len == 0 && first != b'$' {
                self.reply = Some([0; 4]);
            } else if self.head_len < PREFIX_LEN {
                self.head[self.head_len] = first;
                self.head_len += 1;
                bytes = &bytes[1..];
                if self.head_len == PREFIX_LEN {
                    self.rest = usize::from(u16::from_be_bytes([self.head[2], self.head[3]]));
                }
            } else {
                let count = bytes.len().min(self.rest);
                let kept = count.min(self.head.len() - self.head_len);
                self.head[self.head_len..self.head_len + kept].copy_from_slice(&bytes[..kept]);
                self.head_len += kept;
                self.rest -= count;
                bytes = &bytes[count..];
                if self.rest == 0 {
                    packet(self.head[1] & 1 == 1, &self.head[PREFIX_LEN..self.head_len]);
                    self.head_len = 0;
                }
            }
        }
    }
}

/// What a viewer wants to know of an RTP packet.
#[derive(Clone, Copy)]
pub(crate) struct RtpHead {
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    /// Last packet of its access unit.
    pub(crate) marker: bool,
    /// An IDR slice, or the first part of one.
    pub(crate) is_idr: bool,
}

pub(crate) fn rtp_head(packet: &[u8]) -> Option<RtpHead> {
    let head: &[u8; 14] = packet.first_chunk()?;
    let is_idr = match head[12] & 0x1f {
        FU_A => head[13] & 0x9f == 0x80 | IDR,
        kind => kind == IDR,
    };
    Some(RtpHead {
        sequence: u16::from_be_bytes([head[2], head[3]]),
        timestamp: u32::from_be_bytes([head[4], head[5], head[6], head[7]]),
        marker: head[1] & 0x80 != 0,
        is_idr,
    })
}

/// NTP time and RTP timestamp of a sender report.
pub(crate) fn sender_report(packet: &[u8]) -> Option<(u64, u32)> {
    let head: &[u8; 20] = packet.first_chunk()?;
    let ntp = head[8..16].try_into().map(u64::from_be_bytes).ok()?;
    let rtp = head[16..20].try_into().map(u32::from_be_bytes).ok()?;
    (head[1] == SENDER_REPORT).then_some((ntp, rtp))
}

const PREFIX_LEN: usize = 4;
/// As far as the RTP timestamp of a sender report.
const HEAD_LEN: usize = 20;
const IDR: u8 = 5;
const FU_A: u8 = 28;
const SENDER_REPORT: u8 = 200;
