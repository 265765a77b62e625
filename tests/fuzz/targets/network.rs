//! The camera on a network whose servers are anybody: DHCP and the time.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use ocellus::net::sntp::{self, MESSAGE_LEN, Sntp};
use ocellus::net::{Dhcp, Event, Lease, MAX_SERVERS, Origin, hostname_option};
use ocellus::time::{Instant, NtpTimestamp};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, DHCP_CLIENT_PORT, DHCP_SERVER_PORT, DhcpMessageType,
    DhcpOption, DhcpPacket, DhcpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr, IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr,
};

use super::input::Input;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x77];
const SERVER: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);

/// Servers' messages, other hosts' ARP, raw frames, and time: leases come, are renewed and go in
/// that order and in time, and the network is never flooded.
pub(super) fn dhcp(bytes: &[u8]) {
    let mut input = Input(bytes);
    let option = hostname_option("ocellus");
    let options: Vec<DhcpOption<'_>> = option.into_iter().collect();
    let start = Instant::from_micros(input.number::<4>());
    let dhcp = Dhcp::new(start, MAC, &options, input.number::<2>()).expect("a unicast address");
    let mut host =
        Host { dhcp, now: start, transaction: 0, lease: None, acquired_at: start, sent: 0 };
    host.drain();
    let mut received = 0;
    for _ in 0..100 {
        if input.is_empty() {
            break;
        }
        match input.byte() & 7 {
            0 => host.pass(Duration::from_millis(input.number::<1>() * 20)),
            1 => host.pass(Duration::from_secs(input.number::<1>() * 5)),
            2 => host.dhcp.restart(host.now),
            3 => host.receive(&arp(&mut input)),
            4 => host.receive(input.some()),
            _ => {
                let mut frame = host.answer(&mut input);
                spoil(&mut input, &mut frame);
                host.receive(&frame);
            }
        }
        received += 1;
        host.drain();
    }
    // Answers to what came, and then what the client says by itself.
    let passed = usize::try_from(host.now.since(start).as_secs()).unwrap();
    assert!(host.sent <= 16 + 4 * received + passed, "{} frames", host.sent);
    host.ends();
}

struct Host<'a> {
    dhcp: Dhcp<'a>,
    now: Instant,
    /// Of the client's last message.
    transaction: u32,
    lease: Option<Lease>,
    acquired_at: Instant,
    sent: usize,
}

impl Host<'_> {
    fn receive(&mut self, frame: &[u8]) {
        self.dhcp.receive(self.now, frame);
    }

    /// Lets time pass, stopping at every deadline on the way.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut stops = 0;
        while let Some(at) = self.dhcp.poll_timeout().filter(|&at| at <= end) {
            self.now = self.now.max(at);
            self.dhcp.handle_timeout(self.now);
            self.drain();
            stops += 1;
            assert!(stops < 5_000, "time stands still: {:?}", self.dhcp);
        }
        self.now = end;
    }

    fn drain(&mut self) {
        while let Some(frame) = self.dhcp.poll_transmit() {
            self.sent += 1;
            self.look_at(&frame);
        }
        while let Some(event) = self.dhcp.poll_event() {
            match event {
                Event::Acquired(lease) => {
                    assert!(self.lease.is_none(), "acquired twice");
                    self.hold(lease);
                }
                Event::Renewed(lease) => {
                    let held = self.lease.as_ref().expect("something to renew");
                    assert_eq!((held.address, held.prefix_len), (lease.address, lease.prefix_len));
                    self.hold(lease);
                }
                Event::Lost => assert!(self.lease.take().is_some(), "lost what was not there"),
            }
        }
        let Some(Origin::Dhcp { duration, .. }) = self.lease.as_ref().map(|lease| &lease.origin)
        else {
            return;
        };
        assert!(self.now.since(self.acquired_at) <= *duration, "used after it ran out");
    }

    fn hold(&mut self, lease: Lease) {
        assert!(!lease.address.is_unspecified() && !lease.address.is_broadcast());
        assert!(!lease.address.is_multicast() && lease.prefix_len <= 32);
        assert!(lease.dns.len() <= MAX_SERVERS && lease.ntp.len() <= MAX_SERVERS);
        if lease.origin == Origin::LinkLocal {
            assert!(lease.address.is_link_local() && lease.prefix_len == 16);
        }
        self.acquired_at = self.now;
        self.lease = Some(lease);
    }

    /// What is sent is the camera's own, and whole.
    fn look_at(&mut self, frame: &[u8]) {
        assert!(frame.len() <= 1514);
        let ethernet = EthernetFrame::new_checked(frame).expect("a frame");
        assert_eq!(ethernet.src_addr(), EthernetAddress(MAC));
        match ethernet.ethertype() {
            EthernetProtocol::Arp => {
                ArpPacket::new_checked(ethernet.payload()).expect("an ARP packet");
            }
            EthernetProtocol::Ipv4 => {
                let ip = Ipv4Packet::new_checked(ethernet.payload()).expect("an IPv4 packet");
                assert_eq!(ip.next_header(), IpProtocol::Udp);
                let udp = UdpPacket::new_checked(ip.payload()).expect("a datagram");
                assert_eq!((udp.src_port(), udp.dst_port()), (DHCP_CLIENT_PORT, DHCP_SERVER_PORT));
                let dhcp = DhcpPacket::new_checked(udp.payload()).expect("a DHCP message");
                self.transaction = dhcp.transaction_id();
            }
            other => panic!("a frame of type {other}"),
        }
    }

    /// A server's message about the client's last one.
    fn answer(&self, input: &mut Input<'_>) -> Vec<u8> {
        let style = input.byte();
        let kind = match style & 7 {
            0 | 1 => DhcpMessageType::Offer,
            2..=4 => DhcpMessageType::Ack,
            5 => DhcpMessageType::Nak,
            6 => DhcpMessageType::Discover,
            _ => DhcpMessageType::Unknown(input.byte()),
        };
        let address = Ipv4Addr::from([192, 168, 7, if style & 8 == 0 { 42 } else { input.byte() }]);
        let server = Ipv4Addr::from([192, 168, 7, 1]);
        let seconds = |input: &mut Input<'_>| {
            let seconds = input.byte();
            (seconds != 7).then(|| if seconds == 255 { u32::MAX } else { u32::from(seconds) * 10 })
        };
        let extra = [42, 4, 192, 168, 7, 2];
        let ntp = DhcpOption { kind: extra[0], data: &extra[2..] };
        let more = [ntp, DhcpOption { kind: input.byte(), data: input.take(12) }];
        let repr = DhcpRepr {
            message_type: kind,
            transaction_id: self.transaction ^ u32::from(style >> 7),
            secs: 0,
            client_hardware_address: EthernetAddress(MAC),
            client_ip: Ipv4Addr::UNSPECIFIED,
            your_ip: address,
            server_ip: server,
            router: (style & 16 == 0).then_some(server),
            subnet_mask: (style & 32 == 0).then_some(Ipv4Addr::new(255, 255, 255, 0)),
            relay_agent_ip: Ipv4Addr::UNSPECIFIED,
            broadcast: false,
            requested_ip: None,
            client_identifier: None,
            server_identifier: (style & 64 == 0).then_some(server),
            parameter_request_list: None,
            dns_servers: None,
            max_size: None,
            lease_duration: seconds(input),
            renew_duration: seconds(input),
            rebind_duration: seconds(input),
            additional_options: &more,
        };
        let mut message = vec![0; repr.buffer_len()];
        repr.emit(&mut DhcpPacket::new_unchecked(&mut message)).expect("there is room");
        wrap(&message, address)
    }

    /// Nobody answers any more: what was leased runs out, and what is left is link-local.
    fn ends(&mut self) {
        let Some(Origin::Dhcp { duration, .. }) = self.lease.as_ref().map(|it| &it.origin) else {
            self.pass(Duration::from_secs(300));
            let origin = self.lease.as_ref().map(|lease| &lease.origin);
            assert_eq!(origin, Some(&Origin::LinkLocal), "no address after five minutes");
            return;
        };
        if *duration < Duration::from_secs(3_600) {
            self.pass(*duration + Duration::from_secs(300));
            assert_eq!(self.lease.as_ref().map(|it| &it.origin), Some(&Origin::LinkLocal));
        }
    }
}

fn wrap(message: &[u8], address: Ipv4Addr) -> Vec<u8> {
    let caps = ChecksumCapabilities::default();
    let udp = UdpRepr { src_port: DHCP_SERVER_PORT, dst_port: DHCP_CLIENT_PORT };
    let ip = Ipv4Repr {
        src_addr: Ipv4Addr::new(192, 168, 7, 1),
        dst_addr: address,
        next_header: IpProtocol::Udp,
        payload_len: udp.header_len() + message.len(),
        hop_limit: 64,
    };
    let (mut frame, _) = ethernet(EthernetProtocol::Ipv4, EthernetAddress(MAC), |ethernet| {
        ethernet + ip.buffer_len() + ip.payload_len
    });
    let mut ethernet = EthernetFrame::new_unchecked(&mut frame[..]);
    let mut packet = Ipv4Packet::new_unchecked(ethernet.payload_mut());
    ip.emit(&mut packet, &caps);
    let mut datagram = UdpPacket::new_unchecked(packet.payload_mut());
    let (from, to) = (ip.src_addr.into(), ip.dst_addr.into());
    let fill = |payload: &mut [u8]| payload.copy_from_slice(message);
    udp.emit(&mut datagram, &from, &to, message.len(), fill, &caps);
    frame
}

/// Somebody's question or answer about an address, which may be the camera's.
fn arp(input: &mut Input<'_>) -> Vec<u8> {
    let operation = if input.below(2) == 0 { ArpOperation::Request } else { ArpOperation::Reply };
    let mut address = || Ipv4Addr::from(u32::try_from(input.number::<4>()).unwrap());
    let repr = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: SERVER,
        source_protocol_addr: address(),
        target_hardware_addr: EthernetAddress(MAC),
        target_protocol_addr: address(),
    };
    let (mut frame, _) =
        ethernet(EthernetProtocol::Arp, EthernetAddress::BROADCAST, |len| len + repr.buffer_len());
    let mut ethernet = EthernetFrame::new_unchecked(&mut frame[..]);
    repr.emit(&mut ArpPacket::new_unchecked(ethernet.payload_mut()));
    frame
}

fn ethernet(
    ethertype: EthernetProtocol,
    dst_addr: EthernetAddress,
    len: impl FnOnce(usize) -> usize,
) -> (Vec<u8>, EthernetRepr) {
    let repr = EthernetRepr { src_addr: SERVER, dst_addr, ethertype };
    let mut frame = vec![0; len(repr.buffer_len())];
    repr.emit(&mut EthernetFrame::new_unchecked(&mut frame[..]));
    (frame, repr)
}

/// Sets one byte, mostly not.
fn spoil(input: &mut Input<'_>, frame: &mut Vec<u8>) {
    let how = input.byte();
    if how < 224 {
        return;
    }
    let at = usize::try_from(input.number::<2>()).unwrap() % frame.len();
    match how & 1 {
        0 => frame[at] = input.byte(),
        _ => frame.truncate(at),
    }
}

/// Datagrams that claim to be from time servers: only an answer to the question that was asked is a
/// sample, of a time that this software can have, and nobody is asked too often.
pub(super) fn time(bytes: &[u8]) {
    let mut input = Input(bytes);
    let servers = 1 + input.below(3);
    let mut client = Sntp::new(Instant::ZERO, servers, input.number::<2>());
    let (mut now, mut nonces, mut refused) = (Instant::ZERO, BTreeSet::new(), BTreeSet::new());
    let (mut nonce, mut asked) = ([0; 8], Instant::ZERO);
    for _ in 0..100 {
        if input.is_empty() {
            break;
        }
        if let Some(due) = client.poll_timeout() {
            now = due.max(now);
        }
        client.handle_timeout(now);
        if let Some(transmit) = client.poll_transmit() {
            assert!(transmit.server < servers && !refused.contains(&transmit.server));
            assert!(transmit.message[1..40].iter().all(|&byte| byte == 0));
            nonce.copy_from_slice(&transmit.message[40..]);
            assert!(nonces.insert(nonce), "the same question twice");
            assert!(nonces.len() == 1 || now.since(asked) >= Duration::from_millis(1_500));
            asked = now;
        }
        let _ = client.poll_event();
        now += Duration::from_millis(input.number::<1>() * 16);
        let is_waiting = client.is_waiting();
        let datagram = reply(&mut input, nonce);
        client.receive(now, &datagram);
        match client.poll_event() {
            Some(sntp::Event::Sample { at, time, round_trip }) => {
                assert!(is_waiting && at == now && datagram[24..32] == nonce);
                assert!(round_trip <= now.since(asked));
                // This year, and before the format ends.
                let year = time.to_unix().as_secs() / 31_556_952 + 1970;
                assert!((2026..=2104).contains(&year), "{year}");
                let said = NtpTimestamp(u64::from_be_bytes(*datagram[40..].first_chunk().unwrap()));
                let apart = time.to_unix().abs_diff(said.to_unix());
                assert!(apart <= Duration::from_millis(2_100), "{time:?} {said:?}");
            }
            Some(sntp::Event::Refused { server }) => {
                assert!(is_waiting && refused.insert(server));
            }
            Some(sntp::Event::Silent) | None => {}
        }
        assert_eq!(client.poll_timeout().is_none(), refused.len() == servers);
    }
}

/// A server's answer, or what is left of one.
fn reply(input: &mut Input<'_>, nonce: [u8; 8]) -> Vec<u8> {
    let mut message = [0; MESSAGE_LEN];
    message[0] = input.byte();
    message[1] = input.byte() & 0x1f;
    message[12..16].copy_from_slice([b"RATE", b"DENY", b"RSTR", b"INIT"][input.below(4)]);
    message[24..32].copy_from_slice(&nonce);
    message[24] ^= input.byte() >> 7;
    let time = input.number::<5>() << 24;
    message[32..40].copy_from_slice(&time.to_be_bytes());
    let held = input.number::<2>() << 16;
    message[40..].copy_from_slice(&time.wrapping_add(held).to_be_bytes());
    let len = MESSAGE_LEN - if input.byte() > 250 { input.below(MESSAGE_LEN) } else { 0 };
    message[..len].to_vec()
}
