//! Turns the command line into a [`Command`], and lays its flags over a configuration.
//!
//! Every flag has a key in the configuration and takes the same values. Bad arguments end in
//! clap's message, which names the flag, the value and what is allowed, and exit code 2.
//!
//! Reads no environment: `main` hands over what `OCELLUS_PASSWORD` holds.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::{
    BITRATES_KBPS, Config, Error, FPS, NotAllowed, Password, Role, Size, Source, User,
    parse_address, parse_user_name,
};

/// What the user wants done.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum Command {
    /// Be a camera (the default)
    Run(RunArgs),
    /// List devices, formats and encoders, and what `run` would choose and why
    Probe {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Validate a configuration
    Check {
        /// The configuration
        file: PathBuf,
    },
    /// Be PID 1 of the firmware
    Init,
}

/// The flags of `ocellus run`; what is given wins over the configuration.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct RunArgs {
    /// Configuration to start from (JSON); flags win over it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// auto, pattern, v4l2:/dev/videoN or file:CLIP.h264
    #[arg(long, value_name = "SOURCE")]
    pub source: Option<Source>,
    /// Size of the pictures, like 1280x720
    #[arg(long, value_name = "WIDTHxHEIGHT")]
    pub size: Option<Size>,
    /// Pictures per second
    #[arg(long, value_name = "FPS", value_parser = parse_fps)]
    pub fps: Option<u32>,
    /// Bits per second of the main stream, like 500k or 2M
    #[arg(long = "bitrate", value_name = "BPS", value_parser = parse_bitrate)]
    pub bitrate_kbps: Option<u32>,
    /// Address to serve RTSP on; may be given several times
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_address)]
    pub rtsp: Vec<SocketAddr>,
    /// Address to serve RTSP on over TLS; may be given several times
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_address)]
    pub rtsps: Vec<SocketAddr>,
    /// Address to serve HTTP on, or off
    #[arg(long, value_name = "ADDR:PORT|off", value_parser = parse_http)]
    pub http: Option<HttpFlag>,
    /// Account for this run, with the password in OCELLUS_PASSWORD or a random one
    #[arg(long, value_name = "NAME", value_parser = parse_user_name)]
    pub user: Option<String>,
    /// Let everybody in; only on loopback addresses
    #[arg(long, conflicts_with = "user")]
    pub no_auth: bool,
    /// Without users, let nobody in; the firmware's camera has no terminal to print a password on
    #[arg(long, hide = true)]
    pub no_generated_user: bool,
}

/// What `--http` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpFlag {
    Off,
    On(SocketAddr),
}

#[derive(Debug, Parser)]
#[command(name = "ocellus", version, about, args_conflicts_with_subcommands = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

/// Parses the arguments, the program's name first.
///
/// # Errors
///
/// clap's, for bad arguments and also for `--help` and `--version`: its `exit` prints it and ends
/// the process with the right code.
pub fn parse<I>(arguments: I) -> Result<Command, clap::Error>
where
    I: IntoIterator,
    I::Item: Into<OsString> + Clone,
{
    let line = CommandLine::try_parse_from(arguments)?;
    Ok(line.command.unwrap_or(Command::Run(line.run)))
}

impl RunArgs {
    /// Lays these flags over `config`, gives the run an account if it needs one, and checks the
    /// result.
    ///
    /// `--user` and a given `password` make an admin account that replaces one of the same name.
    /// A run that asks for passwords and would have no account gets one, except in the firmware.
    ///
    /// Returns the account whose password is `random`, which nobody but this process knows yet.
    ///
    /// # Errors
    ///
    /// A `password` that is none, and what [`Config::validate`] says.
    pub fn apply(
        &self,
        config: &mut Config,
        password: Option<&str>,
        random: impl FnOnce() -> Password,
    ) -> Result<Option<User>, Error> {
        let Self { config: _, source, size, fps, bitrate_kbps, rtsp, rtsps, http, user, .. } = self;
        if let Some(source) = source {
            config.camera.source = source.clone();
        }
        for stream in config.streams.iter_mut().take(1) {
            stream.size = size.unwrap_or(stream.size);
            stream.fps = fps.unwrap_or(stream.fps);
            stream.bitrate_kbps = bitrate_kbps.unwrap_or(stream.bitrate_kbps);
        }
        if !rtsp.is_empty() {
            config.rtsp.listen.clone_from(rtsp);
        }
        if !rtsps.is_empty() {
            config.rtsp.tls.listen.clone_from(rtsps);
        }
        if let Some(http) = http {
            config.http.listen = match *http {
                HttpFlag::Off => Vec::new(),
                HttpFlag::On(address) => vec![address],
            };
        }
        config.auth &= !self.no_auth;
        let is_lonely = config.users.is_empty() && !self.no_generated_user;
        let wants_account = user.is_some() || password.is_some() || is_lonely;
        let mut generated = None;
        if config.auth && wants_account {
            let name = user.clone().unwrap_or_else(|| DEFAULT_USER.to_owned());
            let given = password.map(parse_password).transpose()?;
            let is_random = given.is_none();
            let password = given.unwrap_or_else(random);
            let account = User { name, role: Role::Admin, password };
            config.users.retain(|user| user.name != account.name);
            config.users.push(account.clone());
            generated = is_random.then_some(account);
        }
        config.validate()?;
        Ok(generated)
    }
}

fn parse_password(text: &str) -> Result<Password, Error> {
    text.parse().map_err(|NotAllowed(allowed)| Error::NotAllowed {
        path: "OCELLUS_PASSWORD".into(),
        value: "this value".into(),
        allowed: allowed.into(),
    })
}

fn parse_fps(text: &str) -> Result<u32, NotAllowed> {
    let fps = text.parse().ok().filter(|fps| FPS.contains(fps));
    fps.ok_or(NotAllowed("a whole number from 1 to 60"))
}

/// Bits per second, with `k` or `M` for thousands and millions, in whole kbit/s.
fn parse_bitrate(text: &str) -> Result<u32, NotAllowed> {
    let (number, factor) = match text.as_bytes() {
        [.., b'k' | b'K'] => (&text[..text.len() - 1], 1e3),
        [.., b'm' | b'M'] => (&text[..text.len() - 1], 1e6),
        _ => (text, 1.0),
    };
    let is_plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let kbps = number.parse::<f64>().ok().filter(|_| is_plain).map(|number| number * factor / 1e3);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let kbps = kbps.map(|kbps| kbps.round() as u32);
    kbps.filter(|kbps| BITRATES_KBPS.contains(kbps))
        .ok_or(NotAllowed("16k to 50M bits per second, like 500k, 2M or 2000000"))
}

fn parse_http(text: &str) -> Result<HttpFlag, NotAllowed> {
    if text == "off" {
        return Ok(HttpFlag::Off);
    }
    let allowed = NotAllowed("off, or ADDRESS:PORT, like 127.0.0.1:8080 or [::]:80");
    parse_address(text).map(HttpFlag::On).map_err(|_| allowed)
}

/// The account of a run that was told no other name.
const DEFAULT_USER: &str = "admin";

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;

    use super::*;

    fn command(line: &str) -> Result<Command, clap::Error> {
        parse(line.split_whitespace())
    }

    fn run_args(line: &str) -> RunArgs {
        match command(line).unwrap() {
            Command::Run(args) => args,
            other => panic!("{other:?}"),
        }
    }

    fn random() -> Password {
        "r4nd0m".parse().unwrap()
    }

    fn never() -> Password {
        panic!("nobody needs a random password")
    }

    #[test]
    fn run_is_the_default_and_takes_all_its_flags_with_and_without_its_name() {
        let flags = "--config a.json --source file:x.h264 --size 640x480 --fps 15 --bitrate 500k \
                     --rtsp 127.0.0.1:0 --rtsp [::1]:554 --rtsps [::]:322 --http off --user nvr";
        let wanted = RunArgs {
            config: Some("a.json".into()),
            source: Some(Source::File("x.h264".into())),
            size: Some(Size { width: 640, height: 480 }),
            fps: Some(15),
            bitrate_kbps: Some(500),
            rtsp: vec!["127.0.0.1:0".parse().unwrap(), "[::1]:554".parse().unwrap()],
            rtsps: vec!["[::]:322".parse().unwrap()],
            http: Some(HttpFlag::Off),
            user: Some("nvr".into()),
            no_auth: false,
            no_generated_user: false,
        };
        assert_eq!(run_args(&format!("ocellus {flags}")), wanted);
        assert_eq!(run_args(&format!("ocellus run {flags}")), wanted);
        assert_eq!(run_args("ocellus"), RunArgs::default());
        assert_eq!(run_args("ocellus run"), RunArgs::default());
    }

    #[test]
    fn the_other_commands() {
        assert_eq!(command("ocellus probe").unwrap(), Command::Probe { json: false });
        assert_eq!(command("ocellus probe --json").unwrap(), Command::Probe { json: true });
        assert_eq!(
            command("ocellus check x.json").unwrap(),
            Command::Check { file: "x.json".into() }
        );
        assert_eq!(command("ocellus init").unwrap(), Command::Init);
        for line in ["ocellus --help", "ocellus run --help", "ocellus --version"] {
            assert_eq!(command(line).unwrap_err().exit_code(), 0, "{line}");
        }
    }

    #[test]
    fn a_bad_argument_is_named_with_its_value_and_what_is_allowed() {
        let cases = [
            ("--fps 61", "61", "--fps", "from 1 to 60"),
            ("--fps fast", "fast", "--fps", "from 1 to 60"),
            ("--size 1281x720", "1281x720", "--size", "both even"),
            ("--bitrate 2G", "2G", "--bitrate", "16k to 50M"),
            ("--source video0", "video0", "--source", "v4l2:/dev/videoN"),
            ("--rtsp 8554", "8554", "--rtsp", "ADDRESS:PORT"),
            ("--rtsps 322", "322", "--rtsps", "ADDRESS:PORT"),
            ("--http on", "on", "--http", "off, or ADDRESS:PORT"),
            ("--user a:b", "a:b", "--user", "without colons"),
        ];
        for (flags, value, flag, allowed) in cases {
            let error = command(&format!("ocellus {flags}")).unwrap_err();
            let text = error.to_string();
            assert_eq!(error.exit_code(), 2, "{flags}");
            for part in [value, flag, allowed] {
                assert!(text.contains(part), "{part} is not in {text}");
            }
        }
        for line in ["ocellus --bitrat 2M", "ocellus rnu", "ocellus check", "ocellus init x"] {
            assert_eq!(command(line).unwrap_err().exit_code(), 2, "{line}");
        }
        assert!(command("ocellus --bitrat 2M").unwrap_err().to_string().contains("--bitrate"));
        let conflict = command("ocellus --no-auth --user x").unwrap_err();
        assert_eq!(conflict.kind(), ErrorKind::ArgumentConflict);
    }

    #[test]
    fn bitrates_are_read_with_and_without_unit() {
        for (text, kbps) in [
            ("16k", 16),
            ("500k", 500),
            ("500K", 500),
            ("2M", 2_000),
            ("2m", 2_000),
            ("1.5M", 1_500),
            ("2000000", 2_000),
            ("50M", 50_000),
        ] {
            assert_eq!(parse_bitrate(text), Ok(kbps), "{text}");
        }
        for text in [
            "", "k", "15k", "51M", "2000", "-2M", "2e6", "inf", "NaN", "2 M", "2Mbit", "1.2.3M",
            "٣M",
        ] {
            assert!(parse_bitrate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn flags_win_over_the_file_and_leave_the_rest() {
        let file = r#"{ "name": "door", "camera": { "source": "pattern" },
            "streams": [{ "name": "main", "fps": 5, "gop_s": 2 }],
            "users": [{ "name": "nvr", "role": "viewer", "password": "p" }] }"#;
        let mut config = Config::from_json(file).unwrap();
        let args = run_args("ocellus --size 640x480 --bitrate 1M --rtsp 127.0.0.1:0 --source auto");
        assert_eq!(args.apply(&mut config, None, never).unwrap(), None);
        let stream = &config.streams[0];
        assert_eq!((stream.size.width, stream.fps, stream.bitrate_kbps), (640, 5, 1_000));
        assert_eq!((stream.gop_s, config.name.as_str()), (2.0, "door"));
        assert_eq!(config.camera.source, Source::Auto);
        assert_eq!(config.rtsp.listen, ["127.0.0.1:0".parse().unwrap()]);
        assert_eq!(config.users.len(), 1, "configured users need no help");

        let mut same = Config::from_json(file).unwrap();
        RunArgs::default().apply(&mut same, None, never).unwrap();
        assert_eq!(same, Config::from_json(file).unwrap());
    }

    #[test]
    fn a_run_without_users_gets_an_admin_with_a_random_password() {
        let mut config = Config::default();
        let account = RunArgs::default().apply(&mut config, None, random).unwrap().unwrap();
        assert_eq!((account.name.as_str(), account.role), ("admin", Role::Admin));
        assert_eq!(account.password, random());
        assert_eq!(config.users, [account]);
    }

    #[test]
    fn the_firmwares_camera_without_users_gets_no_account() {
        let mut config = Config::default();
        let args = run_args("ocellus run --no-generated-user");
        assert_eq!(args.apply(&mut config, None, never).unwrap(), None);
        assert!(config.auth && config.users.is_empty());
    }

    #[test]
    fn a_given_password_is_the_users_and_is_never_returned() {
        let mut config = Config::default();
        let args = run_args("ocellus --user boss");
        assert_eq!(args.apply(&mut config, Some("pw"), never).unwrap(), None);
        assert_eq!(config.users[0].name, "boss");
        assert_eq!(config.users[0].password.reveal(), "pw");

        let error = args.apply(&mut Config::default(), Some(""), never).unwrap_err();
        assert_eq!(
            error.to_string(),
            "OCELLUS_PASSWORD: this value is not allowed; allowed is 1 to 256 bytes"
        );
    }

    #[test]
    fn the_account_of_a_run_replaces_a_configured_one_of_the_same_name() {
        let file = r#"{ "users": [{ "name": "nvr", "role": "viewer", "password": "old" },
                                  { "name": "admin", "role": "admin", "password": "old" }] }"#;
        let mut config = Config::from_json(file).unwrap();
        RunArgs::default().apply(&mut config, Some("new"), never).unwrap();
        let passwords: Vec<&str> = config.users.iter().map(|user| user.password.reveal()).collect();
        assert_eq!(passwords, ["old", "new"]);
        let generated = run_args("ocellus --user nvr").apply(&mut config, None, random).unwrap();
        assert_eq!(generated.unwrap().name, "nvr");
        assert_eq!(config.users.len(), 2);
    }

    #[test]
    fn no_auth_needs_loopback_and_makes_no_account() {
        let mut config = Config::default();
        let open = run_args("ocellus --no-auth");
        let error = open.apply(&mut config, None, never).unwrap_err();
        assert!(matches!(error, Error::OpenToStrangers { .. }));
        assert!(error.to_string().contains("--no-auth"), "{error}");
        let mut config = Config::default();
        let local =
            run_args("ocellus --no-auth --http off --rtsp 127.0.0.1:8554 --rtsp [::1]:8554");
        assert_eq!(local.apply(&mut config, None, never).unwrap(), None);
        assert!(!config.auth && config.users.is_empty());
        let mut config = Config::default();
        let local = run_args("ocellus --no-auth --http [::1]:0 --rtsp 127.0.0.1:8554");
        assert_eq!(local.apply(&mut config, None, never).unwrap(), None);
        assert_eq!(config.http.listen, ["[::1]:0".parse().unwrap()]);
        let public_web = run_args("ocellus --no-auth --rtsp 127.0.0.1:8554");
        assert!(public_web.apply(&mut Config::default(), None, never).is_err());
    }
}
