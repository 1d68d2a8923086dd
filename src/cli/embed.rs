//! `triptych embed`: prints the vectors of a text or a file.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::query::{Query, QueryArgs};
use super::{CliError, table};
use crate::config::{LimitArgs, ModelArgs};
use crate::embed::{Embedder, Vectors};
use crate::model::Priority;
use crate::types::{Modality, Space, TimeSpan, TrackChoice};

/// Flags of `embed`.
#[derive(Debug, Args)]
pub struct EmbedArgs {
    #[command(flatten)]
    query: QueryArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    limits: LimitArgs,
    /// Embedding space of the vectors; default: the finest space of this modality.
    #[arg(long)]
    space: Option<String>,
    /// Print JSON, in the format of `POST /v1/embeddings`.
    #[arg(long)]
    json: bool,
}

/// A vector in the format of `POST /v1/embeddings`.
#[derive(Debug, Serialize)]
struct Entry {
    object: &'static str,
    index: usize,
    embedding: Vec<f32>,
    space: Space,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_secs: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_secs: Option<f64>,
}

/// Runs `embed`.
pub async fn run(args: EmbedArgs) -> Result<ExitCode, CliError> {
    let query = args.query.query()?;
    let embedder = super::open_embedder(&args.model, &args.limits)?;
    let modality = match &query {
        Query::Text(_) => Modality::Text,
        Query::Media(modality, _, _) => *modality,
    };
    let space = space(&embedder, modality, args.space.as_deref())?;
    let vectors = match &query {
        Query::Text(text) => vec![(None, embedder.text(text, Priority::Interactive).await?)],
        Query::Media(modality, path, span) => clips(&embedder, *modality, path, *span).await?,
    };
    let entries: Vec<Entry> = vectors
        .into_iter()
        .filter_map(|(span, vectors)| Some((span, vectors.get(&space)?.as_slice().to_vec())))
        .enumerate()
        .map(|(index, (span, embedding))| Entry {
            object: "embedding",
            index,
            embedding,
            space: space.clone(),
            start_secs: span.map(|span: TimeSpan| span.start_secs),
            end_secs: span.map(|span| span.end_secs),
        })
        .collect();
    if args.json {
        let model = embedder.bundle().name();
        say!("{}", serde_json::json!({ "object": "list", "model": model, "data": entries }));
    } else {
        entries.iter().for_each(print);
    }
    Ok(ExitCode::SUCCESS)
}

/// The requested space, or the finest of the modality.
fn space(embedder: &Embedder, modality: Modality, requested: Option<&str>) -> Result<Space, CliError> {
    let bundle = embedder.bundle();
    if !bundle.has_tower(modality) {
        let message =
            format!("this model cannot embed {modality}; `triptych model show` lists what it can embed");
        return Err(CliError::input("modality_not_supported", message));
    }
    let served: Vec<&Space> =
        bundle.spaces().iter().map(|(space, _)| space).filter(|space| bundle.has(modality, space)).collect();
    let found = match requested {
        Some(name) => served.iter().find(|space| space.as_str() == name),
        None => served.first(),
    };
    found.map(|space| (*space).clone()).ok_or_else(|| {
        let names: Vec<&str> = served.iter().map(|space| space.as_str()).collect();
        CliError::input(
            "bad_space",
            format!("expected one of the spaces of {modality}: {}", names.join(", ")),
        )
    })
}

/// One vector per clip; a picture has no times.
async fn clips(
    embedder: &Embedder,
    modality: Modality,
    path: &Path,
    span: Option<TimeSpan>,
) -> Result<Vec<(Option<TimeSpan>, Vectors)>, CliError> {
    if modality == Modality::Image {
        return Ok(vec![(None, embedder.query_media(path, modality, span).await?)]);
    }
    let mut stream =
        embedder.open_track(path, modality, span, TrackChoice::default(), Priority::Interactive).await?;
    let mut vectors = Vec::new();
    while let Some(clip) = stream.next().await? {
        vectors.extend(clip.of(modality).map(|track| (Some(clip.span), track.clone())));
    }
    if let Some(reason) = stream.summary().and_then(|summary| summary.partial) {
        eprintln!("only part of the file could be read: {}", table::printable(&reason));
    }
    Ok(vectors)
}

fn print(entry: &Entry) {
    let span = match (entry.start_secs, entry.end_secs) {
        (Some(start), Some(end)) => format!(" {} - {}", table::clock(start), table::clock(end)),
        _ => String::new(),
    };
    say!("# {}{span}, {} values", table::printable(entry.space.as_str()), entry.embedding.len());
    let values: Vec<String> = entry.embedding.iter().map(f32::to_string).collect();
    say!("{}", values.join(" "));
}
