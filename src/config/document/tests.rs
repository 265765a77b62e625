use super::*;
use crate::config::{Encoder, Format, Role, Size, Source, StreamName};

const REFERENCE: &str = include_str!("../../../rootfs-overlay/etc/ocellus.json");

fn error(text: &str) -> String {
    Config::from_json(text).expect_err(text).to_string()
}

fn user(name: &str) -> String {
    format!(r#"{{ "name": "{name}", "role": "viewer", "password": "p" }}"#)
}

#[test]
fn the_reference_file_is_the_defaults() {
    assert_eq!(Config::from_json(REFERENCE).unwrap(), Config::default());
    assert_eq!(Config::default().to_json(), REFERENCE);
}

#[test]
fn every_key_may_be_left_out() {
    assert_eq!(Config::from_json("{}").unwrap(), Config::default());
    let text = r#"{ "camera": {}, "streams": [{ "name": "main" }], "rtsp": {}, "http": {}, "network": {}, "time": {} }"#;
    assert_eq!(Config::from_json(text).unwrap(), Config::default());
    assert!(Config::default().users.is_empty(), "there is no default account");
    assert!(Config::default().auth);
}

#[test]
fn everything_that_is_set_survives_the_way_to_text_and_back() {
    let text = r#"{
        "name": "Haustür \"links\"",
        "camera": { "source": "v4l2:/dev/video2", "format": "MJPG", "rotate": 180, "mirror": true,
                    "controls": { "brightness": -3, "gain": 200 }, "overlay": { "time": true },
                    "masks": [{ "x": 0, "y": 12.5, "width": 33.3, "height": 10 }],
                    "motion": { "enabled": true, "min_duration_s": 0.5, "cool_down_s": 30, "zones":
                      [{ "name": "door", "x": 1, "y": 2, "width": 3, "height": 4, "sensitivity": 9 }] } },
        "streams": [{ "name": "main", "width": 640, "height": 480, "fps": 15, "bitrate_kbps": 500, "gop_s": 2,
                      "encoder": "m2m:/dev/video11", "utc_sei": true },
                    { "name": "sub", "width": 320, "height": 240 }],
        "rtsp": { "listen": ["127.0.0.1:554", "[::1]:0"], "udp_ports": "9000-9001", "packet_size": 1200,
                  "max_viewers": 3, "max_per_address": 2 },
        "http": { "listen": [] },
        "auth": true,
        "users": [{ "name": "admin", "role": "admin", "password": "pässwörd \" \n" },
                  { "name": "nvr", "role": "viewer", "password": "x" }],
        "network": { "hostname": "front-door", "dhcp": false },
        "time": { "ntp": ["ntp.example.org", "2001:db8::1"], "zone": "EST5EDT,M3.2.0,M11.1.0" } }"#;
    let config = Config::from_json(text).unwrap();
    assert_eq!(config.name, "Haustür \"links\"");
    assert_eq!(config.camera.source, Source::V4l2("/dev/video2".into()));
    let size = Size { width: 640, height: 480 };
    let encoder = Encoder::M2m(Some("/dev/video11".into()));
    let (name, utc_sei) = (StreamName::Main, true);
    let main = Stream { name, size, fps: 15, bitrate_kbps: 500, gop_s: 2.0, encoder, utc_sei };
    let size = Size { width: 320, height: 240 };
    assert_eq!(config.streams, [main, Stream { size, ..Stream::new(StreamName::Sub) }]);
    assert_eq!(config.camera.format, Format::FourCc(*b"MJPG"));
    assert_eq!((config.camera.rotate, config.camera.mirror), (180, true));
    assert_eq!(config.camera.controls["brightness"], -3);
    assert!(config.camera.overlay.time && !config.camera.overlay.name);
    assert_eq!((config.camera.masks.len(), config.camera.motion.zones.len()), (1, 1));
    assert_eq!(config.time.zone.to_string(), "EST5EDT,M3.2.0,M11.1.0");
    assert_eq!(config.rtsp.udp_ports.rtcp(), 9001);
    assert_eq!(config.users[0].password.reveal(), "pässwörd \" \n");
    assert_eq!((config.users[0].role, config.users[1].role), (Role::Admin, Role::Viewer));
    assert!(!config.network.dhcp);
    assert_eq!(Config::from_json(&config.to_json()).unwrap(), config);
}

#[test]
fn an_unknown_key_is_named_with_its_path_and_the_nearest_known_key() {
    let cases = [
        (r#"{ "nmae": "x" }"#, "nmae: unknown key; the nearest known key is name"),
        (r#"{ "Streams": [] }"#, "Streams: unknown key; the nearest known key is streams"),
        (
            r#"{ "rtsp": { "udp_port": 1 } }"#,
            "rtsp.udp_port: unknown key; the nearest known key is rtsp.udp_ports",
        ),
        (
            r#"{ "streams": [{ "name": "main", "bitrate": 1 }] }"#,
            "streams[0].bitrate: unknown key; the nearest known key is streams[0].bitrate_kbps",
        ),
        (
            r#"{ "users": [{ "pasword": "geheim" }] }"#,
            "users[0].pasword: unknown key; the nearest known key is users[0].password",
        ),
        (
            r#"{ "camera": { "rotation": 180 } }"#,
            "camera.rotation: unknown key; the nearest known key is camera.rotate",
        ),
        (
            r#"{ "time": { "timezone": "UTC" } }"#,
            "time.timezone: unknown key; the nearest known key is time.zone",
        ),
    ];
    for (text, message) in cases {
        assert_eq!(error(text), message);
    }
}

#[test]
fn a_wrong_number_is_named_with_its_path_and_the_range() {
    let fps = "a whole number from 1 to 60";
    let side = "an even number from 32 to 3840";
    for (key, value, allowed) in [
        ("fps", "61", fps),
        ("fps", "0", fps),
        ("fps", "29.97", fps),
        ("fps", "4294967326", fps),
        ("fps", r#""30""#, fps),
        ("fps", "null", fps),
        ("width", "1281", side),
        ("width", "30", side),
        ("height", "4098", side),
        ("height", "-2", side),
        ("gop_s", "0", "a number from 0.1 to 60"),
        ("gop_s", "60.1", "a number from 0.1 to 60"),
        ("bitrate_kbps", "15", "a whole number from 16 to 50000"),
        ("bitrate_kbps", "50001", "a whole number from 16 to 50000"),
    ] {
        let text = format!(r#"{{ "streams": [{{ "name": "main", "{key}": {value} }}] }}"#);
        let message = format!("streams[0].{key}: {value} is not allowed; allowed is {allowed}");
        assert_eq!(error(&text), message);
    }
}

#[test]
fn a_wrong_value_is_named_with_its_path_and_what_is_allowed() {
    let names = r#"allowed is "main" or "sub""#;
    let cases = [
        (r#"{ "streams": [{ "name": "third" }] }"#, r#"streams[0].name: "third" is not"#, names),
        (r#"{ "streams": [] }"#, "streams: an empty list is not", "a list of \"main\""),
        (r#"{ "streams": {} }"#, "streams: an object is not", "a list, in brackets"),
        (
            r#"{ "camera": { "source": "v4l2:video0" } }"#,
            r#"camera.source: "v4l2:video0" is not"#,
            "auto, pattern, v4l2:/dev/videoN or file:CLIP.h264",
        ),
        (r#"{ "camera": "auto" }"#, r#"camera: "auto" is not"#, "an object, in braces"),
        (r#"{ "auth": 1 }"#, "auth: 1 is not", "true or false"),
        ("[]", "the document: a list is not", "an object, in braces"),
        (r#"{ "name": "a\tb" }"#, r#"name: "a\tb" is not"#, "none of them a control character"),
        (
            r#"{ "rtsp": { "udp_ports": 8000 } }"#,
            "rtsp.udp_ports: 8000 is not",
            r#"a text: an even port and the next one, like "8000-8001""#,
        ),
        (r#"{ "rtsp": { "listen": [] } }"#, "rtsp.listen: a list of 0 is not", "1 to 8 addresses"),
        (r#"{ "rtsp": { "listen": ["x"] } }"#, r#"rtsp.listen[0]: "x" is not"#, "ADDRESS:PORT"),
        (r#"{ "rtsp": { "packet_size": 1461 } }"#, "rtsp.packet_size: 1461 is", "256 to 1460"),
        (r#"{ "rtsp": { "max_viewers": 0 } }"#, "rtsp.max_viewers: 0 is not", "from 1 to 1024"),
        (
            r#"{ "http": { "listen": ["[::]:8554"] } }"#,
            r#"http.listen[0]: "[::]:8554" is not"#,
            "an address that nothing listens on yet",
        ),
        (
            r#"{ "http": { "listen": ["[::]:80", "[::1]:0", "[::1]:0", "[::]:80"] } }"#,
            r#"http.listen[3]: "[::]:80" is not"#,
            "an address that nothing listens on yet",
        ),
        (r#"{ "http": { "listen": ["off"] } }"#, r#"http.listen[0]: "off" is not"#, "ADDRESS:PORT"),
        (r#"{ "network": { "hostname": "-x" } }"#, r#"network.hostname: "-x" is not"#, "hyphen"),
        (r#"{ "time": { "ntp": ["a b"] } }"#, r#"time.ntp[0]: "a b" is not"#, "a host name"),
        (r#"{ "time": { "ntp": "x" } }"#, r#"time.ntp: "x" is not"#, "a list, in brackets"),
        (
            r#"{ "time": { "ntp": ["a", "b", "c", "d", "e"] } }"#,
            "time.ntp: a list of 5 is not",
            "at most 4",
        ),
    ];
    for (text, start, allowed) in cases {
        let message = error(text);
        assert!(message.starts_with(start), "{message}");
        assert!(message.contains(allowed), "{message}");
    }
    assert_eq!(
        error(r#"{ "streams": [{}] }"#),
        r#"streams[0].name: missing; required is "main" or "sub""#
    );
}

#[test]
fn what_is_there_twice_is_refused() {
    let twice = r#"{ "streams": [{ "name": "main" }, { "name": "main" }] }"#;
    assert_eq!(
        error(twice),
        "streams[1].name: \"main\" is not allowed; allowed is a name that no other stream has"
    );
    let users = format!(r#"{{ "users": [{}, {}] }}"#, user("nvr"), user("nvr"));
    assert_eq!(
        error(&users),
        "users[1].name: \"nvr\" is not allowed; allowed is a name that no other user has"
    );
    let listen = r#"{ "rtsp": { "listen": ["[::]:554", "[::]:554"] } }"#;
    assert_eq!(
        error(listen),
        "rtsp.listen[1]: \"[::]:554\" is not allowed; allowed is an address that is not in the list yet"
    );
    let keys = r#"{ "users": [],
  "users": [] }"#;
    assert!(
        error(keys).starts_with("not JSON: the key \"users\" is there twice at line 2"),
        "{}",
        error(keys)
    );
    Config::from_json(r#"{ "rtsp": { "listen": ["[::1]:0", "[::1]:0"] } }"#).unwrap();
}

#[test]
fn a_sub_stream_is_small_unless_it_says_so_and_never_above_main() {
    let sub = |main: &str, sub: &str| {
        let text =
            format!(r#"{{ "streams": [{{ "name": "main"{main} }}, {{ "name": "sub"{sub} }}] }}"#);
        Config::from_json(&text).map(|config| config.streams[1].clone()).map_err(|e| e.to_string())
    };
    let small = sub("", "").unwrap();
    assert_eq!(small.size, Size { width: 640, height: 360 });
    assert_eq!((small.fps, small.bitrate_kbps, small.gop_s), (10, 300, 1.0));
    let as_main = r#", "width": 1280, "height": 720, "fps": 30, "bitrate_kbps": 9000"#;
    assert_eq!(sub("", as_main).unwrap().fps, 30);
    for (main, keys, message) in [
        (
            "",
            r#", "width": 1282"#,
            "streams[1].width: 1282 is not allowed; allowed is at most 1280, as main has",
        ),
        (
            "",
            r#", "height": 722"#,
            "streams[1].height: 722 is not allowed; allowed is at most 720, as main has",
        ),
        (
            "",
            r#", "fps": 31"#,
            "streams[1].fps: 31 is not allowed; allowed is at most 30, as main has",
        ),
        (
            r#", "fps": 5"#,
            "",
            "streams[1].fps: 10 is not allowed; allowed is at most 5, as main has",
        ),
    ] {
        assert_eq!(sub(main, keys).unwrap_err(), message);
    }
    for streams in [r#"{ "name": "sub" }"#, r#"{ "name": "sub" }, { "name": "main" }"#] {
        assert_eq!(
            error(&format!(r#"{{ "streams": [{streams}] }}"#)),
            "streams[0].name: \"sub\" is not allowed; allowed is \"main\": it is required and comes first"
        );
    }
}

#[test]
fn encoders_and_time_zones_are_checked() {
    for (text, start) in [
        (
            r#"{ "streams": [{ "name": "main", "encoder": "x264" }] }"#,
            r#"streams[0].encoder: "x264" is not allowed; allowed is auto, openh264, m2m or"#,
        ),
        (
            r#"{ "streams": [{ "name": "main", "utc_sei": 1 }] }"#,
            "streams[0].utc_sei: 1 is not allowed; allowed is true or false",
        ),
        (
            r#"{ "time": { "zone": "Europe/Berlin" } }"#,
            r#"time.zone: "Europe/Berlin" is not allowed; allowed is UTC, or a rule for TZ"#,
        ),
        (
            r#"{ "camera": { "overlay": { "date": true } } }"#,
            "camera.overlay.date: unknown key; the nearest known key is camera.overlay.",
        ),
        (r#"{ "camera": { "overlay": { "time": 1 } } }"#, "camera.overlay.time: 1 is not"),
    ] {
        assert!(error(text).starts_with(start), "{}", error(text));
    }
}

#[test]
fn sizes_that_no_level_allows_are_refused_together() {
    let text = r#"{ "streams": [{ "name": "main", "width": 3840, "height": 3840 }] }"#;
    assert!(error(text).starts_with("streams[0]: 3840x3840 is not allowed"), "{}", error(text));
}

#[test]
fn without_passwords_only_loopback_is_allowed() {
    for (listen, fine) in [
        (r#""127.0.0.1:8554", "[::1]:8554", "127.9.9.9:0", "[::ffff:127.0.0.1]:1""#, true),
        (r#""[::]:8554""#, false),
        (r#""127.0.0.1:8554", "0.0.0.0:8555""#, false),
        (r#""192.168.0.1:8554""#, false),
    ] {
        let [rtsp, http] = [listen, "\"127.0.0.1:0\""];
        for [rtsp, http] in [[rtsp, http], [http, &listen.replace("8554", "8080")], [rtsp, ""]] {
            let text = format!(
                r#"{{ "auth": false, "rtsp": {{ "listen": [{rtsp}] }},
                      "http": {{ "listen": [{http}] }} }}"#
            );
            let outcome = Config::from_json(&text);
            assert_eq!(outcome.is_ok(), fine, "{text}");
            if let Err(error) = outcome {
                assert!(matches!(error, Error::OpenToStrangers { .. }), "{error}");
            }
        }
    }
    assert!(matches!(
        Config::from_json(r#"{ "auth": false }"#),
        Err(Error::OpenToStrangers { .. })
    ));
}

#[test]
fn no_message_shows_a_password() {
    let secret = "tr0ub4dor";
    let texts = [
        format!(r#"{{ "users": ["{secret}"] }}"#),
        format!(r#"{{ "users": "{secret}" }}"#),
        format!(r#"{{ "users": {{ "admin": "{secret}" }} }}"#),
        format!(
            r#"{{ "users": [{{ "name": "admin", "role": "admin", "password": ["{secret}"] }}] }}"#
        ),
        format!(
            r#"{{ "users": [{{ "name": "a", "role": "admin", "password": "{}" }}] }}"#,
            secret.repeat(30)
        ),
        format!(r#"{{ "users": [{{ "name": "a", "role": "root", "password": "{secret}" }}] }}"#),
        format!(r#"{{ "users": [{{ "name": "a", "role": "admin", "password": "{secret}" "#),
    ];
    for text in texts {
        let error = Config::from_json(&text).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(secret), "{error:?}");
    }
    let text =
        format!(r#"{{ "users": [{{ "name": "a", "role": "admin", "password": "{secret}" }}] }}"#);
    let config = Config::from_json(&text).unwrap();
    assert!(!format!("{config:?}").contains(secret));
    assert!(config.to_json().contains(secret), "it has to be saved somewhere");
}

#[test]
fn names_that_digest_cannot_carry_are_refused() {
    for name in ["", "a:b", "a\\\"b", "a\\\\b", "a\\nb", &"x".repeat(65)] {
        let text = format!(r#"{{ "users": [{}] }}"#, user(name));
        assert!(error(&text).starts_with("users[0].name:"), "{name:?}: {}", error(&text));
    }
    let text = format!(r#"{{ "users": [{}] }}"#, user("Jürgen O'Neill"));
    assert_eq!(Config::from_json(&text).unwrap().users[0].name, "Jürgen O'Neill");
}

#[test]
fn what_a_power_cut_leaves_is_an_error_and_never_a_panic() {
    for end in 0..REFERENCE.trim_end().len() {
        assert!(error(&REFERENCE[..end]).starts_with("not JSON"), "cut at {end}");
    }
    assert!(error(&"\0".repeat(100)).starts_with("not JSON"));
    assert!(error(&"[".repeat(10_000)).starts_with("not JSON"));
    assert!(error(&" ".repeat(MAX_LEN + 1)).contains("too long"));
    let padded = format!("{}{{}}", " ".repeat(MAX_LEN - 2));
    Config::from_json(&padded).unwrap();
}
