//! The picture pass: turns what a source delivers into what an encoder reads.
//!
//! One pass per picture, from the driver's buffer into our own; none at all where the layout is
//! I420 already and nothing is to be changed. What is drawn on pictures is drawn on our own.
//!
//! Not implemented: turning by a quarter, cropping, scaling that keeps another aspect ratio.

mod convert;
pub mod jpeg;
mod lettering;
mod markers;
pub mod mask;
mod mjpeg;
pub mod motion;
pub mod no_signal;
mod overlay;
#[allow(clippy::module_inception, reason = "the folder is the stage, the file its main type")]
mod picture;
mod rows;
mod scale;

pub use convert::{Converter, Orientation, Undecodable, in_place};
pub use markers::with_huffman_tables;
pub use overlay::{Corner, Overlay};
use picture::NEUTRAL;
pub use picture::Picture;
pub use scale::Scaler;

/// A rectangle of a picture of any size: its left upper corner and its sides, as shares (0 to 1) of
/// the picture's width and height.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Area {
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
}
