//! `triptych doctor`.

use std::process::ExitCode;

use clap::Args;

use super::CliError;

/// Flags of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs `doctor`.
pub async fn run(args: DoctorArgs) -> Result<ExitCode, CliError> {
    Ok(ExitCode::from(u8::from(args.json)))
}
