//! `triptych search`: searches the library with one query.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::{Args, ValueEnum};

use super::query::{Query, QueryArgs};
use super::{CliError, Doors, table};
use crate::collection::ask::{Ask, AskOptions, AskPart, Source};
use crate::config::{DataArgs, LimitArgs, ModelArgs};
use crate::http::SearchAnswer;
use crate::index::SearchParams;
use crate::library::Library;
use crate::model::Priority;
use crate::search::{GroupBy, SearchResponse};
use crate::types::{Space, Track, TrackChoice};

/// Flags of `search`.
#[derive(Debug, Args)]
pub struct SearchArgs {
    #[command(flatten)]
    query: QueryArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    limits: LimitArgs,
    /// Tracks to search.
    #[arg(long, value_enum, default_value_t = Targets::Video)]
    targets: Targets,
    /// Embedding space to compare in; default: the finest space that the query and the tracks share.
    #[arg(long)]
    space: Option<String>,
    /// Maximum number of hits.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// What each hit represents.
    #[arg(long, value_enum, default_value_t = Group::Clip)]
    group_by: Group,
    /// Compare the query with every clip instead of using the approximate index.
    #[arg(long)]
    exact: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Tracks to search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Targets {
    /// Video tracks and pictures.
    Video,
    /// Audio tracks.
    Audio,
    /// Both; each clip counts with its better track.
    Both,
}

/// What each hit represents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Group {
    /// One clip.
    Clip,
    /// Neighbouring clips that match, merged into one moment.
    Moment,
    /// One asset, represented by its best clip.
    Asset,
}

impl From<Group> for GroupBy {
    fn from(group: Group) -> Self {
        match group {
            Group::Clip => Self::Clip,
            Group::Moment => Self::Moment,
            Group::Asset => Self::Asset,
        }
    }
}

impl Targets {
    /// The tracks to search, video first.
    pub fn tracks(self) -> Vec<Track> {
        match self {
            Self::Video => vec![Track::Video],
            Self::Audio => vec![Track::Audio],
            Self::Both => Track::ALL.to_vec(),
        }
    }
}

/// Runs `search`.
pub async fn run(args: SearchArgs) -> Result<ExitCode, CliError> {
    let query = args.query.query()?;
    let library = super::open_library(&args.model, &args.data, &args.limits, Doors::default()).await?;
    let begun = Instant::now();
    let options = AskOptions {
        targets: args.targets.tracks(),
        space: args.space.as_deref().map(Space::new),
        group_by: args.group_by.into(),
        limit: usize::from(args.limit),
        params: SearchParams { exact: args.exact, ..SearchParams::default() },
        ..AskOptions::default()
    };
    let response = answer(&library, query, options).await?;
    if args.json {
        let answer = SearchAnswer::new(response, library.embedder().bundle().name());
        say!("{:#}", serde_json::to_value(answer).map_err(std::io::Error::from)?);
    } else {
        print(&response, begun.elapsed().as_secs_f64());
    }
    Ok(ExitCode::SUCCESS)
}

/// Answers a query from the command line.
pub async fn answer(
    library: &Arc<Library>,
    query: Query,
    options: AskOptions,
) -> Result<SearchResponse, CliError> {
    let part = match query {
        Query::Text(text) => AskPart::text(text, "text"),
        Query::Media(modality, path, span) => {
            let source = Source::File { path, modality, span, tracks: TrackChoice::default() };
            AskPart { source, weight: 1.0, at: "file".to_owned() }
        }
    };
    let ask = Ask::new(vec![part], options)?;
    let request = library.collection().embed(&ask, Priority::Interactive, &Arc::default()).await?;
    Ok(library.search(request).await?)
}

fn print(response: &SearchResponse, secs: f64) {
    if response.hits.is_empty() {
        say!("the library has no clips to compare this query with; add some with `triptych index`");
    } else {
        say!("{}", table::hits(&response.hits));
        if response.no_match {
            say!("probably no match: queries about unrelated things score just as high");
        }
        if !response.ignored_words.is_empty() {
            say!(
                "unknown words left out: {}; docs/models.md lists models that know more",
                table::printable(&response.ignored_words.join(", "))
            );
        }
        say!("{} hits in {:.1} ms", response.hits.len(), secs * 1e3);
    }
}
