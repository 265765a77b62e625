//! The other end of RFC 6184, written from it alone: packets to NAL units.

use rtp_types::RtpPacket;

/// One RTP packet, read by somebody else's parser.
pub(super) struct Packet<'a> {
    pub(super) ssrc: u32,
    pub(super) sequence: u16,
    pub(super) timestamp: u32,
    pub(super) is_marked: bool,
    pub(super) payload: &'a [u8],
}

impl<'a> Packet<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Self {
        let packet = RtpPacket::parse(bytes).expect("an RTP packet");
        assert_eq!((packet.payload_type(), packet.n_csrcs()), (96, 0));
        assert!(packet.extension().is_none() && packet.padding().is_none());
        Self {
            ssrc: packet.ssrc(),
            sequence: packet.sequence_number(),
            timestamp: packet.timestamp(),
            is_marked: packet.marker_bit(),
            payload: &bytes[bytes.len() - packet.payload().len()..],
        }
    }
}

/// Collects the NAL units of one access unit.
#[derive(Default)]
pub(super) struct Depacketizer {
    nals: Vec<Vec<u8>>,
    /// The NAL unit whose fragments are coming.
    fragments: Option<Vec<u8>>,
}

impl Depacketizer {
    pub(super) fn receive(&mut self, payload: &[u8]) {
        let (&indicator, rest) = payload.split_first().expect("a payload");
        match indicator & 0x1f {
            24 => self.aggregate(indicator, rest),
            28 => self.fragment(indicator, rest),
            _ => {
                assert!(self.fragments.is_none(), "fragments without an end");
                self.nals.push(payload.to_vec());
            }
        }
    }

    pub(super) fn finish(self) -> Vec<Vec<u8>> {
        assert!(self.fragments.is_none(), "fragments without an end");
        self.nals
    }

    /// 5.7.1: sizes and NAL units; F is the OR, NRI the maximum.
    fn aggregate(&mut self, indicator: u8, mut rest: &[u8]) {
        assert!(self.fragments.is_none(), "fragments without an end");
        let (mut forbidden, mut nri) = (0, 0);
        while !rest.is_empty() {
            let (size, after) = rest.split_at(2);
            let (nal, after) = after.split_at(usize::from(u16::from_be_bytes([size[0], size[1]])));
            forbidden |= nal[0] & 0x80;
            nri = nri.max(nal[0] & 0x60);
            self.nals.push(nal.to_vec());
            rest = after;
        }
        assert_eq!(indicator & 0xe0, forbidden | nri);
    }

    /// 5.8: start and end once each, never in the same packet.
    fn fragment(&mut self, indicator: u8, rest: &[u8]) {
        let (&header, chunk) = rest.split_first().expect("an FU header");
        let (is_start, is_end) = (header & 0x80 != 0, header & 0x40 != 0);
        assert!(!(is_start && is_end) && header & 0x20 == 0 && !chunk.is_empty());
        if is_start {
            assert!(self.fragments.is_none(), "fragments without an end");
            self.fragments = Some(vec![(indicator & 0xe0) | (header & 0x1f)]);
        }
        let nal = self.fragments.as_mut().expect("fragments without a start");
        assert_eq!(nal[0], (indicator & 0xe0) | (header & 0x1f));
        nal.extend_from_slice(chunk);
        if is_end {
            self.nals.extend(self.fragments.take());
        }
    }
}
