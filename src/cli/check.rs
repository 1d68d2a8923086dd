//! `triptych check`: finds damage and, on request, repairs it.

use std::process::ExitCode;

use clap::Args;

use super::{CliError, Doors};
use crate::config::{DataArgs, LimitArgs, ModelArgs};
use crate::library::{CheckOptions, CheckReport};

/// How often to check whether the repairs are done.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(50);

/// Flags of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Recompute damaged vectors from the uploaded files, keeping their ids; needs the model.
    #[arg(long)]
    repair: bool,
    /// Check the database only; do not read the uploaded files.
    #[arg(long)]
    no_bytes: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    limits: LimitArgs,
}

/// Runs `check`. Exits with 1 if damage remains.
pub async fn run(args: CheckArgs) -> Result<ExitCode, CliError> {
    let options = CheckOptions { bytes: !args.no_bytes, repair: args.repair };
    let report = if args.repair {
        let library = super::open_library(&args.model, &args.data, &args.limits, Doors::default()).await?;
        let report = library.upkeep().check(options).await?;
        if report.reindexed_assets > 0 {
            library.start_workers();
            while library.ingest().in_flight().0 > 0 {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        library.shutdown().await?;
        report
    } else {
        crate::library::check_folder(&args.data.data, options.bytes).await?
    };
    if args.json {
        say!("{:#}", serde_json::json!(report));
    } else {
        say!("{}", text(&report));
    }
    Ok(ExitCode::from(u8::from(!report.is_clean())))
}

fn text(report: &CheckReport) -> String {
    let mut lines = vec![format!("read {} uploads, {} bytes", report.assets_checked, report.bytes_checked)];
    lines.extend(report.database_problems.iter().map(|problem| format!("database: {problem}")));
    lines.extend(report.damaged_rows.iter().map(|row| format!("row: {row}")));
    let listed = |what: &str, asset: &crate::library::DamagedAsset| {
        format!("{what}: {} {} {}", asset.problem, asset.id, super::table::printable(&asset.name))
    };
    lines.extend(report.damaged_assets.iter().map(|asset| listed("upload", asset)));
    if report.damaged_clips > 0 {
        let (damaged, repaired) = (report.damaged_clips, report.repaired_clips);
        lines.push(format!("{damaged} clips have damaged vectors; {repaired} were recomputed"));
    }
    if report.reindexed_assets > 0 {
        lines.push(format!("{} assets had missing clips and were indexed again", report.reindexed_assets));
    }
    lines.extend(report.unrepaired_assets.iter().map(|asset| listed("not repaired", asset)));
    lines.push(if report.is_clean() { "no damage found" } else { "damage found" }.to_owned());
    lines.join("\n")
}
