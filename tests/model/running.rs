//! Towers at work: inputs, queue, devices.

use super::*;

#[test]
fn any_subset_of_towers_is_a_model() {
    let copy = Copy::new();
    copy.edit_manifest(|json| {
        json["spaces"] = json!([{"name": "coarse", "dim": 256, "members": ["text"]}]);
        for modality in ["video", "audio", "image"] {
            json["towers"].as_object_mut().unwrap().remove(modality);
            json["preprocessing"].as_object_mut().unwrap().remove(modality);
        }
    });
    let towers = copy.load().unwrap();
    assert_eq!(towers.bundle().clip_spec(None).frames(), 1, "nothing larger than needed");
    block_on(async {
        let vectors = towers.text("a red circle", Priority::Interactive).await.unwrap();
        assert_eq!(vectors[&Space::new("coarse")].len(), 256);
        let refused = [
            towers.video(bytes(1, 10), Priority::Interactive).await,
            towers.image(bytes(1, 10), Priority::Interactive).await,
            towers.audio(sound(1, 10), Priority::Bulk).await,
        ];
        for result in refused {
            assert_eq!(code(result).0, "modality_not_supported");
        }
    });
}

#[test]
fn inputs_a_tower_must_not_see_are_refused() {
    let towers = towers();
    let (_, _, samples) = lengths(towers.bundle());
    block_on(async {
        let interactive = Priority::Interactive;
        let mut pcm = sound(1, samples).to_vec();
        pcm[samples / 2] = f32::NAN;
        assert_eq!(code(towers.audio(Arc::<[f32]>::from(pcm), interactive).await).0, "bad_samples");
        assert_eq!(code(towers.audio(sound(1, samples - 1), interactive).await).0, "tower_failed");
        assert_eq!(code(towers.video(bytes(1, 12), interactive).await).0, "tower_failed");
        let (unknown, message) = code(towers.text("xylophone zebra", interactive).await);
        assert_eq!(unknown, "no_known_words");
        assert!(message.contains("xylophone") && message.contains("zebra"), "{message}");
        assert_eq!(code(towers.text(&"red ".repeat(9000), interactive).await).0, "text_too_long");
    });
}

#[test]
fn without_a_tower_of_its_own_a_picture_is_a_video_that_stands_still() {
    let copy = Copy::new();
    copy.edit_manifest(|json| json["towers"]["image"] = json!({"inflates": "video"}));
    let towers = copy.load().unwrap();
    let (frames_len, picture_len, _) = lengths(towers.bundle());
    let picture = bytes(3, picture_len);
    let frames: Arc<[u8]> = picture.repeat(frames_len / picture_len).into();
    block_on(async {
        let as_picture = towers.image(picture, Priority::Interactive).await.unwrap();
        same(&as_picture, &towers.video(frames, Priority::Bulk).await.unwrap());
    });
}

#[test]
fn a_picture_goes_through_the_tower_of_pictures() {
    let towers = towers();
    let (frames_len, picture_len, _) = lengths(towers.bundle());
    let picture = bytes(3, picture_len);
    let frames: Arc<[u8]> = picture.repeat(frames_len / picture_len).into();
    block_on(async {
        let as_picture = towers.image(picture, Priority::Interactive).await.unwrap();
        let as_video = towers.video(frames, Priority::Interactive).await.unwrap();
        assert_eq!(as_picture.keys().collect::<Vec<_>>(), as_video.keys().collect::<Vec<_>>());
        assert!(as_picture.iter().all(|(space, vector)| *vector != as_video[space]));
    });
}

#[test]
fn time_in_queue_and_tower_is_added_up_for_the_handle_that_asked() {
    let timings = Arc::new(Timings::default());
    let timed = towers().timed(Arc::clone(&timings));
    block_on(async {
        towers().text("red", Priority::Interactive).await.unwrap();
        assert_eq!(timings.inference_secs(), 0.0);
        timed.text("red", Priority::Interactive).await.unwrap();
    });
    assert!(timings.inference_secs() > 0.0 && timings.inference_secs() < 10.0);
    assert!(timings.queue_secs() > 0.0);
}

#[test]
fn a_full_queue_says_so_and_abandoned_work_makes_room() {
    // A copy of its own, so that no other test meets the full queue.
    let towers = load(&small_world()).unwrap();
    let (_, _, samples) = lengths(towers.bundle());
    block_on(async {
        let pcm = sound(5, samples);
        let mut pending = Vec::new();
        let refused = loop {
            match towers.submit_audio(Arc::clone(&pcm), Priority::Interactive).await {
                Ok(answer) => pending.push(answer),
                Err(error) => break error,
            }
            assert!(pending.len() < 10_000, "the queue has no end");
        };
        assert_eq!(refused.code(), "overloaded");
        drop(pending);
        // The worker drops what nobody waits for when it next looks; until then there is no room.
        let begun = std::time::Instant::now();
        while towers.text("red", Priority::Interactive).await.is_err() {
            assert!(begun.elapsed().as_secs() < 20);
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    });
}

#[test]
fn cuda_is_not_replaced_in_silence_when_it_was_asked_for() {
    let native = native();
    let bundle = Arc::new(Bundle::open(&small_world()).unwrap());
    match triptych::native::cuda_problem(&native.onnxruntime) {
        Some(_) => {
            let error = Towers::load(Arc::clone(&bundle), &native, Device::Cuda(0), 1).err().unwrap();
            assert_eq!(error.code(), "cuda_unavailable");
            assert_eq!(Towers::load(bundle, &native, Device::Auto, 1).unwrap().device_name(), "cpu");
        }
        None => {
            let towers = Towers::load(bundle, &native, Device::Auto, 1).unwrap();
            assert_eq!(towers.device_name(), "cuda:0");
        }
    }
}

#[test]
fn a_missing_or_foreign_runtime_is_an_error_not_a_hang() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = Arc::new(Bundle::open(&small_world()).unwrap());
    let mut native = native();
    native.onnxruntime = dir.path().join("libonnxruntime.so");
    let load = |native: &NativeParts| code(Towers::load(Arc::clone(&bundle), native, Device::Cpu, 1));
    assert_eq!(load(&native).0, "onnxruntime_missing");
    std::fs::write(&native.onnxruntime, b"\x7fELF nonsense").unwrap();
    let (code, message) = load(&native);
    assert_eq!(code, "onnxruntime_missing");
    assert!(message.contains(&native.onnxruntime.display().to_string()), "{message}");
}
