//! Flags shared by the commands. Every flag is also an environment variable `TRIPTYCH_*`,
//! parsed and validated once.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use ipnet::IpNet;

use crate::access::{AccessConfig, AuditConfig};
use crate::library::{Deliver, KeepConfig, SourcesConfig};
use crate::media::{Limits, PoolLimits};
use crate::model::Device;
use crate::outbound::bucket::{AccessKey, BucketConfig, BucketUrl};
use crate::outbound::{HostRule, Outbound, OutboundConfig, OutboundError, Url};

/// Where the model is and where it runs.
#[derive(Debug, Clone, Args)]
pub struct ModelArgs {
    /// Model bundle folder.
    #[arg(long, env = "TRIPTYCH_MODEL", default_value = "models/small-world")]
    pub model: PathBuf,
    /// Where the towers run: auto, cpu, cuda or cuda:N.
    #[arg(long, env = "TRIPTYCH_DEVICE", default_value = "auto")]
    pub device: Device,
    /// Threads for the towers; 0: one per core.
    #[arg(long, env = "TRIPTYCH_THREADS", default_value_t = 0)]
    pub threads: usize,
    /// Seconds from one clip's start to the next one's; default: one window, so clips do not overlap.
    #[arg(long, env = "TRIPTYCH_STRIDE_SECS", value_parser = positive_secs)]
    pub stride_secs: Option<f64>,
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

/// Caps on what a media file may cost.
#[derive(Debug, Clone, Args)]
pub struct LimitArgs {
    /// Longest asset, seconds.
    #[arg(long, env = "TRIPTYCH_MAX_DURATION_SECS", value_parser = positive_secs)]
    pub max_duration_secs: Option<f64>,
    /// Most pixels of a picture, as stored; one of more than 8192 x 4320 is made smaller while it is decoded.
    #[arg(long, env = "TRIPTYCH_MAX_PICTURE_PIXELS", default_value_t = 1 << 28, value_parser = clap::value_parser!(u64).range(1..))]
    pub max_picture_pixels: u64,
    /// Wall-clock cap of one decode, seconds.
    #[arg(long, env = "TRIPTYCH_DECODE_TIMEOUT_SECS", value_parser = clap::value_parser!(u64).range(1..))]
    pub decode_timeout_secs: Option<u64>,
    /// Decoders running at once, whatever asked for them; 0: two per core, and at least four.
    #[arg(long, env = "TRIPTYCH_DECODE_WORKERS", default_value_t = 0)]
    pub decode_workers: usize,
    /// Memory of all decoders, bytes; 0: 1 GiB, or 256 MiB per core where that is more.
    #[arg(long, env = "TRIPTYCH_DECODE_MEMORY_BYTES", default_value_t = 0)]
    pub decode_memory_bytes: u64,
    /// Most memory of the decoder of one file, bytes; beyond it `decode_limit`.
    #[arg(long, env = "TRIPTYCH_DECODE_FILE_MEMORY_BYTES", default_value_t = 4 << 30, value_parser = clap::value_parser!(u64).range(1 << 26..))]
    pub decode_file_memory_bytes: u64,
    /// Longest that a query, a thumbnail or an embedding waits for a decoder, seconds; then it is told to
    /// come again (429).
    #[arg(long, env = "TRIPTYCH_DECODE_WAIT_SECS", default_value_t = 10.0, value_parser = positive_secs)]
    pub decode_wait_secs: f64,
    /// CPU seconds that decoding may take for each MiB of a file, besides 10 for the file.
    #[arg(long, env = "TRIPTYCH_DECODE_CPU_SECS_PER_MIB", default_value_t = 120.0, value_parser = positive_secs)]
    pub decode_cpu_secs_per_mib: f64,
    /// Different clips that a file may unfold to for each of its MiB, besides 64 for the file.
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

/// Where the library lives.
#[derive(Debug, Clone, Args)]
pub struct DataArgs {
    /// Data folder: store, uploads, index snapshots. Made if absent.
    #[arg(long, env = "TRIPTYCH_DATA", default_value = "data")]
    pub data: PathBuf,
    /// Files decoded side by side; 0: one per core.
    #[arg(long, env = "TRIPTYCH_INGEST_WORKERS", default_value_t = 0)]
    pub ingest_workers: usize,
}

/// What may be told to other hosts.
#[derive(Debug, Clone, Args)]
pub struct WebhookArgs {
    /// Host that webhooks may be sent to: NAME, *.NAME or an address, :PORT unless it is 80 or 443, and
    /// +private at the end if it lies in a private network; may be given more than once.
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

/// How a server keeps its library.
#[derive(Debug, Clone, Args)]
pub struct KeepArgs {
    /// Folder for snapshots (made if absent), or s3://BUCKET/FOLDER. Without one there are none.
    #[arg(long, env = "TRIPTYCH_SNAPSHOT_ROOT")]
    pub snapshot_root: Option<String>,
    /// Take a snapshot this often, seconds.
    #[arg(long, env = "TRIPTYCH_SNAPSHOT_EVERY_SECS", value_parser = positive_secs, requires = "snapshot_root")]
    pub snapshot_every_secs: Option<f64>,
    /// How many of these to keep; the ones somebody asked for are not counted and stay.
    #[arg(long, env = "TRIPTYCH_SNAPSHOTS_KEPT", default_value_t = 7, value_parser = positive_count)]
    pub snapshots_kept: usize,
    /// How often the rules of retention are applied, seconds.
    #[arg(long, env = "TRIPTYCH_RETENTION_EVERY_SECS", default_value_t = 900.0, value_parser = positive_secs)]
    pub retention_every_secs: f64,
    /// How often to check whether deleted clips left space to give back, seconds.
    #[arg(long, env = "TRIPTYCH_COMPACT_EVERY_SECS", default_value_t = 60.0, value_parser = positive_secs)]
    pub compact_every_secs: f64,
    /// How fast the bytes of uploads are read, again every week, to tell whether they are damaged; 0: only when asked for.
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

/// What may be fetched from other hosts. The key of buckets comes from the environment alone.
#[derive(Debug, Clone, Args)]
pub struct SourceArgs {
    /// Host that files may be fetched from: NAME, *.NAME or an address, :PORT unless it is 80 or 443, and
    /// +private at the end if it lies in a private network; may be given more than once.
    #[arg(
        long = "allow-url-host",
        env = "TRIPTYCH_ALLOW_URL_HOSTS",
        value_delimiter = ',',
        value_name = "HOST"
    )]
    pub allow_url_hosts: Vec<HostRule>,
    /// Bucket, or folder in one, that may be indexed: s3://NAME or s3://NAME/FOLDER; may be given more than once.
    #[arg(
        long = "allow-bucket",
        env = "TRIPTYCH_ALLOW_BUCKETS",
        value_delimiter = ',',
        value_name = "S3_URL"
    )]
    pub allow_buckets: Vec<BucketUrl>,
    /// Where the buckets are, if not at Amazon: http(s)://HOST:PORT.
    #[arg(long, env = "AWS_ENDPOINT_URL", value_name = "URL")]
    pub s3_endpoint: Option<Url>,
    /// Region of the buckets.
    #[arg(long, env = "AWS_REGION", default_value = "us-east-1", value_name = "REGION")]
    pub s3_region: String,
    /// Longest time of one download, seconds.
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

/// Who may use a server, and what is written down of it.
#[derive(Debug, Clone, Args)]
pub struct AccessArgs {
    /// Key that may do everything; see also `triptych key`, which makes keys of several roles.
    #[arg(long, env = "TRIPTYCH_API_KEY", hide_env_values = true, value_parser = NonEmptyStringValueParser::new())]
    pub api_key: Option<String>,
    /// Network of a proxy, as 10.0.0.0/8 or 10.1.2.3: it is believed when it says for whom it asks
    /// (X-Forwarded-For or Forwarded) and whether over TLS (X-Forwarded-Proto); may be given more than once.
    #[arg(
        long = "trusted-proxy",
        env = "TRIPTYCH_TRUSTED_PROXIES",
        value_delimiter = ',',
        value_name = "CIDR",
        value_parser = network
    )]
    pub trusted_proxies: Vec<IpNet>,
    /// Mark the page's cookie as one for TLS alone, also where no trusted proxy says that there is TLS.
    #[arg(long, env = "TRIPTYCH_SECURE_COOKIE")]
    pub secure_cookie: bool,
    /// The audit log.
    #[command(flatten)]
    pub audit: AuditArgs,
}

/// Where changes are written down.
#[derive(Debug, Clone, Args)]
pub struct AuditArgs {
    /// Folder of the audit log, or `off`; default: `audit` in the data folder.
    #[arg(long, env = "TRIPTYCH_AUDIT_LOG", value_name = "FOLDER")]
    pub audit_log: Option<PathBuf>,
    /// Bytes after which a new file of the audit log is begun.
    #[arg(long, env = "TRIPTYCH_AUDIT_MAX_BYTES", default_value_t = 16 << 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub audit_max_bytes: u64,
    /// Files of the audit log that are kept.
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

fn network(text: &str) -> Result<IpNet, String> {
    let single = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse::<IpNet>()
        .or_else(|_| single())
        .map_err(|_| format!("`{text}` is not a network such as 10.0.0.0/8 or an address such as 10.1.2.3"))
}

/// How much a server takes on, and for how long it waits.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    /// Host name under which a server without a key may be asked, besides localhost; may be given more than once.
    #[arg(
        long = "allow-host",
        env = "TRIPTYCH_ALLOW_HOSTS",
        value_delimiter = ',',
        value_parser = crate::access::allowed_name
    )]
    pub allow_hosts: Vec<String>,
    /// Largest body of a query, bytes (uploads have --max-upload-bytes).
    #[arg(long, env = "TRIPTYCH_MAX_BODY_BYTES", default_value_t = 64 << 20)]
    pub max_body_bytes: usize,
    /// Requests answered at once; more are told to come again (429).
    #[arg(long, env = "TRIPTYCH_MAX_IN_FLIGHT", default_value_t = 256, value_parser = positive_count)]
    pub max_in_flight: usize,
    /// Connections open at once; for another one the idlest or slowest goes.
    #[arg(long, env = "TRIPTYCH_MAX_CONNECTIONS", default_value_t = 1024, value_parser = positive_count)]
    pub max_connections: usize,
    /// Connections of one address; default: three quarters of --max-connections.
    #[arg(long, env = "TRIPTYCH_MAX_CONNECTIONS_PER_ADDRESS", value_parser = positive_count)]
    pub max_connections_per_address: Option<usize>,
    /// Memory for bodies that are being received or parsed, bytes.
    #[arg(long, env = "TRIPTYCH_MAX_BODY_MEMORY_BYTES", default_value_t = 256 << 20)]
    pub max_body_memory_bytes: u64,
    /// Disk for bodies that are being received or worked on, bytes; never less than one upload needs.
    #[arg(long, env = "TRIPTYCH_MAX_BODY_DISK_BYTES", default_value_t = 8 << 30)]
    pub max_body_disk_bytes: u64,
    /// Longest that the whole head of a request may take to arrive, seconds.
    #[arg(long, env = "TRIPTYCH_HEADER_TIMEOUT_SECS", default_value_t = 10.0, value_parser = positive_secs)]
    pub header_timeout_secs: f64,
    /// Longest time between two requests of a connection, seconds.
    #[arg(long, env = "TRIPTYCH_IDLE_TIMEOUT_SECS", default_value_t = 30.0, value_parser = positive_secs)]
    pub idle_timeout_secs: f64,
    /// Longest silence within a body, or within the reading of an answer, seconds.
    #[arg(long, env = "TRIPTYCH_BODY_TIMEOUT_SECS", default_value_t = 30.0, value_parser = positive_secs)]
    pub body_timeout_secs: f64,
    /// Fewest bytes per second that a client must send of a body, or read of an answer, while the server waits.
    #[arg(long, env = "TRIPTYCH_MIN_BYTES_PER_SEC", default_value_t = 1024)]
    pub min_bytes_per_sec: u32,
    /// Longest time for a query, seconds.
    #[arg(long, env = "TRIPTYCH_QUERY_TIMEOUT_SECS", default_value_t = 300.0, value_parser = positive_secs)]
    pub query_timeout_secs: f64,
    /// Share of one core for answering some of the searches once more, exactly, to tell how much is found; 0: never.
    #[arg(long, env = "TRIPTYCH_RECALL_PROBE_SHARE", default_value_t = 0.01, value_parser = share)]
    pub recall_probe_share: f64,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err(format!("`{text}` is not a share from 0 to 1")),
    }
}

fn positive_count(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(format!("`{text}` is not a positive number")),
    }
}

fn positive_secs(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(secs) if secs.is_finite() && secs > 0.0 => Ok(secs),
        _ => Err(format!("`{text}` is not a positive number of seconds")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_lie_between_nothing_and_all() {
        assert_eq!((share("0"), share("0.01"), share("1")), (Ok(0.0), Ok(0.01), Ok(1.0)));
        for bad in ["-0.1", "1.1", "nan", "x"] {
            assert!(share(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn seconds_are_positive_and_finite() {
        assert_eq!(positive_secs("3.2"), Ok(3.2));
        for bad in ["0", "-1", "nan", "inf", "x", ""] {
            assert!(positive_secs(bad).is_err(), "{bad}");
        }
    }
}
