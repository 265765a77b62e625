//! Faults in what the camera says: rules R and S.

use super::{Change, Plant, edit_reply, edit_sdp, packets, reply_to};
use crate::capture::{Capture, Event, Kind};
use crate::client::Lower;

pub(super) fn plants() -> Vec<Plant> {
    let on = |lower| {
        move |(rule, name, change)| Plant { rule, name, lower, change: Change::Capture(change) }
    };
    let tcp = [replies(), statuses(), logins(), framing(), descriptions()].into_iter().flatten();
    tcp.map(on(Lower::Tcp)).chain(over_udp().into_iter().map(on(Lower::Udp))).collect()
}

type Fault = (&'static str, &'static str, fn(&mut Capture));

fn replies() -> Vec<Fault> {
    vec![
        ("R1", "wrong CSeq on a 401", |capture| {
            edit_reply(capture, "DESCRIBE", 401, |text| text.replace("CSeq: 2", "CSeq: 1"));
        }),
        ("R1", "no CSeq on an error", |capture| {
            edit_reply(capture, "FROBNICATE", 501, |text| text.replace("CSeq", "X-CSeq"));
        }),
        ("R1", "no reply", |capture| {
            let index = reply_to(capture, "SET_PARAMETER", 200);
            capture.events.remove(index);
        }),
        ("R2", "wrong content type", |capture| {
            edit_reply(capture, "DESCRIBE", 200, |text| {
                text.replace("application/sdp", "text/plain")
            });
        }),
        ("R2", "Content-Base without slash", |capture| {
            edit_reply(capture, "DESCRIBE", 200, |text| text.replace("/main/\r\n", "/main\r\n"));
        }),
        ("R3", "another session id in PLAY", |capture| {
            edit_reply(capture, "PLAY", 200, |text| {
                text.replace("Session: 9f3c5a7e", "Session: 00000000")
            });
        }),
        ("R3", "a space before timeout", |capture| {
            edit_reply(capture, "SETUP", 200, |text| text.replace(";timeout", "; timeout"));
        }),
        ("R3", "ssrc in seven digits", |capture| {
            edit_reply(capture, "SETUP", 200, |text| text.replace("1A2B3C4D", "x"));
        }),
        ("R3", "two transports", |capture| {
            edit_reply(capture, "SETUP", 200, |text| {
                text.replace("ssrc=1A2B3C4D", "ssrc=1A2B3C4D,RTP/AVP;unicast;client_port=1-2")
            });
        }),
        ("R3", "another lower transport", |capture| {
            edit_reply(capture, "SETUP", 200, |text| text.replace("RTP/AVP/TCP", "RTP/AVP/UDP"));
        }),
        ("R4", "seq of the packet before", |capture| {
            edit_reply(capture, "PLAY", 200, |text| text.replace("seq=65500", "seq=65499"));
        }),
        ("R4", "rtptime of another picture", |capture| {
            edit_reply(capture, "PLAY", 200, |text| {
                text.replace("rtptime=4294867295", "rtptime=4294870295")
            });
        }),
        ("R4", "url that is not the control URL", |capture| {
            edit_reply(capture, "PLAY", 200, |text| text.replace("/trackID=0", "/trackID=1"));
        }),
        ("R4", "no RTP-Info", |capture| {
            edit_reply(capture, "PLAY", 200, |text| text.replace("RTP-Info", "X-Info"));
        }),
        ("R4", "a trailing semicolon", |capture| {
            edit_reply(capture, "PLAY", 200, |text| {
                text.replace("rtptime=4294867295", "rtptime=4294867295;")
            });
        }),
    ]
}

fn statuses() -> Vec<Fault> {
    fn change(capture: &mut Capture, method: &str, from: u16, to: u16) {
        let [from_text, to_text] = [from, to].map(|status| format!("RTSP/1.0 {status}"));
        edit_reply(capture, method, from, |text| text.replace(&from_text, &to_text));
    }
    vec![
        ("R5", "unknown method", |capture| change(capture, "FROBNICATE", 501, 200)),
        ("R5", "Require", |capture| change(capture, "DESCRIBE", 551, 400)),
        ("R5", "551 without the feature's name", |capture| {
            edit_reply(capture, "DESCRIBE", 551, |text| text.replace("Unsupported", "X-Other"));
        }),
        ("R5", "RTSP/2.0", |capture| change(capture, "OPTIONS", 505, 200)),
        ("R5", "PLAY before SETUP", |capture| change(capture, "PLAY", 455, 400)),
        ("R5", "unknown session", |capture| change(capture, "PLAY", 454, 404)),
        ("R5", "bad transport", |capture| change(capture, "SETUP", 461, 400)),
        ("R7", "keep-alive refused", |capture| change(capture, "GET_PARAMETER", 200, 454)),
        ("R7", "GET_PARAMETER not advertised", |capture| {
            edit_reply(capture, "OPTIONS", 200, |text| text.replace(" GET_PARAMETER,", ""));
        }),
        ("R7", "closed by the server", |capture| {
            let at = capture.events.last().unwrap().at;
            capture.events.push(Event { at, kind: Kind::Closed });
        }),
    ]
}

fn logins() -> Vec<Fault> {
    const MD5_LINE: &str = "WWW-Authenticate: Digest realm=\"ocellus\", nonce=\"0123456789abcdef0123456789abcdef\"\r\n";
    vec![
        ("R6", "algorithm before realm", |capture| {
            edit_reply(capture, "DESCRIBE", 401, |text| {
                text.replacen("Digest realm", "Digest algorithm=SHA-256, realm", 1)
            });
        }),
        ("R6", "qop offered", |capture| {
            edit_reply(capture, "DESCRIBE", 401, |text| {
                text.replace("SHA-256\r\n", "SHA-256, qop=\"auth\"\r\n")
            });
        }),
        ("R6", "MD5 first", |capture| {
            edit_reply(capture, "DESCRIBE", 401, |text| {
                let (head, _) = text.split_once("WWW-").unwrap();
                let strong = MD5_LINE.replace("\"\r\n", "\", algorithm=SHA-256\r\n");
                format!("{head}{MD5_LINE}{strong}\r\n")
            });
        }),
        ("R6", "two nonces", |capture| {
            edit_reply(capture, "DESCRIBE", 401, |text| {
                text.replacen("nonce=\"0123", "nonce=\"ffff", 1)
            });
        }),
        ("R6", "a nonce that is not hex", |capture| {
            edit_reply(capture, "DESCRIBE", 401, |text| text.replace("89abcdef\"", "89abcde=\""));
        }),
        ("R6", "a wrong password admitted", |capture| {
            let good = reply_to(capture, "DESCRIBE", 200);
            let Kind::Response(text) = capture.events[good].kind.clone() else { unreachable!() };
            let text = String::from_utf8(text).unwrap().replace("CSeq: 4", "CSeq: 3");
            capture.events[good - 2].kind = Kind::Response(text.into_bytes());
        }),
        ("R6", "a right password refused", |capture| {
            let refusal = reply_to(capture, "DESCRIBE", 401);
            let Kind::Response(text) = capture.events[refusal].kind.clone() else { unreachable!() };
            let text = String::from_utf8(text).unwrap().replace("CSeq: 2", "CSeq: 5");
            let probe = reply_to(capture, "FROBNICATE", 501);
            capture.events[probe].kind = Kind::Response(text.into_bytes());
        }),
        ("R6", "closed after a 401", |capture| {
            let good = reply_to(capture, "DESCRIBE", 200);
            let at = capture.events[good].at;
            capture.events.insert(good - 1, Event { at, kind: Kind::Closed });
        }),
    ]
}

fn framing() -> Vec<Fault> {
    fn insert(capture: &mut Capture, index: usize, kind: Kind) {
        let at = capture.events[index].at;
        capture.events.insert(index + 1, Event { at, kind });
    }
    vec![
        ("R8", "bytes that are neither response nor frame", |capture| {
            insert(capture, 100, Kind::Garbage(b"\r\n\r\n".to_vec()));
        }),
        ("R8", "a frame inside a response", |capture| {
            edit_reply(capture, "PLAY", 200, |text| {
                text.replace("Range:", "$\0\0\u{4}abcd\r\nRange:")
            });
        }),
        ("R8", "a channel that was not agreed on", |capture| {
            insert(capture, 100, Kind::Interleaved { channel: 2, packet: vec![0x80; 40] });
        }),
        ("R8", "a frame of four bytes", |capture| {
            insert(capture, 100, Kind::Interleaved { channel: 1, packet: vec![0x81, 201, 0, 0] });
        }),
        ("R8", "media on the RTCP channel", |capture| {
            let packet = packets(capture, false)[10].clone();
            insert(capture, 100, Kind::Interleaved { channel: 1, packet });
        }),
        ("R9", "media after TEARDOWN", |capture| {
            let packet = packets(capture, false)[10].clone();
            let last = capture.events.len() - 1;
            insert(capture, last, Kind::Interleaved { channel: 0, packet });
        }),
        ("R9", "media after PAUSE", |capture| {
            let packet = packets(capture, false)[10].clone();
            let paused = reply_to(capture, "PAUSE", 200);
            insert(capture, paused, Kind::Interleaved { channel: 0, packet });
        }),
        ("R9", "media before the reply to PLAY", |capture| {
            let packet = packets(capture, false)[10].clone();
            let playing = reply_to(capture, "PLAY", 200);
            insert(capture, playing - 1, Kind::Interleaved { channel: 0, packet });
        }),
    ]
}

fn descriptions() -> Vec<Fault> {
    vec![
        ("S1", "a time that is no number", |capture| edit_sdp(capture, "t=0 0", "t=x 0")),
        ("S2", "bare line feeds", |capture| edit_sdp(capture, "\r\n", "\n")),
        ("S2", "t before c", |capture| {
            edit_sdp(capture, "c=IN IP4 0.0.0.0\r\nt=0 0", "t=0 0\r\nc=IN IP4 0.0.0.0");
        }),
        ("S2", "trailing space", |capture| edit_sdp(capture, "s=Ocellus", "s=Ocellus ")),
        ("S3", "another clock", |capture| edit_sdp(capture, "H264/90000", "H264/8000")),
        ("S3", "mode 0", |capture| edit_sdp(capture, "-mode=1", "-mode=0")),
        ("S3", "a port", |capture| edit_sdp(capture, "m=video 0", "m=video 5004")),
        ("S3", "sendonly", |capture| edit_sdp(capture, "a=framerate", "a=sendonly\r\na=framerate")),
        ("S4", "another profile", |capture| edit_sdp(capture, "level-id=4", "level-id=5")),
        ("S4", "a start code", |capture| edit_sdp(capture, "sets=", "sets=AAAAAQ==")),
        ("S4", "no PPS", |capture| edit_sdp(capture, ",", "")),
        ("S4", "an empty set at the end", |capture| edit_sdp(capture, ",", ",,")),
        ("S6", "another frame rate", |capture| edit_sdp(capture, "rate:", "rate:1")),
    ]
}

fn over_udp() -> Vec<Fault> {
    vec![
        ("R3", "an odd server port", |capture| {
            edit_reply(capture, "SETUP", 200, |text| text.replace("8000-8001", "8001-8002"));
            for event in &mut capture.events {
                if let Kind::Datagram { from, .. } = &mut event.kind {
                    from.set_port(from.port() + 1);
                }
            }
        }),
        ("R3", "no server port", |capture| {
            edit_reply(capture, "SETUP", 200, |text| {
                text.replace("server_port=8000-8001", "server_port=8000-8002")
            });
            for event in &mut capture.events {
                if let Kind::Datagram { from, .. } = &mut event.kind {
                    from.set_port(if from.port() == 8001 { 8002 } else { 8000 });
                }
            }
        }),
        ("R8", "media from another port", |capture| {
            for event in &mut capture.events {
                if let Kind::Datagram { from, to: 5000, .. } = &mut event.kind {
                    from.set_port(9000);
                }
            }
        }),
        ("R9", "media long after TEARDOWN", |capture| {
            let media = capture.events.iter().find(|e| matches!(e.kind, Kind::Datagram { .. }));
            let mut late = media.unwrap().clone();
            late.at = capture.events.last().unwrap().at + std::time::Duration::from_millis(150);
            capture.events.push(late);
        }),
    ]
}
