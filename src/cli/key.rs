//! `triptych key`: manages the keys of a data folder. A running server notices the changes.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use comfy_table::{Table, presets};

use super::{CliError, table};
use crate::access::{AuditLog, KeyFile, NewKey, Rate, Role};
use crate::config::AuditArgs;
use crate::http::{CreatedKey, KeyView};
use crate::types::{KeyId, now_unix_ms, rfc3339_millis};

/// What to do with keys.
#[derive(Debug, Args)]
pub struct KeyCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Create a key and print it. It is not stored and cannot be shown again.
    Create(CreateArgs),
    /// List the keys, newest first.
    List(PlaceArgs),
    /// Revoke a key. It stops working at once, even on a running server.
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
struct PlaceArgs {
    /// Data folder; created if it does not exist, so that you can create keys before the server first starts.
    #[arg(long, env = "TRIPTYCH_DATA", default_value = "data")]
    data: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// Name of the key, as it appears in the audit log.
    #[arg(long)]
    name: String,
    /// Role of the key: metrics, read, write or admin. Each role includes the ones before it.
    #[arg(long)]
    role: Role,
    /// Date at which the key expires, such as 2027-01-31T00:00:00Z; default: never.
    #[arg(long, value_name = "DATE", conflicts_with = "expires_in_days")]
    expires_at: Option<String>,
    /// Number of days until the key expires.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..))]
    expires_in_days: Option<u32>,
    /// Maximum number of requests per second; default: no limit.
    #[arg(long, value_name = "RATE")]
    rate_per_sec: Option<f64>,
    /// Maximum number of requests at once; default: those of one second.
    #[arg(long, value_name = "COUNT", requires = "rate_per_sec")]
    burst: Option<u32>,
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    audit: AuditArgs,
}

#[derive(Debug, Args)]
struct RevokeArgs {
    /// Id of the key: key_…
    id: KeyId,
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    audit: AuditArgs,
}

/// Runs `key`.
pub fn run(command: KeyCommand) -> Result<ExitCode, CliError> {
    match command.action {
        Action::Create(args) => create(args)?,
        Action::List(place) => list(&place)?,
        Action::Revoke(args) => {
            let record = KeyFile::new(&args.place.data).revoke(args.id)?;
            write_down(&args.audit, &args.place, "key revoke", record.id);
            if args.place.json {
                say!("{:#}", serde_json::json!(KeyView::new(&record, None)));
            } else {
                say!("{} ({}) is revoked", record.id, table::printable(&record.name));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn create(args: CreateArgs) -> Result<(), CliError> {
    let in_days = args.expires_in_days.map(|days| now_unix_ms() + i64::from(days) * 86_400_000);
    let expires_unix_ms = args.expires_at.as_deref().map(NewKey::expiry).transpose()?.or(in_days);
    let rate = args.rate_per_sec.map(|per_sec| Rate::new(per_sec, args.burst)).transpose()?;
    let new = NewKey { name: args.name, role: args.role, expires_unix_ms, rate };
    let (key, record) = KeyFile::new(&args.place.data).create(new)?;
    write_down(&args.audit, &args.place, "key create", record.id);
    if args.place.json {
        say!("{:#}", serde_json::json!(CreatedKey { key, view: KeyView::new(&record, None) }));
    } else {
        eprintln!("{} with the role {}; the key is shown this once:", record.id, record.role.as_str());
        say!("{key}");
    }
    Ok(())
}

/// Writes the change to the audit log, like a change through the API.
fn write_down(audit: &AuditArgs, place: &PlaceArgs, command: &str, target: KeyId) {
    let Some(config) = audit.config(&place.data) else { return };
    AuditLog::new(config).write(&serde_json::json!({
        "time": rfc3339_millis(now_unix_ms()),
        "command": command,
        "user_id": rustix::process::getuid().as_raw(),
        "target": target,
    }));
}

fn list(place: &PlaceArgs) -> Result<(), CliError> {
    let file = KeyFile::new(&place.data);
    let used = file.last_used();
    let views: Vec<KeyView> =
        file.read()?.iter().rev().map(|record| KeyView::new(record, used.get(&record.id).copied())).collect();
    if place.json {
        say!("{:#}", serde_json::json!({ "object": "list", "data": views }));
        return Ok(());
    }
    let mut rows = Table::new();
    rows.load_style(presets::UTF8_HORIZONTAL_ONLY);
    rows.set_header(["key", "name", "role", "created", "expires", "last used", "revoked"]);
    for view in views {
        rows.add_row([
            view.id.to_string(),
            table::printable(&view.name),
            view.role.as_str().to_owned(),
            view.created_at,
            view.expires_at.unwrap_or_default(),
            view.last_used_at.unwrap_or_default(),
            view.revoked_at.unwrap_or_default(),
        ]);
    }
    say!("{rows}");
    Ok(())
}
