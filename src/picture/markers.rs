//! Walks a JPEG image's markers up to its samples, and completes it with the Huffman tables that
//! cameras leave out.
//!
//! ITU-T T.81: annex B for the syntax, annex K.3 for the tables. USB cameras send images without
//! any (USB Video Class 1.5, Motion-JPEG payload), which browsers and decoders refuse.
//!
//! Not implemented: anything but sequential DCT with Huffman coding, 8 bits, all components in
//! one scan. That is what cameras send.

use std::borrow::Cow;

use super::Undecodable;

/// The image as browsers read it: with the standard Huffman tables if it has none, and without
/// what a driver left in front of it. Returned as it is when it cannot be read.
#[must_use]
pub fn with_huffman_tables(jpeg: &[u8]) -> Cow<'_, [u8]> {
    match Headers::parse(jpeg) {
        Ok(headers) if headers.has_huffman_tables => Cow::Borrowed(headers.image),
        Ok(headers) => {
            let (before, scan) = headers.image.split_at(headers.scan);
            Cow::Owned([before, &HUFFMAN_TABLES, scan].concat())
        }
        Err(_) => Cow::Borrowed(jpeg),
    }
}

/// What an image says before its samples.
#[derive(Debug)]
pub(super) struct Headers<'a> {
    /// From SOI on.
    pub(super) image: &'a [u8],
    /// Where SOS stands in `image`: tables go before it.
    pub(super) scan: usize,
    /// Where the entropy-coded data begin.
    pub(super) data: usize,
    pub(super) has_huffman_tables: bool,
    pub(super) width: usize,
    pub(super) height: usize,
    /// 1 (grey) or 3 (Y, Cb, Cr).
    pub(super) components: u8,
}

impl<'a> Headers<'a> {
    /// Zeros before the image are skipped: some drivers pad.
    pub(super) fn parse(jpeg: &'a [u8]) -> Result<Self, Undecodable> {
        let start = jpeg.iter().position(|&byte| byte != 0);
        let image = start.and_then(|start| jpeg.get(start..)).unwrap_or_default();
        let mut at = SOI.len();
        if !image.starts_with(&SOI) {
            return Err(no_image());
        }
        let mut frame = None;
        let mut has_huffman_tables = false;
        loop {
            let (marker, body, next) = segment(image, at)?;
            match marker {
                SOF0 | SOF1 if frame.is_some() => return Err(corrupt()),
                SOF0 | SOF1 => frame = Some(parse_frame_header(body)?),
                DHT => has_huffman_tables = true,
                0xc2..=0xcf => return Err(Undecodable { reason: "not a baseline JPEG image" }),
                SOS => {
                    let (width, height, components) = frame.ok_or_else(corrupt)?;
                    if body.first() != Some(&components) {
                        return Err(Undecodable { reason: "a JPEG image of several scans" });
                    }
                    return Ok(Self {
                        image,
                        scan: at,
                        data: next,
                        has_huffman_tables,
                        width,
                        height,
                        components,
                    });
                }
                _ => {}
            }
            at = next;
        }
    }

    /// Where the coded data end: at EOI. Behind it is padding, or the rest of an older image.
    ///
    /// T.81 B.1.1.2 and B.1.1.5: nothing but restart markers may stand among the coded data.
    pub(super) fn end(&self) -> Result<usize, Undecodable> {
        let mut at = self.data;
        loop {
            let rest = self.image.get(at..).unwrap_or_default();
            let Some(to_marker) = rest.iter().position(|&byte| byte == 0xff) else {
                return Err(truncated());
            };
            at += to_marker + 1;
            match self.image.get(at) {
                Some(0xff) => {}
                Some(0 | RST0..=RST7) => at += 1,
                Some(&EOI) => return Ok(at - 1),
                Some(_) => return Err(corrupt()),
                None => return Err(truncated()),
            }
        }
    }
}

/// The marker at `at`, the body of its segment, and where the next one begins.
fn segment(image: &[u8], at: usize) -> Result<(u8, &[u8], usize), Undecodable> {
    let rest = image.get(at..).unwrap_or_default();
    let fill = rest.iter().position(|&byte| byte != 0xff).ok_or_else(truncated)?;
    let [marker, high, low, ..] = rest[fill..] else { return Err(truncated()) };
    let len = usize::from(u16::from_be_bytes([high, low]));
    // Markers without a body (B.1.1.4) have no place before a scan.
    if fill == 0 || len < 2 || matches!(marker, 0..=1 | RST0..=EOI) {
        return Err(corrupt());
    }
    let body = rest.get(fill + 3..fill + 1 + len).ok_or_else(truncated)?;
    Ok((marker, body, at + fill + 1 + len))
}

/// B.2.2: width, height and the number of components.
fn parse_frame_header(body: &[u8]) -> Result<(usize, usize, u8), Undecodable> {
    let [precision, height_high, height_low, width_high, width_low, count, specs @ ..] = body
    else {
        return Err(corrupt());
    };
    if *precision != 8 {
        return Err(Undecodable { reason: "a JPEG image of more than 8 bits per sample" });
    }
    let (specs, rest) = specs.as_chunks::<3>();
    if !rest.is_empty() || specs.len() != usize::from(*count) {
        return Err(corrupt());
    }
    let is_known = match specs {
        [[_, luma, _]] => matches!(luma, 0x11 | 0x21 | 0x12 | 0x22),
        // 4:4:4, 4:2:2, 4:4:0 and 4:2:0; then 4:4:4 and 4:2:2 as ffmpeg writes them.
        [[_, luma, _], [_, cb, _], [_, cr, _]] => matches!(
            (luma, cb, cr),
            (0x11 | 0x21 | 0x12 | 0x22, 0x11, 0x11) | (0x12 | 0x22, 0x12, 0x12)
        ),
        _ => false,
    };
    if !is_known {
        return Err(Undecodable { reason: "a JPEG image of unusual sampling" });
    }
    let height = u16::from_be_bytes([*height_high, *height_low]);
    let width = u16::from_be_bytes([*width_high, *width_low]);
    Ok((width.into(), height.into(), *count))
}

fn no_image() -> Undecodable {
    Undecodable { reason: "no JPEG image" }
}

fn truncated() -> Undecodable {
    Undecodable { reason: "a truncated JPEG image" }
}

pub(super) fn corrupt() -> Undecodable {
    Undecodable { reason: "a corrupt JPEG image" }
}

const SOI: [u8; 2] = [0xff, 0xd8];
/// Baseline, and extended sequential, whose additions beyond 8 bits are refused.
const SOF0: u8 = 0xc0;
const SOF1: u8 = 0xc1;
const DHT: u8 = 0xc4;
const RST0: u8 = 0xd0;
const RST7: u8 = 0xd7;
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;

/// One DHT segment with tables K.3 and K.5 as DC and AC table 0, K.4 and K.6 as table 1.
pub(super) const HUFFMAN_TABLES: [u8; 420] = [
    0xff, 0xc4, 0x01, 0xa2, 0x00, 0x00, 0x01, 0x05, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a,
    0x0b, 0x01, 0x00, 0x03, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x10, 0x00,
    0x02, 0x01, 0x03, 0x03, 0x02, 0x04, 0x03, 0x05, 0x05, 0x04, 0x04, 0x00, 0x00, 0x01, 0x7d, 0x01,
    0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61, 0x07, 0x22,
    0x71, 0x14, 0x32, 0x81, 0x91, 0xa1, 0x08, 0x23, 0x42, 0xb1, 0xc1, 0x15, 0x52, 0xd1, 0xf0, 0x24,
    0x33, 0x62, 0x72, 0x82, 0x09, 0x0a, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x25, 0x26, 0x27, 0x28, 0x29,
    0x2a, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a,
    0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a,
    0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a,
    0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8,
    0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6,
    0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xe1, 0xe2, 0xe3,
    0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9,
    0xfa, 0x11, 0x00, 0x02, 0x01, 0x02, 0x04, 0x04, 0x03, 0x04, 0x07, 0x05, 0x04, 0x04, 0x00, 0x01,
    0x02, 0x77, 0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07,
    0x61, 0x71, 0x13, 0x22, 0x32, 0x81, 0x08, 0x14, 0x42, 0x91, 0xa1, 0xb1, 0xc1, 0x09, 0x23, 0x33,
    0x52, 0xf0, 0x15, 0x62, 0x72, 0xd1, 0x0a, 0x16, 0x24, 0x34, 0xe1, 0x25, 0xf1, 0x17, 0x18, 0x19,
    0x1a, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46,
    0x47, 0x48, 0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0x63, 0x64, 0x65, 0x66,
    0x67, 0x68, 0x69, 0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x82, 0x83, 0x84, 0x85,
    0x86, 0x87, 0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3,
    0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba,
    0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8,
    0xd9, 0xda, 0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6,
    0xf7, 0xf8, 0xf9, 0xfa,
];
