//! A clock as a film: each frame shows its number in a block code, each second has its own tone.
#![allow(dead_code)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Frames per second of the film as it is made.
pub const FPS: u32 = 25;
/// Its length, seconds.
pub const SECS: u32 = 12;
/// Rate of its sound as it is made, Hz.
pub const RATE: u32 = 48_000;
const WIDTH: usize = 160;
const HEIGHT: usize = 120;
/// Blocks along a side of the code, which fills the centre square of the picture.
const SIDE: usize = 4;

/// The clock's raw files, from which ffmpeg makes everything else.
pub struct Clock {
    ffmpeg: PathBuf,
    folder: PathBuf,
}

impl Clock {
    /// Writes the raw film and its sound into a folder.
    pub fn write(ffmpeg: &Path, folder: &Path) -> Self {
        write_film(&folder.join("clock.y4m"), (FPS, 1), FPS * SECS);
        std::fs::write(folder.join("clock.wav"), wav(&tones())).unwrap();
        Self { ffmpeg: ffmpeg.to_owned(), folder: folder.to_owned() }
    }

    /// Makes a file. In `args`, `PICTURES` is the film as an input and `SOUND` the sound. A `;` begins another
    /// run of ffmpeg: `LAST` is then what the run before it made, which says its format by `TO.mkv` at its end;
    /// `JOIN` puts the bytes of all of them one after the other.
    pub fn make(&self, name: &str, args: &str) -> Result<PathBuf, String> {
        let pictures = format!("-i {}", self.folder.join("clock.y4m").display());
        let sound = format!("-i {}", self.folder.join("clock.wav").display());
        let mut made: Vec<PathBuf> = Vec::new();
        for (i, step) in args.split(';').enumerate() {
            let between = step.split_whitespace().last().and_then(|word| word.strip_prefix("TO."));
            let out = self.folder.join(match between {
                Some(extension) => format!("{i}-{name}.{extension}"),
                None => name.to_owned(),
            });
            if step == "JOIN" {
                let parts: Result<Vec<_>, _> = made.iter().map(std::fs::read).collect();
                let whole = parts.map_err(|error| error.to_string())?.concat();
                std::fs::write(&out, whole).map_err(|error| error.to_string())?;
                return Ok(out);
            }
            let last = made.last().cloned().unwrap_or_default();
            let step = step
                .replace("PICTURES", &pictures)
                .replace("SOUND", &sound)
                .replace("LAST", &format!("-i {}", last.display()));
            let words = step.split_whitespace().filter(|word| !word.starts_with("TO."));
            let mut command = Command::new(&self.ffmpeg);
            command.args(["-nostdin", "-v", "error", "-y"]).args(words).arg(&out);
            let done = command.output().map_err(|error| error.to_string())?;
            if !done.status.success() {
                return Err(String::from_utf8_lossy(&done.stderr).trim().to_owned());
            }
            made.push(out);
        }
        made.pop().ok_or_else(|| "nothing was asked for".to_owned())
    }

    /// A name in the clock's folder, for files that are made of its files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Writes a raw film of so many numbers, at a rate in frames per second.
pub fn write_film(path: &Path, (rate, scale): (u32, u32), frames: u32) {
    let mut film = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    writeln!(film, "YUV4MPEG2 W{WIDTH} H{HEIGHT} F{rate}:{scale} Ip A1:1 C420jpeg").unwrap();
    for number in 0..frames {
        film.write_all(b"FRAME\n").unwrap();
        film.write_all(&luma(number)).unwrap();
        film.write_all(&[128; WIDTH * HEIGHT / 2]).unwrap();
    }
    film.flush().unwrap();
}

/// The blocks of a frame: ten bits of its number, and six that no blend of two numbers gets right.
fn code(number: u32) -> u32 {
    (number & 0x3ff) | ((number * 37 + 11) & 0x3f) << 10
}

fn luma(number: u32) -> Vec<u8> {
    let mut luma = vec![128; WIDTH * HEIGHT];
    let (block, left) = (HEIGHT / SIDE, (WIDTH - HEIGHT) / 2);
    for y in 0..HEIGHT {
        for x in 0..HEIGHT {
            let bit = y / block * SIDE + x / block;
            luma[y * WIDTH + left + x] = if code(number) >> bit & 1 == 1 { 255 } else { 0 };
        }
    }
    luma
}

/// The number that a picture shows, where it can be read.
pub fn number_on(rgb: &[u8], width: usize, height: usize) -> Option<u32> {
    let side = width.min(height);
    let (left, top, block) = ((width - side) / 2, (height - side) / 2, side / SIDE);
    let mut bits = 0;
    for bit in 0..SIDE * SIDE {
        let (x, y) = (left + bit % SIDE * block, top + bit / SIDE * block);
        let inner = block / 4..block - block / 4;
        let points = inner.clone().flat_map(|dy| inner.clone().map(move |dx| (x + dx, y + dy)));
        let values = points.map(|(x, y)| f64::from(rgb[(y * width + x) * 3 + 1]));
        let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
        let mean = sum / count;
        if (90.0..165.0).contains(&mean) {
            return None;
        }
        bits |= u32::from(mean > 128.0) << bit;
    }
    (code(bits & 0x3ff) == bits).then_some(bits & 0x3ff)
}

/// The tone of a second, Hz: neighbours are far apart.
pub fn tone_hz(second: u32) -> f64 {
    400.0 + 150.0 * f64::from(second * 5 % 13)
}

fn tones() -> Vec<i16> {
    let mut phase = 0.0_f64;
    let tones = (0..SECS * RATE).map(|i| {
        phase += tone_hz(i / RATE) / f64::from(RATE);
        ((phase * std::f64::consts::TAU).sin() * 8000.0) as i16
    });
    tones.collect()
}

fn wav(samples: &[i16]) -> Vec<u8> {
    let data = (samples.len() * 2) as u32;
    let mut wav = b"RIFF".to_vec();
    wav.extend((36 + data).to_le_bytes());
    wav.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    wav.extend(RATE.to_le_bytes());
    wav.extend((RATE * 2).to_le_bytes());
    wav.extend(b"\x02\0\x10\0data");
    wav.extend(data.to_le_bytes());
    wav.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    wav
}

/// The second identified by the tone in the samples, if there is one; silence has none.
pub fn second_heard(samples: &[f32], rate: u32) -> Option<u32> {
    let power: f64 = samples.iter().map(|sample| f64::from(*sample).powi(2)).sum();
    if power / (samples.len() as f64) < 1e-4 {
        return None;
    }
    let strength = |second: u32| {
        let step = tone_hz(second) / f64::from(rate) * std::f64::consts::TAU;
        let (mut re, mut im) = (0.0, 0.0);
        for (i, sample) in samples.iter().enumerate() {
            let (sin, cos) = (step * i as f64).sin_cos();
            re += f64::from(*sample) * cos;
            im += f64::from(*sample) * sin;
        }
        re * re + im * im
    };
    (0..SECS).max_by(|a, b| strength(*a).total_cmp(&strength(*b)))
}

/// What a file shows and sounds like.
#[derive(Debug, Clone)]
pub struct Truth {
    /// Time in seconds and number of each picture, in order. Empty for sound alone.
    pub pictures: Vec<(f64, u32)>,
    /// When the last picture goes.
    pub pictures_end: f64,
    /// When the clock's sound begins, seconds (below 0: its beginning is cut off).
    pub sound_at: f64,
    /// From when to when there is sound.
    pub sound: Option<(f64, f64)>,
}

impl Truth {
    /// The film as it is made.
    pub fn plain() -> Self {
        let pictures = (0..FPS * SECS).map(|number| (f64::from(number) / f64::from(FPS), number)).collect();
        let end = f64::from(SECS);
        Self { pictures, pictures_end: end, sound_at: 0.0, sound: Some((0.0, end)) }
    }

    /// Only pictures whose number is kept.
    pub fn only(mut self, keep: impl Fn(u32) -> bool) -> Self {
        self.pictures.retain(|(_, number)| keep(*number));
        self
    }

    /// Without sound.
    pub fn silent(self) -> Self {
        Self { sound: None, ..self }
    }

    /// Without pictures.
    pub fn unseen(self) -> Self {
        Self { pictures: Vec::new(), pictures_end: 0.0, ..self }
    }

    /// The sound comes later.
    pub fn sound_later(mut self, secs: f64) -> Self {
        self.sound_at += secs;
        self.sound = self.sound.map(|(from, to)| (from + secs, to + secs));
        self
    }

    /// The pictures come later.
    pub fn pictures_later(mut self, secs: f64) -> Self {
        self.pictures.iter_mut().for_each(|(at, _)| *at += secs);
        self.pictures_end += secs;
        self
    }

    /// Everything before a second is cut off.
    pub fn from(self, secs: f64) -> Self {
        let mut cut = self.pictures_later(-secs).sound_later(-secs);
        cut.pictures.retain(|(at, _)| *at >= -1e-9);
        cut.sound = cut.sound.map(|(from, to)| (from.max(0.0), to));
        cut
    }

    /// The end of all.
    pub fn secs(&self) -> f64 {
        self.sound.map_or(0.0, |(_, to)| to).max(self.pictures_end)
    }

    /// Whether a number is on the screen at some time in a range (before the first picture comes, that one is).
    pub fn shows(&self, number: u32, from: f64, to: f64) -> bool {
        let ends = self.pictures.iter().skip(1).map(|(at, _)| *at).chain([f64::INFINITY]);
        let first = self.pictures.first().map(|(_, number)| *number);
        self.pictures.iter().zip(ends).any(|((at, shown), end)| {
            let at = if Some(*shown) == first { f64::NEG_INFINITY } else { *at };
            *shown == number && at <= to && end > from
        })
    }

    /// The sound repeated for this many seconds.
    pub fn talk(self, secs: f64) -> Self {
        Self { sound: Some((0.0, secs)), ..self }
    }

    /// The second of the clock that sounds at a time; the clock starts over where it is repeated.
    pub fn sounds(&self, at: f64) -> Option<u32> {
        let heard = self.sound.is_some_and(|(from, to)| at >= from && at < to);
        let second = (at - self.sound_at) as u32;
        // What is a little longer is a codec's last block.
        let repeated = self.secs() > f64::from(2 * SECS);
        heard.then_some(second % SECS).filter(|_| second < SECS || repeated)
    }
}
