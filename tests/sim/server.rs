//! A DHCP server (RFC 2131 4.3) with one address to give, made of smoltcp's wire formats.

use std::net::Ipv4Addr;

use ocellus::time::Instant;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpRepr, DHCP_CLIENT_PORT, DHCP_SERVER_PORT, DhcpMessageType, DhcpPacket,
    DhcpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpProtocol,
    Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr,
};

use super::camera;

pub(crate) struct Server {
    pub(crate) mac: EthernetAddress,
    pub(crate) identifier: Ipv4Addr,
    /// What it gives; every other address that is asked for is refused.
    pub(crate) offers: Ipv4Addr,
    pub(crate) lease_s: u32,
    /// Whether it is switched on.
    pub(crate) on: bool,
    /// What it has acknowledged, and when.
    pub(crate) granted: Vec<(Ipv4Addr, Instant)>,
    /// Kind of message, and whether it came by unicast.
    pub(crate) seen: Vec<(Instant, DhcpMessageType, bool)>,
    pub(crate) out: Vec<Vec<u8>>,
}

impl Server {
    pub(crate) const fn new(number: u8) -> Self {
        Self {
            mac: EthernetAddress([2, 0, 0, 0, 0, number]),
            identifier: Ipv4Addr::new(192, 168, 7, number),
            offers: Ipv4Addr::new(192, 168, 7, 42),
            lease_s: 600,
            on: true,
            granted: Vec::new(),
            seen: Vec::new(),
            out: Vec::new(),
        }
    }

    pub(crate) fn receive(&mut self, now: Instant, frame: &[u8]) {
        if !self.on {
            return;
        }
        if let Some((
            asker,
            ArpRepr::EthernetIpv4 { operation, source_protocol_addr, target_protocol_addr, .. },
        )) = camera::parse_arp(frame)
        {
            if operation == ArpOperation::Request && target_protocol_addr == self.identifier {
                let addresses = (self.identifier, source_protocol_addr);
                self.out.push(camera::arp(self.mac, asker, ArpOperation::Reply, addresses));
            }
            return;
        }
        let ethernet = EthernetFrame::new_checked(frame).unwrap();
        if ethernet.ethertype() == EthernetProtocol::Ipv4 {
            self.receive_ip(now, ethernet.payload());
        }
    }

    fn receive_ip(&mut self, now: Instant, packet: &[u8]) {
        let caps = ChecksumCapabilities::default();
        let ip = Ipv4Packet::new_checked(packet).unwrap();
        let ip_repr = Ipv4Repr::parse(&ip, &caps).unwrap();
        let udp = UdpPacket::new_checked(ip.payload()).unwrap();
        UdpRepr::parse(&udp, &ip_repr.src_addr.into(), &ip_repr.dst_addr.into(), &caps).unwrap();
        if udp.dst_port() != DHCP_SERVER_PORT {
            return;
        }
        let dhcp = DhcpPacket::new_checked(udp.payload()).unwrap();
        let asked = DhcpRepr::parse(&dhcp).unwrap();
        let unicast = ip_repr.dst_addr != Ipv4Addr::BROADCAST;
        self.seen.push((now, asked.message_type, unicast));
        // 4.3.2: a REQUEST that names another server is an answer to that one.
        if asked.server_identifier.is_some_and(|server| server != self.identifier) {
            return;
        }
        let wanted = asked.requested_ip.unwrap_or(asked.client_ip);
        let kind = match asked.message_type {
            DhcpMessageType::Discover => DhcpMessageType::Offer,
            DhcpMessageType::Request if wanted == self.offers => {
                self.granted.push((wanted, now));
                DhcpMessageType::Ack
            }
            DhcpMessageType::Request => DhcpMessageType::Nak,
            other => panic!("the client sent {other:?}"),
        };
        // 4.1: to the client's own address only where it has one.
        let target = match kind {
            DhcpMessageType::Nak => Ipv4Addr::BROADCAST,
            _ => self.offers,
        };
        let answer = self.answer(kind, asked.transaction_id, asked.client_hardware_address);
        self.out.push(self.wrap(&answer, asked.client_hardware_address, target));
    }

    fn answer(&self, kind: DhcpMessageType, id: u32, client: EthernetAddress) -> Vec<u8> {
        let granted = kind != DhcpMessageType::Nak;
        let repr = DhcpRepr {
            message_type: kind,
            transaction_id: id,
            secs: 0,
            client_hardware_address: client,
            client_ip: Ipv4Addr::UNSPECIFIED,
            your_ip: if granted { self.offers } else { Ipv4Addr::UNSPECIFIED },
            server_ip: self.identifier,
            router: granted.then_some(self.identifier),
            subnet_mask: granted.then_some(Ipv4Addr::new(255, 255, 255, 0)),
            relay_agent_ip: Ipv4Addr::UNSPECIFIED,
            broadcast: false,
            requested_ip: None,
            client_identifier: None,
            server_identifier: Some(self.identifier),
            parameter_request_list: None,
            dns_servers: None,
            max_size: None,
            lease_duration: granted.then_some(self.lease_s),
            renew_duration: None,
            rebind_duration: None,
            additional_options: &[],
        };
        let mut bytes = vec![0; repr.buffer_len()];
        repr.emit(&mut DhcpPacket::new_unchecked(bytes.as_mut_slice())).unwrap();
        bytes
    }

    fn wrap(&self, dhcp: &[u8], to: EthernetAddress, address: Ipv4Addr) -> Vec<u8> {
        let caps = ChecksumCapabilities::default();
        let udp = UdpRepr { src_port: DHCP_SERVER_PORT, dst_port: DHCP_CLIENT_PORT };
        let ip = Ipv4Repr {
            src_addr: self.identifier,
            dst_addr: address,
            next_header: IpProtocol::Udp,
            payload_len: udp.header_len() + dhcp.len(),
            hop_limit: 64,
        };
        let dst_addr = if address.is_broadcast() { EthernetAddress::BROADCAST } else { to };
        let ethernet =
            EthernetRepr { src_addr: self.mac, dst_addr, ethertype: EthernetProtocol::Ipv4 };
        let len = ethernet.buffer_len() + ip.buffer_len() + ip.payload_len;
        let mut frame = EthernetFrame::new_unchecked(vec![0; len]);
        ethernet.emit(&mut frame);
        let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
        ip.emit(&mut packet, &caps);
        udp.emit(
            &mut UdpPacket::new_unchecked(packet.payload_mut()),
            &ip.src_addr.into(),
            &ip.dst_addr.into(),
            dhcp.len(),
            |payload| payload.copy_from_slice(dhcp),
            &caps,
        );
        frame.into_inner()
    }
}
