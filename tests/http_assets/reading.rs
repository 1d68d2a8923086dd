//! Content, thumbnails, embeddings and changes of metadata.

use super::*;

#[test]
fn content_and_thumbnails_are_served_in_parts() {
    let server = Server::start(Options::default());
    let file = video("first.mp4", 6.4, 300);
    let bytes = std::fs::read(&file).unwrap();
    let form = multipart::Form::new().file("file", &file).unwrap().text("name", "a \"b\".mp4");
    let asset = ok_json(server.post_form("/v1/assets?wait=true", form));
    let url = asset["content_url"].as_str().unwrap();
    let whole = server.get(url);
    let header = |response: &reqwest::blocking::Response, name: &str| {
        response.headers()[name].to_str().unwrap().to_owned()
    };
    assert_eq!((whole.status().as_u16(), header(&whole, "content-type")), (200, "video/mp4".to_owned()));
    assert_eq!(
        header(&whole, "content-disposition"),
        "inline; filename=\"a _b_.mp4\"; filename*=UTF-8''a%20%22b%22.mp4"
    );
    assert_eq!(header(&whole, "x-content-type-options"), "nosniff");
    let etag = header(&whole, "etag");
    assert_eq!(whole.bytes().unwrap(), bytes);

    let ranged = |range: &str| server.request("GET", url).header("range", range).send().unwrap();
    let part = ranged("bytes=10-19");
    assert_eq!(
        (part.status().as_u16(), header(&part, "content-range")),
        (206, format!("bytes 10-19/{}", bytes.len()))
    );
    assert_eq!(part.bytes().unwrap(), bytes[10..20]);
    assert_eq!(ranged("bytes=-5").bytes().unwrap(), bytes[bytes.len() - 5..]);
    let outside = ranged(&format!("bytes={}-", bytes.len()));
    assert_eq!(header(&outside, "content-range"), format!("bytes */{}", bytes.len()));
    assert_eq!(error_of(outside), (416, "range_not_satisfiable".to_owned()));
    let stale =
        server.request("GET", url).header("range", "bytes=0-1").header("if-range", "\"old\"").send().unwrap();
    assert_eq!(stale.status(), 200);
    let fresh = server.request("GET", url).header("if-none-match", &etag).send().unwrap();
    assert_eq!(fresh.status(), 304);
    let head = server.request("HEAD", url).send().unwrap();
    assert_eq!((head.status().as_u16(), header(&head, "content-length")), (200, bytes.len().to_string()));

    let thumb = asset["thumbnail_url"].as_str().unwrap();
    let response = server.get(&format!("{thumb}?at=4.8&size=64"));
    assert_eq!(
        (response.status().as_u16(), header(&response, "content-type")),
        (200, "image/jpeg".to_owned())
    );
    let etag = header(&response, "etag");
    let jpeg = image::load_from_memory(&response.bytes().unwrap()).unwrap();
    assert_eq!(jpeg.width().max(jpeg.height()), 64);
    let again = server
        .request("GET", &format!("{thumb}?at=4.8&size=64"))
        .header("if-none-match", etag)
        .send()
        .unwrap();
    assert_eq!(again.status(), 304);
    assert_eq!(server.get(&format!("{thumb}?at=999")).status(), 200, "past the end is the end");
    for bad in ["at=-1", "at=nan", "size=0", "size=99999"] {
        assert_eq!(error_of(server.get(&format!("{thumb}?{bad}"))).1, "invalid_value", "{bad}");
    }
    let sound = server.add(&tone("second.wav", 4.0, 900));
    let thumb = format!("/v1/assets/{}/thumbnail", sound["id"].as_str().unwrap());
    assert_eq!(error_of(server.get(&thumb)), (404, "no_picture".to_owned()));
}

#[test]
fn changes_are_made_to_the_version_that_a_client_has_seen() {
    let server = Server::start(Options::default());
    let asset = server.add(&tone("seen.wav", 4.0, 900));
    let url = format!("/v1/assets/{}", asset["id"].as_str().unwrap());
    let tag = || server.get(&url).headers()["etag"].to_str().unwrap().to_owned();
    let patch = |tag: &str, body: &Value| {
        server.request("PATCH", &url).header("if-match", tag).json(body).send().unwrap()
    };
    let first = tag();
    assert_eq!(tag(), first, "it stays the same");
    let changed = patch(&first, &json!({"metadata": {"a": 1}}));
    assert_eq!(changed.status(), 200);
    let second = changed.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!((tag(), second != first), (second.clone(), true));
    let stale = |response| assert_eq!(error_of(response), (412, "precondition_failed".to_owned()));
    stale(patch(&first, &json!({"metadata": {"a": 2}})));
    stale(patch(&format!("W/{second}"), &json!({"name": "weak"})));
    stale(server.request("DELETE", &url).header("if-match", &first).send().unwrap());
    stale(server.request("GET", &url).header("if-match", &first).send().unwrap());
    assert_eq!(server.get_json(&url)["metadata"], json!({"a": 1}), "nothing was done");
    assert_eq!(patch("*", &json!({"name": "any"})).status(), 200);
    let listed = format!("{first}, {}", tag());
    assert_eq!(patch(&listed, &json!({"name": "one of"})).status(), 200);
    // The bytes have a tag of their own.
    let content = asset["content_url"].as_str().unwrap();
    let bytes = server.get(content).headers()["etag"].to_str().unwrap().to_owned();
    let of = |tag: &str| server.request("GET", content).header("if-match", tag).send().unwrap();
    assert_eq!(of(&bytes).status(), 200);
    stale(of("\"old\""));
    // Of many at once, one changes it.
    let tag = tag();
    let done: Vec<u16> = std::thread::scope(|scope| {
        let (tag, patch) = (&tag, &patch);
        let all: Vec<_> = (0..8)
            .map(|n| scope.spawn(move || patch(tag, &json!({"metadata": {"by": n}})).status().as_u16()))
            .collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(done.iter().filter(|status| **status == 200).count(), 1, "{done:?}");
    assert!(done.iter().all(|status| [200, 412].contains(status)), "{done:?}");
    let last = server.get(&url).headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(server.request("DELETE", &url).header("if-match", last).send().unwrap().status(), 204);
}

#[test]
fn a_query_can_be_embedded_alone() {
    let server = Server::start(Options::default());
    let answer = server.post_json(
        "/v1/embeddings",
        &json!({"modality": "text", "input": ["a red circle", "a blue square"]}),
    );
    let data = answer["data"].as_array().unwrap();
    assert_eq!((data.len(), &data[1]["index"], &data[0]["space"]), (2, &json!(1), &json!("coarse")));
    assert!(answer["usage"]["prompt_tokens"].as_u64().unwrap() >= 4);
    let values = |entry: &Value| -> Vec<f32> {
        entry["embedding"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
    };
    let first = values(&data[0]);
    assert!((first.iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-5);
    let encoded = server.post_json(
        "/v1/embeddings",
        &json!({"model": "small-world", "modality": "text", "input": "a red circle", "encoding_format": "base64"}),
    );
    let bytes = base64::Engine::decode(
        &base64::engine::general_purpose::STANDARD,
        encoded["data"][0]["embedding"].as_str().unwrap(),
    );
    let decoded: Vec<f32> =
        bytes.unwrap().chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(decoded, first);

    let file = video("ten.mp4", 9.6, 300);
    let form =
        multipart::Form::new().text("modality", "video").text("space", "coarse").file("file", &file).unwrap();
    let clips = ok_json(server.post_form("/v1/embeddings", form));
    assert_eq!(spans(&clips["data"]), [(0.0, 3.2), (3.2, 6.4), (6.4, 9.6)]);
    let sound = json!({"modality": "audio", "input": data_uri("video/mp4", &file)});
    let sounds = server.post_json("/v1/embeddings", &sound);
    assert_eq!((sounds["data"].as_array().unwrap().len(), &sounds["data"][0]["space"]), (3, &json!("fine")));
    let still = json!({"modality": "image", "input": data_uri("image/png", &picture("shown.png"))});
    let still = server.post_json("/v1/embeddings", &still);
    assert!(still["data"].as_array().unwrap().len() == 1 && still["data"][0].get("start_secs").is_none());
}

#[test]
fn what_people_say_of_an_asset_can_be_changed() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(Options::default().data(data.path()));
    let form = multipart::Form::new()
        .text("metadata", r#"{"shelf":"a","place":{"city":"Ulm","hall":2},"tags":["raw"]}"#)
        .file("file", video("said.mp4", 6.4, 300))
        .unwrap();
    let before = ok_json(server.post_form("/v1/assets?wait=true", form));
    let path = format!("/v1/assets/{}", before["id"].as_str().unwrap());
    let patch = |server: &Server, body: &Value| server.request("PATCH", &path).json(body).send().unwrap();
    let found = |server: &Server, key: &str, value: Value| {
        let must = json!([{"key": key, "eq": value}]);
        server.search(&json!({"query": "a red circle", "filter": {"must": must}})).len()
    };
    assert_eq!(
        (found(&server, "metadata.shelf", json!("a")), found(&server, "name", json!("new.mp4"))),
        (2, 0)
    );

    let changes = json!({"name": "films/new.mp4", "metadata": {
        "shelf": "b", "tags": null, "place": {"hall": 3, "row": "x"}, "seen": [1, 2]}});
    let after = ok_json(patch(&server, &changes));
    let metadata = json!({"shelf": "b", "place": {"city": "Ulm", "hall": 3, "row": "x"}, "seen": [1, 2]});
    assert_eq!((&after["name"], &after["metadata"]), (&json!("new.mp4"), &metadata));
    assert!(after["updated_at"].as_str() > before["updated_at"].as_str());
    for kept in ["id", "state", "sha256", "clip_count", "duration_secs", "created_at"] {
        assert_eq!(after[kept], before[kept], "{kept}");
    }
    for (key, value, hits) in [
        ("metadata.shelf", json!("a"), 0),
        ("metadata.shelf", json!("b"), 2),
        ("metadata.tags", json!("raw"), 0),
        ("metadata.place.city", json!("Ulm"), 2),
        ("metadata.place.hall", json!(3), 2),
        ("metadata.seen", json!(2), 2),
        ("name", json!("new.mp4"), 2),
    ] {
        assert_eq!(found(&server, key, value), hits, "{key}");
    }
    let hit = &server.search(&json!({"query": "a red circle"}))[0];
    assert_eq!((&hit["asset_name"], &hit["metadata"]), (&json!("new.mp4"), &metadata));
    // Nothing changed: nothing written.
    assert_eq!(ok_json(patch(&server, &json!({})))["updated_at"], after["updated_at"]);
    assert_eq!(ok_json(patch(&server, &json!({"name": "new.mp4"})))["updated_at"], after["updated_at"]);

    let grown = |mut body: Value| {
        body["metadata"]["long"] = json!("x".repeat(60 << 10));
        body
    };
    ok_json(patch(&server, &grown(json!({}))));
    for (body, code) in [
        (grown(json!({"metadata": {"more": "y".repeat(5 << 10)}})), "invalid_value"),
        (json!({"metadata": ["no"]}), "invalid_value"),
        (json!({"name": 5}), "invalid_value"),
        (json!({"kind": "audio"}), "unknown_field"),
    ] {
        assert_eq!(error_of(patch(&server, &body)), (400, code.to_owned()), "{code}");
    }
    let nobody = server.request("PATCH", "/v1/assets/ast_00000000000000000000000000000001");
    assert_eq!(error_of(nobody.json(&json!({})).send().unwrap()), (404, "not_found".to_owned()));
    assert_eq!(ok_json(patch(&server, &json!({"metadata": {"long": null}})))["metadata"], metadata);
    server.kill9();

    let server = Server::start(Options::default().data(data.path()));
    assert_eq!(server.get_json(&path)["metadata"], metadata);
    assert_eq!(found(&server, "metadata.shelf", json!("b")), 2);
    assert_eq!(ok_json(patch(&server, &json!({"metadata": null})))["metadata"], json!({}));
    assert_eq!(found(&server, "metadata.shelf", json!("b")), 0);
    server.stop();
}
