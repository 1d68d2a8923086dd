//! `triptych demo`: indexes a bundle's own sample clips, runs its queries, and serves the page. A bundle
//! without sample clips is served with an empty library.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use serde::Deserialize;

use super::query::Query;
use super::serve::{self, ListenArgs};
use super::{CliError, Doors, index, search, table};
use crate::collection::ask::AskOptions;
use crate::config::{DataArgs, LimitArgs, ModelArgs};
use crate::embed::Embedder;
use crate::jobs::NameFilter;
use crate::library::{JobSource, Library, Models};
use crate::types::{Modality, TrackChoice};

/// Flags of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    listen: ListenArgs,
}

/// `samples/demo.json` of a bundle: the two queries that demonstrate it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DemoQueries {
    /// Text of the first query.
    text: String,
    /// Sound file of the second query, beside `demo.json`.
    audio: String,
}

/// A bundle's sample clips, and the queries that they answer.
struct Samples {
    clips: PathBuf,
    sound: PathBuf,
    text: String,
}

/// Runs `demo` until Ctrl-C.
pub async fn run(args: DemoArgs) -> Result<ExitCode, CliError> {
    let samples = Samples::of(&args.model.model)?;
    let door = serve::Door::open(&args.listen, &args.data.data)?;
    let allowed_roots = samples.iter().map(|samples| samples.clips.clone()).collect();
    let doors = Doors { allowed_roots, ..Doors::default() };
    let config = super::models_config(&args.model, &args.data, &args.limits, doors)?;
    let models = Models::open(config, &args.model.model).await?;
    let library = models.serving();
    let bundle = library.embedder().bundle();
    say!("Model {}, licence {}: {}", bundle.name(), bundle.license(), bundle.description());
    say!("It knows {}\n", known(library.embedder()));
    match samples {
        Some(samples) => show(&library, samples).await?,
        None => say!(
            "This model has no sample clips. Add your own media on the page, or stop the demo, run\n  triptych index \
             FOLDER --model {} --data {}\nand start it again.\n",
            args.model.model.display(),
            args.data.data.display()
        ),
    }
    drop(library);
    serve::serve_models(models, &args.listen, door).await
}

/// The modalities of a model, in a few words.
fn known(embedder: &Embedder) -> String {
    let (bundle, languages) = (embedder.bundle(), embedder.bundle().languages());
    let texts = match embedder.towers.vocabulary_len() {
        _ if !bundle.has_tower(Modality::Text) => "no texts".to_owned(),
        Some(words) => format!("{words} words; for your own footage see docs/models.md"),
        None if languages.is_empty() => "any text".to_owned(),
        None => format!("any text ({})", languages.join(", ")),
    };
    let media = [Modality::Video, Modality::Audio, Modality::Image].into_iter();
    let media: Vec<&str> =
        media.filter(|medium| bundle.has_tower(*medium)).map(|medium| medium.as_str()).collect();
    format!("{}, and {texts}", media.join(", "))
}

/// Indexes the samples and answers their queries.
async fn show(library: &Arc<Library>, samples: Samples) -> Result<(), CliError> {
    let source = JobSource::Folder {
        path: samples.clips,
        recursive: true,
        filter: NameFilter::default(),
        choice: TrackChoice::default(),
    };
    let job = library.start_index_job(source, serde_json::json!({}), None).await?;
    let job = index::follow(library, job, true).await?;
    say!("{} sample files are searchable\n", job.items_done);

    say!("Text query: \"{}\"", samples.text);
    answer(library, Query::Text(samples.text)).await?;
    say!("Audio query: {}", samples.sound.display());
    answer(library, Query::Media(Modality::Audio, samples.sound, None)).await
}

impl Samples {
    /// None if the bundle has no folder `samples`; an error if what is in it is incomplete.
    fn of(bundle: &Path) -> Result<Option<Self>, CliError> {
        let folder = bundle.join("samples");
        if !folder.exists() && bundle.is_dir() {
            return Ok(None);
        }
        let clips = folder.join("clips");
        let clips = clips.canonicalize().map_err(|error| {
            CliError::input(
                "path_missing",
                format!("expected sample clips in the bundle at {}: {error}", clips.display()),
            )
        })?;
        let queries = read_queries(&folder)?;
        Ok(Some(Self { clips, sound: folder.join(queries.audio), text: queries.text }))
    }
}

fn read_queries(samples: &Path) -> Result<DemoQueries, CliError> {
    let path = samples.join("demo.json");
    let text = std::fs::read_to_string(&path)
        .map_err(|error| CliError::input("path_missing", format!("{}: {error}", path.display())))?;
    serde_json::from_str(&text)
        .map_err(|error| CliError::input("invalid_json", format!("{}: {error}", path.display())))
}

async fn answer(library: &Arc<Library>, query: Query) -> Result<(), CliError> {
    let begun = Instant::now();
    let response = search::answer(library, query, AskOptions { limit: 5, ..AskOptions::default() }).await?;
    say!("{}", table::hits(&response.hits));
    say!("answered in {:.1} ms\n", begun.elapsed().as_secs_f64() * 1e3);
    Ok(())
}
