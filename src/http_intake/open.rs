//! Paths that anybody may call.

/// Paths that need no key and no permit: health, and pages without data.
pub fn is_open(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz" | "/health" | "/" | "/docs" | "/openapi.json")
        || path.starts_with("/ui/")
}
