//! Every fault of HOSTILE, section 2: which tests inject it, or why none does.

use std::fs;
use std::path::Path;

/// A row of the table, and what became of it.
enum Row {
    /// Names of tests, functions of the tests in guests and of scripts.
    Injected(&'static str, &'static [&'static str]),
    NotYet(&'static str, &'static str),
}

use Row::{Injected, NotYet};

const ROWS: [Row; 23] = [
    Injected(
        "camera unplugged",
        &[
            "viewers_of_a_lost_camera_get_no_signal_and_then_its_pictures_again",
            "a_coded_camera_that_is_lost_is_stood_in_for_at_its_own_size",
            "a_thousand_losses_and_returns_leave_no_descriptor_and_no_thread_behind",
            "replugged_camera_streams_again_within_two_seconds",
            "failing_again_and_again_leaves_nothing_behind",
        ],
    ),
    Injected(
        "camera stalls",
        &[
            "a_camera_that_says_nothing_at_all_is_opened_again_within_two_seconds",
            "a_driver_that_does_not_answer_costs_a_thread_and_no_session",
            "silent_camera_is_no_signal_until_it_says_something_again",
        ],
    ),
    Injected(
        "encoder stalls, fails or gives nothing",
        &[
            "hardware_that_fails_is_replaced_with_the_next_picture_and_tried_ever_more_seldom",
            "stalled",
            "gone",
        ],
    ),
    Injected(
        "encoder leaves pictures out",
        &["a_picture_that_does_not_fit_at_the_greatest_qp_is_left_out"],
    ),
    Injected(
        "slow viewer, zero window",
        &["a_viewer_who_stops_reading_is_dropped_and_fifteen_others_lose_nothing"],
    ),
    Injected(
        "half-open TCP",
        &[
            "viewers_who_vanish_without_a_word_are_let_go_and_others_do_not_notice",
            "a_connection_whose_other_end_is_gone_is_found",
        ],
    ),
    Injected(
        "UDP loss, duplicates, reordering, delay",
        &[
            "a_viewer_behind_a_lossy_way_misses_what_it_lost_and_nobody_else_anything",
            "bad_network_is_felt_by_those_behind_it_and_in_the_network_only",
            "whatever_happens_everybody_watches_again",
        ],
    ),
    Injected(
        "wall clock steps",
        &[
            "wall_clock_steps_are_not_to_be_seen_in_a_running_session",
            "a_large_step_is_not_followed_by_a_running_session",
            "a_small_step_is_slewed_at_500_ppm",
            "whatever_happens_everybody_watches_again",
        ],
    ),
    Injected(
        "counters wrap: 49.7 days, 2^31 s, 2038, RTP",
        &[
            "a_second_is_a_second_at_every_wrap_of_every_counter",
            "timers_and_packets_do_not_notice_how_long_the_machine_is_up",
            "ntp_times_of_both_eras_lead_back_to_unix_times",
        ],
    ),
    Injected(
        "disk full",
        &[
            "a_full_disk_leaves_no_half_of_an_identity_and_the_next_start_makes_it",
            "a_log_that_finds_no_room_costs_nobody_a_picture",
        ],
    ),
    Injected(
        "disk read-only",
        &["a_disk_that_can_only_be_read_is_told_at_the_start_and_not_missed_later"],
    ),
    NotYet("disk slow, EIO", "nothing is written while it runs: the image test counts 0 writes"),
    NotYet("recorder stops and resumes", "there is no recorder"),
    Injected("power cut while a configuration is written", &["scripts/powercut"]),
    NotYet("power cut during an update", "there are no updates"),
    Injected(
        "no memory",
        &[
            "memory_that_is_not_there_costs_newcomers_and_not_the_stream",
            "with_little_memory_left_those_who_watch_go_on_watching",
        ],
    ),
    Injected(
        "no descriptors",
        &[
            "without_descriptors_newcomers_wait_and_viewers_lose_nothing",
            "descriptors_that_are_taken_away_while_it_runs_are_not_missed",
        ],
    ),
    Injected(
        "no threads",
        &[
            "without_threads_it_does_not_start_and_a_running_camera_needs_none",
            "without_a_further_task_everything_goes_on",
        ],
    ),
    Injected(
        "floods of connections and of logins",
        &[
            "all_that_peers_send_costs_viewers_no_packet",
            "a_burst_of_connections_finds_room_while_the_camera_is_busy",
            "guesses_on_every_connection_of_an_address_do_not_keep_its_owner_out",
            "wrong_passwords_leave_the_connection_open_and_others_alone",
            "a_guesser_who_hangs_up_early_learns_no_more_than_four_verdicts_a_second",
            "idle_strangers_make_room_and_viewers_play_on",
        ],
    ),
    Injected(
        "processor wanted by others, or slow",
        &[
            "others_who_want_the_processor_too_cost_pictures_at_most_and_no_latency",
            "a_processor_of_a_quarter_the_speed_costs_pictures_and_no_latency",
            "starved_of_the_processor_by_others_nothing_gets_old",
            "with_less_processor_time_there_are_fewer_pictures_and_none_is_old",
            "a_board_that_is_too_slow_steps_down_once_and_up_again_when_it_can",
        ],
    ),
    Injected(
        "interface down and up, another address, IPv6 only",
        &[
            "a_link_that_goes_and_comes_back_keeps_its_sessions_and_another_address_takes_new_ones",
            "ffmpeg_and_gstreamer_decode_through_http_over_both_families",
            "a_network_that_is_renumbered_gives_a_new_address_at_the_next_renewal",
        ],
    ),
    Injected(
        "signals, stopped and killed; outputs that nobody reads",
        &[
            "a_camera_that_was_stopped_goes_on_and_its_timestamps_are_those_of_the_captures",
            "a_player_that_was_stopped_for_a_while_shows_every_picture_and_nobody_else_notices",
            "a_camera_that_was_killed_is_there_again_within_a_second_on_the_same_ports",
            "a_hundred_signals_to_end_are_one_and_viewers_are_told_goodbye",
            "a_hundred_signals_to_read_again_disturb_nobody_nor_does_a_file_that_is_gone",
            "a_log_that_nobody_reads_costs_nobody_a_picture_and_goes_on_when_it_is_read",
            "an_output_that_is_closed_costs_a_warning_a_stream",
        ],
    ),
    Injected("soak", &["viewers_come_and_go_every_second_and_nothing_grows"]),
];

/// The sources below a folder, one after the other.
fn sources(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            sources(&entry.path(), text);
        } else if entry.path().extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(entry.path()).unwrap());
        }
    }
}

#[test]
fn every_row_is_injected_or_named() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut text = String::new();
    ["src", "tests"].into_iter().for_each(|folder| sources(&root.join(folder), &mut text));
    for row in &ROWS {
        match row {
            Injected(fault, by) => {
                assert!(!by.is_empty(), "{fault}: by whom?");
                for name in *by {
                    let is_there = if name.contains('/') {
                        root.join(name).exists()
                    } else {
                        // The checks in guests stand in tables.
                        text.contains(&format!("fn {name}("))
                            || text.contains(&format!("(\"{name}\","))
                    };
                    assert!(is_there, "{fault}: there is no {name}");
                }
            }
            NotYet(fault, why) => assert!(!why.is_empty(), "{fault}: why not?"),
        }
    }
}
