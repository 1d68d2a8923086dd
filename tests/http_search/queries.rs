//! Parts, weights and filters of a query.

use super::*;

#[test]
fn parts_have_weights_and_negatives() {
    let (server, _) = films();
    let of = |query: Value| server.search(&json!({"query": query, "limit": 1000}));
    let one = of(json!({"text": "a red circle"}));
    let same = of(json!([{"text": "a red circle", "weight": 3}]));
    let scores = |hits: &[Value]| hits.iter().map(|hit| hit["score"].as_f64().unwrap()).collect::<Vec<_>>();
    assert_eq!(scores(&one), scores(&same));
    assert_eq!(scores(&one), scores(&of(json!("a red circle"))));
    // The weighted mean of the scores of the single parts.
    let other = of(json!({"text": "a blue square"}));
    let both = of(json!([{"text": "a red circle", "weight": 2}, {"text": "a blue square", "weight": -1}]));
    let score = |hits: &[Value], of: &Value| {
        let same = |hit: &&Value| hit["asset_id"] == of["asset_id"] && hit["start_secs"] == of["start_secs"];
        hits.iter().find(same).unwrap()["score"].as_f64().unwrap()
    };
    assert_eq!(both.len(), one.len());
    for hit in &both {
        let want = (2.0 * score(&one, hit) - score(&other, hit)) / 3.0;
        assert!((hit["score"].as_f64().unwrap() - want).abs() < 1e-5, "{hit} {want}");
    }
    // A sound and a text, as a form and as JSON.
    let sound = samples().join("query.wav");
    let form = multipart::Form::new()
        .text("modality", "audio")
        .text("weight", "2")
        .text("request", json!({"query": {"text": "red", "weight": 0.5}, "limit": 1000}).to_string())
        .file("file", &sound)
        .unwrap();
    let formed = ok_json(server.post_form("/v1/search", form));
    let parts =
        json!([{"audio": data_uri("audio/wav", &sound), "weight": 2}, {"text": "red", "weight": 0.5}]);
    assert_eq!(formed["data"], json!(of(parts)));
    assert_eq!(formed["space"], "coarse");
}

#[test]
fn the_searches_of_the_readme_are_answered() {
    let (server, _) = films();
    let readme = std::fs::read_to_string(manifest_dir().join("README.md")).unwrap();
    let searches: Vec<Value> = readme
        .split("curl -d '")
        .filter_map(|from| from.split_once('\''))
        .filter(|(_, rest)| rest.lines().next().unwrap().ends_with("/v1/search"))
        .map(|(body, _)| serde_json::from_str(body).unwrap())
        .collect();
    assert!(searches.len() >= 3, "{searches:?}");
    for body in searches {
        let response = server.post("/v1/search", &body);
        assert_eq!(response.status(), 200, "{body}: {}", response.text().unwrap());
    }
}

#[test]
fn a_query_of_parts_is_refused_by_its_place() {
    let (server, assets) = films();
    let id = &assets[0]["id"];
    for (query, param) in [
        (json!([]), "query"),
        (json!(7), "query"),
        (json!(" "), "query"),
        (json!([{"text": "red"}, {"text": " "}]), "query[1].text"),
        (json!([{"text": "red"}, {"smell": "x"}]), "query[1].smell"),
        (json!([{"text": "red"}, {}]), "query[1]"),
        (json!([{"text": "red", "weight": 0}]), "query[0].weight"),
        (json!({"text": "red", "weight": 1e9}), "query.weight"),
        (json!({"text": "red", "weight": -1}), "query"),
        (json!([{"text": "red"}, {"text": "red", "weight": -1}]), "query"),
        (
            json!([{"text": "red"}, {"asset": {"id": id, "start_secs": 5, "end_secs": 2}}]),
            "query[1].asset.start_secs",
        ),
    ] {
        let response = server.post("/v1/search", &json!({"query": query}));
        assert_eq!(response.status(), 400, "{query}");
        assert_eq!(response.json::<Value>().unwrap()["error"]["param"], param, "{query}");
    }
    for (filter, param) in [
        (json!({"must": [{"key": "size", "eq": 1}]}), "filter.must[0].key"),
        (json!({"should": [{"key": "name"}]}), "filter.should[0]"),
        (json!({"must": [{"key": "name", "is": 1}]}), "filter.must[0].is"),
    ] {
        let response = server.post("/v1/search", &json!({"query": {"text": "red"}, "filter": filter}));
        assert_eq!(response.status(), 400, "{filter}");
        assert_eq!(response.json::<Value>().unwrap()["error"]["param"], param, "{filter}");
    }
}

#[test]
fn filters_keep_what_they_say() {
    let (server, assets) = films();
    let found = |filter: Value| {
        let hits = server.search(&json!({"query": {"text": "red"}, "filter": filter, "limit": 1000}));
        let mut ids: Vec<String> =
            hits.iter().map(|hit| hit["asset_id"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids.dedup();
        ids
    };
    let kept = |keep: &dyn Fn(&Value) -> bool| {
        let mut ids: Vec<String> =
            assets.iter().filter(|a| keep(a)).map(|a| a["id"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids
    };
    let has =
        |asset: &Value, shape: &str| asset["metadata"]["shapes"].as_array().unwrap().contains(&json!(shape));
    assert_eq!(found(json!({})).len(), assets.len());
    assert_eq!(
        found(
            json!({"must": [{"key": "metadata.shapes", "eq": "star"}, {"key": "metadata.scenes", "gte": 2}]})
        ),
        kept(&|a| has(a, "star") && a["metadata"]["scenes"].as_u64().unwrap() >= 2)
    );
    assert_eq!(
        found(
            json!({"should": [{"key": "metadata.shapes", "in": ["ring"]}, {"key": "duration_secs", "lt": 4}],
                     "must_not": [{"key": "asset_id", "eq": assets[0]["id"]}]})
        ),
        kept(
            &|a| (has(a, "ring") || a["duration_secs"].as_f64().unwrap() < 4.0) && a["id"] != assets[0]["id"]
        )
    );
    assert_eq!(found(json!({"must": [{"key": "created_at", "lt": "2020-01-01"}]})), Vec::<String>::new());
    assert_eq!(
        found(json!({"must": [{"key": "metadata.shot", "gte": "2026-10-31T23:00:00-02:00"}]})).len(),
        0
    );
    assert_eq!(found(json!({"must": [{"key": "metadata.shot", "gte": "2026-10-31"}]})).len(), assets.len());
    let late = json!({"must": [{"key": "start_secs", "gte": 9}, {"key": "agreement", "gte": -1}]});
    let hits = server.search(&json!({"query": {"text": "red"}, "filter": late, "limit": 1000}));
    assert!(!hits.is_empty());
    for hit in hits {
        assert!(hit["start_secs"].as_f64().unwrap() >= 9.0 && hit["agreement"].is_number(), "{hit}");
    }
}
