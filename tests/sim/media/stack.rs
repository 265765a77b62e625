//! One host's network: smoltcp over a device made of two queues, on the virtual clock.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use ocellus::time::Instant;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::{AnySocket, tcp, udp};
use smoltcp::time::{Duration as SmolDuration, Instant as SmolInstant};
use smoltcp::wire::{HardwareAddress, IpCidr};

pub(crate) struct Stack {
    interface: Interface,
    sockets: SocketSet<'static>,
    queues: Queues,
    due: Option<Instant>,
}

impl Stack {
    pub(crate) fn new(now: Instant, address: Ipv4Addr, mtu: usize, seed: u64) -> Self {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut queues = Queues { mtu, ..Queues::default() };
        let mut interface = Interface::new(config, &mut queues, smol(now));
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(address.into(), 8)).unwrap();
        });
        Self { interface, sockets: SocketSet::new(Vec::new()), queues, due: None }
    }

    /// A packet has arrived; to be followed by [`Stack::poll`].
    pub(crate) fn arrived(&mut self, packet: Vec<u8>) {
        self.queues.received.push_back(packet);
    }

    /// Does what is to be done with packets that arrived, and with what sockets were given.
    pub(crate) fn poll(&mut self, now: Instant) {
        self.interface.poll(smol(now), &mut self.queues, &mut self.sockets);
        let due = self.interface.poll_at(smol(now), &self.sockets);
        // What is due at once has been done, or waits for something else.
        self.due = due.map(|at| {
            let at = u64::try_from(at.total_micros()).unwrap_or(0);
            Instant::from_micros(at.max(now.as_micros() + 1))
        });
    }

    pub(crate) const fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// The next packet for the network.
    pub(crate) fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.queues.transmitted.pop_front()
    }

    /// A TCP socket with room for this much, made as the camera's kernel is told to make them.
    pub(crate) fn add_tcp(&mut self, receive_len: usize, send_len: usize) -> SocketHandle {
        let buffer = |len| tcp::SocketBuffer::new(vec![0; len]);
        let mut socket = tcp::Socket::new(buffer(receive_len), buffer(send_len));
        socket.set_nagle_enabled(false);
        socket.set_congestion_control(tcp::CongestionControl::Reno);
        socket.set_timeout(Some(USER_TIMEOUT));
        socket.set_keep_alive(Some(KEEP_ALIVE));
        self.sockets.add(socket)
    }

    pub(crate) fn add_udp(&mut self, port: u16) -> SocketHandle {
        let buffer = || {
            udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; DATAGRAMS], vec![0; 1 << 16])
        };
        let mut socket = udp::Socket::new(buffer(), buffer());
        socket.bind(port).unwrap();
        self.sockets.add(socket)
    }

    pub(crate) fn tcp(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.get(handle)
    }

    pub(crate) fn udp(&mut self, handle: SocketHandle) -> &mut udp::Socket<'static> {
        self.get(handle)
    }

    fn get<T: AnySocket<'static>>(&mut self, handle: SocketHandle) -> &mut T {
        self.sockets.get_mut(handle)
    }

    pub(crate) fn remove(&mut self, handle: SocketHandle) {
        self.sockets.remove(handle);
    }

    pub(crate) fn connect(&mut self, handle: SocketHandle, to: (Ipv4Addr, u16), from: u16) {
        let socket: &mut tcp::Socket<'static> = self.sockets.get_mut(handle);
        socket.connect(self.interface.context(), to, from).unwrap();
    }

    pub(crate) fn join(&mut self, group: Ipv4Addr) {
        self.interface.join_multicast_group(group).unwrap();
    }
}

/// A device whose wire is somebody else's business.
#[derive(Default)]
struct Queues {
    mtu: usize,
    received: VecDeque<Vec<u8>>,
    transmitted: VecDeque<Vec<u8>>,
}

impl Device for Queues {
    type RxToken<'a> = Received;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, _now: SmolInstant) -> Option<(Received, Room<'_>)> {
        let packet = self.received.pop_front()?;
        Some((Received(packet), Room(&mut self.transmitted)))
    }

    fn transmit(&mut self, _now: SmolInstant) -> Option<Room<'_>> {
        Some(Room(&mut self.transmitted))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

struct Room<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut packet = vec![0; len];
        let result = write(&mut packet);
        self.0.push_back(packet);
        result
    }
}

fn smol(at: Instant) -> SmolInstant {
    SmolInstant::from_micros(i64::try_from(at.as_micros()).unwrap())
}

/// As `sys::tcp` sets it on the camera's sockets.
const USER_TIMEOUT: SmolDuration = SmolDuration::from_secs(15);
/// Sooner than that, or smoltcp gives up before it has an answer.
const KEEP_ALIVE: SmolDuration = SmolDuration::from_secs(7);
/// That wait in a UDP socket, each way.
const DATAGRAMS: usize = 64;
