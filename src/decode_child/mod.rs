//! The process that parses the bytes of one untrusted file: it receives the file and one request, enters the
//! sandbox and decodes. [`protocol`] defines its messages with the server.
//!
//! It uses no other part of the server: that would be in the sandbox too.

pub mod arguments;
mod encrypted;
mod image;
mod job;
mod jpeg;
pub mod need;
pub mod protocol;
mod reduce;
mod sandbox;
mod upright;

use std::fs::File;
use std::io::{IoSliceMut, Read, Seek, SeekFrom};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::io::FdFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use self::arguments::{Known, arguments};
use self::job::{Decoded, Job, Refusal};
use self::protocol::{Engine, Failure, MAX_LINE_BYTES, Reply, Request, Started, Streams, Task};
use crate::formats::headers;
use crate::formats::sniff::{SNIFF_BYTES, Sniffed, sniff};
use crate::structure::broadcast::{self, Scrambled};
use crate::structure::sound::{self, Examined};
use crate::structure::whole::{self, Lack};
use crate::structure::window::Window;
use crate::types::AssetKind;

/// Bytes of a file read, or of a picture written, at a time.
const BUFFER_BYTES: usize = 1 << 16;

/// Runs the child to its end. Standard input must be the parent's socket.
#[must_use]
pub fn main() -> ExitCode {
    sandbox::close_inherited();
    crate::native::work_in_background();
    let Some(mut job) = receive() else {
        eprintln!("decode-worker is an internal command that triptych starts itself");
        return ExitCode::from(2);
    };
    let outcome = serve(&mut job);
    let reply = match outcome {
        Ok(damaged) => Reply::Finished { damaged },
        Err(refusal) => Reply::Failed { failure: refusal.failure, detail: refusal.detail },
    };
    // The parent may be gone; then nobody reads the reply.
    let _ = job.say(&reply);
    ExitCode::SUCCESS
}

fn receive() -> Option<Job> {
    // The worker is started as /proc/self/exe, so lists of processes would show it as `exe`.
    let _ = rustix::thread::set_name(c"triptych-decode");
    sandbox::bind_to_parent().ok()?;
    let control = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().ok()?);
    let mut line = Vec::new();
    let mut descriptors: Vec<OwnedFd> = Vec::new();
    while line.last() != Some(&b'\n') && line.len() < MAX_LINE_BYTES {
        let mut bytes = [0u8; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let received = recvmsg(&control, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC);
        let got = match received {
            Ok(received) => received.bytes,
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return None,
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        if got == 0 {
            return None;
        }
        line.extend_from_slice(bytes.get(..got)?);
    }
    let request = Request::read(&line)?;
    let mut descriptors = descriptors.into_iter().map(File::from);
    let (media, sound) = (descriptors.next()?, descriptors.next()?);
    Some(Job { media, sound: Some(sound), control, request, landlock: false })
}

fn serve(job: &mut Job) -> Result<u64, Refusal> {
    let internal = |e| Refusal::new(Failure::Internal, e);
    sandbox::limit_resources(job.request.address_space_bytes, job.request.cpu_secs).map_err(internal)?;
    // A kernel without Landlock refuses the call. Rlimits and seccomp still apply, and the parent warns.
    job.landlock = sandbox::landlock(Some(&job.request.ffmpeg)).unwrap_or(false);
    sandbox::seccomp().map_err(internal)?;
    if matches!(job.request.task, Task::Health) {
        return Err(run_ffmpeg(job, "", None, Examined::default(), false));
    }
    job.say(&Reply::Reading)?;

    let mut head = Vec::with_capacity(SNIFF_BYTES);
    // The parent's descriptor shares its position with this one and with that of an earlier attempt.
    let read = job.media.rewind().and_then(|()| (&job.media).take(SNIFF_BYTES as u64).read_to_end(&mut head));
    read.and_then(|_| job.media.rewind()).map_err(|e| Refusal::new(Failure::Corrupt, e))?;
    let corrupt = |e: std::io::Error| Refusal::new(Failure::Corrupt, e);
    let (sniffed, jpeg) = headers::look(sniff(&head), &job.media).map_err(corrupt)?;
    let decoded = match sniffed {
        Sniffed::Refused(why) => return Err(Refusal::new(Failure::Unsupported, why)),
        Sniffed::Picture(format) => {
            let may_need_ffmpeg = matches!(format, ::image::ImageFormat::Gif | ::image::ImageFormat::Tiff);
            sandbox::refuse_exec_unless(may_need_ffmpeg).map_err(internal)?;
            image::decode(job, format, jpeg)?
        }
        Sniffed::Sound(_) if matches!(job.request.task, Task::Thumbnail { .. }) => {
            return Err(Refusal::new(Failure::NoPicture, "an audio file has no picture"));
        }
        Sniffed::Sound(demuxers) => {
            // ffmpeg would refuse to start if a requested picture stream did not exist.
            if let Task::Clips { streams, .. } = &mut job.request.task {
                *streams = Streams::Audio;
            }
            Decoded::TryFfmpeg(demuxers)
        }
        Sniffed::Ffmpeg(demuxers) | Sniffed::FfmpegPicture(demuxers) => Decoded::TryFfmpeg(demuxers),
    };
    match decoded {
        Decoded::Done { damaged } => Ok(damaged),
        Decoded::TryFfmpeg(demuxers) => {
            let kind = match sniffed {
                _ if demuxers == image::TIFF_DEMUXER => Some(AssetKind::Image),
                Sniffed::FfmpegPicture(_) => Some(AssetKind::Image),
                Sniffed::Sound(_) => Some(AssetKind::Audio),
                _ => None,
            };
            if let Some(way) = Window::new(&job.media).ok().and_then(|mut window| encrypted::by(&mut window))
            {
                return Err(Refusal::new(Failure::Encrypted, way));
            }
            let scrambled = broadcast::scrambled(&job.media);
            if scrambled == Some(Scrambled::Whole) {
                return Err(Refusal::new(Failure::Encrypted, "scrambling of the transport stream"));
            }
            // Files other than bare streams of frames are examined only up to their header.
            let found = sound::examine(&job.media, kind == Some(AssetKind::Audio), job.request.from)
                .map_err(|e| Refusal::new(Failure::Corrupt, e))?;
            Err(run_ffmpeg(job, demuxers, kind, found, scrambled.is_some()))
        }
    }
}

/// Leaves the file, at its beginning, and the pipe for sound, if sound is wanted, open for ffmpeg; returns the pipe's
/// descriptor.
fn hand_over(job: &mut Job) -> std::io::Result<RawFd> {
    job.media.seek(SeekFrom::Start(0))?;
    rustix::io::fcntl_setfd(&job.media, FdFlags::empty())?;
    let wanted = matches!(job.request.task, Task::Clips { streams: Streams::Both | Streams::Audio, .. });
    // Otherwise the pipe stays close-on-exec, so that the parent sees its end at once.
    if let Some(pipe) = job.sound.as_ref().filter(|_| wanted) {
        rustix::io::fcntl_setfd(pipe, FdFlags::empty())?;
    }
    Ok(job.sound.as_ref().map_or(-1, AsRawFd::as_raw_fd))
}

/// Position of a stream of a chain in the file, in bytes.
fn part_of(media: &File, stream: Option<(u64, Option<u64>)>) -> std::io::Result<Option<(u64, u64)>> {
    let Some((from, next)) = stream else { return Ok(None) };
    let end = next.map_or_else(|| media.metadata().map(|meta| meta.len()), Ok)?;
    Ok(Some((from, end)))
}

/// Replaces this process with ffmpeg. Returns only if that fails.
fn run_ffmpeg(
    job: &mut Job,
    demuxers: &str,
    kind: Option<AssetKind>,
    mut found: Examined,
    scrambled: bool,
) -> Refusal {
    let picture = kind == Some(AssetKind::Image);
    let sample_rate_hz = match &mut job.request.task {
        Task::Clips { sample_rate_hz, streams, .. } => {
            if picture {
                *streams = Streams::FirstFrame;
            }
            *sample_rate_hz
        }
        _ => 0,
    };
    let (untimed, plain) = (found.untimed, found.plain);
    let stream = found.linked.then_some((job.request.from, found.next));
    let raw = sound::raw(&job.media);
    let clock = broadcast::joined(&job.media);
    let lack = whole::lack(&job.media);
    let parts = broadcast::parts(&job.media);
    found.followed |= lack == Some(Lack::Joined);
    let started = Started {
        engine: Engine::Ffmpeg,
        kind,
        sample_rate_hz,
        declared_secs: None,
        sound: found,
        width: 0,
        height: 0,
        cut_short: lack.and_then(Lack::why).map(str::to_owned),
        joined: clock == Some(true),
        parts: parts.streams,
        exchanged: parts.exchanged,
        scrambled,
        landlock: false,
        reduced: false,
    };
    let prepared = part_of(&job.media, stream).and_then(|part| {
        let known = Known { demuxers, picture, untimed, plain, raw, one_clock: clock == Some(false), part };
        let sound = hand_over(job)?;
        Ok(arguments(&job.request, known, job.media.as_raw_fd(), sound))
    });
    let arguments = match prepared {
        Ok(arguments) => arguments,
        Err(error) => return Refusal::new(Failure::Internal, error),
    };
    let bytes = job.request.ffmpeg_bytes;
    let reserved = match job.request.task {
        // This only reads ffmpeg's version, which takes no seat and almost no memory.
        Task::Health => sandbox::limit_data(bytes, job.request.address_space_bytes)
            .map_err(|e| Refusal::new(Failure::Internal, e)),
        _ => job.reserve(bytes, 0),
    };
    if let Err(refusal) = reserved.and_then(|()| job.start(started)) {
        return refusal;
    }
    let error = Command::new(&job.request.ffmpeg).args(arguments).env_clear().exec();
    Refusal::new(Failure::Internal, format!("{}: {error}", job.request.ffmpeg.display()))
}
