//! Reads a child's pipes side by side, without blocking on one while another is full.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::MediaError;
use super::pipe::{FrameReader, SoundReader};
use super::pool::{Memory, Seat, WORKER_BYTES};
use super::process::Worker;
use crate::decode_child::protocol::{MAX_LINE_BYTES, Reply, Streams};
use crate::ffmpeg::filters::Shape;
use crate::ffmpeg::picks::Picks;
use crate::ffmpeg::sound::{Placed, Placer};
use crate::types::{AssetKind, TrackChoice};

mod budget;
mod cancel;
mod ended;
mod flow;
mod place;
mod sink;
mod sound;

pub use cancel::{Cancel, CancelGuard};
pub use ended::{Ended, MediaInfo};
pub use place::{Misplaced, Sought};
use sink::Nothing;
pub use sink::{Flow, Sink};

/// Longest timeout. An `Instant` cannot hold arbitrarily long ones.
const A_YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// How long log and sound stay unread while pictures arrive. ffmpeg writes a few words for each packet of
/// sound, and waking up for each of them costs more than reading them. The pipes have room for several times
/// as much.
const GATHER: Duration = Duration::from_millis(3);

/// Largest finished picture, in bytes.
const MAX_PICTURE: usize = 16 << 20;

/// Settings of one child's run, and the limits that the pump enforces itself.
#[derive(Debug, Clone, Copy)]
pub struct Caps {
    pub wall_clock: Duration,
    /// Whether `wall_clock` is the limit of a quick task.
    pub quick: bool,
    pub max_pixels: u64,
    pub max_picture_pixels: u64,
    pub max_duration_secs: f64,
    pub fps: f64,
    /// Where decoding begins, in seconds.
    pub start_secs: f64,
    pub streams: Streams,
    /// Set if the child was instructed to seek.
    pub sought: Option<Sought>,
    /// Which streams the child reads, and how it transforms the frames.
    pub shape: Shape,
    /// The file tracks that the client chose.
    pub choice: TrackChoice,
    /// The tracks to read, once they are known.
    pub picks: Option<Picks>,
    /// What was decoded of the streams before the child's, if it begins within the file.
    pub after: Option<Placed>,
    /// Set if the child surveys streams: those of pictures and of sound, one bit each.
    pub survey: Option<(u64, u64)>,
    /// Whether frames are prepared as they are meant to be shown, rather than as stored.
    pub shown: bool,
    pub address_space_bytes: u64,
    pub file_bytes: u64,
    /// CPU time that the child, and this thread since `thread_began`, may use together.
    pub cpu: Duration,
    /// CPU time of this thread when it began with the file.
    pub thread_began: Duration,
}

/// Passes a child's output to a sink until it ends, the sink has enough, or a limit is reached.
pub fn pump(
    worker: Worker,
    seat: &Seat,
    sink: &mut dyn Sink,
    cancel: Option<&Cancel>,
    caps: Caps,
) -> Result<Ended, MediaError> {
    let mut pump = Pump::new(caps, seat);
    let result = pump.run(&worker, sink, cancel);
    if !matches!(result, Ok(Flow::More)) {
        worker.kill();
    }
    pump.ended.exit = worker.wait();
    pump.ended.at = Instant::now();
    pump.ended.placed = pump.placer.placed();
    pump.ended.stopped = result? == Flow::Stop && !pump.ended.cut_off();
    Ok(pump.ended)
}

/// Runs a child that sends one finished picture on its frame pipe. Returns the picture's bytes.
pub fn collect(worker: Worker, seat: &Seat, caps: Caps) -> Result<(Vec<u8>, Ended), MediaError> {
    let mut pump = Pump::new(caps, seat);
    pump.raw = Some(Vec::new());
    let result = pump.run(&worker, &mut Nothing, None);
    if !matches!(result, Ok(Flow::More)) {
        worker.kill();
    }
    pump.ended.exit = worker.wait();
    pump.ended.at = Instant::now();
    result?;
    Ok((pump.raw.unwrap_or_default(), pump.ended))
}

struct Pump<'a> {
    caps: Caps,
    seat: &'a Seat,
    /// Memory of the child, once it has asked for some. Returned after the child is gone.
    memory: Option<Memory>,
    fitted: bool,
    cpu_looked_at: Instant,
    deadline: Instant,
    ended: Ended,
    control_line: Vec<u8>,
    /// Bytes of a finished picture, if one is collected instead of frames.
    raw: Option<Vec<u8>>,
    frame: FrameReader,
    sound: SoundReader,
    placer: Placer,
    frames_open: bool,
    /// Whether a picture has arrived.
    pictured: bool,
    sound_open: bool,
    /// Sound that arrived before the child's position was known, and whether that is all of it.
    held: VecDeque<u8>,
    sound_done: bool,
    log_open: bool,
    control_open: bool,
    exited: bool,
    /// Until when log and sound are left unread: see `GATHER`.
    gather_until: Instant,
}

impl<'a> Pump<'a> {
    fn new(caps: Caps, seat: &'a Seat) -> Self {
        Self {
            caps,
            seat,
            memory: None,
            fitted: false,
            cpu_looked_at: Instant::now(),
            deadline: Instant::now() + caps.wall_clock.min(A_YEAR),
            ended: Ended::new(&caps),
            control_line: Vec::new(),
            raw: None,
            frame: FrameReader::new(caps.max_pixels),
            sound: SoundReader::default(),
            placer: caps.after.map_or_else(Placer::default, |after| Placer::after(after, false)),
            frames_open: true,
            pictured: false,
            sound_open: true,
            held: VecDeque::new(),
            sound_done: false,
            log_open: true,
            control_open: true,
            exited: false,
            gather_until: Instant::now(),
        }
    }

    fn run(
        &mut self,
        worker: &Worker,
        sink: &mut dyn Sink,
        cancel: Option<&Cancel>,
    ) -> Result<Flow, MediaError> {
        while self.frames_open || self.sound_open || !self.exited {
            let (frames, sound) = self.wait(worker, cancel)?;
            // Messages that the child sent before its data must be known before the data is examined.
            self.drain_talk(worker, cancel)?;
            self.fit_memory(worker);
            self.look_at_cpu(worker);
            if self.ended.cut_off() || self.look_at_place() || self.surveyed() {
                return Ok(Flow::Stop);
            }
            if frames && self.raw.is_some() {
                self.read_raw(worker)?;
            } else if frames && self.read_frames(worker, sink, cancel)? == Flow::Stop {
                return Ok(Flow::Stop);
            }
            // It is known now whether a picture will come, and sound from a wrong position must not be passed
            // on.
            if self.look_at_place() {
                return Ok(Flow::Stop);
            }
            if self.placing() {
                if sound {
                    self.hold_sound(worker)?;
                }
                continue;
            }
            if sound && self.read_sound(worker, sink, cancel)? == Flow::Stop {
                return Ok(Flow::Stop);
            }
            while self.sound_is_held() {
                if self.read_sound(worker, sink, cancel)? == Flow::Stop {
                    return Ok(Flow::Stop);
                }
            }
        }
        self.drain_talk(worker, cancel)?;
        Ok(if self.look_at_place() { Flow::Stop } else { Flow::More })
    }

    /// Waits until something can be read. Returns whether there are frames, and whether there is sound.
    fn wait(&mut self, worker: &Worker, cancel: Option<&Cancel>) -> Result<(bool, bool), MediaError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let (secs, quick) = (self.caps.wall_clock.as_secs(), self.caps.quick);
            return Err(MediaError::Timeout { secs, quick });
        }
        let rest = self.gather_until.saturating_duration_since(Instant::now());
        let all = rest.is_zero();
        let sources = [
            (!self.exited, worker.pidfd.as_fd()),
            (self.control_open, worker.control.as_fd()),
            (self.log_open && all, worker.log.as_fd()),
            (self.frames_open, worker.frames.as_fd()),
            (self.sound_open && !self.sound_done && all, worker.sound.as_fd()),
        ];
        let mut fds = Vec::with_capacity(6);
        let mut slots = [None; 5];
        for (slot, (wanted, fd)) in slots.iter_mut().zip(sources) {
            if wanted {
                *slot = Some(fds.len());
                fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
            }
        }
        let cancel_slot = cancel.map(|cancel| {
            fds.push(PollFd::new(&cancel.0, PollFlags::IN));
            fds.len() - 1
        });
        let time = if all { left } else { left.min(rest) }.min(budget::LOOK_AT_CPU);
        let timeout = Timespec::try_from(time).unwrap_or(Timespec { tv_sec: 3600, tv_nsec: 0 });
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(MediaError::Worker(format!("poll: {errno}"))),
        }
        let ready = |slot: Option<usize>| slot.is_some_and(|i| !fds[i].revents().is_empty());
        if ready(cancel_slot) {
            return Err(MediaError::Worker("the caller no longer waits for the result".into()));
        }
        self.exited |= ready(slots[0]);
        if all && self.pictured && self.frames_open {
            self.gather_until = Instant::now() + GATHER;
        }
        Ok((ready(slots[3]), ready(slots[4])))
    }

    fn drain_talk(&mut self, worker: &Worker, cancel: Option<&Cancel>) -> Result<(), MediaError> {
        let mut bytes = [0u8; 4096];
        while self.log_open {
            match read(&worker.log, &mut bytes)? {
                Some(0) => self.log_open = false,
                Some(n) => self.ended.log.feed(&bytes[..n]),
                None => break,
            }
        }
        while self.control_open {
            match read(&worker.control, &mut bytes)? {
                Some(0) => self.control_open = false,
                Some(n) => self.take_control(worker, cancel, &bytes[..n])?,
                None => break,
            }
        }
        Ok(())
    }

    /// The reply that a byte completes, if it does.
    fn next_reply(&mut self, byte: u8) -> Result<Option<Reply>, MediaError> {
        if byte != b'\n' {
            self.control_line.push(byte);
            if self.control_line.len() > MAX_LINE_BYTES {
                return Err(MediaError::Nonsense("its answer is too long".into()));
            }
            return Ok(None);
        }
        let reply = Reply::read(&self.control_line);
        self.control_line.clear();
        reply.map(Some).map_err(|e| MediaError::Nonsense(format!("its answer is malformed: {e}")))
    }

    fn take_control(
        &mut self,
        worker: &Worker,
        cancel: Option<&Cancel>,
        bytes: &[u8],
    ) -> Result<(), MediaError> {
        for &byte in bytes {
            let Some(reply) = self.next_reply(byte)? else { continue };
            match reply {
                Reply::Reading => self.ended.reading = true,
                Reply::Need { child_bytes, server_bytes } => {
                    let need = child_bytes.saturating_add(server_bytes).saturating_add(WORKER_BYTES);
                    self.give_memory(worker, cancel, need)?;
                }
                Reply::Started(started) => {
                    let from = Some(self.caps.start_secs).filter(|_| started.sound.starts_over());
                    let rate = started.sample_rate_hz;
                    self.placer = match self.caps.after {
                        Some(after) => Placer::after(after, started.sound.counted),
                        None => Placer::new(from.unwrap_or(0.0), &started.sound, rate),
                    };
                    if started.kind == Some(AssetKind::Image) {
                        let TrackChoice { video, audio } = self.caps.choice;
                        let chosen =
                            video.map(|index| ("video", index)).or(audio.map(|index| ("audio", index)));
                        self.ended.unknown_track = chosen;
                    }
                    self.ended.started = Some(started);
                }
                Reply::Finished { damaged } => self.ended.damaged = damaged,
                Reply::Failed { failure, detail } => self.ended.failed = Some((failure, detail)),
            }
        }
        Ok(())
    }

    /// Tells the sink once what will follow.
    fn announce(&mut self, sink: &mut dyn Sink) -> Result<(), MediaError> {
        if self.ended.info.is_some() {
            return Ok(());
        }
        let Some(info) = self.ended.describe() else {
            return Err(MediaError::Nonsense("it sent data before its greeting".into()));
        };
        if let Some(secs) = info.declared_secs.filter(|s| !info.estimated && *s > self.caps.max_duration_secs)
        {
            return Err(self.too_long(secs));
        }
        self.ended.info = Some(info.clone());
        sink.started(&info)?;
        if !self.sound_open {
            self.end_sound(sink)?;
        }
        Ok(())
    }

    fn too_long(&self, secs: f64) -> MediaError {
        MediaError::TooLong { secs, limit_secs: self.caps.max_duration_secs }
    }
}

/// Reads without blocking; `None` if there is no data yet.
fn read(fd: impl AsFd, buffer: &mut [u8]) -> Result<Option<usize>, MediaError> {
    match rustix::io::read(fd, buffer) {
        Ok(n) => Ok(Some(n)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(errno) => Err(MediaError::Worker(format!("read: {errno}"))),
    }
}

/// Parses the child's messages on its socket, and checks the resulting description.
#[cfg(test)]
pub(super) fn hear(bytes: &[u8]) {
    let limits = super::Limits::default();
    let Ok(media) = std::fs::File::open("/dev/null") else { return };
    let Ok(budget) = super::decode::Budget::of(&limits, &media) else { return };
    let seat = Seat::of_no_pool();
    let mut pump = Pump::new(super::decode::caps(&limits, Streams::Both, budget), &seat);
    for byte in bytes {
        match pump.next_reply(*byte) {
            Ok(Some(Reply::Started(started))) => pump.ended.started = Some(started),
            Ok(_) => {}
            Err(_) => break,
        }
    }
    if let Some(info) = pump.ended.describe() {
        assert!(info.declared_secs.is_none_or(|secs| secs.is_finite() && secs >= 0.0));
    }
    let _ = pump.ended.last_words();
}
