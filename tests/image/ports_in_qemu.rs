//! Every port of a booted camera, TCP and UDP, against the table in the README.
//!
//! The guest's network card sends its frames here, in UDP datagrams, and this program is all there
//! is on its network: the simulator's DHCP server, and a scanner. That takes no privileges.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ocellus::sys::clock;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    DHCP_SERVER_PORT, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr,
    Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl,
    TcpPacket, TcpRepr, TcpSeqNumber, UdpPacket, UdpRepr,
};

use crate::guest::{Guest, Options, image, root, value};
use crate::in_qemu::is_ready;

#[path = "../sim/camera.rs"]
#[allow(dead_code, reason = "only its frames of ARP are used, by the server")]
mod camera;
#[path = "../sim/server.rs"]
#[allow(dead_code, reason = "nobody asks here what it has seen")]
mod server;

use server::Server;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Protocol {
    Tcp,
    Udp,
}

/// What a port said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answer {
    Open,
    Closed,
}

/// The other end of the guest's cable.
struct Cable {
    socket: UdpSocket,
    guest: SocketAddr,
    server: Server,
    /// The guest's, once it has sent something.
    mac: Option<EthernetAddress>,
}

impl Cable {
    /// Also the ports of this end and of the guest's.
    fn new() -> (Self, (u16, u16)) {
        let bind = || UdpSocket::bind("127.0.0.1:0").unwrap();
        let (socket, guest) = (bind(), bind().local_addr().unwrap());
        socket.set_read_timeout(Some(QUIET)).unwrap();
        let ports = (socket.local_addr().unwrap().port(), guest.port());
        (Self { socket, guest, server: Server::new(1), mac: None }, ports)
    }

    /// Serves the guest's network until told to stop.
    fn serve(mut self, stop: &AtomicBool) -> Self {
        while !stop.load(Ordering::Relaxed) {
            let _ = self.receive();
        }
        self
    }

    /// The next frame, unless nothing comes for a moment; ARP and DHCP are answered here.
    fn receive(&mut self) -> Option<Vec<u8>> {
        let mut frame = vec![0; 2048];
        let len = self.socket.recv(&mut frame).ok()?;
        frame.truncate(len);
        let ethernet = EthernetFrame::new_checked(frame.as_slice()).unwrap();
        self.mac = Some(ethernet.src_addr());
        let is_for_server = match ethernet.ethertype() {
            EthernetProtocol::Arp => true,
            EthernetProtocol::Ipv4 => is_dhcp(ethernet.payload()),
            _ => false,
        };
        if is_for_server {
            self.server.receive(clock::now(), &frame);
            for answer in std::mem::take(&mut self.server.out) {
                self.send(&answer);
            }
        }
        Some(frame)
    }

    fn send(&self, frame: &[u8]) {
        self.socket.send_to(frame, self.guest).unwrap();
    }

    /// Sends a SYN, or an empty datagram.
    fn probe(&self, protocol: Protocol, port: u16) {
        match protocol {
            Protocol::Tcp => self.send_tcp(port, TcpControl::Syn, 1),
            Protocol::Udp => {
                let udp = UdpRepr { src_port: SCANNER, dst_port: port };
                self.send_ip(IpProtocol::Udp, udp.header_len(), |ip, payload| {
                    let (from, to) = (ip.src_addr.into(), ip.dst_addr.into());
                    let mut packet = UdpPacket::new_unchecked(payload);
                    udp.emit(&mut packet, &from, &to, 0, |_| {}, &ChecksumCapabilities::default());
                });
            }
        }
    }

    fn send_tcp(&self, port: u16, control: TcpControl, sequence: i32) {
        let tcp = TcpRepr {
            src_port: SCANNER,
            dst_port: port,
            control,
            seq_number: TcpSeqNumber(sequence),
            ack_number: None,
            window_len: 1024,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: &[],
        };
        self.send_ip(IpProtocol::Tcp, tcp.buffer_len(), |ip, payload| {
            let (from, to) = (ip.src_addr.into(), ip.dst_addr.into());
            let mut packet = TcpPacket::new_unchecked(payload);
            tcp.emit(&mut packet, &from, &to, &ChecksumCapabilities::default());
        });
    }

    fn send_ip(&self, protocol: IpProtocol, len: usize, emit: impl FnOnce(&Ipv4Repr, &mut [u8])) {
        let ip = Ipv4Repr {
            src_addr: self.server.identifier,
            dst_addr: self.server.offers,
            next_header: protocol,
            payload_len: len,
            hop_limit: 64,
        };
        let ethernet = EthernetRepr {
            src_addr: self.server.mac,
            dst_addr: self.mac.expect("it has asked for its address"),
            ethertype: EthernetProtocol::Ipv4,
        };
        let len = ethernet.buffer_len() + ip.buffer_len() + len;
        let mut frame = EthernetFrame::new_unchecked(vec![0; len]);
        ethernet.emit(&mut frame);
        let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
        ip.emit(&mut packet, &ChecksumCapabilities::default());
        emit(&ip, packet.payload_mut());
        self.send(&frame.into_inner());
    }

    /// Asks every port until it has answered, or kept silent `TRIES` times: open ones, silent ones.
    fn scan(&mut self, protocol: Protocol) -> (BTreeSet<u16>, BTreeSet<u16>) {
        let mut silent: BTreeSet<u16> = (1..=u16::MAX).collect();
        let mut open = BTreeSet::new();
        for _ in 0..TRIES {
            let ports: Vec<_> = silent.iter().copied().collect();
            for batch in ports.chunks(BATCH) {
                for &port in batch {
                    self.probe(protocol, port);
                }
                while batch.iter().any(|port| silent.contains(port)) {
                    let Some(frame) = self.receive() else { break };
                    let Some((port, answer)) = answer(&frame, protocol) else { continue };
                    silent.remove(&port);
                    if answer == Answer::Open {
                        open.insert(port);
                        if protocol == Protocol::Tcp {
                            self.send_tcp(port, TcpControl::Rst, 2);
                        }
                    }
                }
            }
        }
        (open, silent)
    }
}

fn is_dhcp(packet: &[u8]) -> bool {
    let ip = Ipv4Packet::new_checked(packet).unwrap();
    let udp = UdpPacket::new_checked(ip.payload());
    ip.next_header() == IpProtocol::Udp && udp.is_ok_and(|udp| udp.dst_port() == DHCP_SERVER_PORT)
}

/// The port of the guest that a frame is an answer of, and what it says.
fn answer(frame: &[u8], protocol: Protocol) -> Option<(u16, Answer)> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    let ip = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
    match (ethernet.ethertype(), ip.next_header(), protocol) {
        (EthernetProtocol::Ipv4, IpProtocol::Tcp, Protocol::Tcp) => {
            let tcp = TcpPacket::new_checked(ip.payload()).ok()?;
            let answer = if tcp.rst() { Answer::Closed } else { Answer::Open };
            (tcp.dst_port() == SCANNER).then_some((tcp.src_port(), answer))
        }
        (EthernetProtocol::Ipv4, IpProtocol::Udp, Protocol::Udp) => {
            let udp = UdpPacket::new_checked(ip.payload()).ok()?;
            (udp.dst_port() == SCANNER).then_some((udp.src_port(), Answer::Open))
        }
        (EthernetProtocol::Ipv4, IpProtocol::Icmp, Protocol::Udp) => {
            let icmp = Icmpv4Packet::new_checked(ip.payload()).ok()?;
            let Icmpv4Repr::DstUnreachable { reason, data, .. } =
                Icmpv4Repr::parse(&icmp, &ChecksumCapabilities::default()).ok()?
            else {
                return None;
            };
            // It quotes the datagram, whose header has the port.
            let port = u16::from_be_bytes(*data.get(2..)?.first_chunk()?);
            (reason == Icmpv4DstUnreachable::PortUnreachable).then_some((port, Answer::Closed))
        }
        _ => None,
    }
}

/// The README's table: lines `| TCP 1, 2 | ...`.
fn documented(protocol: Protocol) -> BTreeSet<u16> {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let head = format!("| {} ", format!("{protocol:?}").to_uppercase());
    let cells = readme.lines().filter_map(|line| line.strip_prefix(&head)?.split('|').next());
    cells.flat_map(|cell| cell.split(',')).map(|port| port.trim().parse().unwrap()).collect()
}

#[test]
fn exactly_the_documented_ports_are_open() {
    if !is_ready(&image(), &["qemu-system-aarch64"]) {
        return;
    }
    let (cable, wire) = Cable::new();
    let stop = Arc::new(AtomicBool::new(false));
    let serving = thread::spawn({
        let stop = Arc::clone(&stop);
        move || cable.serve(&stop)
    });
    // Linux tells a scanner of a few closed ports a second only.
    let append = "sysctl.net.ipv4.icmp_ratelimit=0 sysctl.net.ipv4.icmp_msgs_per_sec=1000000 \
                  sysctl.net.ipv4.icmp_msgs_burst=1000000";
    let mut guest = Guest::boot(&Options { append, wire: Some(wire), ..Options::default() });
    stop.store(true, Ordering::Relaxed);
    let mut cable = serving.join().unwrap();
    let lease = guest.first_line("network: lease acquired");
    let address = Ipv4Addr::from_bits(cable.server.offers.to_bits());
    assert_eq!(value(&lease, "address"), format!("{address}/24"));

    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let started = clock::now();
        let (open, silent) = cable.scan(protocol);
        let took = clock::now().since(started);
        println!("{protocol:?}: open {open:?}, silent {silent:?}, in {took:?}");
        // A datagram that is taken is not answered; a SYN always is.
        let found = if protocol == Protocol::Udp { &open | &silent } else { open };
        assert!(protocol == Protocol::Udp || silent.is_empty(), "{silent:?}");
        assert_eq!(found, documented(protocol), "{protocol:?}");
    }
}

/// Where answers are wanted.
const SCANNER: u16 = 40_000;
/// So many ports are asked at once: fewer than the guest's card has buffers.
const BATCH: usize = 128;
/// A port that says nothing so often is not merely slow.
const TRIES: usize = 5;
const QUIET: Duration = Duration::from_millis(200);
