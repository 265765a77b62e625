//! What each stage of a picture's way takes, with everything switched on.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::load::Load;
use crate::pause;
use crate::report::Report;
use crate::server::Server;
use crate::session::{Dialogue, Session, Transport};

/// Main at 720p30 and sub at 360p10, both watched, with text, motion and a snapshot every second.
pub(crate) fn measure(report: &mut Report, time: Duration) {
    let http = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let server = Server::start_configured(CONFIG, &["--http", &http.to_string()]);
    let open = |path| Session::open_path(server.address(), Transport::Tcp, Dialogue::Rtsp, path);
    let load = Load::start(vec![open("main"), open("sub")], Duration::ZERO);
    assert!(load.all_joined(Duration::from_secs(10)), "a viewer got no picture");
    let started = Instant::now();
    let mut snapshots = 0;
    while started.elapsed() < time {
        pause(Duration::from_secs(1));
        snapshots += usize::from(snapshot(http).starts_with(b"\xff\xd8"));
    }
    load.stop();
    let log = server.stop();
    let mut sums = [0.0; 2];
    for stream in ["main", "sub"] {
        let begin = format!("produce: done stream={stream} ");
        let line = log.lines().rfind(|line| line.contains(&begin)).unwrap_or_default();
        for stage in ["convert", "scale", "overlay", "motion", "encode"] {
            let Some((_, rest)) = line.split_once(&format!(" {stage}_us=[")) else { continue };
            let figures = rest.split(']').next().unwrap_or_default();
            let figure = |name: &str| -> f64 {
                let word = figures.split(' ').find_map(|word| word.strip_prefix(name));
                word.and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
            };
            let (mean, count) = (figure("mean="), figure("n="));
            sums[usize::from(stage == "encode")] += mean * count;
            let what = format!("720p30 with everything on, {stream}: {stage}, µs per picture");
            report.row(&what, &format!("mean {mean:.0}, {figures}"));
        }
    }
    let [others, encoders] = sums;
    let measured =
        format!("{:.1} % of the encoders' time ({snapshots} snapshots)", 100.0 * others / encoders);
    report.row("the same: everything but the encoders", &measured);
}

/// The body of the answer.
fn snapshot(http: SocketAddr) -> Vec<u8> {
    let mut connection = TcpStream::connect(http).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    write!(connection, "GET /snapshot.jpg HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    let _ = connection.read_to_end(&mut answer);
    let body = answer.windows(4).position(|end| end == b"\r\n\r\n").map_or(0, |at| at + 4);
    answer.split_off(body)
}

const CONFIG: &str = r#"
"camera": { "source": "pattern", "overlay": { "time": true, "name": true },
            "motion": { "enabled": true } },
"streams": [ { "name": "main", "width": 1280, "height": 720, "fps": 30, "bitrate_kbps": 2000 },
             { "name": "sub", "width": 640, "height": 360, "fps": 10, "bitrate_kbps": 300 } ],
"#;
