//! What must hold whatever a stranger sends: one function for each target, which panics when it
//! does not.

mod configuration;
mod depacketizer;
mod input;
mod login;
mod opening;
mod reports;
mod stream;

/// The targets by name; those of what is private to `rtsp` are in `rtsp::fuzzing`.
pub(crate) const TARGETS: &[(&str, fn(&[u8]))] = &[
    ("login_header", login::header),
    ("login_answer", login::answer),
    ("h264_annexb", stream::annexb),
    ("h264_parameter_sets", stream::parameter_sets),
    ("h264_assembler", stream::assembler),
    ("rtp_packetizer", stream::packetizer),
    ("http_opening", opening::judge),
    ("rtcp_receive", reports::receive),
    ("rtcp_send", reports::send),
    ("config", configuration::parse),
    ("config_change", configuration::change),
];
