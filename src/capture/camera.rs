//! Opens a V4L2 camera as what it is best used as: a source of pictures, or of its own H.264.

use std::path::{Path, PathBuf};

use super::choice::{Encoder, Wanted, choose};
use super::node::{no_usable_format, open_camera};
use super::{CodedCamera, CodedSource as _, Error, RawSource as _, Source, V4l2, layout, probe};
use crate::sys::v4l2::{self, Info};

/// A camera that streams.
#[derive(Debug)]
pub enum Camera {
    Raw(V4l2),
    Coded(Box<CodedCamera>),
}

impl Camera {
    /// Opens a camera as [`choose`] says, starts it, and sets its controls.
    ///
    /// A control that cannot be set is logged: pictures that are too dark are better than none.
    ///
    /// # Errors
    ///
    /// As [`V4l2::open`].
    pub fn open(path: impl Into<PathBuf>, wanted: &Wanted) -> Result<Self, Error> {
        let path = path.into();
        drop(open_camera(&path)?);
        let device = probe::describe(path.clone());
        let Ok(choice) = choose(&device, wanted) else {
            let offered: Vec<_> = device.formats.into_iter().map(|f| f.fourcc).collect();
            let mut usable = layout::usable();
            usable.retain(|&format| wanted.can_use(format));
            let format = wanted.request.format;
            return Err(no_usable_format(&path, &offered, format.as_slice(), &usable));
        };
        let camera = match choice.encoder {
            Encoder::Camera => {
                let camera = CodedCamera::open(path, wanted.request, wanted.coding)?;
                Self::Coded(Box::new(camera))
            }
            Encoder::Hardware(_) | Encoder::OpenH264 => {
                Self::Raw(V4l2::open(path, wanted.request)?)
            }
        };
        let applied = match &camera {
            Self::Raw(camera) => camera.apply_controls(&wanted.controls),
            Self::Coded(camera) => camera.apply_controls(&wanted.controls),
        };
        if let Err(error) = applied {
            log::warn!("capture: {error}");
        }
        Ok(camera)
    }

    /// The device's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Raw(camera) => camera.path(),
            Self::Coded(camera) => camera.path(),
        }
    }

    /// What the driver says of the camera.
    #[must_use]
    pub const fn info(&self) -> &Info {
        match self {
            Self::Raw(camera) => camera.info(),
            Self::Coded(camera) => camera.info(),
        }
    }

    /// Pictures per second.
    #[must_use]
    pub fn fps(&self) -> f64 {
        match self {
            Self::Raw(camera) => camera.mode().fps,
            Self::Coded(camera) => camera.fps(),
        }
    }
}

impl From<Camera> for Source {
    fn from(camera: Camera) -> Self {
        match camera {
            Camera::Raw(camera) => Self::Raw(Box::new(camera)),
            Camera::Coded(camera) => Self::Coded(camera),
        }
    }
}

/// Opens and starts the first video node, in numeric order, that is a camera with a usable format.
///
/// The errors say why each node before it was passed over; with no camera, why every node was.
#[must_use]
pub fn first_working(wanted: &Wanted) -> (Option<Camera>, Vec<Error>) {
    let mut passed_over = Vec::new();
    for path in v4l2::nodes() {
        match Camera::open(path, wanted) {
            Ok(camera) => return (Some(camera), passed_over),
            Err(error) => passed_over.push(error),
        }
    }
    (None, passed_over)
}
