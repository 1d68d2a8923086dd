//! Hostile and truncated files.

use super::*;

/// A WAV of f32 samples.
fn float_wav(samples: &[f32]) -> Vec<u8> {
    let data: Vec<u8> = samples.iter().flat_map(|s| s.to_le_bytes()).collect();
    let mut wav = Vec::new();
    wav.extend_from_slice(b"RIFF");
    wav.extend_from_slice(&(36 + data.len() as u32).to_le_bytes());
    wav.extend_from_slice(b"WAVEfmt ");
    wav.extend_from_slice(&16_u32.to_le_bytes());
    wav.extend_from_slice(&[3, 0, 1, 0]);
    wav.extend_from_slice(&48_000_u32.to_le_bytes());
    wav.extend_from_slice(&192_000_u32.to_le_bytes());
    wav.extend_from_slice(&[4, 0, 32, 0]);
    wav.extend_from_slice(b"data");
    wav.extend_from_slice(&(data.len() as u32).to_le_bytes());
    wav.extend_from_slice(&data);
    wav
}

/// A PNG whose header claims this many pixels; its few bytes of data are well-formed.
fn png_claiming(width: u32, height: u32) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |kind: &[u8], data: &[u8]| {
        let body = [kind, data].concat();
        png.extend_from_slice(&(data.len() as u32).to_be_bytes());
        png.extend_from_slice(&body);
        png.extend_from_slice(&crc32fast::hash(&body).to_be_bytes());
    };
    chunk(b"IHDR", &[&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat());
    // An empty deflate stream.
    chunk(b"IDAT", &[0x78, 0x9c, 0x03, 0x00, 0x00, 0x00, 0x00, 0x01]);
    chunk(b"IEND", &[]);
    png
}

#[test]
fn hostile_files_are_refused() {
    let server = shared();
    let whole = std::fs::read(media_mp4_index_at_end()).unwrap();
    let mut nan = vec![0.1; 48_000];
    nan[100] = f32::NAN;
    let playlist =
        b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n".to_vec();
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("empty.mp4", Vec::new(), &["empty_file"]),
        ("text.mp4", b"this is no video at all, it is a text\n".repeat(50), &["unsupported_media"]),
        ("playlist.mp4", playlist, &["unsupported_media"]),
        ("cut.mp4", whole[..whole.len() / 2].to_vec(), &["corrupt_media"]),
        ("bomb.png", png_claiming(60_000, 60_000), &["too_many_pixels"]),
        ("nan.wav", float_wav(&nan), &["bad_samples"]),
        (
            "noise.webm",
            [&[0x1a, 0x45, 0xdf, 0xa3][..], &[7; 999]].concat(),
            &["corrupt_media", "unsupported_media"],
        ),
    ];
    for (name, bytes, codes) in &cases {
        let (status, code) = error_of(server.upload_bytes(name, bytes.clone(), "?wait=true"));
        assert_eq!(status, 422, "{name}: {code}");
        assert!(codes.contains(&code.as_str()), "{name}: {code}");
        still_serves(server);
    }
    // The same as a query.
    for (name, modality, bytes, codes) in [
        ("nan.wav", "audio", float_wav(&nan), ["bad_samples"]),
        ("text.mp4", "video", b"not a video".to_vec(), ["unsupported_media"]),
        ("empty.wav", "audio", Vec::new(), ["empty_file"]),
        ("bomb.png", "image", png_claiming(60_000, 60_000), ["too_many_pixels"]),
    ] {
        let part = multipart::Part::bytes(bytes).file_name(name);
        let form = multipart::Form::new().text("modality", modality).part("file", part);
        let (status, code) = error_of(server.post_form("/v1/search", form));
        assert_eq!((status, code.as_str()), (422, codes[0]), "{name}");
    }
    still_serves(server);
    // Refused with wait=true means not stored.
    assert_eq!(server.get_json("/v1/assets")["data"], json!([]));
    // Without it, the asset shows the error.
    let asset = ok_json(server.upload_bytes("text.mp4", cases[1].1.clone(), ""));
    let url = format!("/v1/assets/{}", asset["id"].as_str().unwrap());
    let failed = common::eventually("the asset fails", || {
        let asset = server.get_json(&url);
        (asset["state"] != "indexing").then_some(asset)
    });
    assert_eq!((&failed["state"], &failed["error"]["code"]), (&json!("failed"), &json!("unsupported_media")));
    server.delete(&url);
}

/// The index of this MP4 is its last box, so that a cut file has none.
fn media_mp4_index_at_end() -> std::path::PathBuf {
    let file = video("first.mp4", 6.4, 300);
    media("late.mp4", &["-i", file.to_str().unwrap(), "-c", "copy", "-movflags", "0"])
}

#[test]
fn a_cut_file_that_can_be_read_in_part_is_partial() {
    let server = shared();
    let file = video("long.mp4", 19.2, 400);
    let webm = media(
        "long.webm",
        &[
            "-i",
            file.to_str().unwrap(),
            "-c:v",
            "libvpx",
            "-cpu-used",
            "8",
            "-deadline",
            "realtime",
            "-c:a",
            "libopus",
        ],
    );
    let bytes = std::fs::read(webm).unwrap();
    let response = server.upload_bytes("cut.webm", bytes[..bytes.len() / 2].to_vec(), "?wait=true");
    let asset = ok_json(response);
    assert_eq!(asset["state"], "partial", "{asset}");
    assert!(asset["error"]["message"].as_str().is_some_and(|m| !m.is_empty()), "{asset}");
    let clips = asset["clip_count"].as_u64().unwrap();
    assert!((1..6).contains(&clips), "{asset}");
    server.delete(&format!("/v1/assets/{}", asset["id"].as_str().unwrap()));
}
