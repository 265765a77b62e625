//! Makes a JPEG image of the newest picture, for whoever asks.
//!
//! One image is made at a time, beside the web side's loop, as it takes some 10 ms; those who ask
//! within a tenth of a second share it. Nothing is made while nobody asks.
//!
//! Not implemented: the colours that a camera's own H.264 announces in its VUI; they are taken for
//! BT.601 of limited range.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use openh264::decoder::Decoder;
use openh264::formats::YUVSource as _;
use thiserror::Error;
use tokio::sync::oneshot::{self, Receiver, error::TryRecvError};
use tokio::sync::{Mutex, OwnedMutexGuard, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::frame::{Colour, Frame, PixelFormat, Plane};
use crate::h264::AccessUnit;
use crate::picture::{Picture, jpeg};
use crate::ring::Stills;
use crate::sys::clock;
use crate::time::Instant;

/// Where single pictures come from.
#[derive(Clone, Debug)]
pub enum Snapshots {
    /// As they are before they are encoded.
    Raw(Arc<Stills<Picture>>),
    /// From a source that encodes by itself: IDR pictures with their parameter sets.
    Coded(Arc<Stills<AccessUnit>>),
}

/// Takes snapshots, one at a time.
#[derive(Debug)]
pub(super) struct Shutter {
    snapshots: Snapshots,
    /// Locked by whoever makes one.
    newest: Arc<Mutex<Newest>>,
    places: Semaphore,
}

/// Why there is no snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum NoSnapshot {
    #[error("no picture within two seconds")]
    NoPicture,
    #[error("too many ask at once")]
    TooMany,
    #[error("the picture cannot be made an image: {0}")]
    NotMade(String),
}

/// The newest image, and the picture that was asked for and has not come yet.
#[derive(Debug, Default)]
struct Newest {
    image: Option<(Instant, Bytes)>,
    asked: Option<Receiver<Still>>,
}

#[derive(Debug)]
enum Still {
    Raw(Arc<Picture>),
    Coded(Arc<AccessUnit>),
}

impl Shutter {
    pub(super) fn new(snapshots: Snapshots) -> Self {
        Self { snapshots, newest: Arc::default(), places: Semaphore::new(WAITING_MAX) }
    }

    /// The newest picture as a JPEG image, in [`PATIENCE`] or not at all.
    pub(super) async fn snapshot(&self) -> Result<Bytes, NoSnapshot> {
        let _place = self.places.try_acquire().map_err(|_| NoSnapshot::TooMany)?;
        timeout(PATIENCE, self.shared()).await.unwrap_or(Err(NoSnapshot::NoPicture))
    }

    /// The image that somebody else has just got, or a new one.
    async fn shared(&self) -> Result<Bytes, NoSnapshot> {
        let mut newest = Arc::clone(&self.newest).lock_owned().await;
        match &newest.image {
            Some((made, image)) if clock::now().since(*made) < INTERVAL => Ok(image.clone()),
            _ => {
                newest.image = None;
                let still = self.still(&mut newest).await?;
                let made = spawn_blocking(move || make(newest, &still)).await;
                // The hook has said where.
                made.unwrap_or_else(|_| Err(NoSnapshot::NotMade("it panicked".into())))
            }
        }
    }

    /// The next picture. Should nobody wait for it any more when it comes, the next one to ask
    /// finds that it was asked for, and how old it is.
    async fn still(&self, newest: &mut Newest) -> Result<Still, NoSnapshot> {
        let is_pending =
            |asked: &mut Receiver<Still>| matches!(asked.try_recv(), Err(TryRecvError::Empty));
        if !newest.asked.as_mut().is_some_and(is_pending) {
            newest.asked = Some(self.ask()?);
        }
        let still = match &mut newest.asked {
            Some(asked) => asked.await.map_err(|_| NoSnapshot::NoPicture),
            None => Err(NoSnapshot::NoPicture),
        };
        newest.asked = None;
        still
    }

    fn ask(&self) -> Result<Receiver<Still>, NoSnapshot> {
        let (give, asked) = oneshot::channel();
        // Whoever asked may be gone.
        let is_taken = match &self.snapshots {
            Snapshots::Raw(stills) => stills.ask(move |it| drop(give.send(Still::Raw(it)))),
            Snapshots::Coded(stills) => stills.ask(move |it| drop(give.send(Still::Coded(it)))),
        };
        if is_taken { Ok(asked) } else { Err(NoSnapshot::TooMany) }
    }
}

/// Makes the image and keeps it; nobody else makes one meanwhile, even if nobody waits for this
/// one any more.
fn make(mut newest: OwnedMutexGuard<Newest>, still: &Still) -> Result<Bytes, NoSnapshot> {
    let image = match still {
        Still::Raw(picture) => encode(&picture.frame()),
        Still::Coded(unit) => decode(unit),
    };
    let image = Bytes::from(image.map_err(NoSnapshot::NotMade)?);
    newest.image = Some((clock::now(), image.clone()));
    Ok(image)
}

fn encode(frame: &Frame<'_>) -> Result<Vec<u8>, String> {
    jpeg::encode(frame, QUALITY).map_err(|error| error.to_string())
}

/// An IDR picture as an image.
fn decode(unit: &AccessUnit) -> Result<Vec<u8>, String> {
    let mut stream = Vec::with_capacity(unit.len() + unit.nal_units().len() * START_CODE.len());
    for nal in unit.nal_units() {
        stream.extend_from_slice(&START_CODE);
        stream.extend_from_slice(nal);
    }
    let mut decoder = Decoder::new().map_err(|error| error.to_string())?;
    let decoded = decoder.decode(&stream).map_err(|error| error.to_string())?;
    let decoded = decoded.ok_or("it cannot be decoded by itself")?;
    let side = |len: usize| u32::try_from(len).map_err(|error| error.to_string());
    let (width, height) = decoded.dimensions();
    let (luma, cb, cr) = decoded.strides();
    encode(&Frame {
        format: PixelFormat::I420,
        width: side(width)?,
        height: side(height)?,
        colour: Colour::default(),
        captured: unit.captured(),
        planes: [
            Plane { bytes: decoded.y(), stride: luma },
            Plane { bytes: decoded.u(), stride: cb },
            Plane { bytes: decoded.v(), stride: cr },
        ],
    })
}

/// Artefacts are not seen; an image of 1280x720 has some 150 kB.
const QUALITY: u8 = 85;
/// A live camera has a picture in less.
const PATIENCE: Duration = Duration::from_secs(2);
/// At most ten images a second.
const INTERVAL: Duration = Duration::from_millis(100);
/// Requests at a time: each may hold a connection for [`PATIENCE`].
const WAITING_MAX: usize = 16;
const START_CODE: [u8; 4] = [0, 0, 0, 1];

#[cfg(test)]
mod tests;
