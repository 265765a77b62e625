//! What the encoder really made, which everybody who gets packets is held against; and the name of
//! each promise that can be broken.

use ocellus::time::{Instant, RtpTimestamp, ticks};

/// What must always hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Sequence numbers rise by one; a gap is of whole access units, and an IDR follows it.
    Sequence,
    /// One timestamp per access unit, that of its capture, and later than the last.
    Timestamp,
    /// On the last packet of an access unit and on no other.
    Marker,
    /// The bytes of an access unit are those that the encoder made.
    Payload,
    /// RTP-Info names the first packet.
    RtpInfo,
    /// Answers are well formed, in order, and those that the state calls for.
    Answer,
    /// Sender reports: one line of time for a session, and true counts.
    Report,
    /// Nothing goes to an address that did not ask.
    Stranger,
    /// No session outlives its time-out.
    Outlived,
    /// Who is well connected gets everything at once, whatever happens to others.
    Starved,
    /// What waits for a viewer is not older than a queue may hold.
    Queue,
    /// IDRs are made on demand, but not more often than the limit says.
    IdrRate,
    /// After the faults everybody has a picture soon.
    Picture,
    /// After the faults everybody is connected, and counted.
    Back,
    /// Time goes on: nobody is busy at one instant for ever.
    Standstill,
}

#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) rule: Rule,
    pub(crate) what: String,
}

pub(crate) type Checked<T> = Result<T, Violation>;

pub(crate) fn broken<T>(rule: Rule, what: impl Into<String>) -> Checked<T> {
    Err(Violation { rule, what: what.into() })
}

/// `Ok` when it `holds`.
pub(crate) fn hold(holds: bool, rule: Rule, what: impl FnOnce() -> String) -> Checked<()> {
    if holds { Ok(()) } else { broken(rule, what()) }
}

/// One access unit as it was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unit {
    pub(crate) captured: Instant,
    pub(crate) is_idr: bool,
    /// Bytes of its slice.
    pub(crate) slice_len: usize,
    /// Whether its time of capture is later than that of all before it.
    pub(crate) is_later: bool,
}

/// All access units so far, by their serial number.
#[derive(Debug)]
pub(crate) struct Truth {
    units: Vec<Unit>,
    latest: Instant,
    pub(crate) ssrc: u32,
    timestamp_offset: u32,
}

impl Truth {
    pub(crate) const fn new(ssrc: u32, timestamp_offset: u32) -> Self {
        Self { units: Vec::new(), latest: Instant::ZERO, ssrc, timestamp_offset }
    }

    /// The serial number of the next access unit.
    pub(crate) fn next(&self) -> u32 {
        u32::try_from(self.units.len()).unwrap()
    }

    pub(crate) fn made(&mut self, captured: Instant, is_idr: bool, slice_len: usize) {
        let is_later = ticks(captured) > ticks(self.latest);
        self.latest = self.latest.max(captured);
        self.units.push(Unit { captured, is_idr, slice_len, is_later });
    }

    pub(crate) fn unit(&self, serial: u32) -> Option<Unit> {
        self.units.get(usize::try_from(serial).unwrap()).copied()
    }

    /// The timestamp that a unit captured at `at` is to have.
    pub(crate) fn timestamp(&self, at: Instant) -> u32 {
        RtpTimestamp::at(at, self.timestamp_offset).0
    }
}

/// The slice of access unit `serial`, which says so itself.
pub(crate) fn slice(serial: u32, is_idr: bool, len: usize) -> Vec<u8> {
    let mut slice = vec![filler(serial); len.max(SLICE_HEAD_LEN)];
    slice[0] = if is_idr { 0x65 } else { 0x41 };
    slice[1] = 0x88;
    slice[2..SLICE_HEAD_LEN].copy_from_slice(&serial.to_be_bytes());
    slice
}

pub(crate) const fn filler(serial: u32) -> u8 {
    let [.., low] = serial.to_be_bytes();
    low | 1
}

/// NAL unit header, the beginning of a slice header, and the serial number.
pub(crate) const SLICE_HEAD_LEN: usize = 6;
