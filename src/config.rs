//! Flags shared by the commands. Every flag is also an environment variable `TRIPTYCH_*`,
//! parsed and validated once.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use ipnet::IpNet;

use crate::access::{AccessConfig, AuditConfig};
use crate::index::GraphEngine;
use crate::library::{Deliver, KeepConfig};
use crate::media::{Limits, PoolLimits};
use crate::model::{Cut, Device};
use crate::outbound::bucket::{AccessKey, BucketConfig, BucketUrl};
use crate::outbound::{HostRule, Outbound, OutboundConfig, OutboundError, SourcesConfig, Url};

mod values;

use values::{network, positive_count, positive_secs, share};

/// Where the model is and where it runs.
#[derive(Debug, Clone, Args)]
pub struct ModelArgs {
    /// Model bundle folder.
    #[arg(long, env = "TRIPTYCH_MODEL", default_value = "models/small-world")]
    pub model: PathBuf,
    /// Device that runs the model: auto, cpu, cuda or cuda:N.
    #[arg(long, env = "TRIPTYCH_DEVICE", default_value = "auto")]
    pub device: Device,
    /// Number of threads for the model; 0 means one per core.
    #[arg(long, env = "TRIPTYCH_THREADS", default_value_t = 0)]
    pub threads: usize,
    /// Seconds from the start of one clip to the start of the next; default: the length of one clip, so that clips do
    /// not overlap.
    #[arg(long, env = "TRIPTYCH_STRIDE_SECS", value_parser = positive_secs)]
    pub stride_secs: Option<f64>,
    /// Cut the vectors of a space to this many values: N or SPACE=N, as the bundle allows; repeatable. Vectors of
    /// another length belong to another library.
    #[arg(long = "dim", env = "TRIPTYCH_DIM", value_delimiter = ',', value_name = "N|SPACE=N")]
    pub dims: Vec<Cut>,
    /// Frames in each window of a film, as the bundle allows: fewer are faster. Vectors of another number belong to
    /// another library.
    #[arg(long, env = "TRIPTYCH_FRAMES", value_name = "N")]
    pub frames: Option<usize>,
}

impl ModelArgs {
    /// Threads, with 0 replaced by the number of cores.
    #[must_use]
    pub fn thread_count(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        }
    }
}

/// Limits on what a single media file may cost.
#[derive(Debug, Clone, Args)]
pub struct LimitArgs {
    /// Maximum duration of an asset, in seconds; default: 86400.
    #[arg(long, env = "TRIPTYCH_MAX_DURATION_SECS", value_parser = positive_secs)]
    pub max_duration_secs: Option<f64>,
    /// Maximum number of pixels in a picture, as stored; pictures larger than 8192 x 4320 are scaled down while they
    /// are decoded.
    #[arg(long, env = "TRIPTYCH_MAX_PICTURE_PIXELS", default_value_t = 1 << 28, value_parser = clap::value_parser!(u64).range(1..))]
    pub max_picture_pixels: u64,
    /// Maximum wall-clock time to decode one file, in seconds; default: 14400.
    #[arg(long, env = "TRIPTYCH_DECODE_TIMEOUT_SECS", value_parser = clap::value_parser!(u64).range(1..))]
    pub decode_timeout_secs: Option<u64>,
    /// Maximum number of decoders running at once; 0 means two per core, but at least four.
    #[arg(long, env = "TRIPTYCH_DECODE_WORKERS", default_value_t = 0)]
    pub decode_workers: usize,
    /// Memory for all decoders together, in bytes; 0 means 256 MiB per core, but at least 1 GiB.
    #[arg(long, env = "TRIPTYCH_DECODE_MEMORY_BYTES", default_value_t = 0)]
    pub decode_memory_bytes: u64,
    /// Maximum memory to decode one file, in bytes; a file that needs more fails with `decode_limit`.
    #[arg(long, env = "TRIPTYCH_DECODE_FILE_MEMORY_BYTES", default_value_t = 4 << 30, value_parser = clap::value_parser!(u64).range(1 << 26..))]
    pub decode_file_memory_bytes: u64,
    /// Maximum time a query, thumbnail or embedding waits for a free decoder, in seconds; after that it gets status
    /// 429.
    #[arg(long, env = "TRIPTYCH_DECODE_WAIT_SECS", default_value_t = 10.0, value_parser = positive_secs)]
    pub decode_wait_secs: f64,
    /// Maximum CPU seconds to decode a file: this many per MiB of its size, plus 10.
    #[arg(long, env = "TRIPTYCH_DECODE_CPU_SECS_PER_MIB", default_value_t = 120.0, value_parser = positive_secs)]
    pub decode_cpu_secs_per_mib: f64,
    /// Maximum number of distinct clips in a file: this many per MiB of its size, plus 64.
    #[arg(long, env = "TRIPTYCH_MAX_CLIPS_PER_MIB", default_value_t = 1200)]
    pub max_clips_per_mib: u64,
}

impl LimitArgs {
    fn pool(&self) -> PoolLimits {
        let given = |count: u64| (count > 0).then_some(count);
        let default = PoolLimits::default();
        PoolLimits {
            workers: if self.decode_workers > 0 { self.decode_workers } else { default.workers },
            memory_bytes: given(self.decode_memory_bytes).unwrap_or(default.memory_bytes),
            wait: Duration::from_secs_f64(self.decode_wait_secs),
        }
    }

    /// The defaults with the caps given.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        if let Some(secs) = self.max_duration_secs {
            limits.max_duration_secs = secs;
        }
        if let Some(secs) = self.decode_timeout_secs {
            limits.wall_clock_secs = secs;
        }
        limits.address_space_bytes = self.decode_file_memory_bytes;
        limits.max_picture_pixels = self.max_picture_pixels;
        limits.work.cpu_secs_per_mib = self.decode_cpu_secs_per_mib;
        limits.work.clips_per_mib = self.max_clips_per_mib;
        limits.pool = self.pool();
        limits
    }
}

/// Data folder and ingest.
#[derive(Debug, Clone, Args)]
pub struct DataArgs {
    /// Data folder for the store, uploads and saved indexes; created if it does not exist.
    #[arg(long, env = "TRIPTYCH_DATA", default_value = "data")]
    pub data: PathBuf,
    /// Number of files to index in parallel; 0 means one per core.
    #[arg(long, env = "TRIPTYCH_INGEST_WORKERS", default_value_t = 0)]
    pub ingest_workers: usize,
}

/// Which hosts webhooks may be sent to.
#[derive(Debug, Clone, Args)]
pub struct WebhookArgs {
    /// Allow webhooks to this host: NAME, *.NAME or an address. Append :PORT unless the port is 80 or 443, and
    /// +private if the host is in a private network; repeatable.
    #[arg(
        long = "allow-webhook-host",
        env = "TRIPTYCH_ALLOW_WEBHOOK_HOSTS",
        value_delimiter = ',',
        value_name = "HOST"
    )]
    pub allow_webhook_hosts: Vec<HostRule>,
}

impl WebhookArgs {
    /// The door that webhooks leave by; `None` without a host that may be called.
    ///
    /// # Errors
    /// [`OutboundError`] where TLS cannot be set up.
    pub fn door(&self) -> Result<Option<Arc<dyn Deliver>>, OutboundError> {
        if self.allow_webhook_hosts.is_empty() {
            return Ok(None);
        }
        let allow_hosts = self.allow_webhook_hosts.clone();
        Ok(Some(Arc::new(Outbound::new(OutboundConfig { allow_hosts, ..OutboundConfig::default() })?)))
    }
}

/// Snapshots, retention, compaction and checks.
#[derive(Debug, Clone, Args)]
pub struct KeepArgs {
    /// Folder for snapshots (created if it does not exist), or s3://BUCKET/FOLDER; without it, snapshots are off.
    #[arg(long, env = "TRIPTYCH_SNAPSHOT_ROOT")]
    pub snapshot_root: Option<String>,
    /// Seconds between automatic snapshots; default: take none automatically.
    #[arg(long, env = "TRIPTYCH_SNAPSHOT_EVERY_SECS", value_parser = positive_secs, requires = "snapshot_root")]
    pub snapshot_every_secs: Option<f64>,
    /// Number of automatic snapshots to keep; snapshots taken on request are not counted and never deleted
    /// automatically.
    #[arg(long, env = "TRIPTYCH_SNAPSHOTS_KEPT", default_value_t = 7, value_parser = positive_count)]
    pub snapshots_kept: usize,
    /// Seconds between two runs of the retention rules.
    #[arg(long, env = "TRIPTYCH_RETENTION_EVERY_SECS", default_value_t = 900.0, value_parser = positive_secs)]
    pub retention_every_secs: f64,
    /// How often to check whether deleted clips left space to reclaim, in seconds.
    #[arg(long, env = "TRIPTYCH_COMPACT_EVERY_SECS", default_value_t = 60.0, value_parser = positive_secs)]
    pub compact_every_secs: f64,
    /// Read rate of the weekly check of uploads for damage, in bytes per second; 0 means check only on request.
    #[arg(long, env = "TRIPTYCH_CHECK_BYTES_PER_SEC", default_value_t = 4 << 20)]
    pub check_bytes_per_sec: u64,
}

impl KeepArgs {
    /// As the library takes it.
    #[must_use]
    pub fn config(&self) -> KeepConfig {
        KeepConfig {
            snapshot_root: self.snapshot_root.clone(),
            snapshot_every: self.snapshot_every_secs.map(Duration::from_secs_f64),
            snapshots_kept: self.snapshots_kept,
            retention_every: Some(Duration::from_secs_f64(self.retention_every_secs)),
            compact_every: Some(Duration::from_secs_f64(self.compact_every_secs)),
            check_bytes_per_sec: self.check_bytes_per_sec,
        }
    }
}

/// Which hosts and buckets files may be fetched from. Bucket credentials come from the environment only.
#[derive(Debug, Clone, Args)]
pub struct SourceArgs {
    /// Allow files to be fetched from this host: NAME, *.NAME or an address. Append :PORT unless the port is 80 or
    /// 443, and +private if the host is in a private network; repeatable.
    #[arg(
        long = "allow-url-host",
        env = "TRIPTYCH_ALLOW_URL_HOSTS",
        value_delimiter = ',',
        value_name = "HOST"
    )]
    pub allow_url_hosts: Vec<HostRule>,
    /// Allow this bucket, or a folder in it, to be indexed: s3://NAME or s3://NAME/FOLDER; repeatable.
    #[arg(
        long = "allow-bucket",
        env = "TRIPTYCH_ALLOW_BUCKETS",
        value_delimiter = ',',
        value_name = "S3_URL"
    )]
    pub allow_buckets: Vec<BucketUrl>,
    /// S3 endpoint, unless it is Amazon's: http(s)://HOST:PORT.
    #[arg(long, env = "AWS_ENDPOINT_URL", value_name = "URL")]
    pub s3_endpoint: Option<Url>,
    /// Region of the buckets.
    #[arg(long, env = "AWS_REGION", default_value = "us-east-1", value_name = "REGION")]
    pub s3_region: String,
    /// Maximum time for one download, in seconds.
    #[arg(long, env = "TRIPTYCH_FETCH_TIMEOUT_SECS", default_value_t = 3600.0, value_parser = positive_secs)]
    pub fetch_timeout_secs: f64,
}

impl SourceArgs {
    /// The configuration; no file larger than `max_fetch_bytes`.
    #[must_use]
    pub fn sources(&self, max_fetch_bytes: u64) -> SourcesConfig {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let access = variable("AWS_ACCESS_KEY_ID").zip(variable("AWS_SECRET_ACCESS_KEY"));
        let token = variable("AWS_SESSION_TOKEN");
        SourcesConfig {
            network: OutboundConfig {
                allow_hosts: self.allow_url_hosts.clone(),
                total_timeout: Duration::from_secs_f64(self.fetch_timeout_secs),
                ..OutboundConfig::default()
            },
            buckets: BucketConfig {
                allow: self.allow_buckets.clone(),
                endpoint: self.s3_endpoint.clone(),
                region: self.s3_region.clone(),
                access: access.map(|(id, secret)| AccessKey { id, secret, token }),
            },
            max_fetch_bytes,
        }
    }
}

/// Keys, proxies and the audit log.
#[derive(Debug, Clone, Args)]
pub struct AccessArgs {
    /// API key with the role admin; use `triptych key` to create keys with other roles.
    #[arg(long, env = "TRIPTYCH_API_KEY", hide_env_values = true, value_parser = NonEmptyStringValueParser::new())]
    pub api_key: Option<String>,
    /// Network or address of a trusted proxy, such as 10.0.0.0/8 or 10.1.2.3: its X-Forwarded-For or Forwarded header
    /// names the client, and its X-Forwarded-Proto says whether the client uses TLS; repeatable.
    #[arg(
        long = "trusted-proxy",
        env = "TRIPTYCH_TRUSTED_PROXIES",
        value_delimiter = ',',
        value_name = "CIDR",
        value_parser = network
    )]
    pub trusted_proxies: Vec<IpNet>,
    /// Always mark the page's cookie as Secure, even if no trusted proxy reports TLS.
    #[arg(long, env = "TRIPTYCH_SECURE_COOKIE")]
    pub secure_cookie: bool,
    /// Place and size of the audit log.
    #[command(flatten)]
    pub audit: AuditArgs,
}

/// Where changes are logged.
#[derive(Debug, Clone, Args)]
pub struct AuditArgs {
    /// Folder for the audit log, or `off`; default: `audit` in the data folder.
    #[arg(long, env = "TRIPTYCH_AUDIT_LOG", value_name = "FOLDER")]
    pub audit_log: Option<PathBuf>,
    /// Size at which a new audit log file is started, in bytes.
    #[arg(long, env = "TRIPTYCH_AUDIT_MAX_BYTES", default_value_t = 16 << 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub audit_max_bytes: u64,
    /// Number of audit log files to keep.
    #[arg(long, env = "TRIPTYCH_AUDIT_FILES", default_value_t = 8, value_parser = positive_count)]
    pub audit_files: usize,
}

impl AccessArgs {
    /// As the server takes it.
    #[must_use]
    pub fn config(&self, data_dir: &Path) -> AccessConfig {
        AccessConfig {
            data_dir: Some(data_dir.to_owned()),
            fixed_key: self.api_key.clone(),
            audit: self.audit.config(data_dir),
        }
    }
}

impl AuditArgs {
    /// As the log takes it; nothing where it is off.
    #[must_use]
    pub fn config(&self, data_dir: &Path) -> Option<AuditConfig> {
        let folder = self.audit_log.clone().unwrap_or_else(|| data_dir.join("audit"));
        let off = folder.as_os_str() == "off";
        (!off).then_some(AuditConfig { folder, max_bytes: self.audit_max_bytes, kept: self.audit_files })
    }
}

/// Limits on requests, connections and time.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    /// Host name, besides localhost, that a server without API keys answers to; repeatable.
    #[arg(
        long = "allow-host",
        env = "TRIPTYCH_ALLOW_HOSTS",
        value_delimiter = ',',
        value_parser = crate::access::allowed_name
    )]
    pub allow_hosts: Vec<String>,
    /// Maximum size of a query's body, in bytes (for uploads, see --max-upload-bytes).
    #[arg(long, env = "TRIPTYCH_MAX_BODY_BYTES", default_value_t = 64 << 20)]
    pub max_body_bytes: usize,
    /// Maximum number of requests handled at once; further ones get status 429.
    #[arg(long, env = "TRIPTYCH_MAX_IN_FLIGHT", default_value_t = 256, value_parser = positive_count)]
    pub max_in_flight: usize,
    /// Maximum number of open connections; when it is reached, a new connection closes the idlest or slowest one.
    #[arg(long, env = "TRIPTYCH_MAX_CONNECTIONS", default_value_t = 1024, value_parser = positive_count)]
    pub max_connections: usize,
    /// Maximum number of connections per client address; default: three quarters of --max-connections.
    #[arg(long, env = "TRIPTYCH_MAX_CONNECTIONS_PER_ADDRESS", value_parser = positive_count)]
    pub max_connections_per_address: Option<usize>,
    /// Memory for request bodies that are being received or parsed, in bytes.
    #[arg(long, env = "TRIPTYCH_MAX_BODY_MEMORY_BYTES", default_value_t = 256 << 20)]
    pub max_body_memory_bytes: u64,
    /// Disk space for request bodies that are being received or processed, in bytes; never less than one upload
    /// needs.
    #[arg(long, env = "TRIPTYCH_MAX_BODY_DISK_BYTES", default_value_t = 8 << 30)]
    pub max_body_disk_bytes: u64,
    /// Maximum time to receive a request's headers, in seconds.
    #[arg(long, env = "TRIPTYCH_HEADER_TIMEOUT_SECS", default_value_t = 10.0, value_parser = positive_secs)]
    pub header_timeout_secs: f64,
    /// Maximum idle time between two requests on a connection, in seconds.
    #[arg(long, env = "TRIPTYCH_IDLE_TIMEOUT_SECS", default_value_t = 30.0, value_parser = positive_secs)]
    pub idle_timeout_secs: f64,
    /// Maximum pause while a client sends a body or reads an answer, in seconds.
    #[arg(long, env = "TRIPTYCH_BODY_TIMEOUT_SECS", default_value_t = 30.0, value_parser = positive_secs)]
    pub body_timeout_secs: f64,
    /// Minimum rate at which a client must send a body or read an answer, in bytes per second.
    #[arg(long, env = "TRIPTYCH_MIN_BYTES_PER_SEC", default_value_t = 1024)]
    pub min_bytes_per_sec: u32,
    /// Maximum time for one query, in seconds.
    #[arg(long, env = "TRIPTYCH_QUERY_TIMEOUT_SECS", default_value_t = 300.0, value_parser = positive_secs)]
    pub query_timeout_secs: f64,
    /// Share of one CPU core spent on repeating some searches exactly to measure recall, from 0 to 1; 0 turns this
    /// off.
    #[arg(long, env = "TRIPTYCH_RECALL_PROBE_SHARE", default_value_t = 0.01, value_parser = share)]
    pub recall_probe_share: f64,
    /// Engine that searches indexes too large to scan: own or hnsw-rs.
    #[arg(long, env = "TRIPTYCH_GRAPH", default_value = "own")]
    pub graph: GraphEngine,
}
