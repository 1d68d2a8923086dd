#![allow(clippy::unwrap_used)]
use super::*;
use crate::media::{MediaInfo, Sink};
use crate::preprocess::spec::PictureSpec;

fn assembler(spec: &ClipSpec) -> (Assembler, mpsc::Receiver<Message>) {
    let (sender, receiver) = mpsc::channel(1000);
    let summary = AssetSummary::unknown();
    let cut = Cut::new(spec, None, None, Default::default());
    let mut assembler = Assembler::new(spec.clone(), cut, sender, Arc::new(Mutex::new(summary)));
    let info = MediaInfo {
        kind: None,
        sample_rate_hz: spec.sound.sample_rate_hz,
        declared_secs: None,
        estimated: false,
        width: 8,
        height: 8,
        reduced: false,
        has_video: true,
        has_audio: true,
        tracks: Vec::new(),
    };
    assembler.started(&info).unwrap();
    (assembler, receiver)
}

fn clips(mut receiver: mpsc::Receiver<Message>) -> Vec<ClipTensors> {
    receiver.close();
    let next = std::iter::from_fn(|| receiver.try_recv().ok());
    next.filter_map(|message| if let Message::Clip(clip) = message { Some(clip) } else { None }).collect()
}

fn spec(crop: usize) -> ClipSpec {
    ClipSpec::mmv(10.0, 32, PictureSpec::mmv(crop, crop, true, false), (48_000, 153_600), 3.2)
}

#[test]
fn sound_and_pictures_meet_in_any_order_within_the_bounds() {
    let spec = spec(8);
    let sound: Vec<f32> = (0..48_000 * 13).map(|i| (i % 1000) as f32 / 1000.0).collect();
    for sound_first in [true, false] {
        let (mut assembler, receiver) = assembler(&spec);
        let mut give = |frames: bool| {
            if frames {
                for i in 0..128 {
                    assembler.frame(8, 8, &[i; 192], 1).unwrap();
                }
            } else {
                for chunk in sound.chunks(5000) {
                    assembler.sound(chunk).unwrap();
                }
                assembler.sound_ended().unwrap();
            }
        };
        give(!sound_first);
        give(sound_first);
        assembler.finish_video().unwrap();
        assembler.release().unwrap();
        let clips = clips(receiver);
        assert_eq!(clips.len(), 4);
        for (k, clip) in clips.iter().enumerate() {
            assert_eq!(clip.frames.as_ref().unwrap()[0], 32 * k as u8);
            assert_eq!(clip.pcm.as_ref().unwrap()[..], sound[153_600 * k..][..153_600]);
        }
    }
}

#[test]
fn pictures_do_not_wait_for_ever_for_their_sound() {
    let (mut assembler, receiver) = assembler(&spec(200));
    let mut most = 0;
    for i in 0..32 * 20_u32 {
        assembler.frame(8, 8, &[i as u8; 192], 1).unwrap();
        most = most.max(assembler.waiting.len());
    }
    assert!(most * 32 * 200 * 200 * 3 <= MAX_WAITING_BYTES + 32 * 200 * 200 * 3 && most > 10);
    assert_eq!(assembler.notes.len(), 1);
    assembler.sound(&[0.5; 1000]).unwrap();
    assert_eq!(assembler.sound.total(), 0);
    assert!(clips(receiver).iter().all(|clip| clip.pcm.is_none()));
}

/// Spans of clips, number of windows of each, and first byte of its frames.
fn shape(clips: &[ClipTensors]) -> Vec<(f64, f64, u64, u8)> {
    let first = |clip: &ClipTensors| clip.frames.as_ref().map_or(0, |frames| frames[0]);
    let of = |clip: &ClipTensors| (clip.span.start_secs, clip.span.end_secs, clip.windows, first(clip));
    clips.iter().map(of).collect()
}

#[test]
fn a_picture_that_stays_for_hours_is_one_clip() {
    let (mut assembler, receiver) = assembler(&spec(8));
    assembler.sound_ended().unwrap();
    assembler.frame(8, 8, &[7; 192], 10 * 3600 * 6).unwrap();
    assembler.frame(8, 8, &[9; 192], 40).unwrap();
    assembler.finish_video().unwrap();
    assembler.release().unwrap();
    // The last clip is anchored at the end.
    let clips = shape(&clips(receiver));
    assert_eq!(clips, [(0.0, 21_600.0, 6750, 7), (21_600.0, 21_603.2, 1, 9), (21_600.8, 21_604.0, 1, 9)]);
}

#[test]
fn pictures_that_stay_share_their_tensors_while_the_sound_changes() {
    let (mut assembler, receiver) = assembler(&spec(8));
    for k in 0..3_u8 {
        assembler.sound(&vec![f32::from(k) / 4.0; 153_600]).unwrap();
    }
    assembler.sound(&vec![0.5; 153_600 * 2]).unwrap();
    assembler.sound_ended().unwrap();
    assembler.frame(8, 8, &[7; 192], 32 * 5).unwrap();
    assembler.finish_video().unwrap();
    assembler.release().unwrap();
    let clips = clips(receiver);
    let spans: Vec<_> =
        shape(&clips).into_iter().map(|(start, end, windows, _)| (start, end, windows)).collect();
    assert_eq!(spans, [(0.0, 3.2, 1), (3.2, 6.4, 1), (6.4, 16.0, 3)]);
    assert!(clips[1].same_frames(clips[0].frames.as_ref(), None));
    assert!(!clips[1].same_pcm(clips[0].pcm.as_ref(), 153_600));
}

#[test]
fn a_small_file_may_not_unfold_to_many_clips() {
    let (mut assembler, mut receiver) = assembler(&spec(8));
    assembler.sound_ended().unwrap();
    assembler.allow_for(WorkLimits { clips: 3, ..WorkLimits::default() }, 100);
    let refused = (0..32 * 9_u32).find_map(|i| assembler.frame(8, 8, &[i as u8; 192], 1).err());
    assert_eq!(refused.unwrap().code(), "work_limit");
    receiver.close();
    let sent = std::iter::from_fn(|| receiver.try_recv().ok()).count();
    assert_eq!(sent, 3);
}

#[test]
fn sound_does_not_wait_for_ever_for_its_pictures() {
    let (mut assembler, receiver) = assembler(&spec(8));
    let second = vec![0.25; 48_000];
    for _ in 0..400 {
        assembler.sound(&second).unwrap();
        assert!(assembler.sound.kept() <= MAX_WAITING_SAMPLES + second.len());
    }
    assert_eq!((assembler.mode, assembler.notes.len()), (Mode::Sound, 1));
    assert!(clips(receiver).iter().all(|clip| clip.frames.is_none() && clip.pcm.is_some()));
}
