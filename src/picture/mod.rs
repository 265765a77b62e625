//! The picture pass: turns what a source delivers into what an encoder reads.
//!
//! One pass per picture, from the driver's buffer into our own; none at all where the layout is
//! I420 already.
//!
//! Not implemented: scaling, rotating, masks, overlays, motion and JPEG.

mod convert;

pub use convert::{Converter, in_place};
