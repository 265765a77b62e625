//! The encoder of the OpenH264 library: one picture and one QP in, NAL units out.
//!
//! The library's own rate control is off: it decides by counts of pictures where a camera has
//! capture times, and nothing it offers holds a bitrate. Its log is silenced, scene-change
//! detection is off (an IDR comes when it is asked for), and there is one reference picture.
//!
//! Not implemented: layers, CABAC, long-term references.

use std::ffi::{c_int, c_longlong};
use std::ptr::{NonNull, null_mut};
use std::slice;

use openh264_sys2::source::APILoader;
use openh264_sys2::{
    CAMERA_VIDEO_REAL_TIME, CONSTANT_ID, DEBLOCKING_IDC_0, ENCODER_OPTION,
    ENCODER_OPTION_SVC_ENCODE_PARAM_EXT, ENCODER_OPTION_TRACE_LEVEL, ISVCEncoder, ISVCEncoderVtbl,
    LOW_COMPLEXITY, PRO_BASELINE, RC_OFF_MODE, SEncParamExt, SFrameBSInfo, SLayerBSInfo,
    SM_FIXEDSLCNUM_SLICE, SM_SINGLE_SLICE, SSourcePicture, WELS_LOG_QUIET, videoFormatI420,
};
use thiserror::Error;

/// What the stream is to be; fixed while the encoder is open.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Luma samples, even, 16 at least.
    pub width: u32,
    /// Luma samples, even, 16 at least.
    pub height: u32,
    /// H.264 A.3: 31 is level 3.1.
    pub level_idc: u8,
    /// `colour_primaries`, `transfer_characteristics`, `matrix_coefficients` (H.264 E.2.1).
    pub colour_description: [u8; 3],
    pub is_full_range: bool,
    /// Slices of one picture, each encoded by a thread of its own.
    pub slices: u16,
}

/// One I420 picture.
#[derive(Clone, Copy, Debug)]
pub struct Picture<'a> {
    /// Y, Cb, Cr: samples and bytes from one row to the next.
    pub planes: [(&'a [u8], usize); 3],
    /// Milliseconds since any origin.
    pub millis: u64,
}

/// The library has failed; the encoder is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Error {
    #[error("OpenH264 {call} failed: {code}")]
    Failed { call: &'static str, code: c_int },
    #[error("a picture with too few bytes")]
    ShortPicture,
}

/// One open encoder.
#[derive(Debug)]
pub struct Encoder {
    encoder: NonNull<ISVCEncoder>,
    params: Box<SEncParamExt>,
    info: Box<SFrameBSInfo>,
}

// SAFETY: the library's encoder is an object on the heap that keeps no thread-local state; its own
// threads reach only what belongs to it, and `Encoder` is the one owner.
unsafe impl Send for Encoder {}

impl Encoder {
    /// Opens an encoder. Its first picture is an IDR.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] when the library refuses the settings or has no memory.
    pub fn open(settings: &Settings) -> Result<Self, Error> {
        let mut encoder = null_mut();
        // SAFETY: the library writes one pointer through the one it is given.
        let code = unsafe { APILoader::WelsCreateSVCEncoder(&raw mut encoder) };
        let encoder = NonNull::new(encoder).ok_or(Error::Failed { call: "creation", code })?;
        let mut this =
            Self { encoder, params: Box::default(), info: Box::<SFrameBSInfo>::default() };
        let mut quiet = WELS_LOG_QUIET;
        // Before everything else: the library writes to stderr otherwise.
        this.set_option(ENCODER_OPTION_TRACE_LEVEL, &raw mut quiet)?;
        let get_default = this.table().GetDefaultParams.ok_or(NO_FUNCTION)?;
        let object = this.encoder.as_ptr();
        // SAFETY: the object is alive, and the library fills the structure behind the pointer.
        let code = unsafe { get_default(object, &raw mut *this.params) };
        check("defaults", code)?;
        this.describe(settings);
        let initialize = this.table().InitializeExt.ok_or(NO_FUNCTION)?;
        // SAFETY: the object is alive; the library reads the structure during the call.
        let code = unsafe { initialize(object, &raw const *this.params) };
        check("initialization", code)?;
        Ok(this)
    }

    /// Fills the library's parameters.
    fn describe(&mut self, settings: &Settings) {
        let params = &mut *self.params;
        let side = |samples: u32| c_int::try_from(samples).unwrap_or(c_int::MAX);
        params.iUsageType = CAMERA_VIDEO_REAL_TIME;
        params.iPicWidth = side(settings.width);
        params.iPicHeight = side(settings.height);
        params.iRCMode = RC_OFF_MODE;
        params.iComplexityMode = LOW_COMPLEXITY;
        params.iNumRefFrame = 1;
        // Nothing but a level of the library's own choice comes from these, and ours is set below.
        params.fMaxFrameRate = 1.0;
        params.sSpatialLayers[0].fFrameRate = 1.0;
        params.eSpsPpsIdStrategy = CONSTANT_ID;
        params.bEnableFrameSkip = false;
        params.bEnableSceneChangeDetect = false;
        params.bEnableAdaptiveQuant = false;
        params.iLoopFilterDisableIdc = DEBLOCKING_IDC_0;
        // The slices of a picture are fixed: the same pictures always make the same stream.
        params.bUseLoadBalancing = false;
        params.iMultipleThreadIdc = settings.slices;
        let layer = &mut params.sSpatialLayers[0];
        layer.iVideoWidth = params.iPicWidth;
        layer.iVideoHeight = params.iPicHeight;
        layer.uiProfileIdc = PRO_BASELINE;
        layer.uiLevelIdc = c_int::from(settings.level_idc);
        layer.sSliceArgument.uiSliceNum = settings.slices.into();
        layer.sSliceArgument.uiSliceMode =
            if settings.slices > 1 { SM_FIXEDSLCNUM_SLICE } else { SM_SINGLE_SLICE };
        let [primaries, transfer, matrix] = settings.colour_description;
        layer.bVideoSignalTypePresent = true;
        layer.bColorDescriptionPresent = true;
        layer.bFullRange = settings.is_full_range;
        layer.uiColorPrimaries = primaries;
        layer.uiTransferCharacteristics = transfer;
        layer.uiColorMatrix = matrix;
    }

    /// Makes the next picture an IDR, with its parameter sets.
    pub fn force_idr(&mut self) {
        if let Some(force) = self.table().ForceIntraFrame {
            // SAFETY: codec_api.h, class ISVCEncoder: the function has a third parameter, the layer,
            // which the table of the binding leaves out.
            let force: ForceIntraFrame = unsafe { std::mem::transmute(force) };
            // SAFETY: the object is alive; -1 means all layers.
            let _ = unsafe { force(self.encoder.as_ptr(), true, -1) };
        }
    }

    /// Encodes one picture, of the size it was opened with, at one quantization parameter, and
    /// returns its NAL units, each behind a start code.
    ///
    /// # Errors
    ///
    /// [`Error::ShortPicture`] is the caller's; after [`Error::Failed`] nothing else works.
    pub fn encode<'a>(
        &'a mut self,
        picture: &Picture<'_>,
        qp: u8,
    ) -> Result<impl Iterator<Item = &'a [u8]> + use<'a>, Error> {
        let source = self.source(picture).ok_or(Error::ShortPicture)?;
        self.set_qp(qp)?;
        let encode = self.table().EncodeFrame.ok_or(NO_FUNCTION)?;
        // SAFETY: the object is initialized; `source` points to planes that `source()` found long
        // enough, which the library only reads, and only until it returns; `info` is its to fill.
        let code = unsafe { encode(self.encoder.as_ptr(), &raw const source, &raw mut *self.info) };
        check("encoding", code)?;
        let layers = usize::try_from(self.info.iLayerNum).unwrap_or(0);
        Ok(self.info.sLayerInfo.iter().take(layers).flat_map(nal_units))
    }

    /// What the library is told of `picture`; nothing when its planes are shorter than it reads.
    fn source(&self, picture: &Picture<'_>) -> Option<SSourcePicture> {
        let (width, height) = (self.params.iPicWidth, self.params.iPicHeight);
        let sizes = [(width, height), (width / 2, height / 2), (width / 2, height / 2)];
        let mut source = SSourcePicture {
            iColorFormat: videoFormatI420,
            iPicWidth: width,
            iPicHeight: height,
            uiTimeStamp: c_longlong::try_from(picture.millis).unwrap_or(c_longlong::MAX),
            ..SSourcePicture::default()
        };
        for (index, ((bytes, stride), (width, height))) in
            picture.planes.into_iter().zip(sizes).enumerate()
        {
            let (width, rows) = (usize::try_from(width).ok()?, usize::try_from(height).ok()?);
            let len = rows.checked_sub(1)?.checked_mul(stride)?.checked_add(width)?;
            if stride < width || bytes.len() < len {
                return None;
            }
            source.iStride[index] = c_int::try_from(stride).ok()?;
            source.pData[index] = bytes.as_ptr().cast_mut();
        }
        Some(source)
    }

    /// The quantization parameter of the pictures from now on.
    fn set_qp(&mut self, qp: u8) -> Result<(), Error> {
        let wanted = c_int::from(qp);
        if self.params.sSpatialLayers[0].iDLayerQp == wanted {
            return Ok(());
        }
        self.params.sSpatialLayers[0].iDLayerQp = wanted;
        // Nothing else differs from what the library has: it neither resets nor writes an IDR.
        let params = &raw mut *self.params;
        self.set_option(ENCODER_OPTION_SVC_ENCODE_PARAM_EXT, params)
    }

    /// `value` must point to what the library reads for this option.
    fn set_option<T>(&mut self, option: ENCODER_OPTION, value: *mut T) -> Result<(), Error> {
        let set = self.table().SetOption.ok_or(NO_FUNCTION)?;
        // SAFETY: the object is alive, and each caller in this file passes a pointer to a live
        // value of the type that the library's documentation names for the option.
        let code = unsafe { set(self.encoder.as_ptr(), option, value.cast()) };
        check("option", code)
    }

    fn table(&self) -> &ISVCEncoderVtbl {
        // SAFETY: the object begins with a pointer to the library's table of functions, which is
        // static, and the object lives until `drop`.
        let table: *const ISVCEncoderVtbl = unsafe { *self.encoder.as_ptr() };
        // SAFETY: as above.
        unsafe { &*table }
    }
}

impl Drop for Encoder {
    /// Ends the library's threads, too.
    fn drop(&mut self) {
        if let Some(uninitialize) = self.table().Uninitialize {
            // SAFETY: the object is alive; one that was never initialized is left as it is.
            let _ = unsafe { uninitialize(self.encoder.as_ptr()) };
        }
        // SAFETY: the object came from `WelsCreateSVCEncoder`, and nothing uses it after this.
        unsafe { APILoader::WelsDestroySVCEncoder(self.encoder.as_ptr()) };
    }
}

/// The NAL units of one layer, which lie back to back.
fn nal_units(layer: &SLayerBSInfo) -> impl Iterator<Item = &[u8]> {
    let count = usize::try_from(layer.iNalCount).unwrap_or(0);
    let lens: &[c_int] = if count == 0 || layer.pNalLengthInByte.is_null() {
        &[]
    } else {
        // SAFETY: the library has filled `iNalCount` lengths, which it leaves alone until the next
        // call; the borrow of `Encoder::encode` keeps that from happening.
        unsafe { slice::from_raw_parts(layer.pNalLengthInByte, count) }
    };
    let mut start = layer.pBsBuf.cast_const();
    lens.iter().map(move |&len| {
        let len = usize::try_from(len).unwrap_or(0);
        // SAFETY: the layer's NAL units lie back to back in its buffer, `len` bytes each, and stay
        // there as long as the lengths do.
        let nal = unsafe { slice::from_raw_parts(start, len) };
        // SAFETY: at most one past the last of them.
        start = unsafe { start.add(len) };
        nal
    })
}

fn check(call: &'static str, code: c_int) -> Result<(), Error> {
    if code == 0 { Ok(()) } else { Err(Error::Failed { call, code }) }
}

/// The library fills its whole table; if it did not, this would be known.
type ForceIntraFrame = unsafe extern "C" fn(*mut ISVCEncoder, bool, c_int) -> c_int;

const NO_FUNCTION: Error = Error::Failed { call: "table", code: 0 };
