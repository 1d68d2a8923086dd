//! Moments, timelines, confidence, evaluations, hub correction.

use super::*;

fn calibrated(server: &Server) {
    eventually("the scores have a meaning", || {
        let stats = server.get_json("/v1/stats");
        (stats["calibrated_clips"] == stats["clips"]).then_some(())
    });
}

/// A scene as long as a window, or several in a row: the moment found is where the scene is.
#[test]
fn moments_are_where_the_scenes_are() {
    let (server, assets) = films();
    let (mut asked, mut right) = (0, 0);
    for (film, asset) in contents().iter().zip(assets) {
        for scene in film["scenes"].as_array().unwrap() {
            let body = json!({"query": {"text": scene["caption"]}, "group_by": "moment", "limit": 1,
                              "filter": {"asset_ids": [asset["id"]]}});
            let hit = &server.search(&body)[0];
            let secs = |of: &Value, key: &str| of[key].as_f64().unwrap();
            let common = secs(hit, "end_secs").min(secs(scene, "end_secs"))
                - secs(hit, "start_secs").max(secs(scene, "start_secs"));
            let either = secs(hit, "end_secs").max(secs(scene, "end_secs"))
                - secs(hit, "start_secs").min(secs(scene, "start_secs"));
            asked += 1;
            right += usize::from(common / either >= 0.7);
            assert!(
                secs(hit, "start_secs") <= secs(hit, "peak_secs")
                    && secs(hit, "peak_secs") <= secs(hit, "end_secs")
            );
        }
    }
    eprintln!("{right} of {asked} moments overlap their scene by 0.7 or more");
    assert!(right * 10 >= asked * 8, "{right} of {asked}");
}

#[test]
fn a_timeline_scores_every_clip() {
    let (server, assets) = films();
    let id = assets[0]["id"].as_str().unwrap();
    let timeline = server.get_json(&format!("/v1/assets/{id}/timeline?q=a+red+circle"));
    let clips = timeline["data"].as_array().unwrap();
    assert_eq!(clips.len() as u64, assets[0]["clip_count"].as_u64().unwrap());
    assert!(clips.is_sorted_by(|a, b| a["start_secs"].as_f64() < b["start_secs"].as_f64()));
    let hits = server
        .search(&json!({"query": {"text": "a red circle"}, "filter": {"asset_ids": [id]}, "limit": 1000}));
    for hit in &hits {
        let clip = clips.iter().find(|clip| clip["start_secs"] == hit["start_secs"]).unwrap();
        assert_eq!((&clip["score"], &clip["matched"]), (&hit["score"], &hit["matched"]));
    }
    assert_eq!(timeline["moments"][0]["score"], hits[0]["score"]);
    assert!(timeline["usual_score"].as_f64().unwrap() < hits[0]["score"].as_f64().unwrap());
    let both =
        server.get_json(&format!("/v1/assets/{id}/timeline?q=a+red+circle&targets=video,audio&fuse=mean"));
    assert_eq!(both["data"].as_array().unwrap().len(), clips.len());
    // Any query: a span of another asset.
    let body = json!({"query": {"asset": {"id": assets[1]["id"], "start_secs": 0, "end_secs": 3.2}}});
    let like = server.post_json(&format!("/v1/assets/{id}/timeline"), &body);
    assert_eq!(
        (like["space"].as_str().unwrap(), like["data"].as_array().unwrap().len()),
        ("fine", clips.len())
    );
    for (query, code) in [
        ("?q=+", "invalid_value"),
        ("", "missing_field"),
        ("?q=red&targets=smell", "invalid_value"),
        ("?q=red&space=x", "bad_space"),
    ] {
        let (status, found) = error_of(server.get(&format!("/v1/assets/{id}/timeline{query}")));
        assert_eq!((status, found.as_str()), (400, code), "{query}");
    }
    let missing = format!("/v1/assets/ast_{}/timeline?q=red", "0".repeat(32));
    assert_eq!(error_of(server.get(&missing)), (404, "not_found".to_owned()));
}

#[test]
fn confidence_tells_what_is_here_from_what_is_not() {
    let (server, _) = films();
    calibrated(server);
    let answer = |body: Value| server.post_json("/v1/search", &body);
    let here = answer(json!({"query": {"text": "a big blue triangle moving left"}}));
    assert_eq!(here["no_match"], false, "{here}");
    let confidences: Vec<f64> =
        here["data"].as_array().unwrap().iter().map(|hit| hit["confidence"].as_f64().unwrap()).collect();
    assert!(
        confidences.is_sorted_by(|a, b| a >= b) && confidences[0] > 0.9 && confidences[9] < 0.5,
        "{confidences:?}"
    );
    let sure = answer(json!({"query": {"text": "a big blue triangle moving left"}, "min_confidence": 0.9}));
    let count = confidences.iter().filter(|confidence| **confidence >= 0.9).count();
    assert_eq!(sure["data"].as_array().unwrap().len(), count);
    let chatter = answer(json!({"query": {"text": "thanks for watching everyone"}, "min_confidence": 0.9}));
    assert_eq!(
        (&chatter["no_match"], chatter["data"].as_array().unwrap().len()),
        (&json!(true), 0),
        "{chatter}"
    );
    // Of several parts it is the mean by log odds: the same part twice is as sure as once.
    let best = |answer: &Value| answer["data"][0]["confidence"].as_f64().unwrap();
    let part = json!({"text": "a big blue triangle moving left"});
    let twice = answer(json!({"query": [part, part], "min_confidence": 0.9}));
    assert!((best(&twice) - confidences[0]).abs() < 1e-4 && twice["data"].as_array().unwrap().len() == count);
    let half =
        answer(json!({"query": [part, {"text": "thanks for watching everyone"}], "min_confidence": 0.9}));
    assert_eq!((&half["no_match"], half["data"].as_array().unwrap().len()), (&json!(true), 0), "{half}");
    // So it is for the mean of both tracks.
    let mean = json!({"query": part, "targets": ["video", "audio"], "fuse": "mean", "limit": 1});
    assert!((0.0..1.0).contains(&best(&answer(mean))));
    // Of "a red dog" half is understood; of "a red circle" all of it, whether or not the list has "a".
    let (dog, plain) = (answer(json!({"query": "a red dog"})), answer(json!({"query": "red"})));
    assert!((2.0 * best(&dog) - best(&plain)).abs() < 1e-4 && best(&plain) > 0.9, "{dog} {plain}");
    assert_eq!((&dog["no_match"], &plain["no_match"]), (&json!(true), &json!(false)));
    let (a, bare) = (answer(json!({"query": "the red circle"})), answer(json!({"query": "red circle"})));
    assert_eq!(a["data"][0]["confidence"], bare["data"][0]["confidence"]);
    // A target named twice counts once.
    let twice = json!({"query": "red", "targets": ["video", "video"], "fuse": "mean", "min_confidence": 0.5});
    answer(twice);
    for refused in [
        json!({"query": [part, part], "min_confidence": -0.5}),
        // Before any part is embedded, or the word that nobody knows would be told first.
        json!({"query": [{"text": "xyzzy"}, {"text": "red"}], "min_confidence": 2}),
        json!({"query": {"text": "red"}, "min_confidence": 1.5}),
    ] {
        let response = server.post("/v1/search", &refused);
        assert_eq!(response.status(), 400);
        let error = &response.json::<Value>().unwrap()["error"];
        assert_eq!((&error["code"], &error["param"]), (&json!("invalid_value"), &json!("min_confidence")));
    }
}

#[test]
fn an_evaluation_tells_where_the_right_answers_come() {
    let (server, assets) = films();
    let name = |n: usize| assets[n]["name"].as_str().unwrap().to_owned();
    let films = contents();
    let caption = |n: usize| films[n]["scenes"][0]["caption"].clone();
    let pairs: Vec<Value> = (0..assets.len())
        .map(|n| {
            let asset = match n % 3 {
                0 => assets[n]["id"].as_str().unwrap().to_owned(),
                1 => name(n),
                _ => name(n).rsplit_once('.').unwrap().0.to_owned(),
            };
            json!({"text": caption(n), "asset": asset})
        })
        .collect();
    let body = json!({"pairs": pairs, "targets": ["audio", "video"]});
    let answer = server.post_json("/v1/evaluations", &body);
    assert_eq!((&answer["pairs"], &answer["gallery"]), (&json!(assets.len()), &json!(assets.len())));
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results.len(), 4);
    for (result, (target, search)) in
        results.iter().zip([("video", "served"), ("video", "exact"), ("audio", "served"), ("audio", "exact")])
    {
        assert_eq!((result["target"].as_str(), result["search"].as_str()), (Some(target), Some(search)));
    }
    // The same by hand.
    let ranks: Vec<usize> = (0..assets.len())
        .map(|n| {
            let query = json!({"query": {"text": caption(n)}, "group_by": "asset", "limit": 1000});
            server.search(&query).iter().position(|hit| hit["asset_id"] == assets[n]["id"]).unwrap() + 1
        })
        .collect();
    let share = |k: usize| ranks.iter().filter(|rank| **rank <= k).count() as f64 / ranks.len() as f64;
    for (key, k) in [("r_at_1", 1), ("r_at_5", 5), ("r_at_10", 10)] {
        let figure = &results[0][key];
        assert!((figure["value"].as_f64().unwrap() - share(k)).abs() < 1e-9, "{key}: {figure} {ranks:?}");
        assert!(
            figure["low"].as_f64() <= figure["value"].as_f64()
                && figure["value"].as_f64() <= figure["high"].as_f64()
        );
    }
    assert_eq!(results[0]["mrr"]["value"], results[1]["mrr"]["value"]);
    for (pairs, status, code) in [
        (json!([]), 400, "invalid_value"),
        (json!([{"text": "red", "asset": "nothing.mp4"}]), 422, "asset_unknown"),
        (json!([{"text": "red"}]), 400, "missing_field"),
    ] {
        let refused = error_of(server.post("/v1/evaluations", &json!({"pairs": pairs})));
        assert_eq!(refused, (status, code.to_owned()));
    }
    let none = json!({"pairs": [{"text": "xyzzy", "asset": name(0)}, {"text": "red", "asset": name(1)}]});
    assert_eq!(server.post_json("/v1/evaluations", &none)["unknown_texts"], 1);

    // With hub correction: once without, once with, in each way of searching.
    let body = json!({"pairs": pairs, "hub_correction": "dis"});
    let with = server.post_json("/v1/evaluations", &body);
    let kinds = with["results"].as_array().unwrap().iter().map(|r| (&r["search"], &r["hub_correction"]));
    assert_eq!(
        kinds.map(|(search, hubs)| format!("{search} {hubs}")).collect::<Vec<_>>(),
        ["\"served\" \"off\"", "\"exact\" \"off\"", "\"served\" \"dis\"", "\"exact\" \"dis\""]
    );
    assert_eq!(with["results"][0], results[0]);
}

#[test]
fn hub_correction_changes_the_order_only() {
    let (server, _) = films();
    eventually("the searches have a bank", || {
        let stats = server.get_json("/v1/stats");
        (stats["calibrated_clips"] == stats["clips"]).then_some(())
    });
    let mut corrected = 0;
    for film in contents() {
        for scene in film["scenes"].as_array().unwrap() {
            let ask = |hubs: &str| {
                let body = json!({"query": {"text": scene["caption"]}, "limit": 100,
                                  "params": {"hub_correction": hubs}});
                server.post_json("/v1/search", &body)
            };
            let (plain, with) = (ask("off"), ask("dis"));
            let scores = |answer: &Value| {
                let hits = answer["data"].as_array().unwrap().iter();
                let mut found: Vec<String> = hits
                    .map(|hit| format!("{} {} {}", hit["asset_id"], hit["start_secs"], hit["score"]))
                    .collect();
                found.sort_unstable();
                found
            };
            assert_eq!(scores(&plain), scores(&with));
            assert_eq!((&plain["hub_corrected"], &plain["no_match"]), (&json!(false), &with["no_match"]));
            corrected += usize::from(with["hub_corrected"] == true);
        }
    }
    assert!(corrected > 0, "no answer of all began with a hub");
    for (params, query) in [
        (json!({"hub_correction": "on"}), json!({"text": "red"})),
        (json!({"hub_correction": "dis"}), json!([{"text": "red"}, {"text": "blue"}])),
    ] {
        let refused = server.post("/v1/search", &json!({"query": query, "params": params}));
        assert_eq!(error_of(refused).0, 400, "{params}");
    }
}
