//! Plugs in a virtual cable and makes it a bad one, by rtnetlink.
//!
//! veth(4), tc-netem(8); linux/pkt_sched.h for what the library has no words for.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use netlink_packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage,
};
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// One end of a cable.
pub(super) struct Link {
    index: u32,
    netlink: OwnedFd,
}

/// What becomes of packets that leave; of nothing, when it is all zero.
#[derive(Clone, Copy, Default)]
pub(super) struct Impairment {
    pub(super) loss_percent: u32,
    pub(super) duplicate_percent: u32,
    /// Of the delayed: those which are not, and so overtake others.
    pub(super) at_once_percent: u32,
    pub(super) delay: Duration,
}

impl Link {
    pub(super) fn open(index: u32) -> Self {
        Self { index, netlink: open() }
    }

    /// From now on, instead of what was so before.
    pub(super) fn impair(&mut self, how: &Impairment) {
        let mut message = TcMessage::with_index(i32::try_from(self.index).unwrap());
        message.header.parent = TcHandle::ROOT;
        message.header.handle = TcHandle { major: 1, minor: 0 };
        message.attributes = vec![
            TcAttribute::Kind("netem".to_owned()),
            TcAttribute::Other(DefaultNla::new(TCA_OPTIONS, how.options())),
        ];
        let message = RouteNetlinkMessage::NewQueueDiscipline(message);
        call(&self.netlink, message, NLM_F_CREATE | NLM_F_REPLACE);
    }
}

impl Impairment {
    /// `struct tc_netem_qopt`, and the attribute of `struct tc_netem_reorder` behind it.
    fn options(&self) -> Vec<u8> {
        let delay = u32::try_from(self.delay.as_nanos() / TICK_NS).unwrap();
        let gap = u32::from(self.at_once_percent > 0);
        let [loss, duplicate, at_once] =
            [self.loss_percent, self.duplicate_percent, self.at_once_percent]
                .map(|percent| u32::MAX / 100 * percent);
        let mut words = vec![delay, QUEUE_LEN, loss, gap, duplicate, 0];
        // Length and type of the attribute, the probability, no correlation.
        let header = u32::from_ne_bytes(
            [12_u16.to_ne_bytes(), TCA_NETEM_REORDER.to_ne_bytes()].concat().try_into().unwrap(),
        );
        words.extend([header, at_once, 0]);
        words.into_iter().flat_map(u32::to_ne_bytes).collect()
    }
}

/// Makes a cable with one end here and the other in `namespace`.
pub(super) fn plug_in(here: &str, there: &str, namespace: &OwnedFd) {
    let mut peer = LinkMessage::default();
    peer.attributes = vec![
        LinkAttribute::IfName(there.to_owned()),
        LinkAttribute::NetNsFd(namespace.as_raw_fd()),
    ];
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(here.to_owned()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ];
    call(&open(), RouteNetlinkMessage::NewLink(message), NLM_F_CREATE);
}

fn open() -> OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC;
    let protocol = SockProtocol::NetlinkRoute;
    let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol).unwrap();
    setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::seconds(10)).unwrap();
    fd
}

/// Asks for a change; panics with what the kernel has against it.
fn call(netlink: &OwnedFd, message: RouteNetlinkMessage, flags: u16) {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    send(netlink.as_raw_fd(), &bytes, MsgFlags::empty()).unwrap();
    let mut answer = vec![0; 8_192];
    let len = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty()).unwrap();
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer[..len]).unwrap();
    let NetlinkPayload::Error(error) = answer.payload else { panic!("{answer:?}") };
    assert_eq!(error.code, None, "{}", error.to_io());
}

const TCA_OPTIONS: u16 = 2;
const TCA_NETEM_REORDER: u16 = 3;
/// Of the packet scheduler.
const TICK_NS: u128 = 64;
/// Packets: more than a second's.
const QUEUE_LEN: u32 = 1_000;
