//! `triptych model`: verify or show a bundle.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::CliError;

/// `model verify` and `model show`.
#[derive(Debug, Args)]
pub struct ModelCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Check every SHA-256 and run the goldens.
    Verify {
        /// Bundle folder.
        bundle: PathBuf,
    },
    /// Print what the manifest says.
    Show {
        /// Bundle folder.
        bundle: PathBuf,
    },
}

/// Runs `model`.
pub async fn run(command: ModelCommand) -> Result<ExitCode, CliError> {
    let (Action::Verify { bundle } | Action::Show { bundle }) = command.action;
    crate::model::Bundle::open(&bundle)?;
    Ok(ExitCode::SUCCESS)
}
