//! The only way to other hosts: URLs, webhooks and buckets all go through this client.
//!
//! Only allowed hosts are reached. A name is resolved once, all its addresses are checked, and one of exactly
//! those is dialled; every redirect is checked again. No proxies, no cookies, no decompression; limits on
//! size, silence and time.

mod address;
pub mod bucket;
mod connect;
mod download;
mod error;
mod rule;
mod sources;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, HeaderValue, LOCATION, USER_AGENT,
};
use hyper::{Method, Request, Response, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::Instant;

pub use address::{AddressClass, class_of};
pub use connect::{Dial, Resolve, SystemNetwork};
pub use download::Download;
pub use error::OutboundError;
pub use rule::HostRule;
pub use sources::{Sources, SourcesConfig};
pub use url::Url;

use connect::Guarded;
use rule::Rules;

/// Maximum number of redirects followed.
const MAX_REDIRECTS: usize = 5;
/// Idle connections kept per bucket host, and for how long.
const IDLE_CONNECTIONS: usize = 4;
const IDLE_CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);
const PRODUCT: HeaderValue = HeaderValue::from_static(concat!("triptych/", env!("CARGO_PKG_VERSION")));

type RequestBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Which hosts may be reached, and the time limits.
#[derive(Debug, Clone)]
pub struct OutboundConfig {
    /// Hosts that may be reached; empty: fetching is off.
    pub allow_hosts: Vec<HostRule>,
    /// Time limit for resolving a name, and for connecting to one address.
    pub connect_timeout: Duration,
    /// Longest silence: before the head of an answer, and within its body.
    pub idle_timeout: Duration,
    /// Time limit for a download, redirects included.
    pub total_timeout: Duration,
    /// Resolver of host names.
    pub resolver: Arc<dyn Resolve>,
    /// Opens connections to checked addresses.
    pub dialer: Arc<dyn Dial>,
}

impl Default for OutboundConfig {
    fn default() -> Self {
        Self {
            allow_hosts: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            total_timeout: Duration::from_secs(3600),
            resolver: Arc::new(SystemNetwork),
            dialer: Arc::new(SystemNetwork),
        }
    }
}

/// A client for other hosts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Outbound {
    rules: Arc<Rules>,
    client: Option<Client<HttpsConnector<Guarded>, RequestBody>>,
    idle_timeout: Duration,
    total_timeout: Duration,
}

impl Outbound {
    /// A client with these rules.
    ///
    /// # Errors
    /// [`OutboundError::Failed`] if TLS cannot be set up.
    pub fn new(config: OutboundConfig) -> Result<Self, OutboundError> {
        // A reused connection that its host just closes would look like a failure.
        Self::keeping(config, 0)
    }

    /// A client that keeps this many idle connections per host, for callers that retry themselves.
    fn keeping(config: OutboundConfig, idle_connections: usize) -> Result<Self, OutboundError> {
        let rules = Arc::new(Rules::new(config.allow_hosts));
        let guarded = Guarded {
            rules: Arc::clone(&rules),
            resolver: config.resolver,
            dialer: config.dialer,
            connect_timeout: config.connect_timeout,
        };
        let client = if rules.is_empty() {
            None
        } else {
            let mut builder = Client::builder(TokioExecutor::new());
            builder
                .pool_timer(TokioTimer::new())
                .pool_max_idle_per_host(idle_connections)
                .pool_idle_timeout(IDLE_CONNECTION_TIMEOUT);
            Some(builder.build(connect::with_tls(guarded)?))
        };
        Ok(Self { rules, client, idle_timeout: config.idle_timeout, total_timeout: config.total_timeout })
    }

    /// Whether any host may be reached.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.client.is_some()
    }

    /// Fails if no host may be reached.
    ///
    /// # Errors
    /// [`OutboundError::UrlsDisabled`].
    pub fn require_on(&self) -> Result<(), OutboundError> {
        if self.is_on() { Ok(()) } else { Err(OutboundError::UrlsDisabled) }
    }

    /// Parses a URL and checks everything that needs no network access: scheme, host, port, no user name. Its
    /// addresses are checked on connecting.
    ///
    /// # Errors
    /// [`OutboundError::UrlsDisabled`], [`OutboundError::NotAllowed`].
    pub fn check(&self, url: &str) -> Result<Url, OutboundError> {
        self.rules.check(url)
    }

    /// Starts a download of at most `max_bytes`. Redirects are followed, and each is checked like the first
    /// URL.
    ///
    /// # Errors
    /// [`OutboundError`].
    pub async fn get(&self, url: &Url, max_bytes: u64) -> Result<Download, OutboundError> {
        let ends = Instant::now() + self.total_timeout;
        let mut url = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let request = self.request(Method::GET, &url, HeaderMap::new(), empty())?;
            let answer_by = ends.min(Instant::now() + self.idle_timeout);
            let response = self.send(&host_of(&url), request, answer_by).await?;
            let status = response.status();
            if matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                url = self.next_hop(&url, response.headers().get(LOCATION))?;
                continue;
            }
            return self.download(&url, response, max_bytes, ends);
        }
        Err(OutboundError::refused(
            &host_of(&url),
            format!("redirects more than {MAX_REDIRECTS} times; give the final URL"),
        ))
    }

    /// Posts a body and returns the status of the answer, even an error. Redirects are not followed.
    ///
    /// # Errors
    /// [`OutboundError`].
    pub async fn post(
        &self,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
        timeout: Duration,
    ) -> Result<u16, OutboundError> {
        let body = Full::new(body).map_err(|never| match never {}).boxed_unsync();
        let request = self.request(Method::POST, url, headers, body)?;
        let response = self.send(&host_of(url), request, Instant::now() + timeout).await?;
        Ok(response.status().as_u16())
    }

    fn request(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: RequestBody,
    ) -> Result<Request<RequestBody>, OutboundError> {
        if !self.is_on() {
            return Err(OutboundError::UrlsDisabled);
        }
        self.rules.check_parsed(url)?;
        let uri: Uri = url
            .as_str()
            .parse()
            .map_err(|error| OutboundError::NotAllowed(format!("cannot request the URL: {error}")))?;
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let headers = request.headers_mut();
        headers.entry(USER_AGENT).or_insert(PRODUCT);
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        // A small compressed answer could expand to a large one.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        Ok(request)
    }

    /// Sends a request and waits for the head of its answer.
    async fn send(
        &self,
        host: &str,
        request: Request<RequestBody>,
        answer_by: Instant,
    ) -> Result<Response<Incoming>, OutboundError> {
        let Some(client) = &self.client else { return Err(OutboundError::UrlsDisabled) };
        match tokio::time::timeout_at(answer_by, client.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(OutboundError::within(host, &error)),
            Err(_) => Err(OutboundError::timeout(host, "timed out while waiting for the answer")),
        }
    }

    /// The target of a redirect, if it may be followed.
    fn next_hop(&self, from: &Url, location: Option<&HeaderValue>) -> Result<Url, OutboundError> {
        let host = host_of(from);
        let to = location.and_then(|value| value.to_str().ok()).and_then(|text| from.join(text).ok());
        let Some(to) = to else {
            return Err(OutboundError::refused(&host, "redirects without naming a location"));
        };
        if from.scheme() == "https" && to.scheme() != "https" {
            let message = format!("{host} redirects from https to {}, which is not allowed", to.scheme());
            return Err(OutboundError::NotAllowed(message));
        }
        self.rules.check(to.as_str()).map_err(|error| match error {
            OutboundError::NotAllowed(why) => {
                OutboundError::NotAllowed(format!("{host} redirects to a URL that is not allowed: {why}"))
            }
            other => other,
        })
    }

    fn download(
        &self,
        url: &Url,
        response: Response<Incoming>,
        max_bytes: u64,
        ends: Instant,
    ) -> Result<Download, OutboundError> {
        let host = host_of(url);
        let status = response.status();
        if status.as_u16() != 200 {
            let reason = format!("answered {status}");
            let passing = status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429);
            return Err(if passing {
                OutboundError::failed(&host, reason)
            } else {
                OutboundError::refused(&host, reason)
            });
        }
        let coded = response.headers().get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity");
        if coded {
            return Err(OutboundError::refused(
                &host,
                "answered with a compressed body, although none was requested",
            ));
        }
        let length = response.headers().get(CONTENT_LENGTH);
        let size_bytes = length.and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
        let body = download::body_of(host.clone(), response.into_body());
        Download::new(host, size_bytes, body, max_bytes, self.idle_timeout, ends)
    }
}

fn host_of(url: &Url) -> String {
    url.host_str().unwrap_or("").to_owned()
}

fn empty() -> RequestBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}
