//! Errors of reading a file, with their stable codes.

use crate::types::Deciding;

const QUICK: &str = " (the limit for thumbnails and probing)";

/// Why a file could not be read. `code()` is the stable snake_case code of the HTTP API.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// The file has no bytes.
    #[error("the file is empty")]
    Empty,
    /// A folder, device, socket or pipe instead of a file.
    #[error("expected a regular file")]
    NotAFile,
    /// The file could not be opened.
    #[error("cannot open the file: {0}")]
    Open(std::io::Error),
    /// Not a supported video, sound or picture format.
    #[error("expected a video, audio or image file in a supported format ({0})")]
    Unsupported(String),
    /// Its tracks are encrypted.
    #[error("the file is encrypted ({0}); send an unencrypted copy")]
    Encrypted(String),
    /// A known format, but nothing in it can be decoded.
    #[error("the file is damaged: {0}")]
    Corrupt(String),
    /// The container has no track of the requested kind.
    #[error("the file has no {0}")]
    NoStreams(&'static str),
    /// The chosen file track does not exist.
    #[error("the file has no {kind} track {index}: {has}")]
    UnknownTrack {
        /// `video` or `audio`.
        kind: &'static str,
        /// The requested index.
        index: u16,
        /// The existing tracks, in words.
        has: String,
    },
    /// A frame or picture with more pixels than allowed.
    #[error("the picture has too many pixels; at most {limit} are accepted ({detail})")]
    TooManyPixels {
        /// Most pixels of one frame.
        limit: u64,
        /// The size that was found.
        detail: String,
    },
    /// The asset is longer than allowed.
    #[error("the asset is at least {secs:.1} s long; at most {limit_secs:.1} s are accepted")]
    TooLong {
        /// Length as declared, or as decoded so far.
        secs: f64,
        /// The limit, in seconds.
        limit_secs: f64,
    },
    /// The span starts after the end of the asset.
    #[error("the span starts at {start_secs} s, after the end of the asset")]
    SpanOutOfRange {
        /// Start of the span, in seconds.
        start_secs: f64,
    },
    /// The limit on wall-clock time was reached.
    #[error("decoding took longer than {secs} s and was stopped{}", if *.quick { QUICK } else { "" })]
    Timeout {
        /// The limit, in seconds.
        secs: u64,
        /// Whether it is the limit for thumbnails and probing, which cannot be changed.
        quick: bool,
    },
    /// The limit on memory was reached.
    #[error("decoding needs more memory than the limit of {} MiB per file", .limit_bytes >> 20)]
    DecodeLimit {
        /// The limit, in bytes.
        limit_bytes: u64,
    },
    /// Decoding takes more work than a file of its size may cause.
    #[error("decoding takes more work than allowed for a file of this size: {detail}")]
    WorkLimit {
        /// What exceeded its limit.
        detail: String,
    },
    /// All seats are taken, or the memory of the pool is.
    #[error("too many files are being decoded; try again in {retry_after_secs} s")]
    Overloaded {
        /// Seconds to wait before a retry.
        retry_after_secs: u64,
    },
    /// A value that no sound has: not a number, infinite, or beyond [`MAX_SAMPLE`].
    #[error("expected audio samples from -65536 to 65536, got {value:e} at {at_secs:.3} s")]
    BadSamples {
        /// Position of the sample, in seconds.
        at_secs: f64,
        /// Value of the sample.
        value: f32,
    },
    /// Decoding does not work on this server, which is not the file's fault. The reason may name paths of
    /// this machine, so it is not part of the message; see [`MediaError::detail`].
    #[error(
        "the server cannot decode files at the moment; this is not the fault of the file, so try again later"
    )]
    Worker(String),
    /// The decoder sent something that it never should. Either the file misled it or the server is at fault:
    /// [`super::Decoder::blame`] says which.
    #[error("the decoder's output is invalid")]
    Nonsense(String),
    /// A signal ended the decoder, and neither the file nor our limits caused it.
    #[error("the decoder was killed by signal {0} from outside while it read this file; try again later")]
    Killed(i32),
}

/// Largest magnitude of a sample. Full scale of 16-bit integers that were written as floats is half of it,
/// and its square cannot overflow.
pub const MAX_SAMPLE: f32 = 65_536.0;
/// Quieter samples become silence: -300 dB of full scale. Computing with their powers would be slow.
pub const MIN_SAMPLE: f32 = 1e-15;

impl MediaError {
    /// Stable error code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Empty => "empty_file",
            Self::NotAFile => "not_a_file",
            Self::Open(_) => "cannot_open",
            Self::Unsupported(_) => "unsupported_media",
            Self::Encrypted(_) => "encrypted_media",
            Self::Corrupt(_) => "corrupt_media",
            Self::NoStreams(_) => "no_media_streams",
            Self::UnknownTrack { .. } => "unknown_track",
            Self::TooManyPixels { .. } => "too_many_pixels",
            Self::TooLong { .. } => "too_long",
            Self::SpanOutOfRange { .. } => "span_out_of_range",
            Self::Timeout { .. } => Deciding::DecodeTimeout.as_str(),
            Self::DecodeLimit { .. } => Deciding::DecodeLimit.as_str(),
            Self::WorkLimit { .. } => Deciding::WorkLimit.as_str(),
            Self::Overloaded { .. } => Deciding::Overloaded.as_str(),
            Self::BadSamples { .. } => "bad_samples",
            Self::Worker(_) | Self::Nonsense(_) => Deciding::DecodeWorkerFailed.as_str(),
            Self::Killed(_) => Deciding::DecodeWorkerKilled.as_str(),
        }
    }

    /// Whether this server is at fault, so that the same file may succeed later.
    #[must_use]
    pub const fn is_ours(&self) -> bool {
        matches!(self, Self::Worker(_) | Self::Nonsense(_) | Self::Killed(_))
    }

    /// Details for the log that clients must not see.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        if let Self::Worker(detail) | Self::Nonsense(detail) = self { Some(detail) } else { None }
    }
}
