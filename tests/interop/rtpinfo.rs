//! RTP-Info names the viewer's very first packet, for every viewer, whenever he comes or comes back.
//!
//! RFC 2326 12.33; the design's "Start": 200 to PLAY stands directly ahead of SPS, PPS, IDR.

use std::time::Duration;

use rtp_types::RtpPacket;

use crate::camera::{Camera, credentials};
use crate::capture::{Kind, Message};
use crate::client::{Client, Lower};
use crate::nal;
use crate::validate::RtpInfo;

/// Returns (sequence number, timestamp, NAL unit type) of the first RTP packet since `from`.
fn first_packet(client: &Client, from: usize) -> Option<(u16, u32, u8)> {
    client.capture.events[from..].iter().find_map(|event| {
        let packet = match &event.kind {
            Kind::Interleaved { channel: 0, packet } => packet,
            Kind::Datagram { to, packet, .. } if to % 2 == 0 => packet,
            _ => return None,
        };
        let packet = RtpPacket::parse(packet).ok()?;
        // STAP-A: the type of the first unit inside.
        let first = if nal::kind(packet.payload()) == 24 { 3 } else { 0 };
        Some((packet.sequence_number(), packet.timestamp(), nal::kind(&packet.payload()[first..])))
    })
}

/// Plays, and compares what was promised with what came first.
fn play_and_compare(client: &mut Client, name: &str) -> Duration {
    let from = client.capture.events.len();
    let reply: Message = client.play();
    assert_eq!(reply.status(), 200, "{name}: {reply:?}");
    let info = RtpInfo::parse(&reply).unwrap_or_else(|| panic!("{name}: {reply:?}"));
    assert_eq!(info.url, client.control, "{name}");
    let came =
        client.listen_until(Duration::from_secs(3), |client| first_packet(client, from).is_some());
    assert!(came, "{name}: no media within 3 s");
    let (sequence, timestamp, kind) = first_packet(client, from).unwrap();
    assert_eq!((info.sequence, info.timestamp), (sequence, timestamp), "{name}");
    assert_eq!(kind, nal::SPS, "{name}: the first packet is not the SPS");
    assert!(info.sequence > 1, "{name}");
    let [asked, last] = [from, client.capture.events.len() - 1];
    client.capture.events[last].at - client.capture.events[asked].at
}

#[test]
fn rtp_info_names_the_first_packet_also_after_a_pause_and_for_latecomers() {
    let camera = Camera::start(&["--source", "pattern", "--size", "320x240", "--fps", "30"]);
    let mut waits = Vec::new();
    // Each comes at another moment of the group of pictures, while the others still play.
    let mut viewers: Vec<Client> = Vec::new();
    for (number, lower) in [Lower::Tcp, Lower::Udp, Lower::Tcp, Lower::Udp].into_iter().enumerate()
    {
        let mut client = Client::connect(&camera.url, &credentials());
        assert_eq!(client.describe().status(), 200);
        assert_eq!(client.setup(lower).status(), 200);
        waits.push(play_and_compare(&mut client, &format!("{lower:?} viewer {number}")));
        client.listen(Duration::from_millis(270));
        viewers.push(client);
    }
    for (number, mut client) in viewers.into_iter().enumerate() {
        assert_eq!(client.pause().status(), 200);
        client.listen(Duration::from_millis(300));
        waits.push(play_and_compare(&mut client, &format!("viewer {number} after a pause")));
        client.listen(Duration::from_millis(200));
        assert_eq!(client.teardown().status(), 200);
    }
    // The bucket of forced IDR pictures is small: the periodic one, a second apart, is the limit.
    let longest = waits.iter().max().unwrap();
    assert!(*longest < Duration::from_millis(1500), "{waits:?}");
}
