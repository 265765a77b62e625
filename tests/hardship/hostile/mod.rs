//! What peers send that broke other cameras: HOSTILE, section 1, row by row.

use crate::client::Lower;
use crate::stand::{self, Usage, Viewer};

#[test]
fn viewers_lose_nothing_while_nothing_happens() {
    let camera = stand::camera(&[]);
    let viewers = [Lower::Tcp, Lower::Udp].map(|lower| Viewer::watch(&camera.url, lower));
    std::thread::park_timeout(std::time::Duration::from_secs(3));
    eprintln!("{:?}", Usage::of(camera.pid()));
    for viewer in viewers {
        assert!(viewer.judge().access_units > 60);
    }
}
