//! Why a file could not be read.

const WALL_CLOCK: &str = "--decode-timeout-secs";
const QUICK: &str = "the limit for thumbnails and probing";

/// Why a file could not be read. `code()` is the stable snake_case code of the HTTP API.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// Nothing in the file.
    #[error("the file is empty")]
    Empty,
    /// A folder, device, socket or pipe.
    #[error("expected a regular file")]
    NotAFile,
    /// The file could not be opened.
    #[error("cannot open the file: {0}")]
    Open(std::io::Error),
    /// No video, sound or picture format that is accepted.
    #[error("expected a video, audio or image file in a supported format ({0})")]
    Unsupported(String),
    /// Its tracks can only be read with a key.
    #[error("the file is encrypted ({0}); send an unencrypted copy")]
    Encrypted(String),
    /// A known format, but nothing of it can be decoded.
    #[error("the file is damaged: {0}")]
    Corrupt(String),
    /// A container without the requested kind of track.
    #[error("the file has no {0}")]
    NoStreams(&'static str),
    /// The track that was chosen is none of the file's.
    #[error("the file has no {kind} track {index}: {has}")]
    UnknownTrack {
        /// `video` or `audio`.
        kind: &'static str,
        /// What was requested.
        index: u16,
        /// What there is, in words.
        has: String,
    },
    /// A frame or picture with more pixels than allowed.
    #[error("the picture has too many pixels; at most {limit} are accepted ({detail})")]
    TooManyPixels {
        /// Most pixels of one frame.
        limit: u64,
        /// What was found.
        detail: String,
    },
    /// Longer than allowed.
    #[error("the asset is at least {secs:.1} s long; at most {limit_secs:.1} s are accepted")]
    TooLong {
        /// Declared, or decoded so far.
        secs: f64,
        /// The cap.
        limit_secs: f64,
    },
    /// The span lies behind the end of the asset.
    #[error("the span starts at {start_secs} s, after the end of the asset")]
    SpanOutOfRange {
        /// Where the span starts.
        start_secs: f64,
    },
    /// The wall-clock cap was reached.
    #[error("decoding took longer than {secs} s and was stopped ({})", if *.quick { QUICK } else { WALL_CLOCK })]
    Timeout {
        /// The cap.
        secs: u64,
        /// It is that of a short question, which no flag raises.
        quick: bool,
    },
    /// The cap on memory was reached.
    #[error("decoding needs more memory than the limit of {} MiB per file (--decode-file-memory-bytes)", .limit_bytes >> 20)]
    DecodeLimit {
        /// The cap.
        limit_bytes: u64,
    },
    /// More work than a file of its size may cause.
    #[error("decoding takes more work than allowed for a file of this size: {detail}")]
    WorkLimit {
        /// What there was too much of, and the flag.
        detail: String,
    },
    /// All decoders are busy, or their memory is taken.
    #[error("too many files are being decoded; try again in {retry_after_secs} s")]
    Overloaded {
        /// When to try again.
        retry_after_secs: u64,
    },
    /// A sample that no sound has: not a number, infinite, or beyond [`MAX_SAMPLE`].
    #[error("expected audio samples from -65536 to 65536, got {value:e} at {at_secs:.3} s")]
    BadSamples {
        /// Where it is, seconds.
        at_secs: f64,
        /// What it is.
        value: f32,
    },
    /// Decoding does not work here: our fault, not the file's. The reason may name paths of this machine, so
    /// it is not part of the sentence; see [`MediaError::detail`].
    #[error(
        "the server cannot decode files at the moment; this is not the fault of the file, so try again later"
    )]
    Worker(String),
    /// A signal ended the decoder, which neither the file nor our caps sent.
    #[error("the decoder was killed by signal {0} from outside while it read this file; try again later")]
    Killed(i32),
}

/// The largest sample taken, in either direction: full scale of 16-bit integers that were written as
/// floats is half of it, and nothing that squares it overflows.
pub const MAX_SAMPLE: f32 = 65_536.0;
/// What is quieter is silence: -300 dB of full scale. Powers of it would be slow to compute with.
pub const MIN_SAMPLE: f32 = 1e-15;

impl MediaError {
    /// Stable code.
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
            Self::Timeout { .. } => "decode_timeout",
            Self::DecodeLimit { .. } => "decode_limit",
            Self::WorkLimit { .. } => "work_limit",
            Self::Overloaded { .. } => "overloaded",
            Self::BadSamples { .. } => "bad_samples",
            Self::Worker(_) => "decode_worker_failed",
            Self::Killed(_) => "decode_worker_killed",
        }
    }

    /// Whether the fault is this server's, so that the same file may do well later.
    #[must_use]
    pub const fn is_ours(&self) -> bool {
        matches!(self, Self::Worker(_) | Self::Killed(_))
    }

    /// What the log is told beyond the sentence, and clients are not.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        if let Self::Worker(detail) = self { Some(detail) } else { None }
    }
}
