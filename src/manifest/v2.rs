//! Format version 2, read strictly: an unknown field is an error.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::check::check_space_names;
use super::media::{PictureEntry, SamplingEntry, SamplingSpec, SoundEntry};
use super::text::TextEntry;
use super::{
    BankSpec, Goldens, Inflating, InputSpec, Manifest, OutputSpec, Precision, Source, SpaceSpec, Supply,
    Takes, TowerSpec, ensure,
};
use crate::types::{Modality, Space};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[allow(dead_code)]
    format_version: u64,
    name: String,
    #[serde(default)]
    description: String,
    license: String,
    #[serde(default)]
    sources: Vec<Source>,
    spaces: Vec<SpaceEntry>,
    towers: BTreeMap<String, TowerEntry>,
    #[serde(default)]
    bank: Option<BankEntry>,
    goldens: Goldens,
    files: BTreeMap<String, String>,
    /// Free-form notes; not used.
    #[serde(default)]
    #[allow(dead_code)]
    training: serde_json::Value,
    /// Free-form notes; not used.
    #[serde(default)]
    #[allow(dead_code)]
    evaluation: serde_json::Value,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SpaceEntry {
    name: Space,
    dim: usize,
    #[serde(default)]
    dims: Vec<usize>,
    members: BTreeSet<Modality>,
}

/// Has either only `modality` and `inflates`, or all the other fields.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TowerEntry {
    modality: Modality,
    file: Option<String>,
    precision: Option<Precision>,
    precisions: Option<Vec<Precision>>,
    inputs: Option<BTreeMap<String, String>>,
    outputs: Option<BTreeMap<Space, String>>,
    preprocessing: Option<Preparation>,
    inflates: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Preparation {
    picture: Option<PictureEntry>,
    sampling: Option<SamplingEntry>,
    sound: Option<SoundEntry>,
    text: Option<TextEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BankEntry {
    file: String,
    #[serde(default)]
    source: String,
}

/// Reads the manifest; rules for all format versions are checked later.
pub(super) fn parse(bytes: &[u8]) -> Result<Manifest, String> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let entry: Entry = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let at = error.path().to_string();
        if at == "." { error.inner().to_string() } else { format!("{at}: {}", error.inner()) }
    })?;
    check_space_names(entry.spaces.iter().map(|space| &space.name))?;
    let spaces: Vec<SpaceSpec> = entry
        .spaces
        .into_iter()
        .map(|space| SpaceSpec { name: space.name, dim: space.dim, dims: space.dims, members: space.members })
        .collect();
    let (inflating, own): (Vec<_>, Vec<_>) =
        entry.towers.into_iter().partition(|(_, tower)| tower.inflates.is_some());
    let towers = own
        .into_iter()
        .map(|(name, tower)| tower.spec(name, &spaces))
        .collect::<Result<Vec<TowerSpec>, String>>()?;
    let inflating = inflating
        .into_iter()
        .map(|(name, tower)| tower.inflating(name, &towers))
        .collect::<Result<Vec<_>, String>>()?;
    Ok(Manifest {
        name: entry.name,
        description: entry.description,
        license: entry.license,
        sources: entry.sources,
        spaces,
        towers,
        inflating,
        bank: entry.bank.map(|bank| BankSpec { file: bank.file, source: bank.source }),
        goldens: entry.goldens,
        files: entry.files,
    })
}

fn check_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    ensure((1..=64).contains(&name.len()) && name.chars().all(plain), || {
        format!("towers: the name {name:?} must be 1-64 letters, digits, `-` and `_`")
    })
}

impl TowerEntry {
    fn inflating(self, name: String, towers: &[TowerSpec]) -> Result<Inflating, String> {
        check_name(&name)?;
        let bare = self.file.is_none()
            && self.precision.is_none()
            && self.precisions.is_none()
            && self.inputs.is_none()
            && self.outputs.is_none()
            && self.preprocessing.is_none();
        ensure(bare, || format!("towers.{name}: `inflates` must be the only field besides `modality`"))?;
        let inflated = self.inflates.unwrap_or_default();
        let tower = towers.iter().position(|tower| tower.name == inflated);
        let tower =
            tower.ok_or_else(|| format!("towers.{name} inflates {inflated:?}, which does not exist"))?;
        let fits = self.modality == Modality::Image && towers[tower].modality == Modality::Video;
        ensure(fits, || format!("towers.{name}: only an image can inflate the video tower"))?;
        Ok(Inflating { name, tower })
    }

    fn spec(self, name: String, spaces: &[SpaceSpec]) -> Result<TowerSpec, String> {
        check_name(&name)?;
        let missing = |field: &str| format!("towers.{name} has no `{field}`");
        let file = self.file.ok_or_else(|| missing("file"))?;
        let precision = self.precision.ok_or_else(|| missing("precision"))?;
        let preparation = self.preprocessing.ok_or_else(|| missing("preprocessing"))?;
        let takes = preparation.takes(&name, self.modality)?;
        let inputs = inputs(&name, self.modality, &takes, self.inputs.ok_or_else(|| missing("inputs"))?)?;
        let outputs = outputs(&name, self.outputs.ok_or_else(|| missing("outputs"))?, spaces)?;
        Ok(TowerSpec {
            modality: self.modality,
            file,
            precision,
            precisions: self.precisions.unwrap_or_else(|| vec![precision]),
            inputs,
            outputs,
            takes,
            name,
        })
    }
}

impl Preparation {
    fn takes(self, name: &str, modality: Modality) -> Result<Takes, String> {
        let at = format!("towers.{name}.preprocessing");
        let missing = |section: &str| format!("{at} has no `{section}`, which {modality} needs");
        let given = [
            ("picture", self.picture.is_some(), matches!(modality, Modality::Video | Modality::Image)),
            ("sampling", self.sampling.is_some(), modality == Modality::Video),
            ("sound", self.sound.is_some(), modality == Modality::Audio),
            ("text", self.text.is_some(), modality == Modality::Text),
        ];
        for (section, given, of_modality) in given {
            ensure(!given || of_modality, || {
                format!("{at}.{section} does not belong to a tower of {modality}")
            })?;
        }
        let picture = |entry: Option<PictureEntry>| entry.ok_or_else(|| missing("picture"))?.spec(&at);
        Ok(match modality {
            Modality::Video => {
                let picture = picture(self.picture)?;
                let sampling = self.sampling.clone().ok_or_else(|| missing("sampling"))?;
                let SamplingSpec { sampling, stride_secs, choice } = sampling.spec(&at)?;
                Takes::Video { picture, sampling, stride_secs, choice }
            }
            Modality::Image => Takes::Image(picture(self.picture)?),
            Modality::Audio => {
                let (sound, stride_secs) = self.sound.ok_or_else(|| missing("sound"))?.spec(&at)?;
                Takes::Sound { sound, stride_secs }
            }
            Modality::Text => {
                let text = self.text.ok_or_else(|| missing("text"))?;
                Takes::Text(text.spec(&format!("{at}.text"))?)
            }
        })
    }
}

/// Required and optional inputs of a tower of a modality.
const fn supplies(modality: Modality) -> (&'static [Supply], &'static str) {
    match modality {
        Modality::Video | Modality::Image => (
            &[Supply::Frames, Supply::PatchGrid, Supply::FrameCount],
            "`frames`, `patch_grid` if the rule of `resize` is patches, and optionally `frame_count` if the rule of `sampling` is rate",
        ),
        Modality::Audio => (&[Supply::Pcm, Supply::PcmSamples], "`pcm` and optionally `pcm_samples`"),
        Modality::Text => {
            (&[Supply::TokenIds, Supply::AttentionMask], "`token_ids` and optionally `attention_mask`")
        }
    }
}

fn inputs(
    tower: &str,
    modality: Modality,
    takes: &Takes,
    mut given: BTreeMap<String, String>,
) -> Result<Vec<InputSpec>, String> {
    let (known, sentence) = supplies(modality);
    let mut inputs = Vec::new();
    for supply in known {
        let Some(name) = given.remove(supply.as_str()) else { continue };
        let row = takes.row(*supply).ok_or_else(|| {
            let what = supply.as_str();
            format!("towers.{tower}.inputs names `{what}`, which its `preprocessing` does not produce")
        })?;
        let golden = format!("{tower}.{}", supply.as_str());
        inputs.push(InputSpec { supply: *supply, name, golden, row });
    }
    if let Some(unknown) = given.keys().next() {
        return Err(format!(
            "towers.{tower}.inputs names `{unknown}`, but the inputs of a tower of {modality} are {sentence}"
        ));
    }
    let has = |wanted: Supply| inputs.iter().any(|input| input.supply == wanted);
    let needs_grid = takes.row(Supply::PatchGrid).is_some();
    let first = known.first().is_some_and(|first| has(*first));
    ensure(first && (!needs_grid || has(Supply::PatchGrid)), || {
        format!("towers.{tower}.inputs must name {sentence}")
    })?;
    Ok(inputs)
}

/// The outputs, each with the spaces that it serves, in the order of the spaces.
fn outputs(
    tower: &str,
    mut given: BTreeMap<Space, String>,
    spaces: &[SpaceSpec],
) -> Result<Vec<OutputSpec>, String> {
    let mut outputs: Vec<OutputSpec> = Vec::new();
    for space in spaces {
        let Some(name) = given.remove(&space.name) else { continue };
        match outputs.iter_mut().find(|output| output.name == name && output.dim == space.dim) {
            Some(output) => output.spaces.push(space.name.clone()),
            None => outputs.push(OutputSpec { name, dim: space.dim, spaces: vec![space.name.clone()] }),
        }
    }
    match given.keys().next() {
        Some(unknown) => {
            Err(format!("towers.{tower}.outputs names the space `{unknown}`, which is not in `spaces`"))
        }
        None => Ok(outputs),
    }
}
