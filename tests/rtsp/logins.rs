//! Who gets in, who does not, and how slowly.

use std::collections::BTreeSet;
use std::time::Duration;

use ocellus::rtsp::{ConnectionId, Event, Settings};

use crate::camera::{Camera, LOCAL, digest, nonce, settings, status};

#[test]
fn authorization_headers_from_hell_let_nobody_in() {
    for (name, value, expected) in [
        ("500 users", format!("Digest {}", "username=\"a\",".repeat(500)), 400),
        ("Basic", "Basic YWRtaW46c2VjcmV0".into(), 401),
        ("Basic without colon", "Basic YWRtaW4=".into(), 401),
        ("bad base64", "Basic !!!".into(), 401),
        ("nothing", String::new(), 401),
        ("no parameters", "Digest".into(), 401),
        ("unclosed quote", "Digest username=\"admin".into(), 400),
        ("two headers", "Digest a=b\r\nAuthorization: Digest a=b".into(), 400),
        ("NUL", "Digest username=\"a\0b\"".into(), 400),
    ] {
        let mut camera = Camera::new(settings());
        let id = camera.connect("192.0.2.7:40000");
        let request =
            format!("PLAY rtsp://cam/ RTSP/1.0\r\nCSeq: 1\r\nAuthorization: {value}\r\n\r\n");
        assert_eq!(camera.status(id, &request), expected, "{name}");
    }
}

#[test]
fn without_users_nobody_gets_in_and_no_path_is_told() {
    for users in [settings().users, Vec::new()] {
        let has_users = !users.is_empty();
        let mut camera = Camera::new(Settings { users, ..settings() });
        camera.sets();
        let id = camera.connect("192.0.2.7:40000");
        let mut last = String::new();
        for (path, found) in [("main", 200), ("nowhere", 404), ("", 200)] {
            let url = format!("rtsp://cam/{path}");
            last = camera.ask(id, &format!("DESCRIBE {url} RTSP/1.0\r\nCSeq: 1\r\n\r\n"));
            assert_eq!(status(&last), 401);
            for (user, right) in
                [(("admin", "secret"), true), (("admin", ""), false), (("", ""), false)]
            {
                let line = digest(user, &nonce(&last), "DESCRIBE", &url);
                let expected = if right && has_users { found } else { 401 };
                let text = format!("DESCRIBE {url} RTSP/1.0\r\nCSeq: 1\r\n{line}\r\n\r\n");
                assert_eq!(camera.status(id, &text), expected);
            }
        }
        assert!(!last.is_empty());
    }
}

#[test]
fn wrong_passwords_leave_the_connection_open_and_others_alone() {
    let mut camera = Camera::new(settings());
    camera.sets();
    let id = camera.connect("192.0.2.7:40000");
    let mut challenge = camera.ask(id, "DESCRIBE rtsp://cam/main RTSP/1.0\r\nCSeq: 1\r\n\r\n");
    let try_it = |password, challenge: &str| {
        let line = digest(("admin", password), &nonce(challenge), "DESCRIBE", "rtsp://cam/main");
        format!("DESCRIBE rtsp://cam/main RTSP/1.0\r\nCSeq: 1\r\n{line}\r\n\r\n")
    };
    let begin = camera.now;
    for _ in 0..200 {
        camera.send(id, try_it("guess", &challenge).as_bytes());
        while camera.output.is_empty() {
            camera.pass(Duration::from_millis(250));
        }
        challenge = camera.read(id);
        assert_eq!(status(&challenge), 401);
        assert!(!challenge.contains("stale"));
    }
    assert!(camera.now.since(begin) >= Duration::from_secs(190 * 5));
    camera.pass(Duration::from_millis(250));
    assert_eq!(camera.status(id, &try_it("secret", &challenge)), 200);
}

#[test]
fn a_guesser_who_hangs_up_early_learns_no_more_than_four_verdicts_a_second() {
    let mut camera = Camera::new(Settings { max_per_address: 4, ..settings() });
    let id = camera.connect("192.0.2.7:40000");
    let challenge = camera.ask(id, "PLAY rtsp://cam/main RTSP/1.0\r\nCSeq: 1\r\n\r\n");
    camera.disconnect(id);
    let guess = |password: &str| {
        let line = digest(("admin", password), &nonce(&challenge), "PLAY", "rtsp://cam/main");
        format!("PLAY rtsp://cam/main RTSP/1.0\r\nCSeq: 1\r\n{line}\r\n\r\n")
    };
    for _ in 0..11 {
        let id = camera.connect("192.0.2.7:40000");
        camera.send(id, guess("guess").as_bytes());
        camera.disconnect(id);
    }
    let mut verdicts = 0;
    for _ in 0..100 {
        // 100 guesses with the right password within 100 ms: none is told.
        let id = camera.connect("192.0.2.7:40000");
        camera.send(id, guess("secret").as_bytes());
        camera.pass(Duration::from_millis(1));
        verdicts += usize::from(!camera.read(id).is_empty());
        camera.disconnect(id);
    }
    assert_eq!(verdicts, 0);
}

#[test]
fn right_credentials_let_nobody_in_when_they_come_twice() {
    let mut camera = Camera::new(settings());
    camera.sets();
    let id = camera.connect("192.0.2.7:40000");
    let head = "DESCRIBE rtsp://cam/main RTSP/1.0\r\nCSeq: 1\r\n";
    let nonce = nonce(&camera.ask(id, &format!("{head}\r\n")));
    let line = digest(("admin", "secret"), &nonce, "DESCRIBE", "rtsp://cam/main");
    assert_eq!(camera.status(id, &format!("{head}{line}\r\n{line}\r\n\r\n")), 400);
    assert_eq!(camera.status(id, &format!("{head}{line}\r\n\r\n")), 200);
}

#[test]
fn guesses_on_every_connection_of_an_address_do_not_keep_its_owner_out() {
    // With more than twenty there is a turn for one of them whenever there is one.
    for max_per_address in [16, 30] {
        let settings = Settings { max_per_address, ..settings() };
        guess_on_every_connection(Camera::new(settings), max_per_address);
    }
}

fn guess_on_every_connection(mut camera: Camera, count: usize) {
    camera.sets();
    let first = camera.connect("192.0.2.7:40000");
    let challenge = camera.ask(first, "DESCRIBE rtsp://cam/main RTSP/1.0\r\nCSeq: 1\r\n\r\n");
    let try_it = |password| {
        let line = digest(("admin", password), &nonce(&challenge), "DESCRIBE", "rtsp://cam/main");
        format!("DESCRIBE rtsp://cam/main RTSP/1.0\r\nCSeq: 1\r\n{line}\r\n\r\n")
    };
    let mut guessers = BTreeSet::new();
    let dial = |camera: &mut Camera, guessers: &mut BTreeSet<ConnectionId>| {
        let peer = "192.0.2.7:40000".parse().unwrap();
        let id = camera.server.accept(camera.now, peer, LOCAL.parse().unwrap()).ok()?;
        camera.drain();
        for event in std::mem::take(&mut camera.events) {
            let Event::Close { connection } = event else { panic!("{event:?}") };
            assert_ne!(connection, id);
            guessers.remove(&connection);
            camera.disconnect(connection);
        }
        Some(id)
    };
    // They never hang up, and guess again when they are answered.
    let guess = |camera: &mut Camera, guessers: &mut BTreeSet<ConnectionId>| {
        for id in guessers.clone() {
            if !camera.read(id).is_empty() {
                camera.send(id, try_it("guess").as_bytes());
            }
        }
        while guessers.len() < count - 1 {
            let Some(id) = dial(camera, guessers) else { return };
            guessers.insert(id);
            camera.send(id, try_it("guess").as_bytes());
        }
    };
    // Within the five minutes that a nonce is good for.
    for _ in 0..25 {
        guess(&mut camera, &mut guessers);
        // Behind all others, four a second, and then some.
        let latest = camera.now + Duration::from_secs(10);
        let id = loop {
            match dial(&mut camera, &mut guessers) {
                Some(id) => break id,
                None => camera.pass(Duration::from_millis(100)),
            }
            assert!(camera.now <= latest, "refused for 10 s");
        };
        camera.send(id, try_it("secret").as_bytes());
        let mut answer = camera.read(id);
        while answer.is_empty() {
            camera.pass(Duration::from_millis(100));
            answer = camera.read(id);
            guess(&mut camera, &mut guessers);
            assert!(camera.now <= latest, "unanswered for 10 s");
        }
        assert_eq!(status(&answer), 200, "{answer}");
        camera.disconnect(id);
    }
}
