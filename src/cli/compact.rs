//! `triptych compact`: rewrites the store without the space of deleted clips.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::CliError;

/// Flags of `compact`.
#[derive(Debug, Args)]
pub struct CompactArgs {
    /// Data folder; no server may have it open (on a running server, use POST /v1/compactions).
    #[arg(long, env = "TRIPTYCH_DATA", default_value = "data")]
    data: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs `compact`.
pub async fn run(args: CompactArgs) -> Result<ExitCode, CliError> {
    let (before, after) = crate::library::compact_folder(&args.data).await?;
    if args.json {
        let view = serde_json::json!({ "store_bytes_before": before, "store_bytes_after": after });
        say!("{view:#}");
    } else {
        say!("the store took {before} bytes and now takes {after}");
    }
    Ok(ExitCode::SUCCESS)
}
