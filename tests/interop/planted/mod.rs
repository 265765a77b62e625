//! Proves the validator: a good session passes, and each planted fault is found under its own rule.
//!
//! A fault that raises another rule as well, or none, fails the test: a finding must say what is
//! wrong and nothing else.

mod dialogue;
mod media;

use crate::capture::{Capture, Kind, Message};
use crate::client::Lower;
use crate::clip;
use crate::golden::Recipe;
use crate::validate::{Expect, Findings, Summary, validate};

/// One fault: the only rule that may find it, its name, and how it comes about.
struct Plant {
    rule: &'static str,
    name: &'static str,
    lower: Lower,
    change: Change,
}

enum Change {
    /// In what the session is made of, before it is written down.
    Recipe(fn(&mut Recipe)),
    /// In what was recorded.
    Capture(fn(&mut Capture)),
}

fn judge(recipe: &Recipe, change: impl FnOnce(&mut Capture)) -> (Findings, Summary) {
    let expect = Expect::of_clip(clip::clip().unwrap());
    let mut capture = recipe.capture();
    change(&mut capture);
    validate(&capture, &expect)
}

#[test]
fn a_session_without_fault_passes_over_tcp_and_udp_with_and_without_aggregation() {
    let Some(clip) = clip::clip() else { return };
    for lower in [Lower::Tcp, Lower::Udp] {
        for aggregate in [false, true] {
            let recipe = Recipe { aggregate, ..Recipe::new(clip, lower) };
            let (findings, summary) = judge(&recipe, |_| {});
            assert!(findings.violations.is_empty(), "{lower:?}:\n{}", findings.report());
            assert_eq!((summary.plays, summary.access_units, summary.decoded), (2, 300, 300));
            assert_eq!(summary.sender_reports, 2);
        }
    }
}

#[test]
fn every_planted_fault_is_found_by_its_rule_alone() {
    let Some(clip) = clip::clip() else { return };
    let mut failures = Vec::new();
    let mut proved: Vec<&str> = Vec::new();
    for plant in dialogue::plants().into_iter().chain(media::plants()) {
        let mut recipe = Recipe::new(clip, plant.lower);
        let (findings, _) = match plant.change {
            Change::Recipe(change) => {
                change(&mut recipe);
                judge(&recipe, |_| {})
            }
            Change::Capture(change) => judge(&recipe, change),
        };
        proved.push(plant.rule);
        if !findings.rules().iter().eq(&[plant.rule]) {
            failures.push(format!("{} {}:\n{}", plant.rule, plant.name, findings.report()));
        }
    }
    assert!(failures.is_empty(), "{} faults:\n{}", failures.len(), failures.join("\n"));
    proved.sort_unstable();
    proved.dedup();
    let numbered = |letter: char, last: u32| (1..=last).map(move |n| format!("{letter}{n}"));
    let all = [('R', 9), ('S', 6), ('T', 6), ('H', 11), ('C', 5)];
    for rule in all.into_iter().flat_map(|(letter, last)| numbered(letter, last)) {
        assert!(proved.contains(&rule.as_str()), "no fault is planted for {rule}");
    }
}

/// Changes the text of the first response that has `status` and answers `method`.
fn edit_reply(capture: &mut Capture, method: &str, status: u16, edit: impl Fn(&str) -> String) {
    let index = reply_to(capture, method, status);
    let Kind::Response(bytes) = &mut capture.events[index].kind else { unreachable!() };
    let text = edit(std::str::from_utf8(bytes).unwrap());
    assert_ne!(text.as_bytes(), &bytes[..], "the edit changes something");
    *bytes = text.into_bytes();
}

/// Replaces text in the session description, with the right Content-Length.
fn edit_sdp(capture: &mut Capture, from: &str, to: &str) {
    edit_reply(capture, "DESCRIBE", 200, |text| {
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let edited = body.replace(from, to);
        assert_ne!(edited, body, "the description has {from:?}");
        let [old, new] = [body, &edited].map(|body| format!("Content-Length: {}", body.len()));
        format!("{}\r\n\r\n{edited}", head.replace(&old, &new))
    });
}

/// Returns the event of the first response with `status` to `method`.
fn reply_to(capture: &Capture, method: &str, status: u16) -> usize {
    let mut asked = String::new();
    for (index, event) in capture.events.iter().enumerate() {
        match &event.kind {
            Kind::Request(bytes) => asked = Message::parse(bytes).unwrap().method().to_owned(),
            Kind::Response(bytes)
                if asked == method && Message::parse(bytes).unwrap().status() == status =>
            {
                return index;
            }
            _ => {}
        }
    }
    panic!("no {status} to {method}");
}

/// Returns the RTP packets, or the RTCP packets, of the first play.
fn packets(capture: &mut Capture, rtcp: bool) -> Vec<&mut Vec<u8>> {
    let pause = reply_to(capture, "PAUSE", 200);
    let events = capture.events[..pause].iter_mut();
    let of_kind = events.filter_map(|event| match &mut event.kind {
        Kind::Interleaved { channel, packet } if *channel % 2 == u8::from(rtcp) => Some(packet),
        Kind::Datagram { to, packet, .. } if *to % 2 == u16::from(rtcp) => Some(packet),
        _ => None,
    });
    of_kind.collect()
}
