//! The camera shut in, as the firmware starts it: players must not notice, and intruders must.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::camera::{Camera, credentials};
use crate::client::Lower;
use crate::players::play_all;
use crate::process::{self, Finished};
use crate::{relay, retina_client, rtsps, web};

/// A folder that goes when the test does.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ocellus-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path.canonicalize().unwrap())
    }

    /// Puts a configuration into it that plays `source`.
    fn configure(&self, source: &str) -> PathBuf {
        let file = self.0.join("ocellus.json");
        let identity = self.0.join("identity.pem");
        let text = format!(
            r#"{{ "camera": {{ "source": "{source}" }},
                 "rtsp": {{ "tls": {{ "certificate": {identity:?}, "key": {identity:?} }} }},
                 "streams": [ {{ "name": "main", "width": 640, "height": 360, "fps": 30 }} ] }}"#
        );
        fs::write(&file, text).unwrap();
        file
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn sandboxed(config: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ocellus"));
    let listen = ["--rtsp", "127.0.0.1:0", "--http", "127.0.0.1:0"];
    command.arg("run").args(listen).args(["--user", "admin", "--config"]);
    command
        .arg(config)
        .args(["--rtsps", "127.0.0.1:0"])
        .env("OCELLUS_PASSWORD", &credentials().password);
    command.env("RUST_LOG", "info").env("OCELLUS_SANDBOX", "1");
    command
}

/// The value of a field of proc(5)'s status for each thread.
fn of_each_thread(pid: u32, field: &str) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(Result::unwrap);
    let status = threads.map(|thread| fs::read_to_string(thread.path().join("status")).unwrap());
    let value = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.unwrap().trim().to_owned()
    };
    status.map(value).collect()
}

#[test]
fn players_do_not_notice_the_sandbox_and_no_thread_is_outside() {
    let folder = Folder::new("sandboxed");
    let camera = Camera::spawn(&mut sandboxed(&folder.configure("pattern")));
    let pid = camera.pid();
    let log = camera.log();
    assert!(log.contains("run: sandbox") && log.contains("calls=true"), "{log}");
    let modes = of_each_thread(pid, "Seccomp");
    assert!(modes.len() >= 5 && modes.iter().all(|mode| mode == "2"), "{modes:?}");
    assert!(of_each_thread(pid, "NoNewPrivs").iter().all(|is_set| is_set == "1"));
    play_all(&camera);
    web::is_well(&camera);
    // Made before the door was shut.
    let identity = folder.0.join("identity.pem");
    let url = relay::decrypted(&rtsps::urls(&camera.log())[0], &identity);
    retina_client::decodes(&url, Lower::Tcp, 75);
    let (status, took, _) = camera.stop();
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn a_clip_beside_the_configuration_plays_and_one_elsewhere_is_an_error_in_words() {
    let clip = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/clip-320x240.h264");
    let folder = Folder::new("clips");
    let inside = folder.0.join("clip.h264");
    fs::copy(clip, &inside).unwrap();
    let config = folder.configure(&format!("file:{}", inside.display()));
    drop(Camera::spawn(&mut sandboxed(&config)));

    let config = folder.configure(&format!("file:{clip}"));
    let run: Finished = process::run(&mut sandboxed(&config), Duration::from_secs(10));
    assert_eq!(run.status.and_then(|status| status.code()), Some(2), "{run:?}");
    for word in ["camera.source", clip, folder.0.to_str().unwrap()] {
        assert!(run.stderr.contains(word), "no {word}: {}", run.stderr);
    }
}
