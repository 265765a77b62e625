//! RTP and RTCP that no receiver would send: from viewers themselves, and from strangers.

use std::net::{SocketAddr, UdpSocket};
use std::thread;

use super::ground::{Ground, Harm};
use super::peer::{Cut, Random, to_ports, udp_pair};
use super::sessions::hears;
use crate::capture::Message;

/// Row 41 and 43: a viewer's own reports are malformed, or right and impossible; it plays on.
pub(super) fn impossible_reports(ground: &Ground) -> Harm {
    let who = ground.stranger();
    let pair = udp_pair(who.from);
    let (mut over_udp, mut over_tcp) = (who.connect(), who.connect());
    let reply = over_udp.watch(&who, &to_ports(&pair));
    over_tcp.watch(&who, "RTP/AVP/TCP;unicast;interleaved=0-1");
    let packets = reports(ssrc(&reply));
    let server = server_ports(&reply, ground.rtsp);
    for packet in &packets {
        for (socket, to) in pair.iter().zip(server) {
            // One that does not fit a datagram is cut.
            socket.send_to(&packet[..packet.len().min(65_000)], to).unwrap();
        }
        for channel in [0, 1, 7, 255] {
            let len = u16::try_from(packet.len()).unwrap().to_be_bytes();
            let frame = [&[b'$', channel], &len[..], packet].concat();
            assert!(over_tcp.send(&frame, Cut::Whole));
        }
    }
    pair[0].set_nonblocking(true).unwrap();
    while pair[0].recv(&mut [0; 2_048]).is_ok() {}
    pair[0].set_nonblocking(false).unwrap();
    hears(&pair[0]);
    let frames = over_tcp.frames;
    assert!(over_tcp.is_listened_to() && over_tcp.frames > frames, "no pictures any more");
    assert!(over_udp.is_listened_to());
    Harm { inputs: packets.len() * 6, sessions: 2 }
}

/// Rows 41 and 42: strangers say goodbye for others, and say nothing in many words.
pub(super) fn packets_of_strangers(ground: &Ground) -> Harm {
    let who = ground.stranger();
    let pair = udp_pair(who.from);
    let mut peer = who.connect();
    let reply = peer.watch(&who, &to_ports(&pair));
    let server = server_ports(&reply, ground.rtsp);
    let ssrc = ssrc(&reply);
    let strangers = [0; 5].map(|_| UdpSocket::bind((ground.address(), 0)).unwrap());
    let goodbyes = [bye(&[ssrc]), bye(&[0]), [receiver_report(&[]), bye(&[ssrc])].concat()];
    let flood = |(seed, socket): (u32, &UdpSocket)| {
        let mut random = Random(seed);
        for number in 0..DATAGRAMS {
            let len = random.below(1_500);
            let junk = random.bytes(len);
            let packet = goodbyes.get(number % 8).unwrap_or(&junk);
            // A full buffer is the camera's to find.
            let _ = socket.send_to(packet, server[number % 2]);
        }
        socket.set_nonblocking(true).unwrap();
        assert!(socket.recv(&mut [0; 2_048]).is_err(), "a stranger was answered");
    };
    thread::scope(|scope| {
        (0..).zip(&strangers).for_each(|stranger| drop(scope.spawn(move || flood(stranger))));
    });
    hears(&pair[0]);
    assert!(peer.is_listened_to());
    Harm { inputs: strangers.len() * DATAGRAMS, sessions: 1 }
}

/// The RTP and the RTCP port of the camera, by its answer to SETUP.
fn server_ports(reply: &Message, camera: SocketAddr) -> [SocketAddr; 2] {
    let transport = reply.header("Transport").unwrap();
    let ports = transport.split("server_port=").nth(1).unwrap().split(';').next().unwrap();
    let (rtp, rtcp) = ports.split_once('-').unwrap();
    [rtp, rtcp].map(|port| SocketAddr::new(camera.ip(), port.parse().unwrap()))
}

fn ssrc(reply: &Message) -> u32 {
    let transport = reply.header("Transport").unwrap();
    u32::from_str_radix(transport.split("ssrc=").nth(1).unwrap(), 16).unwrap()
}

/// A packet of RTCP (RFC 3550 6.4.1) whose header says what it will.
fn packet(first: u8, kind: u8, length: u16, body: &[u8]) -> Vec<u8> {
    [&[first, kind], &length.to_be_bytes()[..], body].concat()
}

fn whole(first: u8, kind: u8, words: &[u32]) -> Vec<u8> {
    let body: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    packet(first, kind, u16::try_from(words.len()).unwrap(), &body)
}

/// With these report blocks, each of six words.
fn receiver_report(blocks: &[[u32; 6]]) -> Vec<u8> {
    let words: Vec<u32> =
        [0x0bad_cafe].into_iter().chain(blocks.iter().flatten().copied()).collect();
    whole(0x80 | u8::try_from(blocks.len()).unwrap(), RR, &words)
}

fn bye(sources: &[u32]) -> Vec<u8> {
    whole(0x80 | u8::try_from(sources.len()).unwrap(), BYE, sources)
}

/// Packets of every wrong length, count and kind; reports on `ssrc` that cannot be; and noise.
fn reports(ssrc: u32) -> Vec<Vec<u8>> {
    let empty = receiver_report(&[]);
    let mut packets = vec![
        Vec::new(),
        vec![0x80],
        packet(0x80, RR, 0xffff, &[0; 4]),
        packet(0x80, RR, 0, &[]),
        packet(0x9f, RR, 1, &[0; 4]),
        packet(0x80, SR, 1, &[0; 4]),
        packet(0x00, RR, 1, &[0; 4]),
        packet(0xc0, RR, 1, &[0; 4]),
        packet(0xa0, RR, 1, &[0xff; 4]),
        packet(0x80, 96, 1, &[0; 4]),
        [&empty[..], &packet(0x80, SDES, 0, &[])].concat(),
        [&empty[..], &packet(0x9f, SDES, 1, &[1, 255, 0, 0])].concat(),
        [&empty[..], &packet(0x81, SDES, 2, &[0, 0, 0, 1, 1, 255, b'x', 0])].concat(),
        [&empty[..], &packet(0x9f, BYE, 0, &[])].concat(),
        [&empty[..], &packet(0x81, BYE, 0, &[])].concat(),
        [&empty[..], &packet(0x80, 204, 2, &[0xff; 8])].concat(),
        packet(0x81, PSFB, 0, &[]),
        packet(0x84, PSFB, 1, &[0; 4]),
        packet(0x84, PSFB, 16_000, &vec![0xff; 64_000]),
        empty.repeat(5_000),
        receiver_report(&[[ssrc, 0, 0, 0, 0, 0]]),
        receiver_report(&[[ssrc, u32::MAX, u32::MAX, u32::MAX, u32::MAX, u32::MAX]]),
        receiver_report(&[[ssrc, 0xff80_0000, 0, 0, 1, u32::MAX]]),
        receiver_report(&[[ssrc, 0x007f_ffff, 0, u32::MAX, u32::MAX, 0]]),
        receiver_report(&[[ssrc, 0, 0, 0, 0, 0]; 31]),
        receiver_report(&[[!ssrc, u32::MAX, 0, 0, 0, 0]; 31]),
    ];
    // A key frame, please, and another, and another: the camera makes them at its own pace.
    packets.extend(vec![whole(0x81, PSFB, &[1, ssrc]); 100]);
    let mut random = Random(41);
    packets.extend((0..100).map(|_| {
        let len = random.below(200);
        [&[0x80 | u8::try_from(len % 32).unwrap(), RR], &random.bytes(len)[..]].concat()
    }));
    // None of them is a goodbye: that one would be believed.
    packets.retain(|packet| {
        !packet.windows(2).any(|two| two[0] & 0xc0 == 0x80 && two[1] == BYE) || packet.len() < 16
    });
    packets
}

const SR: u8 = 200;
const RR: u8 = 201;
const SDES: u8 = 202;
const BYE: u8 = 203;
const PSFB: u8 = 206;
/// Of each stranger.
const DATAGRAMS: usize = 4_000;
