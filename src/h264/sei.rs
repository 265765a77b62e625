//! Says in the stream itself when a picture was captured: writes and reads an SEI message.
//!
//! MISB ST 0604 (Precision Time Stamp) in `user_data_unregistered` of H.264 D.1.7; NAL unit and
//! message syntax of H.264 7.3.2.3.
//!
//! ```text
//! 06 | 05 | 1c | "MISPmicrosectime" | status | t7 t6 ff t5 t4 ff t3 t2 ff t1 t0 | 80
//! ```
//!
//! Not implemented: other messages, more than one message in a NAL unit, nanoseconds.

use super::nal::{NalType, nal_type};

/// A time stamp as one SEI NAL unit, which goes before the first slice of its picture.
///
/// # Units
///
/// `micros`: microseconds of UTC since 1970, without leap seconds (as POSIX time). `is_locked`:
/// whether the clock follows a reference.
///
/// # Shape
///
/// Header byte first, no start code. A 0xff after every second byte of the time keeps zeros apart,
/// so there is never anything for emulation prevention to do.
#[must_use]
pub fn utc_sei(micros: u64, is_locked: bool) -> [u8; UTC_SEI_LEN] {
    let mut nal = [0; UTC_SEI_LEN];
    let [t7, t6, t5, t4, t3, t2, t1, t0] = micros.to_be_bytes();
    let status = STATUS | if is_locked { 0 } else { STATUS_NOT_LOCKED };
    let (head, payload) = nal.split_at_mut(HEAD.len());
    head.copy_from_slice(&HEAD);
    let (uuid, rest) = payload.split_at_mut(UUID.len());
    uuid.copy_from_slice(UUID);
    rest.copy_from_slice(&[
        status,
        t7,
        t6,
        0xff,
        t5,
        t4,
        0xff,
        t3,
        t2,
        0xff,
        t1,
        t0,
        TRAILING_BITS,
    ]);
    nal
}

/// Reads what [`utc_sei`] wrote: the microseconds, and the status byte.
///
/// Nothing when it is another NAL unit or another message.
#[must_use]
pub fn parse_utc_sei(nal: &[u8]) -> Option<(u64, u8)> {
    if nal_type(nal) != Some(NalType::SEI) {
        return None;
    }
    let payload = nal.get(1..)?.strip_prefix(&HEAD[1..])?.strip_prefix(UUID)?;
    let &[status, t7, t6, 0xff, t5, t4, 0xff, t3, t2, 0xff, t1, t0, TRAILING_BITS] = payload else {
        return None;
    };
    Some((u64::from_be_bytes([t7, t6, t5, t4, t3, t2, t1, t0]), status))
}

/// Whether a status byte says that the clock follows a reference.
#[must_use]
pub fn is_locked(status: u8) -> bool {
    status & STATUS_NOT_LOCKED == 0
}

/// Bytes of the NAL unit.
pub const UTC_SEI_LEN: usize = HEAD.len() + UUID.len() + 13;

/// NAL unit header (`nal_ref_idc` 0, type 6), `payloadType` 5, `payloadSize` 28.
const HEAD: [u8; 3] = [0x06, 0x05, 0x1c];
const UUID: &[u8; 16] = b"MISPmicrosectime";
/// ST 0603: bits 4 to 0 are reserved and set.
const STATUS: u8 = 0x1f;
/// ST 0603: the clock is not locked to its reference.
const STATUS_NOT_LOCKED: u8 = 1 << 7;
/// `rbsp_trailing_bits`.
const TRAILING_BITS: u8 = 0x80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_stamp_is_the_bytes_of_the_standard() {
        let nal = utc_sei(0x0005_d2a1_0203_0405, true);
        assert_eq!(nal[..3], [0x06, 0x05, 28]);
        assert_eq!(&nal[3..19], b"MISPmicrosectime");
        let time = [0x00, 0x05, 0xff, 0xd2, 0xa1, 0xff, 0x02, 0x03, 0xff, 0x04, 0x05];
        assert_eq!(nal[19], 0x1f);
        assert_eq!(nal[20..31], time);
        assert_eq!(nal[31..], [0x80]);
        assert_eq!(utc_sei(0, false)[19], 0x9f);
    }

    #[test]
    fn every_time_comes_back_and_needs_no_emulation_prevention() {
        let bytes =
            (0..64).map(|bit| 1_u64 << bit).chain((0..8).map(|byte| 0xff_u64 << (8 * byte)));
        let times = bytes.flat_map(|time| [time, !time, time - 1, 1_800_000_000_000_000 ^ time]);
        for time in times.chain([0, u64::MAX]) {
            for is_set in [false, true] {
                let nal = utc_sei(time, is_set);
                let (micros, status) = parse_utc_sei(&nal).unwrap();
                assert_eq!((micros, is_locked(status)), (time, is_set));
                let is_emulated = |part: &[u8]| part[..2] == [0, 0] && part[2] <= 3;
                assert!(!nal.windows(3).any(is_emulated), "{nal:x?}");
            }
        }
    }

    #[test]
    fn another_message_or_a_broken_one_is_no_time_stamp() {
        let good = utc_sei(7, true);
        for len in 0..good.len() {
            assert_eq!(parse_utc_sei(&good[..len]), None);
        }
        for at in 0..good.len() {
            let mut nal = good;
            nal[at] ^= 0x40;
            let parsed = parse_utc_sei(&nal);
            // Only the header's reference bits, the status and the time may differ.
            let is_free = at == 0 || at == 19 || (20..31).contains(&at) && (at - 20) % 3 != 2;
            assert_eq!(parsed.is_some(), is_free, "byte {at}");
        }
    }
}
