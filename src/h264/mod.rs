//! The vocabulary of H.264: NAL units, Annex B, parameter sets, access units.
//!
//! ITU-T H.264 7.3, 7.4.1.2, Annex B.
//!
//! Not implemented: parsing of slices beyond their first fields, SVC and MVC NAL units.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic))]

mod access_unit;
pub mod annexb;
mod assembler;
mod continuity;
mod level;
mod nal;
mod parameter_sets;
pub mod sei;
mod slice;

pub use access_unit::{AccessUnit, MAX_ACCESS_UNIT_LEN, MAX_NAL_UNITS, TooLong};
pub use assembler::{Assembler, Missing};
pub use continuity::Continuity;
pub use level::level_idc;
pub use nal::{NalType, nal_type};
pub use parameter_sets::{Description, Error as ParameterSetError, ParameterSets};
pub use slice::{begins_picture, is_b_slice, is_complete_before};
