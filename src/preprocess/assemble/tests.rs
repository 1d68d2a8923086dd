#![allow(clippy::unwrap_used)]
use super::*;
use crate::media::{MediaInfo, Sink};

fn assembler(spec: &ClipSpec) -> (Assembler, mpsc::Receiver<Message>) {
    let (sender, receiver) = mpsc::channel(1000);
    let summary = AssetSummary::unknown();
    let cut = Cut::new(spec, None);
    let mut assembler = Assembler::new(spec.clone(), cut, sender, Arc::new(Mutex::new(summary)));
    let info = MediaInfo {
        kind: None,
        sample_rate_hz: spec.sample_rate_hz,
        declared_secs: None,
        estimated: false,
        width: 8,
        height: 8,
        has_video: true,
        has_audio: true,
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
    ClipSpec {
        fps: 10.0,
        frames: 32,
        resize_shorter_side: crop,
        crop,
        sample_rate_hz: 48_000,
        samples: 153_600,
        stride_secs: 3.2,
    }
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
    for _ in 0..32 * 20 {
        assembler.frame(8, 8, &[7; 192]).unwrap();
        most = most.max(assembler.waiting.len());
    }
    assert!(most * 32 * 200 * 200 * 3 <= MAX_WAITING_BYTES + 32 * 200 * 200 * 3 && most > 10);
    assert_eq!(assembler.notes.len(), 1);
    assembler.sound(&[0.5; 1000]).unwrap();
    assert_eq!(assembler.sound.total(), 0);
    assert!(clips(receiver).iter().all(|clip| clip.pcm.is_none()));
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
