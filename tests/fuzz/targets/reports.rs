//! What receivers report, and what the camera does: RTCP both ways.

use ocellus::rtp::Ssrc;
use ocellus::rtp::rtcp::{self, CNAME_LEN_MAX, Feedback, SenderReport};
use ocellus::time::{NtpTimestamp, RtpTimestamp};
use rtcp_types::{Compound, Packet};

use super::input::Input;

/// Any datagram: it is believed whole or not at all, and says no more than fits into it.
pub(super) fn receive(bytes: &[u8]) {
    let mut told = Vec::new();
    let result = rtcp::parse(bytes, |feedback| told.push(feedback));
    if let Err(malformed) = result {
        assert!(told.is_empty() && malformed.offset <= bytes.len());
        return;
    }
    assert!(told.len() <= bytes.len() / 4 && bytes.len().is_multiple_of(4));
    // Somebody else's reader finds as many report blocks and goodbyes where it finds all well.
    let Ok(Some(packets)) =
        Compound::parse(bytes).map(|compound| compound.collect::<Result<Vec<_>, _>>().ok())
    else {
        return;
    };
    let (mut blocks, mut goodbyes) = (0, 0);
    for packet in &packets {
        match packet {
            Packet::Sr(report) => blocks += usize::from(report.n_reports()),
            Packet::Rr(report) => blocks += usize::from(report.n_reports()),
            Packet::Bye(_) => goodbyes += 1,
            _ => {}
        }
    }
    let is_block = |feedback: &&Feedback| matches!(feedback, Feedback::Report(_));
    assert_eq!(told.iter().filter(is_block).count(), blocks);
    assert_eq!(told.iter().filter(|&feedback| *feedback == Feedback::Bye).count(), goodbyes);
}

/// A sender report of any numbers and name: somebody else reads the same out of it, and so does
/// the camera.
pub(super) fn send(bytes: &[u8]) {
    let mut input = Input(bytes);
    let report = SenderReport {
        ssrc: Ssrc(input.number::<4>() as u32),
        ntp: NtpTimestamp(input.number::<8>()),
        rtp: RtpTimestamp(input.number::<4>() as u32),
        packet_count: input.number::<4>() as u32,
        octet_count: input.number::<4>() as u32,
    };
    let is_over = input.below(2) == 1;
    let cname: String = input.0.iter().map(|&byte| char::from(byte & 0x7f)).collect();
    let compound = report.emit(&cname, is_over);
    let mut told = Vec::new();
    rtcp::parse(&compound, |feedback| told.push(feedback)).expect("the camera's own");
    assert_eq!(told, if is_over { vec![Feedback::Bye] } else { vec![] });
    let mut packets = Compound::parse(&compound).expect("a compound packet");
    let Some(Ok(Packet::Sr(first))) = packets.next() else { panic!("no sender report") };
    assert_eq!((first.ssrc(), first.ntp_timestamp()), (report.ssrc.0, report.ntp.0));
    assert_eq!((first.rtp_timestamp(), first.n_reports()), (report.rtp.0, 0));
    assert_eq!(
        (first.packet_count(), first.octet_count()),
        (report.packet_count, report.octet_count)
    );
    let Some(Ok(Packet::Sdes(names))) = packets.next() else { panic!("no description") };
    let chunk = names.chunks().next().expect("a chunk");
    let item = chunk.items().next().expect("an item");
    assert_eq!((chunk.ssrc(), item.type_()), (report.ssrc.0, 1));
    assert_eq!(item.value(), &cname.as_bytes()[..cname.len().min(CNAME_LEN_MAX)]);
    let is_bye =
        matches!(packets.next(), Some(Ok(Packet::Bye(bye))) if bye.ssrcs().eq([report.ssrc.0]));
    assert!(is_bye == is_over && packets.next().is_none());
}
