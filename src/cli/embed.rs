//! `triptych embed`.

use std::process::ExitCode;

use clap::Args;

use super::CliError;

/// Flags of `embed`.
#[derive(Debug, Args)]
pub struct EmbedArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs `embed`.
pub async fn run(args: EmbedArgs) -> Result<ExitCode, CliError> {
    Ok(ExitCode::from(u8::from(args.json)))
}
