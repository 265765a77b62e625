//! The first bytes that come to the web side's port.

#[path = "../../../src/control/opening.rs"]
mod judge;

use judge::{MAX_HEAD_LEN, Opening};

/// Any bytes: once it is clear what they are, no more of them change it, and it is clear in time.
pub(super) fn judge(bytes: &[u8]) {
    let mut known = None;
    for len in 0..=bytes.len() {
        let judged = Opening::of(&bytes[..len]);
        assert!(known.is_none() || judged == known, "{len}");
        assert!(judged.is_some() || len < MAX_HEAD_LEN);
        known = judged;
    }
}
