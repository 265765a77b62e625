//! The first byte of a NAL unit.
//!
//! H.264 7.3.1, table 7-1.

/// `nal_unit_type` of table 7-1; the values the camera has to tell apart have names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NalType(pub u8);

impl NalType {
    /// Coded slice of a non-IDR picture.
    pub const NON_IDR_SLICE: Self = Self(1);
    /// Coded slice of an IDR picture.
    pub const IDR_SLICE: Self = Self(5);
    /// Supplemental enhancement information.
    pub const SEI: Self = Self(6);
    /// Sequence parameter set.
    pub const SPS: Self = Self(7);
    /// Picture parameter set.
    pub const PPS: Self = Self(8);
    /// Access unit delimiter.
    pub const AUD: Self = Self(9);
    /// Filler data.
    pub const FILLER: Self = Self(12);

    /// Whether this is part of a primary coded picture (7.4.1.2.3: types 1 to 5).
    #[must_use]
    pub const fn is_slice(self) -> bool {
        matches!(self.0, 1..=5)
    }
}

/// The type of a NAL unit given with its header byte; `None` when it is empty or
/// `forbidden_zero_bit` is set (7.4.1).
#[must_use]
pub fn nal_type(nal: &[u8]) -> Option<NalType> {
    let &header = nal.first()?;
    (header & 0x80 == 0).then_some(NalType(header & 0x1f))
}
