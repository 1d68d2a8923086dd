//! `triptych model`: verifies or shows a bundle.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand};
use comfy_table::{Table, presets};

use super::CliError;
use super::table::printable;
use crate::model::{Bundle, Device, Towers};
use crate::native::NativeParts;
use crate::types::Modality;

/// Characters shown of a value.
const MOST_CHARS: usize = 300;

/// `model verify` and `model show`.
#[derive(Debug, Args)]
pub struct ModelCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Check every file's SHA-256 and compare the model's output with its golden vectors.
    Verify {
        /// Bundle folder.
        bundle: PathBuf,
        /// Device that runs the model: auto, cpu, cuda or cuda:N.
        #[arg(long, env = "TRIPTYCH_DEVICE", default_value = "auto")]
        device: Device,
    },
    /// Print the manifest.
    Show {
        /// Bundle folder.
        bundle: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Runs `model`.
pub async fn run(command: ModelCommand) -> Result<ExitCode, CliError> {
    let outcome = tokio::task::spawn_blocking(move || match command.action {
        Action::Verify { bundle, device } => verify(&bundle, device),
        Action::Show { bundle, json } => show(&bundle, json),
    });
    outcome.await.map_err(|error| CliError::other("model_failed", error.to_string()))??;
    Ok(ExitCode::SUCCESS)
}

fn verify(dir: &Path, device: Device) -> Result<(), CliError> {
    let bundle = Arc::new(Bundle::open(dir)?);
    say!("{} {}", printable(bundle.name()), bundle.id());
    say!("{} files match the SHA-256 in the manifest", bundle.files().len());
    let towers = Towers::load(Arc::clone(&bundle), &NativeParts::find()?, device, 1)?;
    let mut table = table(["tower", "space", "golden vectors", "worst 1 - cosine"]);
    for golden in towers.goldens() {
        table.add_row([
            printable(&golden.name),
            printable(golden.space.as_str()),
            golden.vectors.to_string(),
            format!("{:.2e}", golden.worst_one_minus_cosine.max(0.0)),
        ]);
    }
    say!("{table}\nthe model reproduces its golden vectors on {}", towers.device_name());
    Ok(())
}

fn show(dir: &Path, json: bool) -> Result<(), CliError> {
    let bundle = Bundle::open(dir)?;
    if json {
        let shown = serde_json::json!({
            "id": bundle.id(), "path": bundle.dir(), "files": bundle.files(), "manifest": bundle.manifest_json(),
        });
        say!("{shown:#}");
        return Ok(());
    }
    say!("{} (licence {})", printable(bundle.name()), printable(bundle.license()));
    if !bundle.description().is_empty() {
        say!("{}", printable(bundle.description()));
    }
    say!("id {}\n\n{}\n", bundle.id(), spaces(&bundle));
    show_sources(&bundle);
    let mut towers = table(["tower", "modality", "weights", "spaces"]);
    for tower in bundle.towers() {
        let spaces: Vec<&str> = tower.spaces.iter().map(|space| space.as_str()).collect();
        let (name, modality) = (printable(tower.name), tower.modality.to_string());
        let weights = tower.precision.unwrap_or("of the video tower").to_owned();
        towers.add_row([name, modality, weights, printable(&spaces.join(", "))]);
    }
    say!("{towers}\n");
    let json = bundle.manifest_json();
    for (section, value) in object(&json["preprocessing"]) {
        say!("{section:<6} takes {}", printable(&pairs(value)));
    }
    for (tower, entry) in object(&json["towers"]) {
        for (section, value) in object(&entry["preprocessing"]) {
            say!("{} takes {section}: {}", printable(tower), printable(&pairs(value)));
        }
    }
    let mut files = table(["file", "bytes"]);
    for (name, size) in bundle.files() {
        files.add_row([printable(name), size.to_string()]);
    }
    say!("\n{files}");
    for section in ["training", "evaluation"] {
        let entries = object(&bundle.manifest_json()[section]);
        if !entries.is_empty() {
            say!("\n{section}");
        }
        for (key, value) in entries {
            say!("  {}: {}", printable(key), printable(&pairs(value)));
        }
    }
    Ok(())
}

/// Where the weights come from, their licences and languages.
fn show_sources(bundle: &Bundle) {
    for source in bundle.sources() {
        let repository = source.repository.as_deref().unwrap_or("a local folder");
        let revision =
            source.revision.as_ref().map_or_else(String::new, |revision| format!(" at {revision}"));
        let license = source.license.as_deref().unwrap_or("unknown");
        let from = format!("from {repository}{revision} ({}), licence {license}", source.family);
        say!("{}", printable(&from));
        if let Some(card) = &source.card {
            say!("  {}", printable(card));
        }
    }
    let languages = bundle.languages();
    if !languages.is_empty() {
        say!("languages {}", printable(&languages.join(", ")));
    }
    if let Some(bank) = bundle.bank_source() {
        say!("texts for confidence: {}", printable(bank));
    }
    if !bundle.sources().is_empty() {
        say!("");
    }
}

/// A table of modalities and the spaces in which they have vectors.
fn spaces(bundle: &Bundle) -> Table {
    let modalities = [Modality::Text, Modality::Image, Modality::Audio, Modality::Video];
    let mut table = table(["space", "values", "text", "image", "audio", "video"]);
    for (space, dim) in bundle.spaces() {
        let marks =
            modalities.map(|modality| if bundle.has(modality, space) { "yes" } else { "-" }.to_owned());
        table.add_row([printable(space.as_str()), dim.to_string()].into_iter().chain(marks));
    }
    table
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(header);
    table
}

fn object(value: &serde_json::Value) -> Vec<(&String, &serde_json::Value)> {
    value.as_object().into_iter().flatten().collect()
}

/// A flat object as `key value, key value`; any other value as shortened JSON.
fn pairs(value: &serde_json::Value) -> String {
    let text = match value {
        serde_json::Value::Object(map) if map.values().all(|value| !value.is_object()) => {
            map.iter().map(|(key, value)| format!("{key} {value}")).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    };
    if text.chars().count() > MOST_CHARS {
        text.chars().take(MOST_CHARS - 1).chain(['…']).collect()
    } else {
        text
    }
}
