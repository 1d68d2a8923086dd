//! Clocks in every container and codec: pictures and sound are at the times that the file states.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

#[path = "clock/check.rs"]
mod check;
#[path = "clock/damage.rs"]
mod damage;
#[path = "common/ffmpeg.rs"]
mod ffmpeg;
#[path = "clock/film.rs"]
mod film;
#[path = "clock/forms.rs"]
mod forms;
#[path = "clock/rarer.rs"]
mod rarer;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use triptych::media::{Decoder, DecoderConfig, Limits};

use ffmpeg::ffmpeg;
use film::Clock;
use forms::{Form, forms};

fn decoder(ffmpeg: &Path) -> Decoder {
    let worker_exe = PathBuf::from(env!("CARGO_BIN_EXE_triptych"));
    let limits = Limits { wall_clock_secs: 120, ..Limits::default() };
    Decoder::new(DecoderConfig { worker_exe, ffmpeg: ffmpeg.to_owned(), limits })
}

/// Does some work for each item, on two threads; gives the results in the items' order.
fn each<T: Sync, R: Send>(items: &[T], work: impl Fn(&tokio::runtime::Runtime, &T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<R>>> = items.iter().map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                while let Some(i) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|i| *i < items.len()) {
                    *results[i].lock().unwrap() = Some(work(&runtime, &items[i]));
                }
            });
        }
    });
    results.into_iter().map(|result| result.into_inner().unwrap().unwrap()).collect()
}

/// Checks forms; returns a table of the faulty ones.
fn try_forms(mut forms: Vec<Form>) {
    let Some(ffmpeg) = ffmpeg() else { return };
    if let Ok(only) = std::env::var("CLOCK_ONLY") {
        forms.retain(|form| only.split(',').any(|part| form.name.contains(part)));
    }
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::write(&ffmpeg, folder.path());
    let decoder = decoder(&ffmpeg);
    let faults = each(&forms, |runtime, form| match clock.make(form.name, &form.args) {
        Ok(path) => {
            let began = std::time::Instant::now();
            let faults = runtime.block_on(check::faults(&decoder, &path, &form.truth));
            if std::env::var_os("CLOCK_ONLY").is_some() {
                eprintln!("{}: {:.1} s", form.name, began.elapsed().as_secs_f64());
            }
            faults
        }
        Err(error) => vec![format!("not made: {error}")],
    });
    let mut faulty = 0;
    for (form, faults) in forms.iter().zip(&faults).filter(|(_, faults)| !faults.is_empty()) {
        faulty += 1;
        eprintln!("{}: {} faults", form.name, faults.len());
        faults.iter().take(6).for_each(|fault| eprintln!("    {fault}"));
    }
    eprintln!("{} forms of the clock, {faulty} with faults", forms.len());
    assert_eq!(faulty, 0);
}

#[test]
fn common_files_are_true_to_their_time_stamps() {
    try_forms(forms().into_iter().filter(|form| form.often).collect());
}

#[test]
#[ignore = "minutes: `make test-clock`"]
fn every_form_is_true_to_its_time_stamps() {
    try_forms(forms());
}

/// Two pictures that are far apart are the clips of two pictures.
#[test]
fn a_picture_that_stays_for_hours_is_one_clip() {
    let Some(ffmpeg) = ffmpeg() else { return };
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::write(&ffmpeg, folder.path());
    let decoder = decoder(&ffmpeg);
    let apart =
        "PICTURES -vf select='lt(n\\,3)',setpts='if(eq(N\\,2)\\,21602\\,N*21600)/TB' -fps_mode passthrough";
    let files = [("hours.mp4", "-c:v mpeg4"), ("hours.mkv", "-c:v mjpeg"), ("hours.webm", "-c:v libvpx")];
    each(&files, |runtime, (name, codec)| {
        let path = clock.make(name, &format!("{apart} {codec}")).unwrap();
        let (clips, summary) = runtime.block_on(check::read(&decoder, &path, None)).unwrap();
        assert!((21_600.0..43_300.0).contains(&summary.duration_secs), "{name}: {summary:?}");
        assert_eq!(summary.partial, None, "{name}");
        assert!((2..=4).contains(&clips.len()), "{name}: {} clips", clips.len());
        let windows: u64 = clips.iter().map(|clip| clip.windows).sum();
        assert!(windows as f64 >= 21_600.0 / 0.8, "{name}: {windows}");
        let shown = check::numbers(&clips);
        assert_eq!((shown[&0], shown[&215_900]), (Some(0), Some(0)), "{name}");
        assert_eq!(shown[&216_015], Some(1), "{name}");
        let (part, _) = runtime.block_on(check::read(&decoder, &path, Some((10_000.0, 10_002.0)))).unwrap();
        assert!(check::numbers(&part).values().all(|number| *number == Some(0)), "{name}");
    });
}

/// Damaged files. Some damage cannot be detected: any bytes are valid raw samples, and a stream without a
/// declared length may end between any two packets.
const DAMAGED: [(&str, &[&str]); 28] = [
    ("h264-faststart.mp4", &[]),
    ("fragments.mp4", &[]),
    ("h264.mov", &[]),
    ("h264.mkv", &[]),
    ("vp8.webm", &[]),
    ("mpeg4.avi", &[]),
    ("mjpeg.avi", &[]),
    ("h264.ts", &[]),
    ("mpeg2.mpg", &[]),
    ("small.vob", &[]),
    ("h264.flv", &[]),
    ("wmv2.wmv", &[]),
    ("theora.ogv", &[]),
    ("theora-opus.ogv", &[]),
    ("mpeg2.mxf", &[]),
    (
        "pal.dv",
        // Whole frames, each like any other.
        &[
            "Cut 10",
            "Cut 50",
            "Cut 90",
            "Robbed 10",
            "Robbed 50",
            "Robbed 90",
            "Spliced 10",
            "Spliced 50",
            "Spliced 90",
        ],
    ),
    ("film.gif", &[]),
    ("film.apng", &[]),
    ("film.webp", &[]),
    ("bare.h264", &[]),
    ("sound.flac", &[]),
    ("sound.mp3", &[]),
    ("sound.wav", &["Zeroed 10", "Zeroed 50", "Zeroed 90", "Spliced 10", "Spliced 50", "Spliced 90"]),
    ("sound.aac", &[]),
    ("sound.ac3", &[]),
    ("sound.ogg", &[]),
    ("sound.opus", &[]),
    ("sound.m4a", &[]),
];

/// A file that lost data is refused or partial, never ready.
#[test]
#[ignore = "minutes: `make test-clock`"]
fn what_is_lost_is_told() {
    let Some(ffmpeg) = ffmpeg() else { return };
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::write(&ffmpeg, folder.path());
    let decoder = decoder(&ffmpeg);
    let forms = forms();
    let mut damaged: Vec<_> =
        DAMAGED.iter().map(|(name, _)| forms.iter().find(|form| form.name == *name).unwrap()).collect();
    if let Ok(only) = std::env::var("CLOCK_ONLY") {
        damaged.retain(|form| only.split(',').any(|part| form.name.contains(part)));
    }
    let tables = each(&damaged, |runtime, form| {
        let whole = std::fs::read(clock.make(form.name, &form.args).unwrap()).unwrap();
        let outcome = |(damage, percent): (damage::Damage, usize)| {
            let path = clock.path(&format!("{damage:?}-{percent}-{}", form.name));
            std::fs::write(&path, damage.done_to(&whole, percent)).unwrap();
            let outcome = match runtime.block_on(check::read(&decoder, &path, None)) {
                Err(error) => error.code().to_owned(),
                Ok((_, summary)) => summary.partial.map_or("READY".to_owned(), |_| "partial".to_owned()),
            };
            format!("{damage:?} {percent}: {outcome}")
        };
        damage::all().map(outcome).collect::<Vec<_>>()
    });
    let mut silent = 0;
    for (form, table) in damaged.iter().zip(&tables) {
        eprintln!("{}: {}", form.name, table.join(", "));
        let unnoticed = DAMAGED.iter().find(|(name, _)| *name == form.name).unwrap().1;
        let ready = table.iter().filter_map(|row| row.strip_suffix(": READY"));
        silent += ready.filter(|row| !unnoticed.contains(row)).count();
    }
    assert_eq!(silent, 0);
}
