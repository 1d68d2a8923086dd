//! Keeps the background distributions of searches up to date with the library.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::future::try_join_all;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde::{Deserialize, Serialize};

use super::{Collection, LibraryError, blocking, tracks};
use crate::embed::Embedder;
use crate::model::Priority;
use crate::own_files;
use crate::search::{Asked, Bank, BankQuery, Distributions, Lane, MOST_WORDS, background};
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
/// Fewest texts of one length in a model's bank that are a bank of their own.
const LEAST_OF_LENGTH: usize = 48;
/// Texts in the tower queue at the same time; interactive work goes before each.
const TEXTS_AT_ONCE: usize = 8;
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
        for target in self.tracks() {
            for (space, _) in tracks::members_of(self.embedder.bundle(), target) {
                for MeasuredLane { lane, scores, bank } in self.lanes_of(&space, target).await? {
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
    async fn lanes_of(&self, space: &Space, target: Track) -> Result<Vec<MeasuredLane>, LibraryError> {
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
                said(&self.embedder, space).await?
            } else {
                describe(&self.embedder, space, &words, &seen).await?
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
                let asked = Asked { modality: query, queries: &queries, same_track };
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
    embedder: &Embedder,
    space: &Space,
    all: &[String],
    clips: &[Embedding],
) -> Result<Vec<Vec<BankQuery>>, LibraryError> {
    let mut rng = StdRng::seed_from_u64(clips.len() as u64);
    let words: Vec<String> = all.sample(&mut rng, WORDS).cloned().collect();
    let mut known: HashMap<Vec<usize>, Vec<(usize, Embedding)>> = HashMap::new();
    let mut said: Vec<Vec<usize>> = vec![Vec::new(); clips.len()];
    let mut banks = Vec::new();
    for length in 1..=MOST_WORDS.min(words.len()) {
        let mut bank: Vec<(Vec<usize>, Embedding)> = Vec::new();
        for (clip, said) in clips.iter().zip(&mut said) {
            let mut prefix = said.clone();
            prefix.sort_unstable();
            if !known.contains_key(&prefix) {
                let longer = longer(embedder, space, &words, &prefix).await?;
                known.insert(prefix.clone(), longer);
            }
            let longer = known.get(&prefix).map(Vec::as_slice).unwrap_or_default();
            let score = |(_, text): &&(usize, Embedding)| clip.cosine(text);
            if let Some((word, text)) = longer.iter().max_by(|a, b| score(a).total_cmp(&score(b))) {
                said.push(*word);
                let mut words = said.clone();
                words.sort_unstable();
                bank.push((words, text.clone()));
            }
        }
        known.clear();
        // The same description of several clips is one query.
        bank.sort_by(|a, b| a.0.cmp(&b.0));
        bank.dedup_by(|a, b| a.0 == b.0);
        let missing = LEAST_DESCRIPTIONS.saturating_sub(bank.len());
        bank.extend(at_random(embedder, space, &words, length, missing, &mut rng).await?);
        banks.push(bank.into_iter().map(|(_, vector)| BankQuery { vector, own: None }).collect());
    }
    Ok(banks)
}

/// Texts of random words, with the numbers of these.
async fn at_random(
    embedder: &Embedder,
    space: &Space,
    words: &[String],
    length: usize,
    count: usize,
    rng: &mut StdRng,
) -> Result<Vec<(Vec<usize>, Embedding)>, LibraryError> {
    let mut found = Vec::with_capacity(count);
    for _ in 0..count {
        let mut chosen = rand::seq::index::sample(rng, words.len(), length.min(words.len())).into_vec();
        chosen.sort_unstable();
        let text: Vec<&str> = chosen.iter().filter_map(|at| words.get(*at)).map(String::as_str).collect();
        let vectors = embedder.text(&text.join(" "), Priority::Bulk).await?;
        found.extend(vectors.get(space).map(|vector| (chosen, vector.clone())));
    }
    Ok(found)
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

/// Embeds every text that extends the prefix by one word; returns each with that word's number.
async fn longer(
    embedder: &Embedder,
    space: &Space,
    words: &[String],
    prefix: &[usize],
) -> Result<Vec<(usize, Embedding)>, LibraryError> {
    let begun: Vec<&str> = prefix.iter().filter_map(|at| words.get(*at)).map(String::as_str).collect();
    let mut texts = Vec::new();
    for (at, word) in words.iter().enumerate() {
        if !prefix.contains(&at) {
            texts.push((at, [begun.as_slice(), &[word]].concat().join(" ")));
        }
    }
    let mut found = Vec::with_capacity(texts.len());
    for part in texts.chunks(TEXTS_AT_ONCE) {
        let asked: Vec<_> = part.iter().map(|(_, text)| embedder.text(text, Priority::Bulk)).collect();
        for ((at, _), vectors) in part.iter().zip(try_join_all(asked).await?) {
            found.extend(vectors.get(space).map(|vector| (*at, vector.clone())));
        }
    }
    Ok(found)
}
