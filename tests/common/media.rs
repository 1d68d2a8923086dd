//! Media for the tests, made by ffmpeg or byte by byte.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use super::native_dir;

/// A media file made by ffmpeg from these arguments, once for all runs. Its extension gives the format.
pub fn media(name: &str, args: &[&str]) -> PathBuf {
    static MADE: Mutex<Option<HashMap<String, PathBuf>>> = Mutex::new(None);
    let mut made = MADE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(path) = made.get_or_insert_default().get(name) {
        return path.clone();
    }
    // The arguments are part of the place, so that a changed recipe does not find the old file.
    let recipe = args
        .iter()
        .flat_map(|arg| arg.bytes())
        .fold(7_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("media-{recipe:016x}"));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    if !path.exists() {
        let partial = folder.join(format!("{}-{name}", std::process::id()));
        let ffmpeg = native_dir().join("ffmpeg/ffmpeg");
        let output = Command::new(&ffmpeg)
            .args(["-nostdin", "-v", "error", "-y"])
            .args(args)
            .arg(&partial)
            .output()
            .unwrap_or_else(|error| panic!("{}: {error}; run `make native`", ffmpeg.display()));
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        std::fs::rename(&partial, &path).unwrap();
    }
    made.get_or_insert_default().insert(name.to_owned(), path.clone());
    path
}

const H264: &[&str] = &[
    "-c:v",
    "libx264",
    "-preset",
    "ultrafast",
    "-pix_fmt",
    "yuv420p",
    "-c:a",
    "aac",
    "-movflags",
    "+faststart",
];

/// Seconds of a test picture whose tone rises from clip to clip, so that every clip sounds different.
pub fn video(name: &str, secs: f64, hz: u32) -> PathBuf {
    let picture = format!("testsrc2=size=96x72:rate=10:duration={secs},hue=h={hz}");
    let sound = format!("aevalsrc=0.4*sin(2*PI*({hz}+{hz}*floor(t/3.2))*t):s=48000:d={secs}");
    let inputs = ["-f", "lavfi", "-i", &picture, "-f", "lavfi", "-i", &sound];
    media(name, &[&inputs[..], H264].concat())
}

/// The sound of some seconds of a file, as WAV.
pub fn sound_of(name: &str, file: &Path, start: f64, end: f64) -> PathBuf {
    let (start, end) = (start.to_string(), end.to_string());
    media(
        name,
        &["-i", file.to_str().unwrap(), "-ss", &start, "-to", &end, "-vn", "-ac", "1", "-c:a", "pcm_s16le"],
    )
}

/// A tone as WAV, of few samples: long ones stay small.
pub fn tone(name: &str, secs: f64, hz: u32) -> PathBuf {
    // Not quite that pitch: whole periods would make all windows equal, and equal clips are one.
    let sound = format!("sine=frequency={hz}.37:duration={secs}:sample_rate=8000");
    media(name, &["-f", "lavfi", "-i", &sound])
}

/// A picture.
pub fn picture(name: &str) -> PathBuf {
    media(name, &["-f", "lavfi", "-i", "testsrc2=size=96x72", "-frames:v", "1", "-update", "1"])
}

/// A `data:` URI of a file.
pub fn data_uri(media_type: &str, file: &Path) -> String {
    use base64::Engine;
    let bytes = std::fs::read(file).unwrap();
    format!("data:{media_type};base64,{}", base64::engine::general_purpose::STANDARD.encode(bytes))
}

/// Mono 16-bit PCM at 8 kHz; no two alike.
pub fn wav(n: usize, secs: f64) -> Vec<u8> {
    let hz = 120.0 + n as f64 * 1.7;
    let samples = (secs * 8000.0) as usize;
    let sample = |at: usize| ((at as f64 / 8000.0 * hz * std::f64::consts::TAU).sin() * 9000.0) as i16;
    let data: Vec<u8> = (0..samples).flat_map(|at| sample(at).to_le_bytes()).collect();
    let size = u32::try_from(data.len()).unwrap();
    let mut file = Vec::from(*b"RIFF");
    file.extend((36 + size).to_le_bytes());
    file.extend(*b"WAVEfmt ");
    file.extend(16_u32.to_le_bytes());
    file.extend([1_u16, 1].iter().flat_map(|v| v.to_le_bytes()));
    file.extend([8000_u32, 16_000].iter().flat_map(|v| v.to_le_bytes()));
    file.extend([2_u16, 16].iter().flat_map(|v| v.to_le_bytes()));
    file.extend(*b"data");
    file.extend(size.to_le_bytes());
    file.extend(data);
    file
}
