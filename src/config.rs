//! Flags shared by the commands. Every flag is also an environment variable `TRIPTYCH_*`,
//! parsed and validated once.

use std::path::PathBuf;

use clap::Args;

use crate::media::Limits;
use crate::model::Device;

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
    /// Wall-clock cap of one decode, seconds.
    #[arg(long, env = "TRIPTYCH_DECODE_TIMEOUT_SECS", value_parser = clap::value_parser!(u64).range(1..))]
    pub decode_timeout_secs: Option<u64>,
}

impl LimitArgs {
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

/// How much a server takes on, and for how long it waits.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    /// Host name under which a server without a key may be asked, besides localhost; may be given more than once.
    #[arg(long = "allow-host", env = "TRIPTYCH_ALLOW_HOSTS", value_delimiter = ',')]
    pub allow_hosts: Vec<String>,
    /// Largest body of a query, bytes (uploads have --max-upload-bytes).
    #[arg(long, env = "TRIPTYCH_MAX_BODY_BYTES", default_value_t = 64 << 20)]
    pub max_body_bytes: usize,
    /// Requests answered at once; more are told to come again (429).
    #[arg(long, env = "TRIPTYCH_MAX_IN_FLIGHT", default_value_t = 256, value_parser = positive_count)]
    pub max_in_flight: usize,
    /// Connections open at once; more wait.
    #[arg(long, env = "TRIPTYCH_MAX_CONNECTIONS", default_value_t = 1024, value_parser = positive_count)]
    pub max_connections: usize,
    /// Longest that a request's head may take to arrive, and that a connection may idle, seconds.
    #[arg(long, env = "TRIPTYCH_HEADER_TIMEOUT_SECS", default_value_t = 30.0, value_parser = positive_secs)]
    pub header_timeout_secs: f64,
    /// Longest silence within a body, seconds.
    #[arg(long, env = "TRIPTYCH_BODY_TIMEOUT_SECS", default_value_t = 30.0, value_parser = positive_secs)]
    pub body_timeout_secs: f64,
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
