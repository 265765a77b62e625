//! Who guesses is slow, whatever he does, and who knows the password gets in beside him.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::ground::{Ground, Harm};
use super::peer::{Cut, Peer, Stranger};
use super::web;
use crate::camera::credentials;
use crate::digest::Credentials;

/// Row 39: nonces of others, and of nobody.
pub(super) fn nonces(ground: &Ground) -> Harm {
    let (who, neighbour) = (ground.stranger(), ground.stranger());
    let describe = |who: &Stranger| who.connect().ask(who, "DESCRIBE", &who.url("main"), "");
    for _ in 0..3 {
        assert_eq!(describe(&who).status(), 200, "a nonce is good for all of its address");
    }
    let long = "0".repeat(7_000);
    for nonce in [neighbour.nonce(), "", "0", "00000000000000000000000000000000", "\u{fffd}", &long]
    {
        let reply = describe(&who.with_nonce(nonce));
        assert_eq!(reply.status(), 401, "{nonce}");
        assert!(reply.all("WWW-Authenticate").all(|it| it.contains("stale=TRUE")), "{reply:?}");
    }
    // Credentials as they were heard, for another request than they were made for.
    let heard = String::from_utf8(who.request("DESCRIBE", &who.url("main"), "")).unwrap();
    let replayed = heard.replacen("DESCRIBE", "TEARDOWN", 1);
    let mut peer = who.connect();
    assert!(peer.send(replayed.as_bytes(), Cut::Whole));
    assert_eq!(peer.reply().unwrap().status(), 401);
    Harm { inputs: 10, sessions: 0 }
}

/// A thousand wrong passwords from the address of the two viewers, over RTSP and HTTP, by guessers
/// who wait for the answer and by those who do not.
pub(super) fn a_thousand_guesses(ground: &Ground) -> Harm {
    let guesses = Guesses::new(ground);
    let before = ground.usage();
    let began = Instant::now();
    let newcomers = thread::scope(|scope| {
        for number in 0..RTSP_GUESSERS + WEB_GUESSERS {
            let guesses = &guesses;
            scope.spawn(move || guesses.guess(number));
        }
        let mut newcomers = Vec::new();
        while !guesses.are_over() {
            newcomers.push(guesses.arrive());
            thread::park_timeout(Duration::from_millis(500));
        }
        newcomers
    });
    let took = began.elapsed();
    let [answered, unanswered] =
        [&guesses.answered, &guesses.unanswered].map(|count| count.load(Ordering::Relaxed));
    let slowest = newcomers.iter().max().unwrap();
    eprintln!(
        "{GUESSES} wrong passwords in {took:.1?}: {answered} were answered, none with 200; {} who \
         knew it came in meanwhile, the slowest in {slowest:.2?}",
        newcomers.len()
    );
    assert_eq!(answered + unanswered, GUESSES);
    // Ten at once on either port; then whoever waits, waits five seconds for each.
    let rounds = usize::try_from(took.as_secs() / 5 + 1).unwrap();
    let answered_max = 2 * FREE + (PATIENT_RTSP + PATIENT_WEB) * rounds;
    assert!(answered <= answered_max, "{answered} answers in {took:?}");
    assert!(newcomers.len() >= 2 && *slowest <= NEWCOMER_MAX, "{newcomers:?}");
    let grown = ground.usage().anonymous_kib.saturating_sub(before.anonymous_kib);
    assert!(grown < 1_024, "{grown} KiB for guesses");
    Harm { inputs: GUESSES, sessions: newcomers.len() }
}

struct Guesses<'a> {
    ground: &'a Ground,
    who: Stranger,
    begun: AtomicUsize,
    answered: AtomicUsize,
    unanswered: AtomicUsize,
}

impl<'a> Guesses<'a> {
    fn new(ground: &'a Ground) -> Self {
        Self {
            ground,
            // The address of those who watch.
            who: Stranger::meet(ground.rtsp, Ipv4Addr::LOCALHOST),
            begun: AtomicUsize::new(0),
            answered: AtomicUsize::new(0),
            unanswered: AtomicUsize::new(0),
        }
    }

    fn are_over(&self) -> bool {
        self.begun.load(Ordering::Relaxed) >= GUESSES
    }

    /// One guesser; the first ones wait for their answers, the others soon hang up.
    fn guess(&self, number: usize) {
        let is_web = number >= RTSP_GUESSERS;
        let is_patient =
            if is_web { number < RTSP_GUESSERS + PATIENT_WEB } else { number < PATIENT_RTSP };
        let patience = if is_patient { Duration::from_secs(20) } else { IMPATIENT };
        loop {
            let guess = self.begun.fetch_add(1, Ordering::Relaxed);
            if guess >= GUESSES {
                return;
            }
            let wrong = Credentials { password: format!("guess-{guess}"), ..credentials() };
            let status =
                if is_web { self.ask_web(&wrong, patience) } else { self.ask(&wrong, patience) };
            match status {
                Some(status) => {
                    assert_eq!(status, 401, "guess {guess}");
                    self.answered.fetch_add(1, Ordering::Relaxed);
                }
                None => {
                    self.unanswered.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    fn ask(&self, account: &Credentials, patience: Duration) -> Option<u16> {
        let bytes = self.who.request_of(account, "DESCRIBE", &self.who.url("main"), "");
        Self::answer(self.who.connect(), &bytes, patience)
    }

    fn ask_web(&self, account: &Credentials, patience: Duration) -> Option<u16> {
        let line = "GET /metrics";
        let login = web::login(self.ground.http, self.who.from, account, line);
        let bytes = format!("{line} HTTP/1.1\r\nHost: camera\r\n{login}\r\n");
        Self::answer(Peer::connect(self.ground.http, self.who.from), bytes.as_bytes(), patience)
    }

    /// The status of the answer, if it comes in time; if not, the guesser hangs up.
    fn answer(mut peer: Peer, bytes: &[u8], patience: Duration) -> Option<u16> {
        let is_sent = peer.send(bytes, Cut::Whole);
        let status = is_sent.then(|| peer.status_within(patience)).flatten();
        peer.reset();
        status
    }

    /// Somebody at the same address with the right password: how long until he sees pictures.
    fn arrive(&self) -> Duration {
        let began = Instant::now();
        let mut peer = self.who.connect();
        peer.watch(&self.who, "RTP/AVP/TCP;unicast;interleaved=0-1");
        let took = began.elapsed();
        let line = "GET /metrics";
        let login = web::login(self.ground.http, self.who.from, &credentials(), line);
        let request =
            format!("{line} HTTP/1.1\r\nHost: camera\r\nConnection: close\r\n{login}\r\n");
        let answer = web::persist(self.ground.http, self.who.from, request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        took
    }
}

const GUESSES: usize = 1_000;
/// With two viewers and one who arrives, one less than an address may have.
const RTSP_GUESSERS: usize = 12;
const PATIENT_RTSP: usize = 4;
/// An address has eight, and those of guessers who hung up count until that is noticed.
const WEB_GUESSERS: usize = 3;
const PATIENT_WEB: usize = 1;
const IMPATIENT: Duration = Duration::from_millis(150);
/// What is answered at once.
const FREE: usize = 10;
/// Two turns behind everybody else who waits, and the next IDR picture.
const NEWCOMER_MAX: Duration = Duration::from_secs(8);
