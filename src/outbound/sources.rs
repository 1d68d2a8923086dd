//! Where files may be fetched from: URLs and buckets.

use super::bucket::{BucketConfig, Buckets};
use super::{Outbound, OutboundConfig, OutboundError};

/// Hosts and buckets that files may be fetched from.
#[derive(Debug, Clone)]
pub struct SourcesConfig {
    /// Rules for URLs and the network: hosts and timeouts.
    pub network: OutboundConfig,
    /// Endpoint, credentials and allowed buckets.
    pub buckets: BucketConfig,
    /// Largest file to fetch, in bytes.
    pub max_fetch_bytes: u64,
}

impl Default for SourcesConfig {
    fn default() -> Self {
        Self {
            network: OutboundConfig::default(),
            buckets: BucketConfig::default(),
            max_fetch_bytes: 4 << 30,
        }
    }
}

/// Clients for other hosts.
#[derive(Debug)]
pub struct Sources {
    /// Client for allowed URLs.
    pub outbound: Outbound,
    /// Client for allowed buckets.
    pub buckets: Buckets,
    /// Largest file to fetch, in bytes.
    pub max_fetch_bytes: u64,
}

impl Sources {
    /// Clients with these settings.
    ///
    /// # Errors
    /// [`OutboundError`] if the endpoint of the buckets is invalid, or TLS cannot be set up.
    pub fn new(config: SourcesConfig) -> Result<Self, OutboundError> {
        Ok(Self {
            buckets: Buckets::new(config.buckets, &config.network)?,
            outbound: Outbound::new(config.network)?,
            max_fetch_bytes: config.max_fetch_bytes,
        })
    }
}
