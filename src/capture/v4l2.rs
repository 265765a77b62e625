//! Captures from a V4L2 device.

use crate::frame::Frame;

#[derive(Debug)]
pub struct V4l2;
#[derive(Debug)]
pub struct MappedFrame;
impl MappedFrame {
    #[must_use]
    pub fn frame(&self) -> Frame<'_> {
        unreachable!()
    }
}
