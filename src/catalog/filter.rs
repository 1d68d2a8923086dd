//! The filter language of the API: conditions, their checks, and how values are compared.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::value::{Bounds, Scalar, lies_within};
use crate::types::{AssetId, nfc};

/// Most conditions of one filter, nested ones included.
const MAX_CONDITIONS: usize = 1000;
/// Most values of one list.
const MAX_VALUES: usize = 10_000;

/// Keys that do not come from the user's metadata, and whether their value differs between the clips of an
/// asset.
const OWN_KEYS: &[(&str, bool)] = &[
    ("asset_id", false),
    ("name", false),
    ("kind", false),
    ("duration_secs", false),
    ("created_at", false),
    ("start_secs", true),
    ("end_secs", true),
    ("agreement", true),
];

/// Prefix of the keys of an asset's metadata.
pub(super) const METADATA: &str = "metadata.";

/// Which clips to search: those that match all of `must`, none of `must_not` and, if given, at least one of `should`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Conditions that must all hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub must: Vec<Condition>,
    /// Conditions of which at least one must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub should: Vec<Condition>,
    /// Conditions of which none may hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub must_not: Vec<Condition>,
    /// Ids of the only assets to search; empty means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asset_ids: Vec<AssetId>,
}

/// A test of one key, or a nested filter. If a key has several values (a list in the metadata), a single value must
/// pass all tests.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// `metadata.…` (a path into the asset's metadata, parts joined by dots), `asset_id`, `name`, `kind`,
    /// `duration_secs`, `created_at`, `start_secs`, `end_secs` or `agreement`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "metadata.camera")]
    pub key: Option<String>,
    /// The value equals this string, number or boolean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<FilterValue>)]
    pub eq: Option<serde_json::Value>,
    /// The value equals one of these; at most 10,000 values.
    #[serde(default, rename = "in", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<FilterValue>>)]
    pub one_of: Option<Vec<serde_json::Value>>,
    /// The value is greater than this number, or later than this date (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<FilterBound>)]
    pub gt: Option<serde_json::Value>,
    /// The value is at least this number, or not before this date (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<FilterBound>)]
    pub gte: Option<serde_json::Value>,
    /// The value is less than this number, or before this date (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<FilterBound>)]
    pub lt: Option<serde_json::Value>,
    /// The value is at most this number, or not after this date (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<FilterBound>)]
    pub lte: Option<serde_json::Value>,
    /// Whether the key exists with a value other than null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exists: Option<bool>,
    /// A nested filter, instead of a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(no_recursion)]
    pub filter: Option<Box<Filter>>,
}

/// Value to compare with: a string, a number or a boolean.
#[derive(Debug, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "documents what is read as any JSON, so that an error can name its place")]
pub enum FilterValue {
    /// A string; also an id or a date in the exact same form.
    Text(String),
    /// A number.
    Number(f64),
    /// A boolean.
    Bool(bool),
}

/// A bound: a number or a date (RFC 3339).
#[derive(Debug, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "documents what is read as any JSON, so that an error can name its place")]
pub enum FilterBound {
    /// A date such as `2026-11-25T08:00:00Z`.
    #[schema(example = "2026-11-25T08:00:00Z")]
    Date(String),
    /// A number.
    Number(f64),
}

/// Why a filter is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FilterError {
    /// Path to the invalid part, such as `must[0].eq`.
    pub at: String,
    /// Human-readable message.
    pub message: String,
}

impl Filter {
    /// Whether the filter has no condition.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.must.is_empty()
            && self.should.is_empty()
            && self.must_not.is_empty()
            && self.asset_ids.is_empty()
    }

    /// Refuses an invalid filter.
    ///
    /// # Errors
    /// [`FilterError`].
    pub fn check(&self) -> Result<(), FilterError> {
        let mut conditions = 0;
        self.check_at("", &mut conditions)
    }

    fn check_at(&self, at: &str, conditions: &mut usize) -> Result<(), FilterError> {
        if self.asset_ids.len() > MAX_VALUES {
            let message = format!("expected at most {MAX_VALUES} assets");
            return Err(FilterError { at: format!("{at}asset_ids"), message });
        }
        for (name, list) in [("must", &self.must), ("should", &self.should), ("must_not", &self.must_not)] {
            for (n, condition) in list.iter().enumerate() {
                *conditions += 1;
                let at = format!("{at}{name}[{n}]");
                if *conditions > MAX_CONDITIONS {
                    let message = format!("expected at most {MAX_CONDITIONS} conditions");
                    return Err(FilterError { at, message });
                }
                condition.check_at(&at, conditions)?;
            }
        }
        Ok(())
    }

    /// Whether a condition tests something that differs between the clips of an asset.
    #[must_use]
    pub fn of_clips(&self) -> bool {
        [&self.must, &self.should, &self.must_not].into_iter().flatten().any(Condition::of_clips)
    }
}

impl Condition {
    fn check_at(&self, at: &str, conditions: &mut usize) -> Result<(), FilterError> {
        let wrong = |field: &str, message: String| {
            let at = if field.is_empty() { at.to_owned() } else { format!("{at}.{field}") };
            Err(FilterError { at, message })
        };
        let ranges = [("gt", &self.gt), ("gte", &self.gte), ("lt", &self.lt), ("lte", &self.lte)];
        let ranged = ranges.iter().any(|(_, value)| value.is_some());
        let tests = usize::from(ranged || self.eq.is_some() || self.one_of.is_some())
            + usize::from(self.exists.is_some());
        if let Some(inner) = &self.filter {
            if self.key.is_some() || tests > 0 {
                return wrong(
                    "filter",
                    "a condition with `filter` cannot have a `key` or tests as well".into(),
                );
            }
            return inner.check_at(&format!("{at}.filter."), conditions);
        }
        let Some(key) = &self.key else {
            return wrong("", "a condition needs a `key` or a `filter`".into());
        };
        let own = OWN_KEYS.iter().any(|(own, _)| own == key);
        if !own && key.strip_prefix(METADATA).is_none_or(str::is_empty) {
            let known: Vec<&str> = OWN_KEYS.iter().map(|(own, _)| *own).collect();
            return wrong("key", format!("`key` must be metadata.… or one of: {}", known.join(", ")));
        }
        if tests != 1 {
            return wrong(
                "",
                "a condition needs at least one of eq, in, gt, gte, lt and lte, or `exists` alone".into(),
            );
        }
        for (name, value) in ranges {
            if value.as_ref().is_some_and(|value| Scalar::ordered(value).is_none()) {
                return wrong(
                    name,
                    format!("`{name}` must be a number or a date such as 2026-11-25T08:00:00Z"),
                );
            }
        }
        if self.eq.as_ref().is_some_and(|value| Scalar::of(value).is_none()) {
            return wrong("eq", "`eq` must be a string, a number or a boolean".into());
        }
        if let Some(values) = &self.one_of {
            if values.len() > MAX_VALUES {
                return wrong("in", format!("`in` must contain at most {MAX_VALUES} values"));
            }
            if values.iter().any(|value| Scalar::of(value).is_none()) {
                return wrong("in", "`in` must contain only strings, numbers or booleans".into());
            }
        }
        Ok(())
    }

    /// The key in NFC, the form in which keys are compared.
    pub(super) fn compared_key(&self) -> Cow<'_, str> {
        nfc(self.key.as_deref().unwrap_or_default())
    }

    pub(super) fn of_clips(&self) -> bool {
        let clips = |key: &String| OWN_KEYS.iter().any(|(own, of_clips)| *of_clips && own == key);
        self.key.as_ref().is_some_and(clips) || self.filter.as_ref().is_some_and(|inner| inner.of_clips())
    }

    /// The values that `eq` and `in` list; `None` if neither is given.
    pub(super) fn named(&self) -> Option<Vec<Scalar>> {
        let eq = self.eq.as_ref().map(|value| Scalar::of(value).into_iter().collect::<Vec<_>>());
        let one_of: Option<Vec<Scalar>> =
            self.one_of.as_ref().map(|values| values.iter().filter_map(Scalar::of).collect());
        match (eq, one_of) {
            (Some(eq), Some(one_of)) => Some(eq.into_iter().filter(|value| one_of.contains(value)).collect()),
            (eq, one_of) => eq.or(one_of),
        }
    }

    /// Whether one value meets those of `eq`, `in` and the range that are given.
    pub(super) fn admits(&self, value: &Scalar) -> bool {
        let within = |bounds: Option<Bounds>| {
            bounds.is_some_and(|bounds| std::ops::RangeBounds::contains(&bounds, value))
        };
        match (self.named(), self.bounds()) {
            (Some(names), None) => names.contains(value),
            (None, Some(bounds)) => within(bounds),
            // A date is listed as text but ordered as a date.
            (Some(names), Some(Some(bounds))) => names.contains(value) && lies_within(value, &bounds),
            _ => false,
        }
    }

    /// The range that `gt`, `gte`, `lt` and `lte` describe; `None` without any of them. A mix of numbers and
    /// dates, or a lower bound above the upper one, is `Some(None)`: it contains no value.
    pub(super) fn bounds(&self) -> Option<Option<Bounds>> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let of = |value: &Option<serde_json::Value>| value.as_ref().and_then(Scalar::ordered);
        let (gt, gte, lt, lte) = (of(&self.gt), of(&self.gte), of(&self.lt), of(&self.lte));
        let dates = [&gt, &gte, &lt, &lte].map(|v| v.as_ref().map(|v| matches!(v, Scalar::Time(_))));
        let date = dates.iter().flatten().next().copied()?;
        if dates.iter().flatten().any(|other| *other != date) {
            return Some(None);
        }
        // Close the open end within the kind, so that values of the other kind are outside.
        let (least, most) = if date {
            (Scalar::Time(i64::MIN), Scalar::Time(i64::MAX))
        } else {
            (Scalar::number(f64::NEG_INFINITY), Scalar::number(f64::INFINITY))
        };
        let low = match (gt, gte) {
            (Some(gt), Some(gte)) => {
                if gt >= gte {
                    Excluded(gt)
                } else {
                    Included(gte)
                }
            }
            (Some(gt), None) => Excluded(gt),
            (None, gte) => gte.map_or(Included(least), Included),
        };
        let high = match (lt, lte) {
            (Some(lt), Some(lte)) => {
                if lt <= lte {
                    Excluded(lt)
                } else {
                    Included(lte)
                }
            }
            (Some(lt), None) => Excluded(lt),
            (None, lte) => lte.map_or(Included(most), Included),
        };
        let value = |bound: &std::ops::Bound<Scalar>| match bound {
            Included(value) | Excluded(value) => Some(value.clone()),
            Unbounded => None,
        };
        let both_excluded = matches!((&low, &high), (Excluded(_), Excluded(_)));
        match (value(&low), value(&high)) {
            // `BTreeMap::range` panics on these bounds.
            (Some(a), Some(b)) if a > b || (a == b && both_excluded) => Some(None),
            _ => Some(Some((low, high))),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;
    use crate::catalog::value::time_of;

    fn refused(filter: serde_json::Value) -> Option<String> {
        serde_json::from_value::<Filter>(filter).unwrap().check().err().map(|error| error.at)
    }

    #[test]
    fn what_means_nothing_is_refused_by_its_place() {
        for (filter, at) in [
            (json!({"must": [{"eq": 1}]}), "must[0]"),
            (json!({"must": [{"key": "name"}]}), "must[0]"),
            (json!({"must": [{"key": "name", "eq": null}]}), "must[0]"),
            (json!({"must": [{"key": "name", "eq": "a", "exists": true}]}), "must[0]"),
            (json!({"should": [{"key": "name", "eq": "a"}, {"key": "metadata.", "eq": 1}]}), "should[1].key"),
            (json!({"must_not": [{"key": "size", "eq": 1}]}), "must_not[0].key"),
            (json!({"must": [{"key": "name", "eq": ["a"]}]}), "must[0].eq"),
            (json!({"must": [{"key": "name", "in": [{}]}]}), "must[0].in"),
            (json!({"must": [{"key": "name", "gte": "noon"}]}), "must[0].gte"),
            (json!({"must": [{"key": "name", "lt": true}]}), "must[0].lt"),
            (
                json!({"must": [{"filter": {"should": [{"key": "x", "eq": 1}]}}]}),
                "must[0].filter.should[0].key",
            ),
            (json!({"must": [{"key": "name", "filter": {}}]}), "must[0].filter"),
        ] {
            assert_eq!(refused(filter.clone()).as_deref(), Some(at), "{filter}");
        }
        for fine in [
            json!({}),
            json!({"must": [{"filter": {}}]}),
            json!({"must": [{"key": "metadata.a.b", "gte": 1, "lt": 5.5}]}),
            json!({"must": [{"key": "created_at", "gte": "2026-11-25", "lt": "2026-11-25T08:00:00+02:00"}]}),
            json!({"must_not": [{"key": "metadata.x", "exists": false}]}),
        ] {
            assert_eq!(refused(fine.clone()), None, "{fine}");
        }
        let many: Vec<_> = (0..=MAX_CONDITIONS).map(|_| json!({"key": "name", "eq": 1})).collect();
        assert_eq!(refused(json!({"must": many})).as_deref(), Some("must[1000]"));
    }

    #[test]
    fn dates_are_instants() {
        assert_eq!(time_of("1970-01-02"), Some(86_400_000_000));
        assert_eq!(time_of("1970-01-01T02:00:00+02:00"), Some(0));
        for text in ["noon", "2026", "2026-13-01", "", "12345678901", "2026-11-25 08:00"] {
            assert_eq!(time_of(text), None, "{text}");
        }
    }
}
