//! Plays with retina, the strictest open client, under its strictest policies.
//!
//! It refuses what others overlook: a foreign SSRC, a sequence number that disagrees with RTP-Info,
//! frames on unknown channels, a session id that changes, a timestamp that goes back.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use retina::client::{
    InitialSequenceNumberPolicy, InitialTimestampPolicy, PlayOptions, Session, SessionGroup,
    SessionIdPolicy, SessionOptions, SetupOptions, TcpTransportOptions, TeardownPolicy, Transport,
    UdpTransportOptions, UnassignedChannelDataPolicy, UnknownRtcpSsrcPolicy,
};
use retina::codec::{CodecItem, FrameFormat};

use crate::camera::credentials;
use crate::client::Lower;
use crate::digest::Credentials;
use crate::validate;

/// What retina received.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Whole pictures, as one Annex B stream.
    pub(crate) stream: Vec<u8>,
    pub(crate) pictures: usize,
    pub(crate) random_access_points: usize,
    pub(crate) lost_packets: u32,
    pub(crate) rtcp_packets: usize,
}

/// Plays until `pictures` have come, checks that nothing was lost, and decodes them.
pub(crate) fn decodes(url: &str, lower: Lower, pictures: usize) {
    let seen = play(url, lower, &credentials(), pictures).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((seen.pictures, seen.lost_packets), (pictures, 0), "{lower:?}");
    assert!(seen.rtcp_packets >= 1, "{lower:?}: no sender report");
    assert!(seen.random_access_points >= 2, "{lower:?}: {}", seen.random_access_points);
    if crate::process::have(&[crate::process::FFMPEG]) {
        assert_eq!(validate::decode(&seen.stream), Ok(pictures), "{lower:?}");
    }
}

pub(crate) fn play(
    url: &str,
    lower: Lower,
    credentials: &Credentials,
    pictures: usize,
) -> Result<Seen, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let playing = play_session(url, lower, credentials, pictures);
        match tokio::time::timeout(Duration::from_secs(30), playing).await {
            Ok(result) => result.map_err(|error| format!("{lower:?}: {error}")),
            Err(_) => Err(format!("{lower:?}: no {pictures} pictures in 30 s")),
        }
    })
}

async fn play_session(
    url: &str,
    lower: Lower,
    credentials: &Credentials,
    pictures: usize,
) -> Result<Seen, retina::Error> {
    let group = Arc::new(SessionGroup::default());
    let login = retina::client::Credentials {
        username: credentials.user.clone(),
        password: credentials.password.clone(),
    };
    let options = SessionOptions::default()
        .creds(Some(login))
        .session_group(Arc::clone(&group))
        .teardown(TeardownPolicy::Always)
        .unassigned_channel_data(UnassignedChannelDataPolicy::Error)
        .session_id(SessionIdPolicy::RequireMatch);
    let mut session = Session::describe(url::Url::parse(url).unwrap(), options).await?;
    let transport = match lower {
        Lower::Tcp => Transport::Tcp(TcpTransportOptions::default()),
        Lower::Udp => Transport::Udp(UdpTransportOptions::default()),
    };
    let format = SetupOptions::default().transport(transport).frame_format(FrameFormat::SIMPLE);
    session.setup(0, format).await?;
    let strict = PlayOptions::default()
        .initial_timestamp(InitialTimestampPolicy::Require)
        .initial_seq(InitialSequenceNumberPolicy::Respect)
        .unknown_rtcp_ssrc(UnknownRtcpSsrcPolicy::AbortSession)
        .enforce_timestamps_with_max_jump_secs(NonZeroU32::new(5).unwrap());
    let mut items = session.play(strict).await?.demuxed()?;
    let mut seen = Seen::default();
    while seen.pictures < pictures {
        match items.next().await {
            Some(Ok(CodecItem::VideoFrame(frame))) => {
                seen.pictures += 1;
                seen.lost_packets += u32::from(frame.loss());
                seen.random_access_points += usize::from(frame.is_random_access_point());
                seen.stream.extend_from_slice(frame.data());
            }
            Some(Ok(CodecItem::Rtcp(_))) => seen.rtcp_packets += 1,
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error),
            None => break,
        }
    }
    drop(items);
    // TEARDOWN has to be answered, or this never ends.
    group.await_teardown().await?;
    Ok(seen)
}
