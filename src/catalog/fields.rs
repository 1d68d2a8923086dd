//! Index from each key's values to the assets that have them, so that a filter reads only the matching
//! assets.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use super::column::Column;
use super::filter::{Condition, Filter, METADATA};
use super::posting::{Bits, Ordinal, Posting};
use super::value::{Bounds, Number, Scalar, lies_within, time_of};
use crate::store::AssetRecord;
use crate::types::nfc;

/// Longest key that can be filtered by, in bytes, and most values of one asset. The limits keep anyone who
/// may upload from filling the memory with a small file.
const MAX_KEY_BYTES: usize = 256;
const MAX_VALUES_PER_ASSET: usize = 4096;

/// Assets by the values of one key.
#[derive(Debug, Default)]
struct Field {
    /// Assets that have the key with any value, including an object or an empty list.
    present: Posting,
    /// Assets by exact value. Dates are only in `dates`: `eq` and `in` compare them as text.
    values: BTreeMap<Scalar, Posting>,
    numbers: Column<Number>,
    dates: Column<i64>,
}

impl Field {
    fn insert(&mut self, value: &Scalar, ordinal: Ordinal) {
        match value {
            Scalar::Time(date) => return self.dates.insert(*date, ordinal),
            Scalar::Number(number) => self.numbers.insert(*number, ordinal),
            Scalar::Bool(_) | Scalar::Text(_) => {}
        }
        self.values.entry(value.clone()).or_default().insert(ordinal);
    }

    fn remove(&mut self, value: &Scalar, ordinal: Ordinal) {
        match value {
            Scalar::Time(date) => return self.dates.remove(*date, ordinal),
            Scalar::Number(number) => self.numbers.remove(*number, ordinal),
            Scalar::Bool(_) | Scalar::Text(_) => {}
        }
        if let Some(assets) = self.values.get_mut(value) {
            assets.remove(ordinal);
            if assets.is_empty() {
                self.values.remove(value);
            }
        }
    }

    /// Adds the assets with a value in a range of numbers or of dates to a set.
    fn add_range(&self, (low, high): &Bounds, set: &mut Bits) {
        let number = |value: &Scalar| if let Scalar::Number(number) = value { Some(*number) } else { None };
        let date = |value: &Scalar| if let Scalar::Time(date) = value { Some(*date) } else { None };
        if let (Some(low), Some(high)) = (bound_of(low, number), bound_of(high, number)) {
            self.numbers.add_range((low, high), set);
        } else if let (Some(low), Some(high)) = (bound_of(low, date), bound_of(high, date)) {
            self.dates.add_range((low, high), set);
        }
    }
}

/// Converts a bound to one kind of value. `None` if its value is of another kind.
fn bound_of<V>(bound: &Bound<Scalar>, of: impl Fn(&Scalar) -> Option<V>) -> Option<Bound<V>> {
    Some(match bound {
        Bound::Included(value) => Bound::Included(of(value)?),
        Bound::Excluded(value) => Bound::Excluded(of(value)?),
        Bound::Unbounded => Bound::Unbounded,
    })
}

/// All keys with their values.
#[derive(Debug, Default)]
pub(super) struct Fields(HashMap<String, Field>);

/// The (key, value) pairs of one asset; the value is `None` if it exists but cannot be compared.
pub(super) type Entries = Vec<(String, Option<Scalar>)>;

/// Everything in an asset that a filter can test.
pub(super) fn entries_of(asset: &AssetRecord) -> Entries {
    let mut entries = Vec::new();
    let mut own = |key: &str, value: Scalar| entries.push((key.to_owned(), Some(value)));
    own("asset_id", Scalar::Text(asset.id.to_string().into()));
    own("name", Scalar::text(&asset.name));
    if let Some(kind) = asset.kind {
        own("kind", Scalar::Text(kind.as_str().into()));
    }
    own("duration_secs", Scalar::number(asset.duration_secs));
    own("created_at", Scalar::Text(crate::types::rfc3339_millis(asset.created_unix_ms).into()));
    own("created_at", Scalar::Time(asset.created_unix_ms * 1000));
    if let serde_json::Value::Object(metadata) = &asset.metadata {
        let mut key = METADATA.trim_end_matches('.').to_owned();
        for (name, value) in metadata {
            collect(&mut key, name, value, &mut entries);
        }
    }
    entries.sort_unstable();
    entries.dedup();
    entries
}

fn collect(key: &mut String, name: &str, value: &serde_json::Value, entries: &mut Entries) {
    let parent = key.len();
    key.push('.');
    key.push_str(&nfc(name));
    if key.len() <= MAX_KEY_BYTES && entries.len() < MAX_VALUES_PER_ASSET && !value.is_null() {
        entries.push((key.clone(), None));
        add_values(key, value, entries);
    }
    key.truncate(parent);
}

fn add_values(key: &mut String, value: &serde_json::Value, entries: &mut Entries) {
    match value {
        serde_json::Value::Object(object) => {
            object.iter().for_each(|(name, value)| collect(key, name, value, entries));
        }
        serde_json::Value::Array(list) => {
            for value in list.iter().filter(|value| !value.is_null()) {
                if entries.len() < MAX_VALUES_PER_ASSET {
                    add_values(key, value, entries);
                }
            }
        }
        scalar => {
            if let serde_json::Value::String(text) = scalar {
                entries.extend(time_of(text).map(|time| (key.clone(), Some(Scalar::Time(time)))));
            }
            entries.extend(Scalar::of(scalar).map(|value| (key.clone(), Some(value))));
        }
    }
}

impl Fields {
    pub fn add(&mut self, ordinal: Ordinal, entries: &Entries) {
        for (key, value) in entries {
            let field = match self.0.get_mut(key) {
                Some(field) => field,
                None => self.0.entry(key.clone()).or_default(),
            };
            field.present.insert(ordinal);
            if let Some(value) = value {
                field.insert(value, ordinal);
            }
        }
    }

    pub fn remove(&mut self, ordinal: Ordinal, entries: &Entries) {
        for (key, value) in entries {
            let Some(field) = self.0.get_mut(key) else { continue };
            field.present.remove(ordinal);
            if let Some(value) = value {
                field.remove(value, ordinal);
            }
            if field.present.is_empty() {
                self.0.remove(key);
            }
        }
    }

    /// Assets that match a filter. Conditions on clips count as met; the caller tests the clips.
    pub fn select(&self, filter: &Filter, live: &Bits, assets: usize) -> Bits {
        // An asset with a value exists, so only a filter without a positive condition starts from all assets.
        let mut kept: Option<Bits> = None;
        let mut keep = |met: Bits| match &mut kept {
            Some(kept) => kept.and(&met),
            None => kept = Some(met),
        };
        if !filter.asset_ids.is_empty() {
            let ids = filter.asset_ids.iter().map(|id| Scalar::Text(id.to_string().into()));
            let mut named = Bits::none(assets);
            self.postings("asset_id", ids).for_each(|posting| posting.add_to(&mut named));
            keep(named);
        }
        for condition in filter.must.iter().filter(|condition| !condition.of_clips()) {
            let mut met = Bits::none(assets);
            self.add_met(condition, live, &mut met);
            keep(met);
        }
        if !filter.should.is_empty() && !filter.should.iter().any(Condition::of_clips) {
            let mut any = Bits::none(assets);
            filter.should.iter().for_each(|condition| self.add_met(condition, live, &mut any));
            keep(any);
        }
        let mut kept = kept.unwrap_or_else(|| live.sized(assets));
        for condition in filter.must_not.iter().filter(|condition| !condition.of_clips()) {
            if let Some(values) = names(condition) {
                self.postings(&condition.compared_key(), values)
                    .for_each(|posting| posting.drop_from(&mut kept));
            } else {
                let mut met = Bits::none(assets);
                self.add_met(condition, live, &mut met);
                kept.and_not(&met);
            }
        }
        kept
    }

    /// Adds the assets that meet a condition to a set.
    fn add_met(&self, condition: &Condition, live: &Bits, met: &mut Bits) {
        if let Some(inner) = &condition.filter {
            return met.or(&self.select(inner, live, met.room()));
        }
        if let Some(values) = names(condition) {
            return self.postings(&condition.compared_key(), values).for_each(|posting| posting.add_to(met));
        }
        let field = self.0.get(&*condition.compared_key());
        match condition.exists {
            Some(true) => field.into_iter().for_each(|field| field.present.add_to(met)),
            Some(false) => {
                let mut absent = live.clone();
                field.into_iter().for_each(|field| field.present.drop_from(&mut absent));
                met.or(&absent);
            }
            None => {
                if let (Some(field), Some(Some(bounds))) = (field, condition.bounds()) {
                    field.add_range(&bounds, met);
                }
            }
        }
    }

    /// The posting list of each of these values.
    fn postings(
        &self,
        key: &str,
        values: impl IntoIterator<Item = Scalar>,
    ) -> impl Iterator<Item = &Posting> {
        let field = self.0.get(key);
        values.into_iter().filter_map(move |value| field?.values.get(&value))
    }
}

/// The values that meet a condition; `None` if it does not list its values.
fn names(condition: &Condition) -> Option<Vec<Scalar>> {
    if condition.filter.is_some() || condition.exists.is_some() {
        return None;
    }
    let mut values = condition.named()?;
    if let Some(bounds) = condition.bounds() {
        values.retain(|value| bounds.as_ref().is_some_and(|bounds| lies_within(value, bounds)));
    }
    Some(values)
}
