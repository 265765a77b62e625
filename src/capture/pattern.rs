//! Draws the test pattern.

use crate::frame::Frame;

#[derive(Debug)]
pub struct Pattern;
#[derive(Debug)]
pub struct DrawnFrame;
impl DrawnFrame {
    #[must_use]
    pub fn frame(&self) -> Frame<'_> {
        unreachable!()
    }
}
