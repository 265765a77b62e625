use super::*;

/// 2026-11-22 in NTP's count.
const NOW: u64 = (1_795_305_600 + 2_208_988_800) << 32;

/// The answer to `request` of a server whose clock read `time` for `held_ms`.
fn answer(request: &[u8; MESSAGE_LEN], time: u64, held_ms: u64) -> [u8; MESSAGE_LEN] {
    let mut message = [0; MESSAGE_LEN];
    message[0] = (VERSION << 3) | MODE_SERVER;
    message[1] = 2;
    message[24..32].copy_from_slice(&request[40..]);
    message[32..40].copy_from_slice(&time.to_be_bytes());
    let transmitted = time.wrapping_add((held_ms << 32) / 1000);
    message[40..].copy_from_slice(&transmitted.to_be_bytes());
    message
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Lets time pass up to the next question, and returns when it came and to whom.
fn ask(client: &mut Sntp) -> (Instant, Transmit) {
    for _ in 0..1000 {
        let due = client.poll_timeout().expect("somebody to ask");
        client.handle_timeout(due);
        if let Some(transmit) = client.poll_transmit() {
            return (due, transmit);
        }
    }
    panic!("it never asks")
}

#[test]
fn the_request_is_48_bytes_of_version_4_and_a_nonce() {
    let mut client = Sntp::new(Instant::ZERO, 1, 7);
    let (at, first) = ask(&mut client);
    assert_eq!((at, first.server), (Instant::ZERO, 0));
    assert_eq!(first.message[0], 0b00_100_011);
    assert!(first.message[1..40].iter().all(|&byte| byte == 0));
    let (_, second) = ask(&mut client);
    assert_ne!(first.message[40..], second.message[40..]);
}

#[test]
fn a_sample_is_the_servers_time_and_half_of_the_way() {
    for (way_ms, held_ms) in [(0, 0), (1, 0), (40, 5), (2000, 900)] {
        let mut client = Sntp::new(Instant::ZERO, 1, 7);
        let (asked, request) = ask(&mut client);
        let at = asked + ms(way_ms + held_ms);
        client.receive(at, &answer(&request.message, NOW, held_ms));
        let Some(Event::Sample { at: told, time, round_trip }) = client.poll_event() else {
            panic!("no sample")
        };
        let passed = time.micros_since(NtpTimestamp(NOW));
        let wanted = i64::try_from(held_ms * 1000 + way_ms * 500).unwrap();
        assert!((passed - wanted).abs() <= 2, "{passed} {wanted}");
        assert_eq!(told, at);
        assert!(round_trip.abs_diff(ms(way_ms)) <= Duration::from_micros(2));
    }
}

#[test]
fn what_is_no_answer_to_the_question_is_ignored_and_the_right_one_still_counts() {
    let mut client = Sntp::new(Instant::ZERO, 1, 7);
    let (asked, request) = ask(&mut client);
    let good = answer(&request.message, NOW, 0);
    for (byte, value) in
        [(0, 0x23), (0, 0x25), (0, 0x0c), (31, good[31] ^ 1), (24, good[24] ^ 0x80)]
    {
        let mut bad = good;
        bad[byte] = value;
        client.receive(asked, &bad);
        assert_eq!(client.poll_event(), None, "byte {byte}");
    }
    for len in 0..MESSAGE_LEN {
        client.receive(asked, &good[..len]);
        assert_eq!(client.poll_event(), None, "cut at {len}");
    }
    // A message authentication code may follow.
    client.receive(asked, &[good.as_slice(), &[0; 20]].concat());
    assert!(matches!(client.poll_event(), Some(Event::Sample { .. })));
    client.receive(asked, &good);
    assert_eq!(client.poll_event(), None, "a second answer");
}

#[test]
fn a_server_that_does_not_know_the_time_is_not_believed() {
    let year_2000 = (946_684_800_u64 + 2_208_988_800) << 32;
    let cases: [(usize, u8, u64); 5] =
        [(0, 0xe4, NOW), (1, 16, NOW), (1, 2, 0), (1, 2, year_2000), (32, 0xff, NOW)];
    for (byte, value, time) in cases {
        let mut client = Sntp::new(Instant::ZERO, 2, 7);
        let (asked, request) = ask(&mut client);
        let mut bad = answer(&request.message, time, 0);
        bad[byte] = value;
        client.receive(asked + ms(1), &bad);
        assert_eq!(client.poll_event(), None, "byte {byte}");
        assert_eq!(ask(&mut client).1.server, 1, "byte {byte}: the next server is asked");
    }
}

#[test]
fn a_kiss_of_death_is_obeyed() {
    for code in [b"DENY", b"RSTR"] {
        let mut client = Sntp::new(Instant::ZERO, 2, 7);
        for server in [0, 1] {
            let (asked, request) = ask(&mut client);
            assert_eq!(request.server, server);
            let mut kiss = answer(&request.message, NOW, 0);
            kiss[1] = 0;
            kiss[12..16].copy_from_slice(code);
            client.receive(asked, &kiss);
            assert_eq!(client.poll_event(), Some(Event::Refused { server }));
        }
        assert_eq!(client.poll_timeout(), None, "nobody is left");
    }
    let mut client = Sntp::new(Instant::ZERO, 1, 7);
    let (asked, request) = ask(&mut client);
    let mut kiss = answer(&request.message, NOW, 0);
    kiss[1] = 0;
    kiss[12..16].copy_from_slice(b"RATE");
    client.receive(asked, &kiss);
    assert!(ask(&mut client).0.since(asked) >= MAX_INTERVAL);
}

#[test]
fn a_server_that_answers_is_asked_ever_more_seldom_down_to_every_17_minutes() {
    let mut client = Sntp::new(Instant::ZERO, 1, 7);
    let mut asked_at = Vec::new();
    for _ in 0..8 {
        let (asked, request) = ask(&mut client);
        client.receive(asked, &answer(&request.message, NOW, 0));
        asked_at.push(asked);
    }
    let gaps: Vec<_> = asked_at.windows(2).map(|pair| pair[1].since(pair[0]).as_secs()).collect();
    for (gap, wanted) in gaps.iter().zip([64, 128, 256, 512, 1024, 1024, 1024]) {
        assert!((wanted..=wanted + wanted / 16 + 1).contains(gap), "{gaps:?}");
    }
}

#[test]
fn silent_servers_are_asked_in_turn_and_the_silence_is_told_once() {
    let mut client = Sntp::new(Instant::ZERO, 3, 7);
    let mut told = Vec::new();
    let mut asked = Vec::new();
    for _ in 0..60 {
        let (at, transmit) = ask(&mut client);
        asked.push((at, transmit.server));
        told.extend(client.poll_event());
    }
    assert!(asked.iter().enumerate().all(|(index, &(_, server))| server == index % 3));
    assert_eq!(told, [Event::Silent]);
    assert!(asked[3].0.since(Instant::ZERO) < Duration::from_secs(20), "all are tried soon");
    let gap = asked[59].0.since(asked[58].0);
    assert!((MAX_INTERVAL..MAX_INTERVAL * 2).contains(&gap), "{gap:?}");
    // And when one of them comes back.
    let (at, request) = ask(&mut client);
    client.receive(at, &answer(&request.message, NOW, 0));
    assert!(matches!(client.poll_event(), Some(Event::Sample { .. })));
    let (again, _) = ask(&mut client);
    assert!(again.since(at) < Duration::from_secs(70));
}

#[test]
fn without_servers_nobody_is_asked() {
    let mut client = Sntp::new(Instant::ZERO, 0, 7);
    assert_eq!(client.poll_timeout(), None);
    client.handle_timeout(Instant::from_micros(u64::MAX));
    assert_eq!((client.poll_transmit(), client.poll_event()), (None, None));
}

#[test]
fn the_era_that_begins_in_2036_is_read_rightly() {
    let mut client = Sntp::new(Instant::ZERO, 1, 7);
    let (asked, request) = ask(&mut client);
    client.receive(asked, &answer(&request.message, 100 << 32, 0));
    let Some(Event::Sample { time, .. }) = client.poll_event() else { panic!("no sample") };
    assert_eq!(time.to_unix().as_secs(), (1 << 32) - 2_208_988_800 + 100);
}

#[test]
fn a_server_whose_time_is_before_1970_is_not_believed() {
    for seconds in [0x8000_0000, 0x8000_0100, 2_208_988_799, 2_208_988_800_u64] {
        let mut client = Sntp::new(Instant::ZERO, 2, 7);
        let (asked, request) = ask(&mut client);
        client.receive(asked, &answer(&request.message, seconds << 32, 0));
        assert_eq!((client.poll_event(), client.server()), (None, 1), "{seconds}");
    }
}

#[test]
fn an_answer_at_the_end_of_the_count_does_not_lead_back_to_its_beginning() {
    let mut client = Sntp::new(Instant::ZERO, 2, 7);
    let (asked, request) = ask(&mut client);
    let end = (1 << 63) - 1;
    client.receive(asked + ms(1_000), &answer(&request.message, end, 0));
    assert_eq!(client.poll_event(), None);
}
