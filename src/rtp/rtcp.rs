//! Says what a sender reports, and reads what receivers report.
//!
//! RFC 3550 6 (SR, RR, SDES, BYE), RFC 4585 6.3.1 (PLI), RFC 5104 4.3.1 (FIR).
//!
//! Not implemented: extended reports, APP packets, SDES items other than CNAME.

use std::time::Duration;

use thiserror::Error;

use super::Ssrc;
use crate::time::{NtpTimestamp, RtpTimestamp};

/// What a sender report says (RFC 3550 6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderReport {
    pub ssrc: Ssrc,
    /// The same instant as `rtp`.
    pub ntp: NtpTimestamp,
    pub rtp: RtpTimestamp,
    /// Packets sent to this viewer.
    pub packet_count: u32,
    /// Payload octets sent to this viewer, headers not counted.
    pub octet_count: u32,
}

/// One compound packet, ready to be sent.
pub type Compound = heapless::Vec<u8, COMPOUND_LEN_MAX>;

impl SenderReport {
    /// Writes SR and SDES, and BYE behind them when the stream `is_over` (RFC 3550 6.1).
    ///
    /// `cname`: at most [`CNAME_LEN_MAX`] bytes, the same for all streams of the camera.
    ///
    /// ```text
    ///  |V=2|P|    RC   |   PT=200 SR   |            length             |
    ///  |                         SSRC of sender                        |
    ///  |                    NTP timestamp (64 bits)                    |
    ///  |         RTP timestamp         |  packet count  | octet count  |
    /// ```
    #[must_use]
    pub fn emit(&self, cname: &str, is_over: bool) -> Compound {
        let mut out = Compound::new();
        let mut put = |bytes: &[u8]| {
            // COMPOUND_LEN_MAX has room for everything that is written here.
            let _ = out.extend_from_slice(bytes);
        };
        put(&[VERSION_2, TYPE_SR, 0, 6]);
        put(&self.ssrc.0.to_be_bytes());
        put(&self.ntp.0.to_be_bytes());
        put(&self.rtp.0.to_be_bytes());
        put(&self.packet_count.to_be_bytes());
        put(&self.octet_count.to_be_bytes());
        // SDES: one chunk, one item, ended by a null octet and padded to 32 bits (6.5).
        let cname = cname.as_bytes().get(..CNAME_LEN_MAX).unwrap_or(cname.as_bytes());
        let item_len = u8::try_from(cname.len()).unwrap_or(0);
        let padding = 4 - (2 + item_len) % 4;
        let words = 1 + (2 + item_len + padding) / 4;
        put(&[VERSION_2 | 1, TYPE_SDES, 0, words]);
        put(&self.ssrc.0.to_be_bytes());
        put(&[SDES_CNAME, item_len]);
        put(cname);
        put([0; 4].get(..usize::from(padding)).unwrap_or(&[]));
        if is_over {
            put(&[VERSION_2 | 1, TYPE_BYE, 0, 1]);
            put(&self.ssrc.0.to_be_bytes());
        }
        out
    }
}

/// What a receiver's packet tells the camera.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feedback {
    /// A reception report block about one of our streams (RFC 3550 6.4.2).
    Report(ReceptionReport),
    /// The decoder has lost its references: PLI or FIR.
    KeyFrameWanted,
    /// The receiver leaves; who it is says its address, not its SSRC.
    Bye,
}

/// One report block (RFC 3550 6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceptionReport {
    /// Whose packets it reports on.
    pub ssrc: Ssrc,
    /// Of 256, since the last report.
    pub fraction_lost: u8,
    /// Since the receiver began; negative when packets came twice.
    pub lost: i32,
    /// In ticks of 90 kHz.
    pub jitter_ticks: u32,
    /// LSR: [`NtpTimestamp::middle`] of the newest sender report it has got; 0 without one.
    pub last_report: u32,
    /// DLSR: how long before this report that was.
    pub since_last_report: Duration,
}

/// The packet is not a compound RTCP packet; all of it is to be ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{reason} at byte {offset}")]
pub struct Malformed {
    pub offset: usize,
    pub reason: &'static str,
}

/// Reads one datagram or interleaved packet, and gives each of its messages to `visit`.
///
/// Nothing is given when anything in it is malformed. An empty receiver report is valid and says
/// nothing: it is how players punch holes, and how some say that they are alive.
///
/// # Errors
///
/// [`Malformed`]: the peer's fault.
pub fn parse(bytes: &[u8], mut visit: impl FnMut(Feedback)) -> Result<(), Malformed> {
    for pass in [Pass::Check, Pass::Visit] {
        let mut offset = 0;
        while offset < bytes.len() {
            let rest = bytes.get(offset..).unwrap_or(&[]);
            let fault = |reason| move || Malformed { offset, reason };
            let (header, body) = rest.split_first_chunk::<4>().ok_or_else(fault("cut header"))?;
            let [first, packet_type, length @ ..] = *header;
            if first >> 6 != 2 {
                return Err(fault("version is not 2")());
            }
            if offset == 0 && !matches!(packet_type, TYPE_SR | TYPE_RR) && packet_type < TYPE_RTPFB
            {
                return Err(fault("does not begin with a report")());
            }
            let len = usize::from(u16::from_be_bytes(length)) * 4;
            let body = body.get(..len).ok_or_else(fault("longer than the datagram"))?;
            let count = usize::from(first & 0x1f);
            let messages = read(packet_type, count, body).ok_or_else(fault("cut body"))?;
            if matches!(pass, Pass::Visit) {
                messages.for_each(&mut visit);
            }
            offset += 4 + len;
        }
    }
    if bytes.is_empty() { Err(Malformed { offset: 0, reason: "empty" }) } else { Ok(()) }
}

/// A packet is believed whole or not at all.
#[derive(Clone, Copy)]
enum Pass {
    Check,
    Visit,
}

/// The messages of one packet of a compound; `None` when `body` is too short for them.
fn read(packet_type: u8, count: usize, body: &[u8]) -> Option<impl Iterator<Item = Feedback> + '_> {
    let (blocks, single): (&[u8], _) = match packet_type {
        TYPE_SR => (body.get(24..)?.get(..count * REPORT_BLOCK_LEN)?, None),
        TYPE_RR => (body.get(4..)?.get(..count * REPORT_BLOCK_LEN)?, None),
        TYPE_BYE => {
            body.get(..count * 4)?;
            (&[], Some(Feedback::Bye))
        }
        TYPE_PSFB => {
            body.get(..8)?;
            (&[], matches!(count, FMT_PLI | FMT_FIR).then_some(Feedback::KeyFrameWanted))
        }
        _ => (&[], None),
    };
    Some(blocks.chunks_exact(REPORT_BLOCK_LEN).filter_map(report).chain(single))
}

/// One report block.
fn report(block: &[u8]) -> Option<Feedback> {
    let word = |index: usize| {
        block.get(index * 4..).and_then(|rest| rest.first_chunk()).map(|b| u32::from_be_bytes(*b))
    };
    let [fraction_lost, ..] = word(1)?.to_be_bytes();
    // A signed number of 24 bits.
    let lost = (word(1)? << 8).cast_signed() >> 8;
    // In units of 1/65536 s.
    let since = u64::from(word(5)?) * 1_000_000 / 65_536;
    Some(Feedback::Report(ReceptionReport {
        ssrc: Ssrc(word(0)?),
        fraction_lost,
        lost,
        jitter_ticks: word(3)?,
        last_report: word(4)?,
        since_last_report: Duration::from_micros(since),
    }))
}

/// Room for SR, SDES with the longest CNAME, and BYE.
const COMPOUND_LEN_MAX: usize = 128;
/// RFC 7022 4.2 makes 16 characters; twice that is plenty.
pub const CNAME_LEN_MAX: usize = 32;
const VERSION_2: u8 = 2 << 6;
const TYPE_SR: u8 = 200;
const TYPE_RR: u8 = 201;
const TYPE_SDES: u8 = 202;
const TYPE_BYE: u8 = 203;
/// RFC 4585 6.1: reduced-size feedback may come without a report before it (RFC 5506).
const TYPE_RTPFB: u8 = 205;
const TYPE_PSFB: u8 = 206;
const FMT_PLI: usize = 1;
const FMT_FIR: usize = 4;
const SDES_CNAME: u8 = 1;
const REPORT_BLOCK_LEN: usize = 24;

#[cfg(test)]
mod tests {
    use rtcp_types::{Compound as Parsed, Packet, ReportBlock, prelude::*};

    use super::*;

    fn sr() -> SenderReport {
        SenderReport {
            ssrc: Ssrc(0xdead_beef),
            ntp: NtpTimestamp(0x0123_4567_89ab_cdef),
            rtp: RtpTimestamp(0x1122_3344),
            packet_count: 77,
            octet_count: 88_888,
        }
    }

    #[test]
    fn an_independent_parser_reads_our_reports_for_every_cname_length() {
        for len in 1..=CNAME_LEN_MAX {
            for is_over in [false, true] {
                let cname = "c".repeat(len);
                let bytes = sr().emit(&cname, is_over);
                assert_eq!(bytes.len() % 4, 0);
                let packets: Vec<_> = Parsed::parse(&bytes).unwrap().map(Result::unwrap).collect();
                assert_eq!(packets.len(), 2 + usize::from(is_over));
                let Packet::Sr(report) = &packets[0] else { unreachable!() };
                assert_eq!(report.ssrc(), 0xdead_beef);
                assert_eq!(report.ntp_timestamp(), 0x0123_4567_89ab_cdef);
                assert_eq!((report.packet_count(), report.octet_count()), (77, 88_888));
                let Packet::Sdes(sdes) = &packets[1] else { unreachable!() };
                let item = sdes.chunks().next().unwrap().items().next().unwrap();
                assert_eq!(item.value(), cname.as_bytes());
            }
        }
    }

    fn feedback(bytes: &[u8]) -> Result<Vec<Feedback>, Malformed> {
        let mut all = Vec::new();
        parse(bytes, |message| all.push(message)).map(|()| all)
    }

    fn receiver_report() -> Vec<u8> {
        let block = ReportBlock::builder(0xdead_beef)
            .fraction_lost(51)
            .cumulative_lost(1_000)
            .interarrival_jitter(900)
            .last_sender_report_timestamp(0x4567_89ab)
            .delay_since_last_sender_report_timestamp(65_536 * 3 / 2);
        let report = rtcp_types::ReceiverReport::builder(7).add_report_block(block);
        let mut bytes = vec![0; report.calculate_size().unwrap()];
        report.write_into(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn reports_pli_fir_and_bye_are_told_apart() {
        let report = Feedback::Report(ReceptionReport {
            ssrc: Ssrc(0xdead_beef),
            fraction_lost: 51,
            lost: 1_000,
            jitter_ticks: 900,
            last_report: 0x4567_89ab,
            since_last_report: Duration::from_millis(1_500),
        });
        let mut bytes = receiver_report();
        assert_eq!(feedback(&bytes), Ok(vec![report]));
        bytes.extend([0x81, 206, 0, 2, 0, 0, 0, 7, 0, 0, 0, 9]);
        bytes.extend([0x84, 206, 0, 4, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 9, 1, 0, 0, 0]);
        bytes.extend([0x81, 203, 0, 1, 0, 0, 0, 7]);
        let wanted = Feedback::KeyFrameWanted;
        assert_eq!(feedback(&bytes), Ok(vec![report, wanted, wanted, Feedback::Bye]));
        assert_eq!(feedback(&[0x80, 201, 0, 1, 0, 0, 0, 0]), Ok(vec![]), "FFmpeg's hole punch");
    }

    #[test]
    fn packets_that_came_twice_are_a_negative_loss() {
        for (word, lost) in [(0x0000_0000, 0), (0xff7f_ffff, 0x7f_ffff), (0x12ff_ffff, -1)] {
            let mut bytes = receiver_report();
            bytes[12..16].copy_from_slice(&u32::to_be_bytes(word));
            let all = feedback(&bytes).unwrap();
            assert!(matches!(all[..], [Feedback::Report(report)] if report.lost == lost));
        }
    }

    #[test]
    fn a_cut_packet_says_nothing_at_all() {
        let mut bytes = receiver_report();
        bytes.extend([0x81, 203, 0, 1, 0, 0, 0, 7]);
        for len in (0..bytes.len()).filter(|&len| len != 32) {
            let mut visited = 0;
            assert!(parse(&bytes[..len], |_| visited += 1).is_err(), "{len}");
            assert_eq!(visited, 0);
        }
    }

    #[test]
    fn no_bytes_make_the_parser_panic() {
        let mut state = 1_u64;
        for _ in 0..50_000 {
            let mut bytes = receiver_report();
            for _ in 0..3 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = usize::try_from(state >> 33).unwrap() % bytes.len();
                bytes[at] = u8::try_from(state >> 56).unwrap();
            }
            let _ = feedback(&bytes);
        }
    }

    #[test]
    fn the_reports_of_senders_and_every_block_of_a_report_are_read() {
        let block = &receiver_report()[8..];
        let with = |head: &[u8], own: usize, blocks: usize| {
            let mut bytes = [head, &vec![9; own]].concat();
            (0..blocks).for_each(|_| bytes.extend(block));
            let words = u16::try_from(bytes.len() / 4 - 1).unwrap();
            bytes[2..4].copy_from_slice(&words.to_be_bytes());
            bytes
        };
        for count in 0..=31_u8 {
            let blocks = usize::from(count);
            for (kind, own) in [(200, 24), (201, 4)] {
                let whole = with(&[0x80 | count, kind, 0, 0], own, blocks);
                let all = feedback(&whole).unwrap();
                assert_eq!(all.len(), blocks);
                assert!(
                    all.iter().all(|it| matches!(it, Feedback::Report(it) if it.lost == 1_000))
                );
                if count > 0 {
                    let cut = with(&[0x80 | count, kind, 0, 0], own, blocks - 1);
                    assert!(feedback(&cut).is_err(), "a block is missing");
                }
            }
        }
    }

    #[test]
    fn what_may_come_without_a_report_before_it_is_told_from_what_may_not() {
        let alone = |head: [u8; 2], words: u8| {
            let mut bytes = vec![head[0], head[1], 0, words];
            bytes.resize(4 + 4 * usize::from(words), 0);
            feedback(&bytes)
        };
        assert_eq!(alone([0x81, 206], 2), Ok(vec![Feedback::KeyFrameWanted]), "PLI (RFC 5506)");
        assert_eq!(alone([0x84, 206], 4), Ok(vec![Feedback::KeyFrameWanted]), "FIR");
        assert_eq!(alone([0x8f, 206], 2), Ok(vec![]), "application layer feedback");
        assert_eq!(alone([0x81, 205], 3), Ok(vec![]), "NACK, which is not answered");
        assert_eq!(alone([0x80, 201], 1), Ok(vec![]));
        for kind in [0, 199, 202, 203, 204] {
            assert!(alone([0x81, kind], 2).is_err(), "{kind}");
        }
        assert!(alone([0x81, 206], 1).is_err(), "the media's SSRC is missing");
        for version in [0x01, 0x41, 0xc1] {
            assert!(alone([version, 206], 2).is_err(), "{version:x}");
        }
        // BYE names as many sources as it counts, and may give a reason.
        let report = [0x80, 201, 0, 1, 0, 0, 0, 0];
        let bye = |count: u8, words: u8| {
            let mut bytes = [&report[..], &[0x80 | count, 203, 0, words]].concat();
            bytes.resize(12 + 4 * usize::from(words), 0);
            feedback(&bytes)
        };
        for (count, words) in [(0, 0), (1, 1), (1, 3), (2, 2), (31, 31)] {
            assert_eq!(bye(count, words), Ok(vec![Feedback::Bye]));
        }
        for (count, words) in [(1, 0), (2, 1), (31, 30)] {
            assert!(bye(count, words).is_err());
        }
    }
}
