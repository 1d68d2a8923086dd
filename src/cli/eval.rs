//! `triptych eval`: measures retrieval on a file of texts and the files that they describe.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};

use super::search::Targets;
use super::{CliError, Doors};
use crate::config::{DataArgs, LimitArgs, ModelArgs};
use crate::library::{Evaluation, Figure, Measured};
use crate::search::HubCorrection;

/// Accepted names of the two columns, as common data sets use them.
const TEXT_COLUMNS: &[&str] = &["text", "sentence", "caption", "query"];
const ASSET_COLUMNS: &[&str] = &["asset", "asset_id", "video_id", "video", "file", "name"];

/// Flags of `eval`.
#[derive(Debug, Args)]
pub struct EvalArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    limits: LimitArgs,
    /// CSV file with a header row: a column `text` (or sentence, caption, query) and a column `asset` (or `video_id`,
    /// file, name) with an asset's id or its name, with or without the extension. The files of MSR-VTT have
    /// this format.
    pairs: PathBuf,
    /// Tracks to search.
    #[arg(long, value_enum, default_value_t = Targets::Video)]
    targets: Targets,
    /// Also measure with hub correction (dynamic inverted softmax).
    #[arg(long)]
    hub_correction: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs `eval`.
pub async fn run(args: EvalArgs) -> Result<ExitCode, CliError> {
    let named = read_pairs(&args.pairs)?;
    let library = super::open_library(&args.model, &args.data, &args.limits, Doors::default()).await?;
    let pairs = library.collection().resolve_pairs(&named)?;
    let hub_correction = if args.hub_correction { HubCorrection::Dis } else { HubCorrection::Off };
    let evaluation = library.collection().evaluate(&pairs, &args.targets.tracks(), hub_correction).await?;
    if args.json {
        say!("{:#}", serde_json::json!(evaluation));
    } else {
        say!("{}", table(&evaluation));
    }
    Ok(ExitCode::SUCCESS)
}

fn read_pairs(path: &Path) -> Result<Vec<(String, String)>, CliError> {
    let wrong = |error: csv::Error| {
        let code = if error.is_io_error() { "path_missing" } else { "invalid_csv" };
        CliError::input(code, format!("{}: {error}", path.display()))
    };
    let mut reader = csv::Reader::from_path(path).map_err(wrong)?;
    let header = reader.headers().map_err(wrong)?.clone();
    let column = |names: &[&str]| {
        let found = names.iter().find_map(|name| header.iter().position(|title| title.trim() == *name));
        found.ok_or_else(|| {
            let names = names.join(", ");
            CliError::input(
                "invalid_csv",
                format!("{}: expected a header with one of the columns {names}", path.display()),
            )
        })
    };
    let (text, asset) = (column(TEXT_COLUMNS)?, column(ASSET_COLUMNS)?);
    let mut pairs = Vec::new();
    for row in reader.records() {
        let row = row.map_err(wrong)?;
        let cell = |at: usize| row.get(at).unwrap_or_default().trim().to_owned();
        pairs.push((cell(text), cell(asset)));
    }
    if pairs.is_empty() {
        return Err(CliError::input(
            "invalid_csv",
            format!("{}: expected at least one row below the header", path.display()),
        ));
    }
    Ok(pairs)
}

/// The search method, as text for a table cell.
fn way(row: &Measured) -> String {
    let hubs = if row.hub_correction == HubCorrection::Dis { ", hub correction" } else { "" };
    let engine = if row.search == "served" { format!(" ({})", row.engine) } else { String::new() };
    format!("{}{engine}{hubs}", row.search)
}

fn table(evaluation: &Evaluation) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["target", "space", "search", "R@1", "R@5", "R@10", "median rank", "MRR"]);
    let share = |figure: Figure| format!("{:.3} ({:.3} - {:.3})", figure.value, figure.low, figure.high);
    for row in &evaluation.results {
        let rank = row.median_rank;
        table.add_row([
            row.target.as_str().to_owned(),
            row.space.to_string(),
            way(row),
            share(row.r_at_1),
            share(row.r_at_5),
            share(row.r_at_10),
            format!("{:.1} ({:.1} - {:.1})", rank.value, rank.low, rank.high),
            share(row.mrr),
        ]);
    }
    table.column_iter_mut().skip(3).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    format!(
        "{} texts, {} candidate assets; 95 % confidence intervals in parentheses\n{table}",
        evaluation.pairs, evaluation.gallery
    )
}
