//! A stand-in for an S3-compatible service on loopback: listing in pages, reading, writing in one piece and
//! in parts, deleting. It checks that requests are signed by the key it knows, not the signature itself.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

pub const KEY_ID: &str = "test-key-id";
pub const SECRET: &str = "test-secret";
/// Keys on one page of a listing.
const PAGE: usize = 2;

#[derive(Default)]
struct Stored {
    objects: BTreeMap<String, Bytes>,
    parts: BTreeMap<(String, usize), Bytes>,
    calls: Vec<String>,
    endless: Endless,
}

/// How a listing never ends.
#[derive(Clone, Copy, Default, PartialEq)]
pub enum Endless {
    /// It ends.
    #[default]
    Not,
    /// The same continuation token again and again.
    SameToken,
    /// Always a new token, and never a key.
    NewTokens,
    /// A token of five million bytes.
    LongToken,
}

type Shared = Arc<Mutex<Stored>>;

/// The service; it ends with the test process. Objects are named `bucket/key`.
pub struct S3 {
    shared: Shared,
    address: SocketAddr,
}

impl S3 {
    pub fn start() -> Self {
        let shared = Shared::default();
        let served = Arc::clone(&shared);
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                let app = axum::Router::new()
                    .fallback(answer)
                    .layer(axum::extract::DefaultBodyLimit::disable())
                    .with_state(served);
                axum::serve(listener, app).await.unwrap();
            });
        });
        Self { shared, address: told.recv().unwrap() }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        self.shared.lock().unwrap().objects.insert(name.to_owned(), bytes.into());
    }

    pub fn list_without_end(&self, how: Endless) {
        self.shared.lock().unwrap().endless = how;
    }

    pub fn get(&self, name: &str) -> Option<Bytes> {
        self.shared.lock().unwrap().objects.get(name).cloned()
    }

    pub fn names(&self) -> Vec<String> {
        self.shared.lock().unwrap().objects.keys().cloned().collect()
    }

    /// `METHOD bucket/key` of every call so far.
    pub fn calls(&self) -> Vec<String> {
        self.shared.lock().unwrap().calls.clone()
    }

    /// Parts of uploads that were neither completed nor aborted.
    pub fn open_parts(&self) -> usize {
        self.shared.lock().unwrap().parts.len()
    }
}

async fn answer(
    State(shared): State<Shared>,
    method: Method,
    uri: Uri,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = percent_encoding::percent_decode_str(uri.path()).decode_utf8_lossy().into_owned();
    let name = path.trim_matches('/').to_owned();
    let mut stored = shared.lock().unwrap();
    stored.calls.push(format!("{method} {name}"));
    let signed = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or("");
    if !signed.starts_with(&format!("AWS4-HMAC-SHA256 Credential={KEY_ID}/")) {
        return (StatusCode::FORBIDDEN, "<Error><Code>AccessDenied</Code></Error>").into_response();
    }
    let tag = [("etag", "\"tag\"")];
    match method.as_str() {
        "GET" if query.contains_key("list-type") => list(&stored, &name, &query).into_response(),
        "GET" | "HEAD" => match stored.objects.get(&name).cloned() {
            Some(bytes) => (tag, [("last-modified", "Mon, 01 Jan 2024 00:00:00 GMT")], bytes).into_response(),
            None => (StatusCode::NOT_FOUND, "<Error><Code>NoSuchKey</Code></Error>").into_response(),
        },
        "PUT" => {
            match query.get("partNumber") {
                Some(number) => stored.parts.insert((name, number.parse().unwrap()), body),
                None => stored.objects.insert(name, body),
            };
            tag.into_response()
        }
        "POST" if query.contains_key("uploads") => {
            "<InitiateMultipartUploadResult><UploadId>up</UploadId></InitiateMultipartUploadResult>"
                .into_response()
        }
        "POST" => {
            let whole = take_parts(&mut stored, &name).concat();
            stored.objects.insert(name, whole.into());
            "<CompleteMultipartUploadResult><ETag>\"tag\"</ETag></CompleteMultipartUploadResult>"
                .into_response()
        }
        "DELETE" if query.contains_key("uploadId") => {
            take_parts(&mut stored, &name);
            StatusCode::NO_CONTENT.into_response()
        }
        _ => {
            stored.objects.remove(&name);
            StatusCode::NO_CONTENT.into_response()
        }
    }
}

fn take_parts(stored: &mut Stored, name: &str) -> Vec<Bytes> {
    let (mine, others) = std::mem::take(&mut stored.parts).into_iter().partition(|((of, _), _)| of == name);
    stored.parts = others;
    let mine: BTreeMap<(String, usize), Bytes> = mine;
    mine.into_values().collect()
}

fn list(stored: &Stored, bucket: &str, query: &HashMap<String, String>) -> String {
    let prefix = format!("{bucket}/{}", query.get("prefix").map_or("", String::as_str));
    if stored.endless != Endless::Not {
        let token = match stored.endless {
            Endless::SameToken => "again".to_owned(),
            Endless::LongToken => "long".repeat(1_250_000),
            _ => format!("{}", stored.calls.len()),
        };
        return format!(
            "<ListBucketResult><IsTruncated>true</IsTruncated>\
             <NextContinuationToken>{token}</NextContinuationToken></ListBucketResult>"
        );
    }
    let encoded = query.get("encoding-type").is_some_and(|kind| kind == "url");
    let after = query.get("continuation-token").cloned().unwrap_or_default();
    let found: Vec<_> = stored
        .objects
        .iter()
        .filter(|(name, _)| name.starts_with(&prefix) && name.as_str() > after.as_str())
        .collect();
    let more = found.len() > PAGE;
    let mut text = format!("<ListBucketResult><IsTruncated>{more}</IsTruncated>");
    if encoded {
        text += "<EncodingType>url</EncodingType>";
    }
    for (name, bytes) in found.iter().take(PAGE) {
        let key = &name[bucket.len() + 1..];
        let key = if encoded {
            percent_encoding::utf8_percent_encode(key, percent_encoding::NON_ALPHANUMERIC).to_string()
        } else {
            key.to_owned()
        };
        text += &format!(
            "<Contents><Key>{key}</Key><Size>{}</Size><LastModified>2024-01-01T00:00:00.000Z</LastModified></Contents>",
            bytes.len()
        );
    }
    if more {
        text += &format!("<NextContinuationToken>{}</NextContinuationToken>", found[PAGE - 1].0);
    }
    text + "</ListBucketResult>"
}
