//! What must hold whatever a stranger sends: one function for each target, which panics when it
//! does not.

mod configuration;
mod depacketizer;
mod dialogue;
mod input;
mod login;
mod network;
mod opening;
mod reports;
mod stream;

type Target = (&'static str, fn(&[u8]));

/// The targets by name; those of what is private to `rtsp` are in `rtsp::fuzzing`.
pub(crate) const TARGETS: &[Target] = &[
    ("login_header", login::header),
    ("login_answer", login::answer),
    ("h264_annexb", stream::annexb),
    ("h264_parameter_sets", stream::parameter_sets),
    ("h264_assembler", stream::assembler),
    ("rtp_packetizer", stream::packetizer),
    ("http_opening", opening::judge),
    ("rtsp_dialogue", dialogue::run),
    ("rtcp_receive", reports::receive),
    ("rtcp_send", reports::send),
    ("net_dhcp", network::dhcp),
    ("net_time", network::time),
    ("config", configuration::parse),
    ("config_change", configuration::change),
];
