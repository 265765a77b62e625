//! Plays an Annex B file as a camera would.

use crate::time::Instant;

#[derive(Debug)]
pub struct File;
impl File {
    /// # Errors
    /// always
    pub fn open(
        path: impl Into<std::path::PathBuf>,
        _fps: Option<f64>,
    ) -> Result<Self, super::Error> {
        Err(super::Error::BadFile { path: path.into(), reason: "not yet" })
    }
}
impl super::CodedSource for File {
    fn wait(&self) -> super::Wait<'_> {
        super::Wait::Until(Instant::ZERO)
    }
    fn fps(&self) -> f64 {
        0.0
    }
    fn capture(
        &mut self,
        _now: Instant,
        _unit: &mut crate::h264::AccessUnit,
    ) -> Result<bool, super::Error> {
        Ok(false)
    }
}
