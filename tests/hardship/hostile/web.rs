//! The HTTP port, and HTTP on RTSP's: what is not offered is not there, however it is asked for.

use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use super::ground::{Ground, Harm};
use super::peer::{Cut, LIMIT, Peer, Random};
use crate::camera::credentials;
use crate::digest::{Challenge, Credentials};

/// What one request on a connection of its own is answered, to the end.
pub(super) fn exchange(to: SocketAddr, from: Ipv4Addr, bytes: &[u8]) -> String {
    let mut peer = Peer::connect(to, from);
    peer.send(bytes, Cut::Whole);
    let (answer, _) = peer.read_to_end(2 * LIMIT);
    String::from_utf8_lossy(&answer).into_owned()
}

/// The same by somebody who comes again when there is no room for him: a crowd, or a guesser with
/// his address, may only just have left.
pub(super) fn persist(to: SocketAddr, from: Ipv4Addr, bytes: &[u8]) -> String {
    let asked = Instant::now();
    loop {
        let answer = exchange(to, from, bytes);
        if !answer.is_empty() || asked.elapsed() > LIMIT {
            return answer;
        }
        thread::park_timeout(Duration::from_millis(10));
    }
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// A request whose connection ends with its answer.
fn request(line: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = match body.len() {
        0 => String::new(),
        len => format!("Content-Length: {len}\r\n"),
    };
    let head =
        format!("{line} HTTP/1.1\r\nHost: camera\r\nConnection: close\r\n{length}{headers}\r\n");
    [head.as_bytes(), body].concat()
}

/// The camera is there and well, by its own words.
pub(super) fn is_well(ground: &Ground) {
    let answer = persist(ground.http, ground.address(), &request("GET /healthz", "", b""));
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok\n"), "{answer}");
}

/// An Authorization header for one request, by a challenge of the web side.
pub(super) fn login(to: SocketAddr, from: Ipv4Addr, account: &Credentials, line: &str) -> String {
    let (method, path) = line.split_once(' ').unwrap();
    let challenged = persist(to, from, &request("GET /metrics", "", b""));
    let challenge = challenged.lines().find_map(|line| line.strip_prefix("www-authenticate: "));
    let challenge = Challenge::parse(challenge.unwrap()).unwrap();
    format!("Authorization: {}\r\n", challenge.answer(account, method, path))
}

/// What is asked of the web side, and what it has to answer.
type Asked = (u8, &'static str, Vec<u8>, u16);

/// Rows 52 to 56 and what else there is to say to a web server.
pub(super) fn requests(ground: &Ground) -> Harm {
    let from = ground.address();
    let asked =
        [envelopes(), bypasses(), commands(ground), environments(), images(), framing()].concat();
    for (row, name, bytes, expected) in &asked {
        let answer = exchange(ground.http, from, bytes);
        // An answer ahead of a long body may go with the reset that the rest of it earns.
        let is_lost = answer.is_empty() && bytes.len() > 16 << 10;
        assert!(status(&answer) == *expected || is_lost, "row {row}, {name}: {answer}");
        assert!(!answer.contains("root:"), "row {row}, {name}: a file: {answer}");
    }
    assert!(!std::path::Path::new(CANARY).exists(), "a shell has run");
    Harm { inputs: asked.len(), sessions: 0 }
}

/// Row 52: there is no ONVIF on this port, so that nothing of it is parsed.
fn envelopes() -> Vec<Asked> {
    let soap = |body: &str| {
        let head = "Content-Type: application/soap+xml; charset=utf-8\r\n";
        request("POST /onvif/device_service", head, body.as_bytes())
    };
    let entities = (1..10).fold(String::from("<!ENTITY e0 \"ha\">"), |text, n| {
        format!("{text}<!ENTITY e{n} \"{}\">", format!("&e{};", n - 1).repeat(10))
    });
    let bomb = format!("<?xml version=\"1.0\"?><!DOCTYPE e [{entities}]><e>&e9;</e>");
    let external = "<!DOCTYPE e [<!ENTITY x SYSTEM \"file:///etc/passwd\">]><e>&x;</e>";
    let old = "<s:Envelope><s:Header><wsse:Security><wsse:Nonce>AAAA</wsse:Nonce><wsu:Created>\
               1970-01-01T00:00:00Z</wsu:Created></wsse:Security></s:Header></s:Envelope>";
    let huge_nonce = old.replace("AAAA", &"A".repeat(100_000));
    let not_utf8 =
        [&request("POST /onvif/device_service", "Content-Length: 3\r\n", b"")[..], b"<\xc3\xff"];
    vec![
        (52, "an XML bomb", soap(&bomb), 404),
        (52, "an external entity", soap(external), 404),
        (52, "10 MB of SOAP", soap(&"<e/>".repeat(2_500_000)), 404),
        (52, "1,000 deep", soap(&"<e>".repeat(1_000)), 404),
        (52, "an old login", soap(old), 404),
        (52, "a nonce of 100 kB", soap(&huge_nonce), 404),
        (52, "not UTF-8", not_utf8.concat(), 404),
    ]
}

/// Row 53: nothing but a password lets anybody in.
fn bypasses() -> Vec<Asked> {
    let get = |path: &str, headers: &str| request(&format!("GET {path}"), headers, b"");
    let keyboard =
        br#"{"method":"global.login","params":{"loginType":"Direct","clientType":"NetKeyboard"}}"#;
    let basic = "Authorization: Basic YWRtaW46Y29ycmVjdC1ob3JzZS05\r\n";
    let mut asked = vec![
        (53, "loginType", request("POST /RPC2_Login", "", keyboard), 404),
        (53, "auth in the query", get("/metrics?auth=YWRtaW46MTEK", ""), 401),
        (53, "Basic with the right password", get("/metrics", basic), 401),
        (53, "an encoded path", get("/%6detrics", ""), 404),
        (53, "two slashes", get("//metrics", ""), 404),
        (53, "another host", get("http://127.0.0.1/metrics", ""), 401),
        (53, "HEAD", request("HEAD /log", "", b""), 401),
        (53, "/proc", get("/../../proc/self/environ", ""), 404),
        (
            36,
            "500 user names",
            get("/log", &format!("Authorization: Digest {}\r\n", "username=\"a\", ".repeat(500))),
            400,
        ),
        (37, "NUL", get("/log", "Authorization: Digest username=\"a\0\"\r\n"), 400),
    ];
    for path in ["/metrics", "/log", "/snapshot.jpg", "/api/streams"] {
        for headers in [
            "X-Forwarded-For: 127.0.0.1\r\n",
            "Cookie: admin=1; session=0\r\n",
            "X-Original-URL: /healthz\r\n",
            "Authorization: Digest username=\"\", response=\"\"\r\n",
        ] {
            let status = if headers.starts_with("Auth") { 400 } else { 401 };
            asked.push((53, "a header that is no login", get(path, headers), status));
        }
    }
    asked
}

/// Row 54: no shell reads what the admin himself sends, be it as a value or as a name.
fn commands(ground: &Ground) -> Vec<Asked> {
    let commands = [
        format!("$(touch {CANARY})"),
        format!("`touch {CANARY}`"),
        format!("x; touch {CANARY} #"),
        format!("x | touch {CANARY}"),
        format!("'\\n touch {CANARY}"),
    ];
    let from = ground.address();
    let patch = |target: &str, body: &str| {
        let login = login(ground.http, from, &credentials(), &format!("PATCH {target}"));
        let headers = format!("Content-Type: application/json\r\n{login}");
        request(&format!("PATCH {target}"), &headers, body.as_bytes())
    };
    let mut asked = Vec::new();
    let encoded = |text: &str| text.replace(' ', "%20").replace(['`', '\'', '\\', '|', '#'], "%60");
    for command in &commands {
        let target = format!("/language?lang={}", encoded(command));
        asked.push((54, "in a query", request(&format!("GET {target}"), "", b""), 404));
        let body = format!("{{ \"fps\": {command:?} }}");
        assert_eq!(status(&exchange(ground.http, from, &patch("/api/streams/main", &body))), 400);
        let target = format!("/api/streams/{}", encoded(command));
        assert_eq!(status(&exchange(ground.http, from, &patch(&target, "{}"))), 404);
    }
    for (body, expected) in [
        ("", 400),
        ("[", 400),
        ("{ \"fps\": 1e999 }", 400),
        ("{ \"fps\": -1 }", 400),
        ("{ \"colour\": 1 }", 400),
        (&"[".repeat(4_000), 400),
        (&format!("{{ \"fps\": \"{}\" }}", "x".repeat(5_000)), 413),
    ] {
        let answer = exchange(ground.http, from, &patch("/api/streams/main", body));
        assert_eq!(status(&answer), expected, "{body:.40}: {answer}");
        assert!(answer.len() < 1_000, "{answer}");
    }
    asked
}

/// Row 55: there are no programs to give an environment to.
fn environments() -> Vec<Asked> {
    let query = "LD_PRELOAD=/proc/self/fd/0&LD_DEBUG=all";
    ["/cgi-bin/param.cgi", "/cgi-bin/env", "/goform/formTest", "/index.cgi"]
        .map(|path| (55, "CGI", request(&format!("POST {path}?{query}"), "", b"\x7fELF"), 404))
        .to_vec()
}

/// Row 56: there is nothing that takes an image, whatever is wrong with it.
fn images() -> Vec<Asked> {
    let mut random = Random(56);
    let header =
        |size: u32| [&b"OCELLUS1"[..], &size.to_be_bytes(), &random.clone().bytes(300)].concat();
    let bodies =
        [b"\x1f\x8b".to_vec(), header(u32::MAX), header(0), random.bytes(200_000), vec![0; 1]];
    let paths =
        ["POST /update", "PUT /firmware", "POST /api/firmware", "POST /cgi-bin/upgrade.cgi"];
    let asked = paths.iter().flat_map(|path| bodies.iter().map(move |body| (path, body)));
    let mut asked: Vec<Asked> =
        asked.map(|(path, body)| (56, "an image", request(path, "", body), 404)).collect();
    asked.push((56, "an image to a page", request("PUT /healthz", "", &bodies[1]), 405));
    asked
}

/// Rows 2 to 9 and 35, as HTTP has them.
fn framing() -> Vec<Asked> {
    let get = "GET /healthz HTTP/1.1\r\nHost: camera\r\n";
    let post = |length: &str| {
        format!("POST /healthz HTTP/1.1\r\nHost: c\r\nContent-Length: {length}\r\n\r\n")
            .into_bytes()
    };
    let options = b"OPTIONS rtsp://camera/main RTSP/1.0\r\nCSeq: 1\r\n\r\n".to_vec();
    let text = |text: String| text.into_bytes();
    vec![
        (2, "TLS ClientHello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), 400),
        (2, "noise", vec![0; 5_000], 400),
        (2, "RTSP", options, 400),
        (3, "URI of 64 kB", text(format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(65_536))), 431),
        (5, "100 headers", text(format!("{get}{}\r\n", "x: y\r\n".repeat(100))), 431),
        (35, "a header of 20 kB", text(format!("{get}x: {}\r\n\r\n", "y".repeat(20_000))), 431),
        (7, "body of -1 bytes", post("-1"), 400),
        (8, "body of 2^64 + 1 bytes", post("18446744073709551617"), 400),
        (9, "two lengths of a body", post("4\r\nContent-Length: 5"), 400),
        (50, "HTTP/9.9", text("GET /healthz HTTP/9.9\r\n\r\n".into()), 400),
    ]
}

/// Row 34: both halves of a tunnel on one connection, on either port.
pub(super) fn one_ended_tunnels(ground: &Ground) -> Harm {
    let from = ground.address();
    let head = |method: &str, cookie: &str| {
        format!("{method} /main HTTP/1.0\r\nx-sessioncookie: {cookie}\r\n\r\n")
    };
    let both = |cookie: &str| head("GET", cookie) + &head("POST", cookie);
    for to in [ground.rtsp, ground.http] {
        let answer = exchange(to, from, both("both").as_bytes());
        assert!(answer.contains("HTTP/1.0 400 "), "{answer}");
        for (bytes, expected) in [
            (head("POST", "nobody"), 404),
            (head("POST", "nobody") + &head("GET", "nobody"), 404),
            (head("GET", ""), 400),
            (head("GET", &"c".repeat(129)), 400),
            (head("GET", "a\r\nx-sessioncookie: b"), 400),
            (head("GET", "a\r\nTransfer-Encoding: chunked"), 400),
        ] {
            assert_eq!(status(&exchange(to, from, bytes.as_bytes())), expected, "{bytes}");
        }
    }
    let mut out = Peer::connect(ground.rtsp, from);
    assert!(out.send(head("GET", "c").as_bytes(), Cut::Whole));
    let not_base64 = head("POST", "c") + "$$$$ OPTIONS * RTSP/1.0\r\n\r\n";
    assert_eq!(exchange(ground.rtsp, from, not_base64.as_bytes()), "");
    let (answer, took) = out.read_to_end(LIMIT);
    assert!(answer.starts_with(b"HTTP/1.0 200 ") && took < Duration::from_secs(4), "{took:?}");
    Harm { inputs: 16, sessions: 0 }
}

/// What a command makes that should not have run.
const CANARY: &str = "/tmp/ocellus-canary";
