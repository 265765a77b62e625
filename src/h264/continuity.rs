//! Which access units can still be decoded after some were dropped.
//!
//! H.264 3.69 (IDR picture): after one, nothing before it is needed. Until one, everything is.

/// Decides for one receiver which access units it may be given.
///
/// Whole access units are dropped, from the first that does not fit up to the next IDR: a decoder
/// never sees a picture whose references it was not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Continuity {
    is_broken: bool,
}

impl Continuity {
    /// A receiver that has had nothing yet: it starts at an IDR.
    pub const START: Self = Self { is_broken: true };

    /// Whether the next access unit is passed on, given that there is room for it or not.
    pub fn admit(&mut self, is_idr: bool, has_room: bool) -> bool {
        let admitted = has_room && (is_idr || !self.is_broken);
        self.is_broken = !admitted;
        admitted
    }

    /// Something was dropped elsewhere: nothing more until an IDR.
    pub fn interrupt(&mut self) {
        self.is_broken = true;
    }

    /// Whether only an IDR would be admitted now.
    #[must_use]
    pub fn is_broken(self) -> bool {
        self.is_broken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_admitted_between_a_drop_and_the_next_idr() {
        let mut receiver = Continuity::START;
        assert!(!receiver.admit(false, true), "no start in the middle of a GOP");
        assert!(receiver.admit(true, true));
        assert!(receiver.admit(false, true));
        assert!(!receiver.admit(false, false), "no room");
        assert!(!receiver.admit(false, true), "its reference was dropped");
        assert!(!receiver.admit(true, false), "no room for the IDR either");
        assert!(!receiver.admit(false, true));
        assert!(receiver.admit(true, true));
    }
}
