//! Judges the sender reports: C1 to C4; C5 is judged where media is filed (`session`).
//!
//! RFC 3550 6.1 (compound packets), 6.4.1 (SR), 6.5.1 (CNAME) and 6.2 (interval).

use std::time::Duration;

use rtcp_types::{Compound, Packet as Rtcp, SdesItem};

use crate::capture::Capture;

use super::Findings;
use super::rtp::Stream;
use super::session::{Arrival, Play, Session};

#[derive(Clone, Copy, Debug)]
struct Report {
    event: usize,
    at: Duration,
    ssrc: u32,
    ntp: u64,
    rtp: u32,
    packets: u32,
    octets: u32,
}

/// Returns the number of sender reports.
pub(super) fn check(
    capture: &Capture,
    session: &Session<'_>,
    streams: &[Stream<'_>],
    findings: &mut Findings,
) -> usize {
    let mut all: Vec<Report> = Vec::new();
    for (index, (play, stream)) in session.plays.iter().zip(streams).enumerate() {
        let reports: Vec<Report> =
            play.rtcp.iter().filter_map(|arrival| parse(arrival, findings)).collect();
        check_interval(play, stream, index == 0, findings);
        for report in &reports {
            let (event, ssrc) = (report.event, report.ssrc);
            findings.check(ssrc == stream.ssrc, "C3", event, "the SSRC is not the stream's");
            check_counts(report, &streams[..=index], findings);
            check_line(capture, report, stream, findings);
        }
        check_start(&reports, stream, findings);
        all.extend(reports);
    }
    check_slope(&all, findings);
    all.len()
}

/// C1: SR first, SDES with CNAME, BYE last, lengths that add up.
fn parse(arrival: &Arrival<'_>, findings: &mut Findings) -> Option<Report> {
    let event = arrival.event;
    let mut require = |holds: bool, what: String| findings.check(holds, "C1", event, what);
    let compound = match Compound::parse(arrival.bytes) {
        Ok(compound) => compound,
        Err(error) => {
            require(false, format!("no compound packet: {error}"));
            return None;
        }
    };
    let (mut report, mut cname, mut last_bye, mut count) = (None, false, None, 0);
    for (index, packet) in compound.enumerate() {
        count = index + 1;
        match packet {
            Ok(Rtcp::Sr(sr)) if index == 0 => {
                report = Some(Report {
                    event,
                    at: arrival.at,
                    ssrc: sr.ssrc(),
                    ntp: sr.ntp_timestamp(),
                    rtp: sr.rtp_timestamp(),
                    packets: sr.packet_count(),
                    octets: sr.octet_count(),
                });
            }
            Ok(Rtcp::Sdes(sdes)) => {
                cname = sdes.chunks().any(|chunk| {
                    let mut items = chunk.items();
                    let named =
                        items.any(|item| item.type_() == SdesItem::CNAME && item.length() > 2);
                    named && report.is_some_and(|report| report.ssrc == chunk.ssrc())
                });
            }
            Ok(Rtcp::Bye(_)) => last_bye = Some(index),
            Ok(_) => {}
            Err(error) => require(false, format!("packet {index}: {error}")),
        }
    }
    require(report.is_some(), "the compound packet does not begin with an SR".into());
    require(cname, "no SDES CNAME of the reporting source".into());
    require(last_bye.is_none_or(|index| index + 1 == count), "BYE is not last".into());
    report
}

/// C2: the first report within a second of the first PLAY, then 2.5 to 7.5 seconds apart.
fn check_interval(play: &Play<'_>, stream: &Stream<'_>, first_play: bool, findings: &mut Findings) {
    let event = stream.all.first().map_or(0, |packet| packet.event);
    let limit = if first_play { Duration::from_secs(1) } else { LONGEST };
    // By packet type alone: C1 judges the rest, and a malformed report is still a report in time.
    let mut reports = play.rtcp.iter().filter(|arrival| arrival.bytes.get(1) == Some(&SR));
    let first = reports.next().map_or(play.until, |report| report.at);
    let waited = first.saturating_sub(stream.answered_at);
    findings.check(waited <= limit, "C2", event, format!("first report after {waited:?}"));
    let mut last = first;
    for report in reports {
        let gap = report.at.saturating_sub(last);
        let fair = (SHORTEST..=LONGEST).contains(&gap);
        findings.check(fair, "C2", report.event, format!("{gap:?} after the report before"));
        last = report.at;
    }
    let rest = play.until.saturating_sub(last);
    findings.check(rest <= LONGEST, "C2", event, format!("no report in the last {rest:?}"));
}

/// C3: packets and octets are those that this viewer had been sent at some moment just before.
fn check_counts(report: &Report, streams: &[Stream<'_>], findings: &mut Findings) {
    // Over UDP the report may be read a little before or after its neighbours.
    let (early, late) = (report.at.saturating_sub(SLACK), report.at + SLACK);
    let (mut packets, mut octets, mut matched) = (0_u32, 0_u32, false);
    let sent = streams.iter().flat_map(|stream| &stream.all);
    let mut sent = sent.peekable();
    loop {
        // The counts fit between two packets that the report may stand between.
        let next = sent.peek().map(|packet| packet.at);
        let now = next.is_none_or(|next| next >= early);
        matched |= now && (packets, octets) == (report.packets, report.octets);
        match sent.next().filter(|packet| packet.at <= late) {
            Some(packet) => {
                packets += 1;
                octets += u32::try_from(packet.payload.len()).unwrap();
            }
            None => break,
        }
    }
    let got = (report.packets, report.octets);
    let what = format!("{got:?} packets and octets; about ({packets}, {octets}) were received");
    findings.check(matched, "C3", report.event, what);
}

/// C4: the report's two times are those of its sending, on the line of the media's timestamps.
fn check_line(capture: &Capture, report: &Report, stream: &Stream<'_>, findings: &mut Findings) {
    let unix = seconds(report.ntp) - NTP_TO_UNIX;
    let host = (capture.started + report.at).as_secs_f64();
    let off = (unix - host).abs();
    findings.check(off < 1.0, "C4", report.event, format!("NTP time is {off:.3} s off"));
    // The access unit closest in arrival: captured at about the time that it arrived.
    let distance = |at: Duration| at.abs_diff(report.at);
    let Some(near) = stream.all.iter().min_by_key(|packet| distance(packet.at)) else { return };
    let ticks = f64::from(report.rtp.wrapping_sub(near.timestamp).cast_signed());
    let expected = report.at.as_secs_f64() - near.at.as_secs_f64();
    let off = (ticks / 90_000.0 - expected).abs();
    let what = format!("RTP time is {off:.3} s off the media's");
    findings.check(off < 0.5, "C4", report.event, what);
}

/// C4: a report ahead of the first packet is not of a later time than that packet.
///
/// retina's clock starts at whichever comes first, and under the policy that its users choose
/// (`enforce_timestamps_with_max_jump_secs`) it may not go back from there. Over UDP retina reads
/// RTCP first: what was sent at about the same time counts as ahead.
fn check_start(reports: &[Report], stream: &Stream<'_>, findings: &mut Findings) {
    let (Some(report), Some(first)) = (reports.first(), stream.all.first()) else { return };
    let later = report.rtp.wrapping_sub(first.timestamp).cast_signed();
    let ahead = report.at <= first.at + TOGETHER;
    let what = format!("the first report is {later} ticks later than the packet it stands with");
    findings.check(!ahead || later <= 0, "C4", report.event, what);
}

/// C4: between reports the RTP clock runs at 90 kHz, within 100 ppm and a tick.
fn check_slope(reports: &[Report], findings: &mut Findings) {
    for pair in reports.windows(2) {
        let elapsed = seconds(pair[1].ntp.wrapping_sub(pair[0].ntp)) * 90_000.0;
        let ticks = f64::from(pair[1].rtp.wrapping_sub(pair[0].rtp));
        let off = (ticks - elapsed).abs();
        let straight = off <= elapsed * 100e-6 + 2.0;
        let what = format!("{ticks} ticks in {elapsed:.1} ticks of NTP time");
        findings.check(straight, "C4", pair[1].event, what);
    }
}

/// Reads 32.32 fixed point seconds.
fn seconds(ntp: u64) -> f64 {
    let [whole, fraction] = [ntp >> 32, ntp & 0xffff_ffff].map(|half| u32::try_from(half).unwrap());
    f64::from(whole) + f64::from(fraction) / 4_294_967_296.0
}

/// Packet type of a sender report (RFC 3550 12.1).
const SR: u8 = 200;
/// RFC 3550 6.3.1: 5 s, times 0.5 to 1.5; with a little for scheduling.
const SHORTEST: Duration = Duration::from_millis(2450);
const LONGEST: Duration = Duration::from_millis(7750);
/// What arrives this close may be read in either order.
const TOGETHER: Duration = Duration::from_millis(20);
const SLACK: Duration = Duration::from_millis(250);
/// Seconds from 1900 to 1970.
const NTP_TO_UNIX: f64 = 2_208_988_800.0;
