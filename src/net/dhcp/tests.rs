//! The client against a DHCP server made of smoltcp's wire formats, on a virtual clock.

use smoltcp::wire::{
    DHCP_CLIENT_PORT, DHCP_SERVER_PORT, DhcpMessageType, DhcpPacket, DhcpRepr, IpProtocol,
    Ipv4Address, Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr,
};

use super::*;

const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const SERVER_MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);
const SERVER: Ipv4Address = Ipv4Address::new(192, 168, 7, 1);
const NTP: Ipv4Address = Ipv4Address::new(192, 168, 7, 9);
const ADDRESS: Ipv4Address = Ipv4Address::new(192, 168, 7, 42);

/// Every checksum is made and checked.
fn caps() -> smoltcp::phy::ChecksumCapabilities {
    smoltcp::phy::ChecksumCapabilities::default()
}

/// One DHCP message as the server saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    at: Instant,
    kind: DhcpMessageType,
    unicast: bool,
    hostname: Vec<u8>,
}

struct Server {
    address: Ipv4Address,
    lease_s: u32,
    t1_t2: Option<(u32, u32)>,
    /// Answers REQUEST with NAK.
    refuses: bool,
    /// Hears nothing and says nothing.
    silent: bool,
    seen: Vec<Seen>,
}

impl Server {
    const fn new() -> Self {
        Self {
            address: ADDRESS,
            lease_s: 3600,
            t1_t2: None,
            refuses: false,
            silent: false,
            seen: Vec::new(),
        }
    }

    fn kinds(&self) -> Vec<DhcpMessageType> {
        self.seen.iter().map(|seen| seen.kind).collect()
    }

    fn answer(&mut self, now: Instant, frame: &[u8]) -> Option<Vec<u8>> {
        if self.silent {
            return None;
        }
        let ethernet = EthernetFrame::new_checked(frame).unwrap();
        match ethernet.ethertype() {
            EthernetProtocol::Arp => answer_arp(ethernet.payload()),
            EthernetProtocol::Ipv4 => self.answer_dhcp(now, ethernet.payload()),
            other => panic!("the client sent {other}"),
        }
    }

    fn answer_dhcp(&mut self, now: Instant, packet: &[u8]) -> Option<Vec<u8>> {
        let ip = Ipv4Packet::new_checked(packet).unwrap();
        let ip_repr = Ipv4Repr::parse(&ip, &caps()).unwrap();
        let udp = UdpPacket::new_checked(ip.payload()).unwrap();
        UdpRepr::parse(&udp, &ip_repr.src_addr.into(), &ip_repr.dst_addr.into(), &caps()).unwrap();
        let dhcp = DhcpPacket::new_checked(udp.payload()).unwrap();
        let asked = DhcpRepr::parse(&dhcp).unwrap();
        let hostname = dhcp.options().find(|option| option.kind == 12);
        self.seen.push(Seen {
            at: now,
            kind: asked.message_type,
            unicast: ip_repr.dst_addr == SERVER,
            hostname: hostname.map(|option| option.data.to_vec()).unwrap_or_default(),
        });
        let kind = match asked.message_type {
            DhcpMessageType::Discover => DhcpMessageType::Offer,
            DhcpMessageType::Request if self.refuses => DhcpMessageType::Nak,
            DhcpMessageType::Request => DhcpMessageType::Ack,
            _ => return None,
        };
        Some(self.message(kind, asked.transaction_id))
    }

    fn message(&self, kind: DhcpMessageType, transaction_id: u32) -> Vec<u8> {
        let ntp = NTP.octets();
        // smoltcp reads options 58 and 59 (T1, T2) and does not write them.
        let times = self.t1_t2.map(|(t1, t2)| (t1.to_be_bytes(), t2.to_be_bytes()));
        let mut options = vec![DhcpOption { kind: lease::OPT_NTP_SERVERS, data: &ntp }];
        if let Some((t1, t2)) = &times {
            options.push(DhcpOption { kind: 58, data: t1 });
            options.push(DhcpOption { kind: 59, data: t2 });
        }
        let granted = kind != DhcpMessageType::Nak;
        let repr = DhcpRepr {
            message_type: kind,
            transaction_id,
            secs: 0,
            client_hardware_address: EthernetAddress(MAC),
            client_ip: Ipv4Address::UNSPECIFIED,
            your_ip: if granted { self.address } else { Ipv4Address::UNSPECIFIED },
            server_ip: SERVER,
            router: granted.then_some(SERVER),
            subnet_mask: granted.then_some(Ipv4Address::new(255, 255, 255, 0)),
            relay_agent_ip: Ipv4Address::UNSPECIFIED,
            broadcast: false,
            requested_ip: None,
            client_identifier: None,
            server_identifier: Some(SERVER),
            parameter_request_list: None,
            dns_servers: granted.then(|| [SERVER].into_iter().collect()),
            max_size: None,
            lease_duration: granted.then_some(self.lease_s),
            renew_duration: None,
            rebind_duration: None,
            additional_options: if granted { &options } else { &[] },
        };
        let udp = UdpRepr { src_port: DHCP_SERVER_PORT, dst_port: DHCP_CLIENT_PORT };
        let ip = Ipv4Repr {
            src_addr: SERVER,
            dst_addr: if granted { self.address } else { Ipv4Address::BROADCAST },
            next_header: IpProtocol::Udp,
            payload_len: 8 + repr.buffer_len(),
            hop_limit: 64,
        };
        frame(EthernetProtocol::Ipv4, ip.buffer_len() + ip.payload_len, |payload| {
            ip.emit(&mut Ipv4Packet::new_unchecked(&mut *payload), &caps());
            udp.emit(
                &mut UdpPacket::new_unchecked(&mut payload[ip.buffer_len()..]),
                &ip.src_addr.into(),
                &ip.dst_addr.into(),
                repr.buffer_len(),
                |payload| repr.emit(&mut DhcpPacket::new_unchecked(payload)).unwrap(),
                &caps(),
            );
        })
    }
}

fn frame(ethertype: EthernetProtocol, len: usize, write: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let repr = EthernetRepr { src_addr: SERVER_MAC, dst_addr: EthernetAddress(MAC), ethertype };
    let mut frame = EthernetFrame::new_unchecked(vec![0; repr.buffer_len() + len]);
    repr.emit(&mut frame);
    write(frame.payload_mut());
    frame.into_inner()
}

fn arp_frame(operation: ArpOperation, source: Ipv4Address, target: Ipv4Address) -> Vec<u8> {
    let repr = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: SERVER_MAC,
        source_protocol_addr: source,
        target_hardware_addr: EthernetAddress(MAC),
        target_protocol_addr: target,
    };
    frame(EthernetProtocol::Arp, repr.buffer_len(), |payload| {
        repr.emit(&mut ArpPacket::new_unchecked(payload));
    })
}

fn answer_arp(packet: &[u8]) -> Option<Vec<u8>> {
    let ArpRepr::EthernetIpv4 { operation, source_protocol_addr, target_protocol_addr, .. } =
        ArpRepr::parse(&ArpPacket::new_checked(packet).unwrap()).unwrap()
    else {
        unreachable!("only Ethernet is sent")
    };
    (operation == ArpOperation::Request && target_protocol_addr == SERVER)
        .then(|| arp_frame(ArpOperation::Reply, SERVER, source_protocol_addr))
}

/// Client, server, the clock between them, and what the client told its owner, and when.
struct Net<'a> {
    now: Instant,
    client: Dhcp<'a>,
    server: Server,
    events: Vec<(Instant, Event)>,
    /// Of the frames to come, every one at a `true` is lost.
    losses: VecDeque<bool>,
}

impl<'a> Net<'a> {
    fn new(options: &'a [DhcpOption<'a>], seed: u64) -> Self {
        let now = Instant::from_micros(5_000_000);
        let client = Dhcp::new(now, MAC, options, seed).unwrap();
        Self { now, client, server: Server::new(), events: Vec::new(), losses: VecDeque::new() }
    }

    fn lost(&mut self) -> bool {
        self.losses.pop_front().unwrap_or(false)
    }

    /// Drains the polls, carrying frames to the server and its answers back.
    fn exchange(&mut self) {
        for round in 0.. {
            assert!(round < 100, "the client spins at {:?}: {:?}", self.now, self.client);
            while let Some(event) = self.client.poll_event() {
                self.events.push((self.now, event));
            }
            let Some(frame) = self.client.poll_transmit() else { break };
            if self.lost() {
                continue;
            }
            if let Some(answer) = self.server.answer(self.now, &frame)
                && !self.lost()
            {
                self.client.receive(self.now, &answer);
            }
        }
    }

    fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        self.exchange();
        let mut steps = 0;
        while let Some(at) = self.client.poll_timeout().filter(|&at| at <= end) {
            self.now = self.now.max(at);
            self.client.handle_timeout(self.now);
            self.exchange();
            steps += 1;
            assert!(steps < 10_000, "the client spins at {:?}: {:?}", self.now, self.client);
        }
        self.now = end;
    }

    fn told(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events).into_iter().map(|(_, event)| event).collect()
    }
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn expected(duration: Duration) -> Lease {
    Lease {
        address: ADDRESS,
        prefix_len: 24,
        router: Some(SERVER),
        dns: [SERVER].into_iter().collect(),
        ntp: [NTP].into_iter().collect(),
        origin: Origin::Dhcp { server: SERVER, duration, renew_after: None, rebind_after: None },
    }
}

#[test]
fn a_lease_is_acquired_at_once_with_name_servers_and_ntp() {
    let options = [hostname_option("front-door").unwrap()];
    let mut net = Net::new(&options, 1);
    net.run_for(s(1));
    assert_eq!(net.told(), [Event::Acquired(expected(s(3600)))]);
    assert_eq!(net.server.kinds(), [DhcpMessageType::Discover, DhcpMessageType::Request]);
    assert!(net.server.seen.iter().all(|seen| seen.hostname == b"front-door"));
    assert!(net.server.seen.iter().all(|seen| seen.at == Instant::from_micros(5_000_000)));
}

#[test]
fn a_hostname_that_dhcp_cannot_carry_is_left_out() {
    for len in 0..300 {
        let name = "x".repeat(len);
        assert_eq!(hostname_option(&name).is_some(), (1..=63).contains(&len));
    }
}

#[test]
fn a_mac_address_that_no_interface_has_is_refused() {
    for mac in [[0xff; 6], [1, 0, 0x5e, 0, 0, 1]] {
        assert!(Dhcp::new(Instant::ZERO, mac, &[], 1).is_none());
    }
}

#[test]
fn the_lease_is_renewed_at_t1_by_unicast() {
    let mut net = Net::new(&[], 1);
    net.run_for(s(1));
    let _ = net.told();
    net.server.seen.clear();
    net.run_for(s(1798));
    assert_eq!(net.told(), []);
    net.run_for(s(2));
    assert_eq!(net.told(), [Event::Renewed(expected(s(3600)))]);
    let [request] = net.server.seen.as_slice() else { panic!("{:?}", net.server.seen) };
    assert!(request.unicast && request.kind == DhcpMessageType::Request);
    assert_eq!(request.at.since(Instant::from_micros(5_000_000)), s(1800));
}

#[test]
fn the_server_may_choose_t1_and_t2() {
    let mut net = Net::new(&[], 1);
    net.server.t1_t2 = Some((100, 200));
    net.run_for(s(99));
    let [Event::Acquired(lease)] = &net.told()[..] else { panic!("no lease") };
    let Origin::Dhcp { renew_after, rebind_after, .. } = lease.origin else { panic!("{lease:?}") };
    assert_eq!((renew_after, rebind_after), (Some(s(100)), Some(s(200))));
    net.run_for(s(2));
    assert!(matches!(net.told()[..], [Event::Renewed(_)]));
}

#[test]
fn a_year_of_renewals_never_loses_the_lease() {
    let mut net = Net::new(&[], 1);
    net.server.lease_s = 86_400;
    net.run_for(s(365 * 86_400));
    let told = net.told();
    assert!(matches!(told[0], Event::Acquired(_)));
    assert!((700..=731).contains(&told.len()), "{}", told.len());
    assert!(told[1..].iter().all(|event| matches!(event, Event::Renewed(_))));
}

#[test]
fn an_unanswered_renewal_is_broadcast_at_t2() {
    let mut net = Net::new(&[], 1);
    net.run_for(s(1));
    let _ = net.told();
    net.server.silent = true;
    net.run_for(s(3159)); // T2 is at 3150 s
    assert_eq!(net.told(), []);
    net.server.silent = false;
    net.server.seen.clear();
    net.run_for(s(400));
    assert_eq!(net.told(), [Event::Renewed(expected(s(3600)))]);
    assert!(!net.server.seen[0].unicast);
}

#[test]
fn an_expired_lease_is_lost_and_replaced_by_a_link_local_address_and_back() {
    let mut net = Net::new(&[], 1);
    net.run_for(s(1));
    let _ = net.told();
    net.server.silent = true;
    net.run_for(s(3700));
    let told = std::mem::take(&mut net.events);
    let [(lost_at, Event::Lost), (claimed_at, Event::Acquired(lease))] = told.as_slice() else {
        panic!("{told:?}")
    };
    assert_eq!(lost_at.since(Instant::from_micros(5_000_000)), s(3600));
    assert!((s(14)..s(18)).contains(&claimed_at.since(*lost_at)));
    assert_eq!((lease.prefix_len, &lease.origin), (16, &Origin::LinkLocal));
    assert!(lease.address.is_link_local());

    net.server.silent = false;
    net.run_for(s(70));
    assert_eq!(net.told(), [Event::Lost, Event::Acquired(expected(s(3600)))]);
}

#[test]
fn a_refused_renewal_loses_the_lease_and_asks_anew() {
    let mut net = Net::new(&[], 1);
    net.run_for(s(1));
    net.server.refuses = true;
    let _ = net.told();
    net.run_for(s(1800));
    assert_eq!(net.told()[0], Event::Lost);
    net.server.refuses = false;
    net.server.address = Ipv4Address::new(192, 168, 7, 43);
    net.run_for(s(120));
    let told = net.told();
    let Some(Event::Acquired(lease)) = told.last() else { panic!("{told:?}") };
    assert_eq!(lease.address, net.server.address);
}

#[test]
fn a_server_that_refuses_or_grants_nothing_is_not_asked_as_fast_as_it_answers() {
    for (refuses, lease_s) in [(true, 3600), (false, 0), (false, 1)] {
        let mut net = Net::new(&[], 1);
        net.server.refuses = refuses;
        net.server.lease_s = lease_s;
        net.run_for(s(3600));
        let count = net.server.seen.len();
        assert!((20..200).contains(&count), "{count} messages in an hour");
    }
}

#[test]
fn any_two_lost_packets_only_cost_time() {
    // Frames in order: DISCOVER, OFFER, REQUEST, ACK, and their repetitions.
    for first in 0..8 {
        for second in first..8 {
            for seed in 0..4 {
                let mut net = Net::new(&[], seed);
                net.losses = (0..8).map(|index| index == first || index == second).collect();
                net.run_for(s(40));
                let told = net.told();
                let last = Event::Acquired(expected(s(3600)));
                assert_eq!(told.last(), Some(&last), "lost {first} and {second}, seed {seed}");
            }
        }
    }
}

#[test]
fn discovers_are_spaced_from_4_to_64_seconds() {
    let mut net = Net::new(&[], 9);
    net.losses = std::iter::repeat_n(true, 64).collect();
    let mut at = vec![];
    net.exchange();
    for _ in 0..60 {
        let next = net.client.socket_at.unwrap();
        net.now = next;
        net.client.poll_socket(next);
        if net.client.poll_transmit().is_some() {
            at.push(next);
        }
    }
    let gaps: Vec<_> = at.windows(2).map(|pair| pair[1].since(pair[0]).as_secs()).collect();
    for (gap, wanted) in gaps.iter().zip([8, 16, 32, 64, 64, 64]) {
        assert!((wanted - 1..=wanted + 1).contains(gap), "{gaps:?}");
    }
}

#[test]
fn a_conflict_over_a_link_local_address_moves_to_another_one() {
    let mut net = Net::new(&[], 1);
    net.server.silent = true;
    net.run_for(s(30));
    let [Event::Acquired(first)] = &net.told()[..] else { panic!("no address") };
    for _ in 0..2 {
        let taken = arp_frame(ArpOperation::Request, first.address, first.address);
        net.client.receive(net.now, &taken);
    }
    net.run_for(s(30));
    let told = net.told();
    let [Event::Lost, Event::Acquired(second)] = told.as_slice() else { panic!("{told:?}") };
    assert_ne!(first.address, second.address);
}

#[test]
fn a_restart_keeps_the_lease_and_confirms_it() {
    let mut net = Net::new(&[], 1);
    net.run_for(s(100));
    let _ = net.told();
    net.client.restart(net.now);
    net.run_for(s(1));
    assert_eq!(net.told(), [Event::Renewed(expected(s(3600)))]);
}

#[test]
fn a_restart_into_silence_keeps_the_lease_until_it_runs_out() {
    let mut net = Net::new(&[], 1);
    net.run_for(s(100));
    let _ = net.told();
    net.server.silent = true;
    net.client.restart(net.now);
    net.run_for(s(3499));
    assert_eq!(net.told(), []);
    net.run_for(s(60));
    let told = net.told();
    assert!(matches!(told[..], [Event::Lost, Event::Acquired(_)]), "{told:?}");
}

#[test]
fn a_restart_into_another_network_replaces_the_lease() {
    let mut net = Net::new(&[], 1);
    net.run_for(s(100));
    let _ = net.told();
    net.server.address = Ipv4Address::new(192, 168, 7, 77);
    net.client.restart(net.now);
    net.run_for(s(1));
    let told = net.told();
    let [Event::Lost, Event::Acquired(lease)] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(lease.address, net.server.address);
}

#[test]
fn a_server_that_names_no_lease_time_gives_two_minutes() {
    let config = dhcpv4::Config {
        server: dhcpv4::ServerInfo { address: SERVER, identifier: SERVER },
        address: smoltcp::wire::Ipv4Cidr::new(ADDRESS, 24),
        router: Some(Ipv4Address::UNSPECIFIED),
        dns_servers: heapless::Vec::new(),
        packet: None,
    };
    let lease = Lease::from_dhcp(&config, &Details::default());
    assert_eq!(lease.router, None);
    assert!(matches!(lease.origin, Origin::Dhcp { duration, .. } if duration == s(120)));
}

#[test]
fn every_cut_and_every_flipped_byte_of_an_answer_is_survived() {
    let mut probe = Net::new(&[], 1);
    let discover = probe.client.poll_transmit().unwrap();
    let offer = probe.server.answer(probe.now, &discover).unwrap();
    for len in 0..offer.len() {
        probe.client.receive(probe.now, &offer[..len]);
        probe.exchange();
    }
    for index in 0..offer.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut damaged = offer.clone();
            damaged[index] ^= flip;
            let mut net = Net::new(&[], 1);
            let _ = net.client.poll_transmit();
            net.client.receive(net.now, &damaged);
            net.run_for(s(60));
            assert!(!net.told().is_empty(), "byte {index} xor {flip:#x}");
        }
    }
}

#[test]
fn packets_of_other_conversations_are_never_answered() {
    let mut net = Net::new(&[], 1);
    net.run_for(s(10));
    // A question for our address, an answer for somebody else's, and noise: the kernel's business.
    let asked = arp_frame(ArpOperation::Request, SERVER, ADDRESS);
    let mut noise = net.server.message(DhcpMessageType::Offer, 1);
    noise[14 + 20 + 3] = 99; // the UDP destination port
    for frame in [asked, noise, vec![0; 60], vec![0xff; 1514], Vec::new()] {
        net.client.receive(net.now, &frame);
        assert_eq!(net.client.poll_transmit(), None);
    }
}
