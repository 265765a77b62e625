//! What peers send that broke other cameras: HOSTILE, section 1, row by row.
//!
//! Two viewers watch all the while, over TCP and over UDP, and are sent every packet. After each
//! group of inputs the camera is the same process, with its descriptors, threads and idle CPU as
//! before and a bounded number of lines in its log; when rounds repeat, its memory stands still.
//!
//! `OCELLUS_ROUNDS=100` repeats the groups that take no time.
//!
//! | file | what is hostile |
//! |---|---|
//! | `requests` | single requests: a table of bytes and answers |
//! | `sessions` | the order of requests, whose session it is, how one ends |
//! | `packets` | RTP and RTCP |
//! | `logins` | nonces, and a thousand wrong passwords |
//! | `crowds` | how many come at once |
//! | `waits` | how long they stay |
//! | `web` | HTTP, on its port and on RTSP's |
//! | `configuration`, `bitstreams` | files |
//!
//! Not here: a flood of SYN packets without connections, which never reaches the camera's process;
//! the kernel's queue and its cookies are what is in their way.

mod bitstreams;
mod configuration;
mod crowds;
mod ground;
mod logins;
mod packets;
mod peer;
mod requests;
mod sessions;
mod waits;
mod web;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;
use std::{fs, thread};

use ground::{Ground, Harm};

/// Some inputs of a kind, and the rows of the list that they are from.
type Group = (&'static [u8], &'static str, fn(&Ground) -> Harm);

/// Groups that take no time, and may be repeated: all at once, each from addresses of its own.
const REPEATED: &[Group] = &[
    (&[2], "wrong ports", crowds::wrong_ports),
    (&[21], "third parties", sessions::third_parties),
    (&[22, 25, 29, 46], "wrong steps", sessions::wrong_steps),
    (&[23], "changes of transport", sessions::changes_of_transport),
    (&[30], "stolen sessions", sessions::stolen_sessions),
    (&[31, 32], "session names", sessions::session_names),
    (&[47], "sessions that are left", sessions::sessions_that_are_left),
    (&[41, 43], "impossible reports", packets::impossible_reports),
    (&[39], "nonces", logins::nonces),
    (&[34], "one-ended tunnels", web::one_ended_tunnels),
    (&[52, 53, 54, 55, 56, 36, 37, 2, 3, 5, 7, 8, 9, 35, 50], "web requests", web::requests),
];

/// Groups that wait for something: all at once as well.
const SLOW: &[Group] = &[
    (&[1, 2, 10, 34, 40, 44, 45, 49], "waits", waits::waits),
    (&[26, 27], "impossible plays", sessions::impossible_plays),
    (&[46], "sudden ends", sessions::sudden_ends),
    (&[48], "closed ports", sessions::closed_ports),
];

/// Groups that are many inputs by themselves, one after the other.
const ONCE: &[Group] = &[
    (&[], "a thousand guesses", logins::a_thousand_guesses),
    (&[24], "random walks", sessions::random_walks),
    (&[42, 41], "packets of strangers", packets::packets_of_strangers),
    (&[45], "one address alone", crowds::one_address_alone),
    (&[45], "idle crowds", crowds::idle_crowds),
    (&[45], "connect flood", crowds::connect_flood),
];

/// Rows that no peer can try here, or not alone, and the tests that do.
const NAMED: &[(u8, &str, &str)] = &[
    (
        28,
        "tests/hardship/hostile/bitstreams.rs",
        "four_who_play_while_the_camera_starts_are_all_served",
    ),
    (32, "tests/rtsp/sessions.rs", "session_ids_are_random_and_never_come_twice"),
    (39, "src/auth/digest.rs", "a_nonce_lives_five_minutes_or_as_long_as_its_connection"),
    (48, "tests/hardship/hostile/waits.rs", "a_viewer_who_vanishes"),
    (
        54,
        "tests/hardship/hostile/configuration.rs",
        "files_that_are_no_configuration_are_refused_in_one_line",
    ),
    (
        57,
        "tests/hardship/hostile/configuration.rs",
        "files_that_are_no_configuration_are_refused_in_one_line",
    ),
    (58, "tests/hardship/hostile/bitstreams.rs", "damaged_files_are_refused_in_words_or_played"),
    (
        59,
        "tests/hardship/hostile/bitstreams.rs",
        "a_unit_at_the_limit_of_a_packet_is_never_a_fragment_of_one",
    ),
    (59, "src/rtp/packetizer/tests.rs", "every_length_survives_the_round_trip"),
    (
        60,
        "src/rtp/packetizer/tests.rs",
        "timestamps_follow_the_capture_and_never_stand_still_or_go_back",
    ),
    (61, "src/rtp/packetizer/tests.rs", "the_sequence_goes_on_across_access_units_and_its_wrap"),
    (61, "src/time.rs", "a_second_is_90_000_ticks_across_the_wrap"),
];

/// Rows that nobody tries, and why.
const UNTRIED: &[(u8, &str)] =
    &[(62, "names are announced by the firmware alone, which has a card and a network of its own")];

#[test]
fn all_that_peers_send_costs_viewers_no_packet() {
    let ground = Ground::open();
    let mut inputs = 0;
    thread::scope(|scope| {
        let vanished = scope.spawn(|| waits::a_viewer_who_vanishes(&ground));
        let memory = (0..rounds()).map(|round| {
            inputs += ground.withstands("a round", |it| one_round(it, round)).inputs;
            ground.usage().anonymous_kib
        });
        let memory: Vec<u64> = memory.collect();
        // The first rounds make what is kept, as the list of those who guessed.
        let (middle, last) = (memory[memory.len() / 2], memory[memory.len() - 1]);
        assert!(last < middle + GROWTH_MAX_KIB, "{memory:?} KiB");
        inputs += ground.withstands("what takes its time", |it| at_once(it, SLOW)).inputs;
        for (_, name, group) in ONCE {
            inputs += ground.withstands(name, group).inputs;
        }
        inputs += vanished.join().unwrap().inputs;
    });
    eprintln!("{inputs} hostile inputs in {} rounds", rounds());
    ground.judge();
}

fn one_round(ground: &Ground, round: u32) -> Harm {
    let requests = || Harm { inputs: requests::send_all(ground, round), sessions: 0 };
    thread::scope(|scope| {
        let requests = scope.spawn(requests);
        at_once(ground, REPEATED) + requests.join().unwrap()
    })
}

fn at_once(ground: &Ground, groups: &[Group]) -> Harm {
    thread::scope(|scope| {
        let groups: Vec<_> =
            groups.iter().map(|(_, _, group)| scope.spawn(move || group(ground))).collect();
        groups.into_iter().fold(Harm::default(), |sum, group| sum + group.join().unwrap())
    })
}

fn rounds() -> u32 {
    std::env::var("OCELLUS_ROUNDS").map_or(3, |rounds| rounds.parse().unwrap())
}

#[test]
fn every_row_is_tried_or_named() {
    let groups =
        [REPEATED, SLOW, ONCE].concat().into_iter().flat_map(|(rows, ..)| rows.iter().copied());
    let nobody = peer::Stranger::nobody(Ipv4Addr::LOCALHOST);
    let table = requests::inputs(&nobody).into_iter().map(|input| input.row);
    let named = NAMED.iter().map(|(row, ..)| *row).chain(UNTRIED.iter().map(|(row, _)| *row));
    let tried: BTreeSet<u8> = groups.chain(table).chain(named).collect();
    assert_eq!(tried, (1..=ROWS).collect());
    for (row, file, test) in NAMED {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        assert!(text.contains(&format!("fn {test}(")), "row {row}: {test} is not in {file}");
    }
}

/// Of HOSTILE, section 1.
const ROWS: u8 = 62;
/// What an allocator keeps for itself; a leak of a hundred bytes per input would be more.
const GROWTH_MAX_KIB: u64 = 128;
