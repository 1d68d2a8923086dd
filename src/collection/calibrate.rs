//! Keeps the background distributions of searches up to date with the library.

mod texts;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde::{Deserialize, Serialize};

use self::texts::Texts;
use super::{Collection, LibraryError, blocking, tracks};
use crate::embed::Embedder;
use crate::own_files;
use crate::search::{Bank, BankQuery, Distributions, Lane, MOST_WORDS, QueryBank, background};
use crate::types::{AssetId, ClipId, Embedding, Modality, Space, Track};

/// Share of the clips that must have been added or removed for a calibration to be due at once.
const CHANGED: f64 = 0.1;
/// Number of clips that serve as queries themselves.
const BANK: usize = 96;
/// Number of clips to describe. They should cover most kinds of content in the library.
const DESCRIBED: usize = 192;
/// Fewest descriptions of a length. A small library has fewer, so texts of random words are added.
const LEAST_DESCRIPTIONS: usize = 48;
/// Changes whenever distributions of an earlier version mean something else; these are measured again.
const RULE: u32 = 2;
/// Number of words for the descriptions; from a larger vocabulary this many are drawn at random.
const WORDS: usize = 128;
/// Number of words with which the description of a clip may be extended: those that fit it best by themselves. Others
/// are hardly ever chosen, and each costs a text for every description so far.
const CANDIDATES: usize = 24;
/// Fewest texts of one length in a model's bank that are a bank of their own.
const LEAST_OF_LENGTH: usize = 48;
const FILE: &str = "backgrounds.json";

/// The file that is written beside the indexes.
#[derive(Serialize, Deserialize)]
struct Saved {
    model: String,
    #[serde(default)]
    rule: u32,
    clips: usize,
    lanes: Vec<(Lane, Vec<f32>)>,
    #[serde(default)]
    banks: Vec<SavedBank>,
}

/// One bank: its queries' values as little-endian f32 in Base64.
#[derive(Serialize, Deserialize)]
struct SavedBank {
    lane: Lane,
    queries: Vec<(Option<AssetId>, String)>,
    hubs: Vec<ClipId>,
}

impl SavedBank {
    fn new(lane: &Lane, bank: &Bank) -> Self {
        let saved = |query: &BankQuery| {
            let bytes: Vec<u8> = query.vector.as_slice().iter().flat_map(|v| v.to_le_bytes()).collect();
            (query.own, BASE64.encode(bytes))
        };
        let mut hubs: Vec<ClipId> = bank.hubs.iter().copied().collect();
        hubs.sort_unstable();
        Self { lane: lane.clone(), queries: bank.queries.iter().map(saved).collect(), hubs }
    }

    /// `None` if a query is not a valid vector.
    fn bank(self) -> Option<(Lane, Arc<Bank>)> {
        let query = |(own, values): (Option<AssetId>, String)| {
            let bytes = BASE64.decode(values).ok()?;
            let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|v| f32::from_le_bytes(*v)).collect();
            let dim = values.len();
            Some(BankQuery { vector: Embedding::new(values, dim).ok()?, own })
        };
        let queries = self.queries.into_iter().map(query).collect::<Option<Vec<_>>>()?;
        Some((self.lane, Arc::new(Bank { queries, hubs: self.hubs.into_iter().collect() })))
    }
}

/// Loads saved distributions; empty unless they were saved for this model.
pub(crate) fn load(dir: &std::path::Path, model: &str) -> Distributions {
    let saved = own_files::read(dir, FILE).ok();
    let saved: Option<Saved> = saved.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let sorted = |scores: &Vec<f32>| scores.iter().all(|s| s.is_finite()) && scores.is_sorted();
    match saved {
        Some(saved)
            if saved.model == model
                && saved.rule == RULE
                && saved.lanes.iter().all(|(_, scores)| sorted(scores)) =>
        {
            let banks = saved.banks.into_iter().filter_map(SavedBank::bank).collect();
            Distributions { clips: saved.clips, lanes: saved.lanes.into_iter().collect(), banks }
        }
        _ => Distributions::default(),
    }
}

/// How unrelated queries of one kind score in one index.
struct MeasuredLane {
    lane: Lane,
    scores: Vec<f32>,
    bank: Bank,
}

/// Queries of one kind that are about something else than the clips they are compared with.
struct Unrelated {
    query: Modality,
    /// Number of words of a text; 0 for media.
    words: usize,
    /// Whether the queries are vectors of the searched track itself.
    same_track: bool,
    queries: Vec<BankQuery>,
}

impl Collection {
    pub(crate) fn is_background_due(&self) -> bool {
        let known = self.searched.backgrounds.now();
        // Written by a version that did not save the banks.
        let incomplete = known.banks.len() < known.lanes.len();
        let (before, now) = (known.clips as f64, self.searched.catalog.len().1 as f64);
        incomplete || (now - before).abs() > CHANGED * before
    }

    /// Calibrates if the library has changed enough since the last time; see [`Collection::calibrate`].
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn calibrate_if_due(&self) -> Result<(), LibraryError> {
        if self.is_background_due() { self.calibrate().await } else { Ok(()) }
    }

    /// Measures again how unrelated queries score here. The workers do so automatically; commands that only
    /// read may request it.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn calibrate(&self) -> Result<(), LibraryError> {
        let clips = self.searched.catalog.len().1;
        let (mut lanes, mut banks) = (BTreeMap::new(), BTreeMap::new());
        let mut texts = Texts::new(&self.embedder);
        for target in self.tracks() {
            for (space, _) in tracks::members_of(self.embedder.bundle(), target) {
                for MeasuredLane { lane, scores, bank } in self.lanes_of(&mut texts, &space, target).await? {
                    lanes.insert(lane.clone(), scores);
                    banks.insert(lane, Arc::new(bank));
                }
            }
        }
        let saved = Saved {
            model: self.embedder.bundle().id().to_string(),
            rule: RULE,
            clips,
            lanes: lanes
                .iter()
                .map(|(lane, scores): (&Lane, &Vec<f32>)| (lane.clone(), scores.clone()))
                .collect(),
            banks: banks.iter().map(|(lane, bank)| SavedBank::new(lane, bank)).collect(),
        };
        self.searched.backgrounds.replace(Distributions { clips, lanes, banks });
        let path = self.index_dir().join(FILE);
        blocking(move || {
            let folder = path.parent().map(std::path::Path::to_path_buf).unwrap_or_default();
            std::fs::create_dir_all(&folder)?;
            let file = tempfile::NamedTempFile::new_in(folder)?;
            let mut out = std::io::BufWriter::new(&file);
            serde_json::to_writer(&mut out, &saved).map_err(std::io::Error::from)?;
            // The bytes left in the buffer may be the ones that find the disk full.
            out.flush()?;
            drop(out);
            file.persist(path).map_err(|error| error.error)?;
            Ok(())
        })
        .await
    }

    /// The distributions of one index, one per kind of query.
    async fn lanes_of(
        &self,
        texts: &mut Texts<'_>,
        space: &Space,
        target: Track,
    ) -> Result<Vec<MeasuredLane>, LibraryError> {
        let bundle = self.embedder.bundle();
        let mut banks: Vec<Unrelated> = Vec::new();
        for source in Track::ALL {
            let bank = self.own_queries(source, space);
            let serving = source.modalities().iter().filter(|modality| bundle.has(**modality, space));
            banks.extend(serving.map(|modality| Unrelated {
                query: *modality,
                words: 0,
                same_track: source == target,
                queries: bank.clone(),
            }));
        }
        if bundle.has(Modality::Text, space) {
            let seen: Vec<Embedding> = self
                .searched
                .index
                .sample(target, space, DESCRIBED)
                .into_iter()
                .map(|(_, vector)| vector)
                .collect();
            let words = self.embedder.towers.vocabulary_in(space);
            let by_words = if words.is_empty() {
                said(texts.embedder(), space).await?
            } else {
                describe(texts, space, &words, &seen).await?
            };
            banks.extend((1..).zip(by_words).map(|(words, queries)| Unrelated {
                query: Modality::Text,
                words,
                same_track: false,
                queries,
            }));
        }
        let (catalog, index) = (Arc::clone(&self.searched.catalog), Arc::clone(&self.searched.index));
        let space = space.clone();
        blocking(move || {
            let mut lanes = Vec::new();
            for Unrelated { query, words, same_track, queries } in banks {
                let asked = QueryBank { modality: query, queries: &queries, same_track };
                let found = background(&catalog, &index, &space, target, asked)?;
                if !found.scores.is_empty() {
                    let lane = Lane { query, words, space: space.clone(), target };
                    let bank = Bank { queries, hubs: found.hubs };
                    lanes.push(MeasuredLane { lane, scores: found.scores, bank });
                }
            }
            Ok(lanes)
        })
        .await
    }

    fn own_queries(&self, source: Track, space: &Space) -> Vec<BankQuery> {
        let sample = self.searched.index.sample(source, space, BANK);
        let owners: HashMap<_, _> =
            self.searched.catalog.owners(sample.iter().map(|(clip, _)| *clip)).into_iter().collect();
        let query =
            |(clip, vector): (_, Embedding)| Some(BankQuery { vector, own: Some(owners.get(&clip)?.id) });
        sample.into_iter().filter_map(query).collect()
    }
}

/// Describes clips as the model would, in one word, in two, and so on: each description is extended by the
/// word that scores best. Returns one bank per length.
async fn describe(
    texts: &mut Texts<'_>,
    space: &Space,
    all: &[String],
    clips: &[Embedding],
) -> Result<Vec<Vec<BankQuery>>, LibraryError> {
    let mut rng = StdRng::seed_from_u64(clips.len() as u64);
    let words: Vec<String> = all.sample(&mut rng, WORDS).cloned().collect();
    let alone = longer(texts, space, &words, &[], &(0..words.len()).collect()).await?;
    let fitting: Vec<Vec<usize>> = clips.iter().map(|clip| best_words(clip, &alone)).collect();
    let mut said: Vec<Vec<usize>> = vec![Vec::new(); clips.len()];
    let mut banks = Vec::new();
    for length in 1..=MOST_WORDS.min(words.len()) {
        let mut alike: BTreeMap<Vec<usize>, Vec<usize>> = BTreeMap::new();
        for (clip, said) in said.iter().enumerate() {
            let mut prefix = said.clone();
            prefix.sort_unstable();
            alike.entry(prefix).or_default().push(clip);
        }
        let mut bank: BTreeMap<Vec<usize>, Embedding> = BTreeMap::new();
        for (prefix, members) in alike {
            let candidates =
                members.iter().filter_map(|clip| fitting.get(*clip)).flatten().copied().collect();
            let longer = longer(texts, space, &words, &prefix, &candidates).await?;
            for at in members {
                let (Some(clip), Some(said)) = (clips.get(at), said.get_mut(at)) else { continue };
                let score = |(_, text): &&(usize, Embedding)| clip.cosine(text);
                if let Some((word, text)) = longer.iter().max_by(|a, b| score(a).total_cmp(&score(b))) {
                    said.push(*word);
                    let mut words = said.clone();
                    words.sort_unstable();
                    // The same description of several clips is one query.
                    bank.entry(words).or_insert_with(|| text.clone());
                }
            }
        }
        let missing = LEAST_DESCRIPTIONS.saturating_sub(bank.len());
        let mut bank: Vec<Embedding> = bank.into_values().collect();
        let random = at_random(texts, space, &words, length, missing, &mut rng).await?;
        bank.extend(random.into_iter().map(|(_, vector)| vector));
        banks.push(bank.into_iter().map(|vector| BankQuery { vector, own: None }).collect());
    }
    Ok(banks)
}

/// The words that fit a clip best by themselves, with which its description is extended.
fn best_words(clip: &Embedding, alone: &[(usize, Embedding)]) -> Vec<usize> {
    let mut scored: Vec<(f32, usize)> = alone.iter().map(|(word, text)| (clip.cosine(text), *word)).collect();
    scored.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    scored.into_iter().take(CANDIDATES).map(|(_, word)| word).collect()
}

/// Texts of random words, with the numbers of these.
async fn at_random(
    texts: &mut Texts<'_>,
    space: &Space,
    words: &[String],
    length: usize,
    count: usize,
    rng: &mut StdRng,
) -> Result<Vec<(Vec<usize>, Embedding)>, LibraryError> {
    let mut drawn = Vec::with_capacity(count);
    for _ in 0..count {
        let mut chosen = rand::seq::index::sample(rng, words.len(), length.min(words.len())).into_vec();
        chosen.sort_unstable();
        drawn.push((joined(words, &chosen), chosen));
    }
    texts.embed(space, drawn).await
}

/// The texts supplied by a model without a word list, one bank per number of words; all texts if too few have
/// that number.
async fn said(embedder: &Embedder, space: &Space) -> Result<Vec<Vec<BankQuery>>, LibraryError> {
    let texts = embedder.bank().await?;
    let query = |vector: &Embedding| BankQuery { vector: vector.clone(), own: None };
    let of = |wanted: Option<usize>| -> Vec<BankQuery> {
        let counts = |words: usize| wanted.is_none_or(|wanted| words.min(MOST_WORDS) == wanted);
        let found = texts.iter().filter(|text| counts(text.words));
        found.filter_map(|text| text.vectors.get(space)).map(query).collect()
    };
    let banks = (1..=MOST_WORDS).map(|words| {
        let bank = of(Some(words));
        if bank.len() < LEAST_OF_LENGTH { of(None) } else { bank }
    });
    Ok(banks.collect())
}

/// Embeds the texts that extend the prefix by one of the candidates; returns each with that word's number.
async fn longer(
    texts: &mut Texts<'_>,
    space: &Space,
    words: &[String],
    prefix: &[usize],
    candidates: &BTreeSet<usize>,
) -> Result<Vec<(usize, Embedding)>, LibraryError> {
    let others = candidates.iter().filter(|word| !prefix.contains(word));
    let extended = others.map(|word| (joined(words, &[prefix, &[*word]].concat()), *word));
    texts.embed(space, extended.collect()).await
}

fn joined(words: &[String], chosen: &[usize]) -> String {
    let words: Vec<&str> = chosen.iter().filter_map(|at| words.get(*at)).map(String::as_str).collect();
    words.join(" ")
}
