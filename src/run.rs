//! `ocellus run`: a camera from its configuration to the last signal.

mod encryption;
mod http;
mod multicast;
mod sandbox;
mod source;

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context as _;
use log::{info, warn};
use nix::ifaddrs::getifaddrs;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use ocellus::cli::RunArgs;
use ocellus::config::{self, Config, Password, User};
use ocellus::control::Recent;
use ocellus::produce::{self, Notice};
use ocellus::ring::{self, IdrRequests};
use ocellus::serve::{self, Hub, Inlet, Reactor, Sockets, StreamSettings};
use ocellus::stats::Pipeline;
use ocellus::sys::{Wake, clock, marking, process, tcp};
use ocellus::{auth, encode, rtp, rtsp};

use self::encryption::Encryption;
use self::http::Http;
use self::source::Chosen;
pub(crate) use self::source::describe;
use crate::{Failure, read_config, running};

/// Runs the camera until a signal or a fault.
pub(crate) fn run(args: &RunArgs, log: Arc<Recent>) -> Result<(), Failure> {
    let mut config = args.config.as_deref().map_or_else(|| Ok(Config::default()), read_config)?;
    let given = std::env::var("OCELLUS_PASSWORD").ok();
    let generated = args.apply(&mut config, given.as_deref(), random_password).map_err(usage)?;
    allow_many_descriptors();
    let encryption = Encryption::prepare(&config).map_err(running)?;
    let http = Http::prepare(&config, log);
    sandbox::enter(&config, args.config.as_deref()).map_err(Failure::Usage)?;
    let stop = Arc::new(Wake::new().context("eventfd").map_err(running)?);
    end_on_signals(&stop).map_err(running)?;
    let chosen = source::choose(&config, args).map_err(running)?;
    let (listeners, addresses) = listen(&config).map_err(running)?;
    let encrypted = encryption.map(|it| it.listen(|address| url(Some(address), None)));
    let encrypted = encrypted.transpose().map_err(running)?;
    let http = http.map(|it| it.listen(&config)).transpose().map_err(running)?;
    let others = encrypted.iter().flat_map(|(listeners, _)| listeners);
    others.for_each(|listener| mark(listener, &config));
    let url = url(addresses.first().copied(), generated.as_ref());
    let listening = Listening { listeners, encrypted, http };
    let running_camera = start(&config, chosen, listening, &stop).map_err(running)?;
    running_camera.wait(&url, &stop).map_err(running)
}

/// All that is listened on.
struct Listening {
    listeners: Vec<OwnedFd>,
    encrypted: Option<encryption::Listening>,
    http: Option<http::Listening>,
}

/// A camera whose threads run.
struct Running {
    notices: mpsc::Receiver<Notice>,
    serve: JoinHandle<Result<(), serve::Error>>,
    producers: Vec<JoinHandle<()>>,
    pipeline: Arc<Pipeline>,
    server: Arc<serve::Stats>,
}

fn start(
    config: &Config,
    chosen: Chosen,
    listening: Listening,
    stop: &Arc<Wake>,
) -> anyhow::Result<Running> {
    let stream = config.streams.first().context("streams: none")?;
    let bitrate_bps = stream.bitrate_kbps * 1_000;
    let wake = Arc::new(Wake::new().context("eventfd")?);
    let idr_requests = Arc::new(IdrRequests::default());
    let (pipeline, server) = (Arc::<Pipeline>::default(), Arc::<serve::Stats>::default());
    // A second of video is more than the longest picture.
    let unit_capacity = (bitrate_bps / 8) as usize;
    let (publisher, consumers) = ring::publisher(1, unit_capacity, Arc::clone(&pipeline));

    let (rtp, rtcp, server_ports) = bind_ports(config)?;
    for socket in [&rtp, &rtcp] {
        socket
            .set_multicast(config.rtsp.multicast.ttl)
            .context("multicast TTL (rtsp.multicast)")?;
        mark(socket, config);
    }
    let send_buffer_len = SEND_BUFFER_MIN.max((bitrate_bps / 16) as usize);
    let Listening { listeners, encrypted, http } = listening;
    let sockets = Sockets { listeners, rtp, rtcp, send_buffer_len };
    let fps = chosen.fps.unwrap_or_else(|| f64::from(stream.fps));
    let hub = Hub::new(hub_settings(config, fps, server_ports)?, Arc::clone(&server));
    let inlets = consumers
        .into_iter()
        .map(|units| Inlet { units, idr_requests: Arc::clone(&idr_requests) })
        .collect();
    let (reactor_stop, stats) = (Arc::clone(stop), Arc::clone(&server));
    let reactor = Reactor::new(hub, sockets, inlets, Arc::clone(&wake), reactor_stop, stats)?;
    let heartbeat = process::inherited_pipe(HEARTBEAT_VARIABLE).context(HEARTBEAT_VARIABLE)?;
    let mut reactor = reactor.with_heartbeat(heartbeat);
    if let Some((listeners, tls)) = encrypted {
        reactor = reactor.with_tls(listeners, tls)?;
    }
    if let Some(http) = http {
        let known = (config, &pipeline, &server);
        reactor = http.start(reactor, known, send_buffer_len)?;
    }
    let ending = Arc::clone(stop);
    let serve = thread::Builder::new().name("serve".into()).spawn(move || {
        let done = reactor.run();
        // Without a server there is no camera.
        ending.wake();
        done
    });

    let (notices_in, notices) = mpsc::channel();
    let shared = produce::Shared {
        publisher,
        idr_requests,
        stats: Arc::clone(&pipeline),
        wake,
        stop: Arc::clone(stop),
        notices: notices_in,
    };
    let settings = encode::Settings {
        fps,
        bitrate_bps,
        gop: Duration::from_secs_f64(stream.gop_s),
        colour: ocellus::frame::Colour::default(),
    };
    let Chosen { source, reopen, .. } = chosen;
    let producers = produce::start(source, reopen, settings, shared).context("threads")?;
    Ok(Running { notices, serve: serve.context("threads")?, producers, pipeline, server })
}

impl Running {
    /// Prints the URL when the stream is ready, and the counters once a minute, to the end.
    fn wait(self, url: &str, stop: &Wake) -> anyhow::Result<()> {
        let failure = loop {
            match self.notices.recv_timeout(REPORT_INTERVAL) {
                Ok(Notice::Ready) => self.say_ready(url),
                Ok(Notice::Failed(error)) => break Some(error),
                Err(mpsc::RecvTimeoutError::Timeout) => self.report("stats"),
                // All producers have ended: because they were told to.
                Err(mpsc::RecvTimeoutError::Disconnected) => break None,
            }
        };
        stop.wake();
        for thread in self.producers {
            // A panic would have aborted the process.
            let _ = thread.join();
        }
        if let Ok(done) = self.serve.join() {
            done?;
        }
        info!("produce: done {}", self.pipeline);
        info!("serve: done {}", self.server);
        failure.map_or(Ok(()), |error| Err(error.into()))
    }

    fn say_ready(&self, url: &str) {
        let since_init = std::env::var("OCELLUS_PID1_START_US").ok().and_then(|us| us.parse().ok());
        match since_init {
            Some(start) => {
                let millis = (clock::now().as_micros().saturating_sub(start)) / 1_000;
                info!("produce: first access unit after_pid1_ms={millis}");
            }
            None => info!("produce: first access unit"),
        }
        if let Err(error) = writeln!(std::io::stdout(), "{url}") {
            // Nobody reads the URL; somebody may still know it.
            warn!("run: cannot print the URL reason=\"{error}\"");
        }
    }

    fn report(&self, event: &str) {
        info!("produce: {event} {}", self.pipeline);
        info!("serve: {event} {}", self.server);
    }
}

/// Blocks the signals in all threads to come; one thread waits for them.
fn end_on_signals(stop: &Arc<Wake>) -> anyhow::Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block().context("sigmask")?;
    let stop = Arc::clone(stop);
    let wait = move || {
        if let Ok(signal) = signals.wait() {
            info!("run: ending signal={signal}");
            stop.wake();
        }
        // The second one does not wait for anybody.
        if signals.wait().is_ok() {
            std::process::exit(1);
        }
    };
    thread::Builder::new().name("signals".into()).spawn(wait).context("threads")?;
    Ok(())
}

/// A thousand viewers need more descriptors than the usual soft limit; the hard one stays.
fn allow_many_descriptors() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(errno) = raised {
        warn!("run: the limit of descriptors stays as it is reason=\"{}\"", errno.desc());
    }
}

fn listen(config: &Config) -> anyhow::Result<(Vec<OwnedFd>, Vec<SocketAddr>)> {
    let mut listeners = Vec::new();
    let mut addresses = Vec::new();
    for &address in &config.rtsp.listen {
        let why = || format!("cannot listen on {address} (rtsp.listen, --rtsp)");
        let listener = tcp::listen(address).with_context(why)?;
        addresses.push(tcp::local_address(&listener).with_context(why)?);
        mark(&listener, config);
        listeners.push(listener);
    }
    info!("serve: listening rtsp={addresses:?}");
    Ok((listeners, addresses))
}

/// Marks what leaves a socket for routers and access points on the way.
fn mark(socket: impl AsFd, config: &Config) {
    if let Err(errno) = marking::mark(socket, config.rtsp.dscp) {
        // A worse queue is no reason to show nothing.
        warn!("serve: packets are not marked (rtsp.dscp) reason=\"{}\"", errno.desc());
    }
}

/// The fixed RTP and RTCP sockets; the default pair may move when somebody has it.
fn bind_ports(config: &Config) -> anyhow::Result<serve::Ports> {
    let wanted = config.rtsp.udp_ports;
    let may_move = wanted == config::Rtsp::default().udp_ports;
    serve::bind_ports(wanted.rtp(), may_move)
        .with_context(|| format!("cannot use the UDP ports {wanted} (rtsp.udp_ports)"))
}

fn hub_settings(
    config: &Config,
    fps: f64,
    server_ports: (u16, u16),
) -> anyhow::Result<serve::Settings> {
    let (mut rtsp_streams, mut streams) = (Vec::new(), Vec::new());
    for (index, stream) in config.streams.iter().enumerate() {
        let ssrc = u32::from_ne_bytes(random()?);
        rtsp_streams.push(rtsp::Stream {
            paths: MAIN_PATHS.map(str::to_owned).to_vec(),
            name: config.name.clone(),
            ssrc,
            bandwidth_kbps: rtp::session_bandwidth_kbps(
                stream.bitrate_kbps,
                fps,
                config.rtsp.packet_size,
            ),
            fps,
            multicast: multicast::of(config, index),
        });
        streams.push(StreamSettings {
            ssrc,
            first_sequence: u16::from_ne_bytes(random()?),
            timestamp_offset: u32::from_ne_bytes(random()?),
            packet_len_max: config.rtsp.packet_size as usize,
        });
    }
    let rtsp = rtsp::Settings {
        realm: REALM.into(),
        users: config.users.iter().map(known_user).collect(),
        no_auth: !config.auth,
        streams: rtsp_streams,
        server_ports,
        max_viewers: config.rtsp.max_viewers as usize,
        max_per_address: config.rtsp.max_per_address as usize,
    };
    let cname: [u8; 8] = random()?;
    let cname = cname.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(serve::Settings { rtsp, streams, cname, entropy: random()? })
}

fn known_user(user: &User) -> auth::User {
    let role = match user.role {
        config::Role::Admin => auth::Role::Admin,
        config::Role::Viewer => auth::Role::Viewer,
    };
    auth::User { name: user.name.clone(), password: user.password.reveal().to_owned(), role }
}

/// The URL of the main stream; with name and password only when nobody else knows them.
fn url(address: Option<SocketAddr>, generated: Option<&User>) -> String {
    let address = address.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 554)));
    let ip = if address.ip().is_unspecified() { own_address() } else { address.ip() };
    let host = SocketAddr::new(ip, address.port());
    let account = generated
        .map(|user| format!("{}:{}@", user.name, user.password.reveal()))
        .unwrap_or_default();
    format!("rtsp://{account}{host}/{}", MAIN_PATHS[0])
}

/// The first address that others can reach this machine by.
fn own_address() -> IpAddr {
    let addresses = getifaddrs().into_iter().flatten().filter_map(|interface| interface.address);
    let mut addresses = addresses.filter_map(|address| tcp::std_address(&address));
    let outside = addresses.find(|address| address.is_ipv4() && !address.ip().is_loopback());
    outside.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip())
}

/// 96 random bits in characters that need no escaping in a URL.
fn random_password() -> Password {
    use base64::Engine as _;
    let bytes: [u8; 12] = random().unwrap_or_else(|error| {
        // Without randomness no secret can be kept, and none may be pretended.
        log::error!("run: {error:#}");
        std::process::exit(1)
    });
    let text = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    text.parse().expect("16 characters are a password")
}

fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).context("the kernel's random numbers")?;
    Ok(bytes)
}

fn usage(error: config::Error) -> Failure {
    Failure::Usage(error.into())
}

/// Part of every stored password hash: never to be changed.
const REALM: &str = "ocellus";
/// Number of the pipe's descriptor that process 1 wants a beat on.
const HEARTBEAT_VARIABLE: &str = "OCELLUS_HEARTBEAT_FD";
/// The main stream's paths, the canonical one first.
const MAIN_PATHS: [&str; 3] = ["main", "", "stream1"];
/// Half a second of 2 Mbit/s.
const SEND_BUFFER_MIN: usize = 128 << 10;
const REPORT_INTERVAL: Duration = Duration::from_secs(60);
