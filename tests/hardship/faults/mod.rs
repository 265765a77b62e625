//! What happens to the machine: HOSTILE, section 2, row by row.
