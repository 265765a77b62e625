//! Plays an Annex B file as a camera would.

use crate::time::Instant;

#[derive(Debug)]
pub struct File;
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
