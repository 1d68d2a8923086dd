//! Connects to hosts: a name is resolved once, all its addresses are checked, and no others are dialled.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use hyper::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tower_service::Service;

use super::OutboundError;
use super::rule::{Rules, check_address};

/// Resolves host names to addresses; tests replace it.
#[async_trait]
pub trait Resolve: fmt::Debug + Send + Sync {
    /// All addresses of a name.
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// Opens connections to checked addresses.
#[async_trait]
pub trait Dial: fmt::Debug + Send + Sync {
    /// Connects to the address.
    async fn dial(&self, address: SocketAddr) -> io::Result<TcpStream>;
}

/// The system's own resolver and network.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemNetwork;

#[async_trait]
impl Resolve for SystemNetwork {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
    }
}

#[async_trait]
impl Dial for SystemNetwork {
    async fn dial(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// Makes every connection to another host, with all checks.
#[derive(Debug, Clone)]
pub(super) struct Guarded {
    pub(super) rules: Arc<Rules>,
    pub(super) resolver: Arc<dyn Resolve>,
    pub(super) dialer: Arc<dyn Dial>,
    pub(super) connect_timeout: Duration,
}

impl Guarded {
    async fn connect(self, uri: Uri) -> Result<TokioIo<TcpStream>, OutboundError> {
        let host = uri.host().unwrap_or("");
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        // Check here too: no layer above can then forget it or be tricked.
        let private = self.rules.find(host, port)?;
        let addresses = self.addresses(host).await?;
        // One bad address refuses the name: which one is dialled must not depend on luck.
        addresses.iter().try_for_each(|address| check_address(host, *address, private))?;
        let mut last = OutboundError::failed(host, "the name has no address");
        for address in addresses {
            let dialled = self.dialer.dial(SocketAddr::new(address, port));
            match tokio::time::timeout(self.connect_timeout, dialled).await {
                Ok(Ok(stream)) => return Ok(TokioIo::new(stream)),
                Ok(Err(error)) => last = OutboundError::failed(host, format!("could not connect: {error}")),
                Err(_) => last = OutboundError::timeout(host, "timed out while connecting"),
            }
        }
        Err(last)
    }

    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, OutboundError> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(literal) = bare.parse::<IpAddr>() {
            return Ok(vec![literal]);
        }
        match tokio::time::timeout(self.connect_timeout, self.resolver.resolve(host)).await {
            Ok(Ok(addresses)) => Ok(addresses),
            Ok(Err(error)) => {
                Err(OutboundError::failed(host, format!("could not resolve the name: {error}")))
            }
            Err(_) => Err(OutboundError::timeout(host, "timed out while resolving the name")),
        }
    }
}

impl Service<Uri> for Guarded {
    type Response = TokioIo<TcpStream>;
    type Error = OutboundError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, OutboundError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), OutboundError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

/// Adds TLS for `https` URLs, verified against the system's certificates, or against Mozilla's if the system
/// has none (small containers).
pub(super) fn with_tls(guarded: Guarded) -> Result<HttpsConnector<Guarded>, OutboundError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| OutboundError::failed("TLS", error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_or_http()
        .enable_http1()
        .wrap_connector(guarded))
}
