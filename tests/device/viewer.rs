//! A viewer inside the guest: retina for the session, OpenH264's decoder for the pictures.

use std::time::Duration;

use futures::StreamExt;
use nix::poll::poll;
use ocellus::sys::clock;
use openh264::decoder::Decoder;
use openh264::formats::YUVSource;
use retina::client::{Credentials, Demuxed, PlayOptions, Session, SessionOptions, SetupOptions};
use retina::codec::{CodecItem, FrameFormat};

/// One session, over TCP.
pub(super) struct Viewer {
    runtime: tokio::runtime::Runtime,
    /// Until it is dropped.
    session: Option<Demuxed>,
    decoder: Decoder,
}

/// A decoded picture: Y, Cb, Cr, rows without gaps.
pub(super) struct Shown {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) planes: [Vec<u8>; 3],
}

impl Viewer {
    /// Plays, as soon as there is a camera that answers.
    pub(super) fn connect(url: &str, login: Option<Credentials>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let deadline = clock::now() + Duration::from_secs(60);
        loop {
            match runtime.block_on(play(url, login.clone())) {
                Ok(session) => {
                    let session = Some(session);
                    return Self { runtime, session, decoder: Decoder::new().unwrap() };
                }
                Err(error) if clock::now() >= deadline => panic!("no session: {error}"),
                // Nothing tells when to ask again.
                Err(_) => drop(poll(&mut [], 50_u16)),
            }
        }
    }

    /// The next picture of the one session there is.
    pub(super) fn next(&mut self, patience: Duration) -> Shown {
        self.next_within(patience).unwrap_or_else(|| panic!("no picture within {patience:?}"))
    }

    /// As [`Viewer::next`]; `None` when none comes in time.
    pub(super) fn next_within(&mut self, patience: Duration) -> Option<Shown> {
        let deadline = clock::now() + patience;
        loop {
            let left = deadline.since(clock::now());
            let session = self.session.as_mut().unwrap();
            let item =
                self.runtime.block_on(async { tokio::time::timeout(left, session.next()).await });
            match item {
                Ok(Some(Ok(CodecItem::VideoFrame(frame)))) => {
                    let decoded = self.decoder.decode(frame.data()).unwrap();
                    if let Some(picture) = decoded {
                        return Some(Shown::new(&picture));
                    }
                }
                Ok(Some(Ok(_))) => {}
                Ok(other) => panic!("the session has ended: {:?}", other.map(|item| item.err())),
                Err(_) => return None,
            }
        }
    }
}

impl Drop for Viewer {
    /// A session ends where its runtime can say goodbye.
    fn drop(&mut self) {
        let _inside = self.runtime.enter();
        self.session = None;
    }
}

impl Shown {
    fn new(picture: &impl YUVSource) -> Self {
        let ((width, height), (y, cb, cr)) = (picture.dimensions(), picture.strides());
        let plane = |bytes: &[u8], stride: usize, width: usize, height: usize| {
            let rows = bytes.chunks(stride).take(height);
            rows.flat_map(|row| &row[..width]).copied().collect()
        };
        let planes = [
            plane(picture.y(), y, width, height),
            plane(picture.u(), cb, width / 2, height / 2),
            plane(picture.v(), cr, width / 2, height / 2),
        ];
        Self { width, height, planes }
    }

    /// The mean of luma: the NO SIGNAL picture is dark.
    pub(super) fn brightness(&self) -> u64 {
        let luma = &self.planes[0];
        luma.iter().map(|&sample| u64::from(sample)).sum::<u64>() / luma.len() as u64
    }
}

/// vivid's bars are bright, the NO SIGNAL picture is dark.
pub(super) fn is_live(shown: &Shown) -> bool {
    shown.brightness() > DARK
}

async fn play(url: &str, login: Option<Credentials>) -> Result<Demuxed, retina::Error> {
    let options = SessionOptions::default().creds(login);
    let mut session = Session::describe(url.parse().unwrap(), options).await?;
    session.setup(0, SetupOptions::default().frame_format(FrameFormat::SIMPLE)).await?;
    session.play(PlayOptions::default()).await?.demuxed()
}

/// Mean luma between those of the two.
const DARK: u64 = 60;
