//! JSON bodies, with errors of our own shape and stable codes.

use axum::http::StatusCode;
use serde::de::DeserializeOwned;

use super::brief::{MAX_MESSAGE_BYTES, brief};
use super::error::ApiError;

/// Parses a JSON object; the error names the field.
pub fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    // Serde would accept a list of the field values in place of the object.
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
        return Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "invalid_value",
            "the body must be a JSON object",
        ));
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        // Both may quote a key as long as the body.
        let (path, text) = (error.path(), error.inner());
        json_error(&brief(path, MAX_MESSAGE_BYTES), text.classify(), &brief(text, MAX_MESSAGE_BYTES))
    })?;
    json.end().map_err(|error| json_error(".", error.classify(), &error.to_string()))?;
    Ok(value)
}

fn json_error(path: &str, class: serde_json::error::Category, text: &str) -> ApiError {
    use serde_json::error::Category;
    match class {
        Category::Data => field_error(path, text),
        Category::Io | Category::Syntax | Category::Eof => ApiError::new(
            StatusCode::BAD_REQUEST,
            "invalid_json",
            format!("the body is not valid JSON: {text}"),
        ),
    }
}

/// Maps serde's message to one of our codes; the field it quotes belongs to the path.
pub fn field_error(path: &str, text: &str) -> ApiError {
    let quoted = text.split('`').nth(1).unwrap_or("");
    let (code, field) = if text.starts_with("unknown field") {
        ("unknown_field", quoted)
    } else if text.starts_with("missing field") {
        ("missing_field", quoted)
    } else {
        ("invalid_value", "")
    };
    let parent = match path {
        "." => "",
        // The path of an unknown field ends with the field itself.
        path if !field.is_empty() => path.strip_suffix(field).map_or(path, |rest| rest.trim_end_matches('.')),
        path => path,
    };
    let param = if parent.is_empty() || field.is_empty() {
        format!("{parent}{field}")
    } else {
        format!("{parent}.{field}")
    };
    let error = ApiError::new(StatusCode::BAD_REQUEST, code, text);
    if param.is_empty() { error } else { error.with_param(param) }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Outer {
        inner: Inner,
        #[serde(default)]
        list: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Inner {
        count: u32,
    }

    fn code_and_param(body: &str) -> (String, Option<String>) {
        let error = parse_json::<Outer>(body.as_bytes()).unwrap_err();
        let text = format!("{:?}", error.into_response().extensions().get::<ApiError>().unwrap());
        let between = |from: &str, to: &str| {
            text.split_once(from).and_then(|(_, rest)| rest.split_once(to)).map(|(found, _)| found.to_owned())
        };
        (between("code: \"", "\"").unwrap(), between("param: Some(\"", "\""))
    }

    #[test]
    fn json_errors_name_code_and_field() {
        let cases = [
            ("{", "invalid_json", None),
            ("", "invalid_json", None),
            (r#" [{"count":1}]"#, "invalid_value", None),
            (r#"{"inner":{"count":1}} x"#, "invalid_json", None),
            (r#"{"inner":{"count":1},"extra":1}"#, "unknown_field", Some("extra")),
            (r#"{"inner":{"count":1,"extra":1}}"#, "unknown_field", Some("inner.extra")),
            (r#"{"inner":{}}"#, "missing_field", Some("inner.count")),
            ("{}", "missing_field", Some("inner")),
            (r#"{"inner":{"count":"x"}}"#, "invalid_value", Some("inner.count")),
            (r#"{"inner":{"count":1},"list":[{"count":-1}]}"#, "invalid_value", Some("list[0].count")),
        ];
        for (body, code, param) in cases {
            assert_eq!(code_and_param(body), (code.to_owned(), param.map(str::to_owned)), "{body}");
        }
        // Quotations are shortened.
        let long = "x".repeat(100_000);
        for body in [format!(r#"{{"{long}":1}}"#), format!(r#"{{"inner":{{"{long}":1}}}}"#)] {
            let (code, param) = code_and_param(&body);
            let param = param.unwrap();
            assert!(code == "unknown_field" && param.len() <= 100 && param.contains("xxx…xxx"), "{param}");
        }
        let (code, param) = code_and_param(&format!(r#"{{"inner":{{"count":"{long}"}}}}"#));
        assert_eq!((&*code, param.as_deref()), ("invalid_value", Some("inner.count")));
        let deep = "[".repeat(100_000);
        assert_eq!(code_and_param(&deep).0, "invalid_value");
    }
}
