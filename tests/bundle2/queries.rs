//! Inputs and queries of any length, over several spaces.

use super::*;

fn close(a: &SpaceVectors, b: &SpaceVectors) {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (space, vector) in a {
        for (a, b) in vector.iter().zip(&b[space]) {
            assert!((a - b).abs() <= 1e-4 * a.abs().max(1.0), "{space}: {a} {b}");
        }
    }
}

#[test]
fn inputs_of_any_length_are_batched_by_length() {
    let towers = load(&folder("odd-inputs")).unwrap();
    let texts =
        ["a", "dog barking", "a red door", "old wooden doors near a guitar", "the dog", "rain rain rain"];
    let sounds: Vec<Samples> = [1600, 3200, 1600, 16_000, 3200, 1600]
        .iter()
        .enumerate()
        .map(|(n, length)| {
            let pcm: Arc<[f32]> = (0..*length).map(|at| ((at * (n + 3)) as f32 * 0.01).sin()).collect();
            Samples { pcm, own: length - n }
        })
        .collect();
    block_on(async {
        let together =
            try_join_all(texts.iter().map(|text| towers.text(text, Priority::Bulk))).await.unwrap();
        for (text, batched) in texts.iter().zip(&together) {
            close(batched, &towers.text(text, NOW).await.unwrap());
        }
        let asked = sounds.iter().map(|sound| towers.audio(sound.clone(), Priority::Bulk));
        for (sound, batched) in sounds.iter().zip(try_join_all(asked).await.unwrap()) {
            close(&batched, &towers.audio(sound.clone(), NOW).await.unwrap());
        }
        // How much of it is the sound's own reaches the graph.
        let shorter = Samples { own: 10, ..sounds[0].clone() };
        let (a, b) =
            (towers.audio(sounds[0].clone(), NOW).await.unwrap(), towers.audio(shorter, NOW).await.unwrap());
        assert_ne!(a, b);
        // A still picture is patches with their grid.
        let values: Arc<[u8]> = (0..6 * 48).map(|n| (n % 250) as u8).collect();
        let picture = |grid| Pixels { values: Arc::clone(&values), grid, frame_count: None };
        let wide = towers.image(picture(Some([1, 6])), NOW).await.unwrap();
        let small = towers.image(picture(Some([1, 3])), NOW).await.unwrap();
        let all = Space::new("all");
        assert!(wide[&all].iter().zip(&small[&all]).all(|(w, s)| (w * 2.0 - s).abs() <= 1e-2 * s.abs()));
        assert_eq!(code(towers.image(picture(None), NOW).await).0, "tower_failed");
        assert_eq!(code(towers.image(Arc::<[u8]>::from(vec![0; 48]), NOW).await).0, "tower_failed");
    });
}

#[test]
fn cut_vectors_are_those_of_another_model() {
    let whole = Bundle::open(&folder("two-families")).unwrap();
    let id = whole.id().clone();
    let look = Space::new("look");
    let cut = |text: &str| whole.clone().cut(&[text.parse::<Cut>().unwrap()]);
    assert_eq!(cut("look=8").unwrap().id(), &id);
    let short = cut("look=4").unwrap();
    assert_eq!((short.dim(&look), short.dim(&Space::new("sound"))), (Some(4), Some(6)));
    assert!(*short.id() != id && *short.id() == *cut("4").unwrap().id());
    for (asked, expected) in
        [("look=3", "look (8, 4)"), ("sound=4", "sound (6)"), ("nowhere=4", "nowhere=4"), ("100", "100")]
    {
        let (code, message) = code(cut(asked));
        assert_eq!(code, "bad_dim");
        assert!(message.contains(expected), "{message}");
    }
    assert!("look=".parse::<Cut>().is_err());
    let (whole, short) = (
        load(&folder("two-families")).unwrap(),
        Towers::load(Arc::new(short), &native(), Device::Cpu, 1).unwrap(),
    );
    block_on(async {
        let (whole, short) =
            (whole.text("a dog", NOW).await.unwrap(), short.text("a dog", NOW).await.unwrap());
        assert_eq!(whole[&look][..4], short[&look][..]);
        assert_eq!(whole[&Space::new("sound")], short[&Space::new("sound")]);
    });
}

#[test]
fn a_text_reaches_both_tracks_each_in_its_own_space() {
    let server = common::Server::start(common::Options {
        args: vec!["--model".to_owned(), folder("two-families").display().to_string()],
        ..common::Options::default()
    });
    for n in 0..3_u32 {
        server.add(&common::video(&format!("two-{n}.mp4"), 8.0, 300 + 100 * n));
    }
    let model = server.get_json("/v1/models")["data"][0].clone();
    assert_eq!(model["license"], "Apache-2.0");
    assert_eq!(model["sources"][0]["repository"], "example/pictures");
    assert_eq!(model["languages"], json!(["en", "de"]));
    assert_eq!(model["towers"].as_array().unwrap().len(), 5);
    let ask = |targets: Value| {
        server.post_json("/v1/search", &json!({"query": "a dog barking", "targets": targets, "limit": 20}))
    };
    let one = ask(json!(["video"]));
    assert_eq!(
        (&one["space"], &one["spaces"], &one["fused_by"]),
        (&json!("look"), &json!(["look"]), &Value::Null)
    );
    let both = ask(json!(["video", "audio"]));
    assert_eq!(both["spaces"], json!(["look", "sound"]));
    assert!(["confidence", "rank"].contains(&both["fused_by"].as_str().unwrap()), "{both}");
    let hits = both["data"].as_array().unwrap();
    let spaces: std::collections::BTreeSet<(&str, &str)> =
        hits.iter().map(|hit| (hit["matched"].as_str().unwrap(), hit["space"].as_str().unwrap())).collect();
    assert!(spaces.is_subset(&[("video", "look"), ("audio", "sound")].into()), "{spaces:?}");
    let clips: Vec<(&str, String)> =
        hits.iter().map(|hit| (hit["asset_id"].as_str().unwrap(), hit["start_secs"].to_string())).collect();
    let distinct: std::collections::BTreeSet<_> = clips.iter().collect();
    assert_eq!(distinct.len(), clips.len(), "each clip once");
    // A sound can be compared with both in one space.
    let sound = ask(json!(["audio"]));
    assert_eq!(sound["space"], "sound");
    // Fused confidence, timelines and standing queries, all over two spaces.
    let mean = json!({"query": "a dog", "targets": ["video", "audio"], "fuse": "mean"});
    let mean = server.post_json("/v1/search", &mean);
    assert_eq!(mean["spaces"], json!(["look", "sound"]));
    assert!(!mean["data"].as_array().unwrap().is_empty());
    let asset = hits[0]["asset_id"].as_str().unwrap();
    for fuse in ["best", "mean"] {
        let line = server.get_json(&format!(
            "/v1/assets/{asset}/timeline?q=a+dog+barking&targets=video,audio&fuse={fuse}"
        ));
        assert_eq!(line["spaces"], json!(["look", "sound"]));
        let clips = line["data"].as_array().unwrap();
        assert!(!clips.is_empty() && !line["moments"].as_array().unwrap().is_empty());
        let names_its_space =
            |clip: &Value| clip["space"] == if clip["matched"] == "video" { "look" } else { "sound" };
        assert!(clips.iter().all(names_its_space), "{line}");
    }
    let standing = json!({"query": "a dog", "targets": ["video", "audio"]});
    assert_eq!(server.post("/v1/standing-queries", &standing).status().as_u16(), 201);
    let by_score = json!({"query": "a dog", "targets": ["video", "audio"], "min_score": 0.1});
    assert_eq!(
        common::error_of(server.post("/v1/standing-queries", &by_score)),
        (400, "invalid_value".to_owned())
    );
    // The prompt of a document reaches the tower.
    let embed = |role: &str| {
        let body = json!({"modality": "text", "input": "a dog", "space": "sound", "role": role});
        server.post_json("/v1/embeddings", &body)
    };
    assert_ne!(embed("query")["data"][0]["embedding"], embed("document")["data"][0]["embedding"]);
    assert!(embed("query")["usage"]["prompt_tokens"].as_u64().unwrap() > 2);
    let modality = Modality::Text.as_str();
    let wrong = json!({"modality": modality, "input": "a dog", "role": "answer"});
    assert_eq!(server.post("/v1/embeddings", &wrong).status().as_u16(), 400);
    server.stop();
}

#[test]
fn patches_and_sounds_of_any_length_go_the_whole_way() {
    let server = common::Server::start(common::Options {
        args: vec![
            "--model".to_owned(),
            folder("odd-inputs").display().to_string(),
            "--dim".to_owned(),
            "4".to_owned(),
        ],
        ..common::Options::default()
    });
    let picture = server.add(&common::picture("odd.png"));
    let sound = server.upload_bytes("odd.wav", common::wav(3, 0.33), "?wait=true");
    let sound = common::ok_json(sound);
    let answer =
        server.post_json("/v1/search", &json!({"query": "a red door", "targets": ["video", "audio"]}));
    let found: Vec<&Value> = answer["data"].as_array().unwrap().iter().map(|hit| &hit["asset_id"]).collect();
    assert!(found.contains(&&picture["id"]) && found.contains(&&sound["id"]), "{answer}");
    // Each finds itself.
    let own = json!({"query": {"asset": {"id": sound["id"]}}, "targets": ["audio"], "filter": {"asset_ids": [sound["id"]]}});
    assert!(server.search(&own)[0]["score"].as_f64().unwrap() > 0.9999);
    assert_eq!(server.get_json("/v1/models")["data"][0]["spaces"][0]["dim"], 4);
    server.stop();
}

#[test]
fn dropped_words_are_named_in_the_answer() {
    let server = common::Server::start(common::Options::default());
    server.add(&common::video("ignored.mp4", 4.0, 440));
    let answer = server.post_json("/v1/search", &json!({"query": "a red zebra", "limit": 1}));
    let ignored = answer["ignored_words"].as_array().unwrap();
    assert!(ignored.contains(&json!("zebra")) && !ignored.contains(&json!("red")), "{answer}");
    server.stop();
}
