//! The vocabulary of H.264: NAL units, Annex B, parameter sets, access units.
//!
//! ITU-T H.264 7.3, 7.4.1.2, Annex B.
//!
//! Not implemented: parsing of slice data, SVC and MVC NAL units.

mod access_unit;
mod continuity;
mod nal;
mod parameter_sets;

pub use access_unit::{AccessUnit, MAX_ACCESS_UNIT_LEN, MAX_NAL_UNITS, TooLong};
pub use continuity::Continuity;
pub use nal::{NalType, nal_type};
pub use parameter_sets::{Description, Error as ParameterSetError, ParameterSets};
