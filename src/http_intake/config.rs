//! How to serve.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::access::Access;
use crate::connections;

/// Room on disk for what comes with the largest upload.
const BESIDE_UPLOAD_BYTES: u64 = 4 << 20;

/// How to serve.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// Keys, slowing of wrong ones, audit log.
    pub access: Arc<Access>,
    /// Proxies whose headers about the client are trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether the media cookie is always marked as Secure, even if no trusted proxy reports TLS.
    pub secure_cookie: bool,
    /// Host names, besides `localhost`, that a server without API keys answers to and IP addresses: a page on another
    /// site may otherwise rebind its name to this server.
    pub allowed_hosts: Vec<String>,
    /// Largest upload, bytes.
    pub max_upload_bytes: u64,
    /// Largest body of any other call (a query's file included), bytes.
    pub max_body_bytes: usize,
    /// Requests answered at once; more get 429.
    pub max_in_flight: usize,
    /// Connections open at once; for another one the idlest or slowest goes.
    pub max_connections: usize,
    /// Connections of one address; default: three quarters of all.
    pub max_connections_per_address: Option<usize>,
    /// Memory for bodies that are being received or parsed, bytes.
    pub max_body_memory_bytes: u64,
    /// Disk for bodies that are being received or worked on, bytes.
    pub max_body_disk_bytes: u64,
    /// Limits of slow clients.
    pub slow: SlowClients,
    /// Longest time for a query.
    pub query_timeout: Duration,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            access: Arc::default(),
            trusted_proxies: Vec::new(),
            secure_cookie: false,
            allowed_hosts: Vec::new(),
            max_upload_bytes: 4 << 30,
            max_body_bytes: 64 << 20,
            max_in_flight: 256,
            max_connections: 1024,
            max_connections_per_address: None,
            max_body_memory_bytes: 256 << 20,
            max_body_disk_bytes: 8 << 30,
            slow: SlowClients::default(),
            query_timeout: Duration::from_secs(300),
        }
    }
}

/// How slow a client may be.
#[derive(Debug, Clone, Copy)]
pub struct SlowClients {
    /// Longest that the whole head of a request may take to arrive.
    pub header_timeout: Duration,
    /// Longest time between two requests of a connection.
    pub idle_timeout: Duration,
    /// Longest silence within a body, and within the reading of an answer.
    pub body_timeout: Duration,
    /// Fewest bytes per second of a body, and of an answer's reading, while the server waits for them.
    pub min_bytes_per_sec: f64,
}

impl Default for SlowClients {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            min_bytes_per_sec: 1024.0,
        }
    }
}

impl SlowClients {
    /// Rates are averaged over this much waiting.
    const WINDOW: Duration = Duration::from_secs(15);

    fn patience(self) -> connections::Patience {
        let rule = connections::Rule {
            min_bytes_per_sec: self.min_bytes_per_sec,
            window: Self::WINDOW,
            silence: self.body_timeout,
        };
        connections::Patience { head: self.header_timeout, idle: self.idle_timeout, body: rule, answer: rule }
    }
}

impl HttpConfig {
    /// Limits of the connections.
    pub(crate) fn connection_limits(&self) -> connections::Limits {
        connections::Limits {
            total: self.max_connections,
            per_address: self.max_connections_per_address,
            patience: self.slow.patience(),
        }
    }

    /// Room on disk for bodies: the largest upload must fit.
    pub(crate) fn spool_bytes(&self) -> u64 {
        let largest = self.max_upload_bytes.max(self.max_body_bytes as u64);
        self.max_body_disk_bytes.max(largest.saturating_add(BESIDE_UPLOAD_BYTES))
    }
}
