//! Camera, router and players on one clock; one seed decides everything.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use ocellus::auth::{Role, User};
use ocellus::rtsp::{self, Multicast, Stream};
use ocellus::serve::{Settings, StreamSettings};
use ocellus::stats::Viewer;
use ocellus::time::{Instant, NtpTimestamp};

use super::camera::{self, Camera, RTP_PORT};
use super::client::{GROUP, GROUP_PORT, Habits, Kind};
use super::dialogue::REALM;
use super::encoder::Encoder;
use super::player::Player;
use super::router::{Link, Router};
use super::stack::Stack;
use super::tap::{Note, Tap};
use super::truth::{Checked, Rule, Truth, broken, hold};
use crate::hub::Random;

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) camera: Camera,
    pub(crate) encoder: Encoder,
    pub(crate) router: Router,
    pub(crate) players: Vec<Player>,
    truth: Truth,
    tap: Tap,
    /// What the wall clock is ahead of where it began.
    pub(crate) wall_offset_micros: i64,
    /// When pictures did not come as they should, or not at once.
    disturbed: Instant,
    next_look: Instant,
    rows: Vec<Viewer>,
}

/// The limits of the camera, and what its packets are like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) max_viewers: usize,
    pub(crate) max_per_address: usize,
    pub(crate) packet_len: usize,
    /// Bytes that may wait in one of the camera's sockets.
    pub(crate) send_len: usize,
}

pub(crate) const SHAPE: Shape =
    Shape { max_viewers: 64, max_per_address: 16, packet_len: 700, send_len: 16_384 };

impl World {
    pub(crate) fn new(seed: u64, shape: Shape) -> Self {
        let mut random = Random(seed);
        let now = Instant::from_micros(1_000_000_000 + random.below(1 << 40));
        let settings = settings(&mut random, shape);
        let StreamSettings { ssrc, timestamp_offset, .. } = settings.streams[0];
        let (encoder, units) = Encoder::new(now, shape.packet_len, random.next());
        let stack = Stack::new(now, camera::ADDRESS, 1_500, random.next());
        let requests = std::sync::Arc::clone(&encoder.requests);
        let camera = Camera::new(settings, stack, units, requests, shape.send_len);
        let mut router = Router::new(random.next());
        router.attach(camera::ADDRESS, Link::good(Duration::from_micros(200)));
        Self {
            now,
            camera,
            encoder,
            router,
            players: Vec::new(),
            truth: Truth::new(ssrc, timestamp_offset),
            tap: Tap::default(),
            wall_offset_micros: 0,
            disturbed: Instant::ZERO,
            next_look: now,
            rows: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, kind: Kind, habits: Habits, link: Link, seed: u64) {
        let number = u8::try_from(self.players.len() + 1).unwrap();
        let player = Player::new(self.now, number, (kind, habits), seed);
        self.router.attach(player.address, link);
        self.players.push(player);
    }

    /// How many packets went by UDP.
    pub(crate) const fn datagrams(&self) -> u64 {
        self.tap.datagrams
    }

    pub(crate) fn wall(&self) -> NtpTimestamp {
        let start = NtpTimestamp::from_unix(Duration::from_secs(1_800_000_000));
        let micros = i64::try_from(self.now.as_micros()).unwrap();
        start.offset_by_micros(micros + self.wall_offset_micros)
    }

    /// Pictures will not come as they should for a while.
    pub(crate) const fn disturb(&mut self) {
        self.disturbed = self.now;
    }

    pub(crate) fn run_for(&mut self, span: Duration) -> Checked<()> {
        let end = self.now + span;
        let mut turns = 0;
        loop {
            let players = self.players.iter().filter_map(Player::poll_timeout).min();
            let due = [
                self.router.poll_timeout(),
                self.encoder.poll_timeout(),
                self.camera.poll_timeout(),
                players,
                Some(self.next_look),
            ];
            let next = due.into_iter().flatten().min();
            let Some(next) = next.filter(|&next| next <= end) else { break };
            turns = if next > self.now { 0 } else { turns + 1 };
            hold(turns < 1_000, Rule::Standstill, || format!("{due:?} at {:?}", self.now))?;
            self.now = self.now.max(next);
            self.step()?;
        }
        self.now = end;
        Ok(())
    }

    fn step(&mut self) -> Checked<()> {
        let now = self.now;
        let mut is_touched = 0_u64;
        while let Some((to, packet)) = self.router.poll_arrived(now) {
            is_touched |= 1 << to;
            if to > 0 {
                self.players[to - 1].stack.arrived(packet);
                continue;
            }
            let unreachable = self.tap.incoming(now, &packet);
            self.camera.stack.arrived(packet);
            if let Some(address) = unreachable {
                let wall = self.wall();
                self.camera.hub.unreachable(now, wall, address);
            }
        }
        if self.encoder.handle_timeout(now, &mut self.truth)? {
            is_touched |= 1;
        }
        if is_touched & 1 != 0 || is_due(self.camera.poll_timeout(), now) {
            self.turn_camera()?;
        }
        for index in 0..self.players.len() {
            if is_touched >> (index + 1) & 1 != 0 || is_due(self.players[index].poll_timeout(), now)
            {
                self.turn_player(index)?;
            }
        }
        if self.next_look <= now {
            self.next_look = now + Duration::from_secs(1);
            self.look()?;
        }
        Ok(())
    }

    fn turn_camera(&mut self) -> Checked<()> {
        let is_steady = self.is_steady(Duration::from_secs(30));
        let age_max = self.encoder.gop * 2 + Duration::from_millis(500);
        self.camera.age_max = if is_steady { age_max } else { Duration::MAX };
        let wall = self.wall();
        self.camera.turn(self.now, wall)?;
        while let Some(packet) = self.camera.stack.poll_transmit() {
            self.tap.outgoing(self.now, &self.truth, &packet)?;
            self.router.send(self.now, 0, packet);
        }
        Ok(())
    }

    fn turn_player(&mut self, index: usize) -> Checked<()> {
        let is_steady = self.is_steady(Duration::from_secs(5));
        let player = &mut self.players[index];
        if let Some(client) = player.client_mut() {
            client.is_steady = is_steady;
        }
        let mut notes: Vec<Note> = Vec::new();
        let result = player.turn(self.now, &self.truth, &mut notes);
        for note in &notes {
            self.tap.note(self.now, note)?;
        }
        if let Err(violation) = result {
            let (number, kind, what) = (index + 1, player.kind, violation.what);
            let what = format!("player {number} ({kind:?}) at {:?}: {what}", self.now);
            return broken(violation.rule, what);
        }
        while let Some(packet) = player.stack.poll_transmit() {
            self.router.send(self.now, index + 1, packet);
        }
        Ok(())
    }

    /// Whether pictures have come as they should for this long.
    fn is_steady(&self, span: Duration) -> bool {
        self.now.since(self.disturbed.max(self.encoder.disturbed)) > span
    }

    /// Once a second: what the camera says of its viewers.
    fn look(&mut self) -> Checked<()> {
        self.camera.hub.viewers(self.now, &mut self.rows);
        let peers: BTreeSet<SocketAddr> = self.rows.iter().map(|row| row.peer).collect();
        hold(peers.len() == self.rows.len(), Rule::Back, || "counted twice".to_owned())?;
        hold(self.camera.stats.images_exhausted.get() == 0, Rule::Queue, || {
            "viewers hold every image there is".to_owned()
        })?;
        for row in &self.rows {
            self.tap.check_stream(self.now, row.peer)?;
        }
        Ok(())
    }

    /// Whether the camera counts this player among its viewers.
    pub(crate) fn is_counted(&mut self, index: usize) -> bool {
        self.camera.hub.viewers(self.now, &mut self.rows);
        let peer = self.players[index].peer();
        peer.is_some_and(|peer| self.rows.iter().any(|row| row.peer == peer))
    }
}

fn is_due(due: Option<Instant>, now: Instant) -> bool {
    due.is_some_and(|due| due <= now)
}

fn settings(random: &mut Random, shape: Shape) -> Settings {
    let ssrc = u32::try_from(random.below(1 << 32)).unwrap();
    let user = |name: &str, password: &str, role| User {
        name: name.to_owned(),
        password: password.to_owned(),
        role,
    };
    let multicast = Multicast {
        ipv4: Some(GROUP),
        ipv6: None,
        port: GROUP_PORT,
        ttl: 1,
        is_source_specific: false,
    };
    let stream = Stream {
        paths: vec!["main".to_owned()],
        name: "sim".to_owned(),
        ssrc,
        bandwidth_kbps: 500,
        fps: 10.0,
        multicast: Some(multicast),
    };
    let rtsp = rtsp::Settings {
        realm: REALM.to_owned(),
        users: vec![user(ADMIN.0, ADMIN.1, Role::Admin), user(VIEWER.0, VIEWER.1, Role::Viewer)],
        no_auth: false,
        streams: vec![stream],
        server_ports: (RTP_PORT, RTP_PORT + 1),
        max_viewers: shape.max_viewers,
        max_per_address: shape.max_per_address,
    };
    let stream = StreamSettings {
        ssrc,
        // Near the wrap more often than not.
        first_sequence: u16::MAX - u16::try_from(random.below(2_000)).unwrap(),
        timestamp_offset: u32::MAX - u32::try_from(random.below(1 << 32)).unwrap(),
        packet_len_max: shape.packet_len,
    };
    let entropy = [7; 32];
    Settings { rtsp, streams: vec![stream], cname: "sim".to_owned(), entropy }
}

pub(crate) const ADMIN: (&str, &str) = ("admin", "let me in");
pub(crate) const VIEWER: (&str, &str) = ("viewer", "let me look");
