//! `ocellus run`: a camera from its configuration to the last signal.

mod encryption;
mod http;
mod live;
mod multicast;
mod sandbox;
mod source;

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context as _;
use log::{info, warn};
use nix::ifaddrs::getifaddrs;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use ocellus::capture::Source;
use ocellus::cli::RunArgs;
use ocellus::config::{self, Config, Password, User};
use ocellus::control::{Recent, Snapshots};
use ocellus::produce::{self, Control, Notice, Outlet};
use ocellus::ring::{self, IdrRequests};
use ocellus::serve::{self, Hub, Inlet, Reactor, Sockets, StreamSettings};
use ocellus::stats::{Gauge, Motion, Pipeline};
use ocellus::sys::{Wake, clock, marking, process, tcp};
use ocellus::{auth, rtp, rtsp};

use self::encryption::Encryption;
use self::http::Http;
use self::live::Live;
use self::source::Chosen;
pub(crate) use self::source::{describe, describe_as_json};
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
    let signals = Signals { stop, live: Arc::default() };
    act_on_signals(&signals, args.config.is_some()).map_err(running)?;
    let chosen = source::choose(&config, args).map_err(running)?;
    let (listeners, addresses) = listen(&config).map_err(running)?;
    let encrypted = encryption.map(|it| it.listen(|address| Url::new(Some(address), None).main()));
    let encrypted = encrypted.transpose().map_err(running)?;
    let http = http.map(|it| it.listen(&config)).transpose().map_err(running)?;
    let others = encrypted.iter().flat_map(|(listeners, _)| listeners);
    others.for_each(|listener| mark(listener, &config));
    let url = Url::new(addresses.first().copied(), generated.as_ref());
    let listening = Listening { listeners, encrypted, http };
    let camera = start(&config, chosen, listening, &signals, args).map_err(running)?;
    camera.wait(&url, &signals.stop).map_err(running)
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
    /// By the name of their stream.
    pipelines: Vec<(String, Arc<Pipeline>)>,
    server: Arc<serve::Stats>,
}

fn start(
    config: &Config,
    chosen: Chosen,
    listening: Listening,
    signals: &Signals,
    args: &RunArgs,
) -> anyhow::Result<Running> {
    let main = config.streams.first().context("streams: none")?;
    let stop = &signals.stop;
    let wake = Arc::new(Wake::new().context("eventfd")?);
    let server = Arc::<serve::Stats>::default();
    let fps = chosen.fps.unwrap_or_else(|| f64::from(main.fps));
    let streams = streams(config, &chosen.source);
    let (mut outlets, mut inlets, mut pipelines) = (Vec::new(), Vec::new(), Vec::new());
    for stream in streams {
        let (outlet, inlet) = lane(stream);
        pipelines.push((stream.name.to_string(), Arc::clone(&outlet.stats)));
        outlets.push(outlet);
        inlets.push(inlet);
    }

    let (rtp, rtcp, server_ports) = bind_ports(config)?;
    for socket in [&rtp, &rtcp] {
        socket
            .set_multicast(config.rtsp.multicast.ttl)
            .context("multicast TTL (rtsp.multicast)")?;
        mark(socket, config);
    }
    let send_buffer_len = SEND_BUFFER_MIN.max((main.bitrate_kbps * 1_000 / 16) as usize);
    let Listening { listeners, encrypted, http } = listening;
    let sockets = Sockets { listeners, rtp, rtcp, send_buffer_len };
    let hub = Hub::new(hub_settings(config, streams, fps, server_ports)?, Arc::clone(&server));
    let (reactor_stop, stats) = (Arc::clone(stop), Arc::clone(&server));
    let reactor = Reactor::new(hub, sockets, inlets, Arc::clone(&wake), reactor_stop, stats)?;
    let heartbeat = process::inherited_pipe(HEARTBEAT_VARIABLE).context(HEARTBEAT_VARIABLE)?;
    let mut reactor = reactor.with_heartbeat(heartbeat);
    if let Some((listeners, tls)) = encrypted {
        reactor = reactor.with_tls(listeners, tls)?;
    }
    let (control, motion) = (Control::default(), Arc::new(motion(config)));
    let is_coded = matches!(chosen.source, Source::Coded(_));
    let kind = (streams.len(), is_coded);
    let live = Live::new(config.clone(), chosen.origin, control.clone(), args, kind);
    let live = Arc::new(live);
    if let Some(http) = http {
        let known = http::Known {
            config,
            pipelines: &pipelines,
            server: &server,
            motion: &motion,
            snapshots: snapshots(&control, is_coded),
        };
        reactor = http.start(reactor, known, &live, send_buffer_len)?;
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
        outlets,
        wake,
        stop: Arc::clone(stop),
        notices: notices_in,
        control,
        motion,
    };
    let settings = live::settings(config, streams.len());
    let producers =
        produce::start(chosen.source, chosen.reopen, settings, shared).context("threads")?;
    // Only now is there something that can be changed.
    let _ = signals.live.set(live);
    Ok(Running { notices, serve: serve.context("threads")?, producers, pipelines, server })
}

/// The streams that there can be: a source of access units makes no second one.
fn streams<'a>(config: &'a Config, source: &Source) -> &'a [config::Stream] {
    let streams = &config.streams[..];
    match (source, streams) {
        (Source::Coded(_), [main, _, ..]) => {
            warn!("run: there is no sub stream, because this source is encoded already");
            std::slice::from_ref(main)
        }
        _ => streams,
    }
}

/// The two ends of one stream's ring.
fn lane(stream: &config::Stream) -> (Outlet, Inlet) {
    let (idr_requests, watchers) = (Arc::<IdrRequests>::default(), Arc::<Gauge>::default());
    let stats = Arc::<Pipeline>::default();
    // A second of video is more than the longest picture.
    let unit_capacity = (stream.bitrate_kbps * 1_000 / 8) as usize;
    let (publisher, mut consumers) = ring::publisher(1, unit_capacity, Arc::clone(&stats));
    let units = consumers.pop().expect("one was asked for");
    let inlet =
        Inlet { units, idr_requests: Arc::clone(&idr_requests), watchers: Arc::clone(&watchers) };
    (Outlet { publisher, idr_requests, watchers, stats }, inlet)
}

fn motion(config: &Config) -> Motion {
    // Even when nobody looks: it can be switched on while the camera runs.
    Motion::new(config.camera.motion.watched().into_iter().map(|zone| zone.name))
}

fn snapshots(control: &Control, is_coded: bool) -> Snapshots {
    if is_coded {
        Snapshots::Coded(Arc::clone(&control.units))
    } else {
        Snapshots::Raw(Arc::clone(&control.pictures))
    }
}

impl Running {
    /// Prints a stream's URL when it is ready, and the counters once a minute, to the end.
    fn wait(self, url: &Url, stop: &Wake) -> anyhow::Result<()> {
        let failure = loop {
            match self.notices.recv_timeout(REPORT_INTERVAL) {
                Ok(Notice::Ready { stream }) => self.say_ready(url, stream),
                Ok(Notice::Failed(error)) => break Some(error),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    report("stats", &self.pipelines, &self.server);
                }
                // All producers have ended: because they were told to.
                Err(mpsc::RecvTimeoutError::Disconnected) => break None,
            }
        };
        stop.wake();
        let Self { serve, producers, pipelines, server, .. } = self;
        for thread in producers {
            // A panic would have aborted the process.
            let _ = thread.join();
        }
        if let Ok(done) = serve.join() {
            done?;
        }
        report("done", &pipelines, &server);
        failure.map_or(Ok(()), |error| Err(error.into()))
    }

    fn say_ready(&self, url: &Url, stream: usize) {
        let name = self.pipelines.get(stream).map_or("", |(name, _)| name);
        let since_init = std::env::var("OCELLUS_PID1_START_US").ok().and_then(|us| us.parse().ok());
        match since_init {
            Some(start) => {
                let millis = (clock::now().as_micros().saturating_sub(start)) / 1_000;
                info!("produce: first access unit stream={name} after_pid1_ms={millis}");
            }
            None => info!("produce: first access unit stream={name}"),
        }
        if let Err(error) = writeln!(std::io::stdout(), "{}/{name}", url.0) {
            // Nobody reads the URL; somebody may still know it.
            warn!("run: cannot print the URL reason=\"{error}\"");
        }
    }
}

fn report(event: &str, pipelines: &[(String, Arc<Pipeline>)], server: &serve::Stats) {
    for (name, pipeline) in pipelines {
        info!("produce: {event} stream={name} {pipeline}");
    }
    info!("serve: {event} {server}");
}

/// What signals act on.
#[derive(Clone)]
struct Signals {
    stop: Arc<Wake>,
    /// Set once the camera runs.
    live: Arc<OnceLock<Arc<Live>>>,
}

/// Blocks the signals in all threads to come; one thread waits for them.
///
/// SIGHUP has the configuration file read again. Without a file it ends the camera, as it does when
/// a terminal is closed.
fn act_on_signals(signals: &Signals, has_file: bool) -> anyhow::Result<()> {
    let mut awaited = SigSet::empty();
    awaited.add(Signal::SIGINT);
    awaited.add(Signal::SIGTERM);
    if has_file {
        awaited.add(Signal::SIGHUP);
    }
    awaited.thread_block().context("sigmask")?;
    let signals = signals.clone();
    let wait = move || {
        while let Ok(signal) = awaited.wait() {
            match signals.live.get() {
                Some(live) if signal == Signal::SIGHUP => live.reload(),
                None if signal == Signal::SIGHUP => {}
                _ => {
                    signals.stop.wake();
                    info!("run: ending signal={signal}");
                    break;
                }
            }
        }
        // Further ones change nothing: viewers are to be told in any case. That is done by now, and
        // a thread that a driver holds is not waited for.
        let end = clock::now() + ENDING_MAX;
        while clock::now() < end {
            thread::park_timeout(end.since(clock::now()));
        }
        warn!("run: ending without a thread that does not answer");
        std::process::exit(0);
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
    configured: &[config::Stream],
    source_fps: f64,
    server_ports: (u16, u16),
) -> anyhow::Result<serve::Settings> {
    let (mut rtsp_streams, mut streams) = (Vec::new(), Vec::new());
    for (index, stream) in configured.iter().enumerate() {
        let paths = match stream.name {
            config::StreamName::Main => &MAIN_PATHS[..],
            config::StreamName::Sub => &SUB_PATHS,
        };
        let fps = f64::from(stream.fps).min(source_fps);
        let ssrc = u32::from_ne_bytes(random()?);
        rtsp_streams.push(rtsp::Stream {
            paths: paths.iter().map(|&path| path.to_owned()).collect(),
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

/// What the streams' URLs begin with; with name and password only when nobody else knows them.
struct Url(String);

impl Url {
    fn new(address: Option<SocketAddr>, generated: Option<&User>) -> Self {
        let address = address.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 554)));
        let ip = if address.ip().is_unspecified() { own_address() } else { address.ip() };
        let host = SocketAddr::new(ip, address.port());
        let account = generated
            .map(|user| format!("{}:{}@", user.name, user.password.reveal()))
            .unwrap_or_default();
        Self(format!("rtsp://{account}{host}"))
    }

    fn main(&self) -> String {
        format!("{}/{}", self.0, MAIN_PATHS[0])
    }
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
/// The streams' paths, the canonical ones first.
const MAIN_PATHS: [&str; 3] = ["main", "", "stream1"];
const SUB_PATHS: [&str; 2] = ["sub", "stream2"];
/// Half a second of 2 Mbit/s.
const SEND_BUFFER_MIN: usize = 128 << 10;
/// From the signal to the end, whoever is not ready for it.
const ENDING_MAX: Duration = Duration::from_millis(900);
const REPORT_INTERVAL: Duration = Duration::from_secs(60);
