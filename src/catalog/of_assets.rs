//! Filters that select whole assets, for operations on assets rather than searches.

use super::Catalog;
use super::filter::{Condition, Filter, FilterError};
use crate::types::AssetId;

impl Filter {
    /// Refuses an invalid filter, and conditions on clip keys: if only some clips of an asset pass, it is
    /// undefined whether the asset passes.
    ///
    /// # Errors
    /// [`FilterError`].
    pub fn check_of_assets(&self) -> Result<(), FilterError> {
        self.check()?;
        self.refuse_clip_keys("")
    }

    fn refuse_clip_keys(&self, at: &str) -> Result<(), FilterError> {
        for (name, list) in [("must", &self.must), ("should", &self.should), ("must_not", &self.must_not)] {
            for (n, condition) in list.iter().enumerate() {
                let at = format!("{at}{name}[{n}]");
                if let Some(inner) = &condition.filter {
                    inner.refuse_clip_keys(&format!("{at}.filter."))?;
                } else if condition.of_clips() {
                    let key = condition.key.as_deref().unwrap_or_default();
                    let message =
                        format!("`{key}` differs from clip to clip; only keys of assets can be used here");
                    return Err(FilterError { at: format!("{at}.key"), message });
                }
            }
        }
        Ok(())
    }

    /// Whether the filter lets everything through because it and its nested filters have no conditions.
    #[must_use]
    pub fn asks_nothing(&self) -> bool {
        let empty =
            |condition: &Condition| condition.filter.as_ref().is_some_and(|inner| inner.asks_nothing());
        self.asset_ids.is_empty()
            && self.must_not.is_empty()
            && self.must.iter().all(empty)
            && (self.should.is_empty() || self.should.iter().any(empty))
    }
}

impl Catalog {
    /// The assets that pass a filter, in the order in which they were added. Conditions on clips count as
    /// met.
    #[must_use]
    pub fn select_assets(&self, filter: &Filter) -> Vec<AssetId> {
        self.read(|state| {
            let kept = state.fields.select(filter, &state.live, state.assets.len());
            kept.iter().filter_map(|ordinal| state.asset(ordinal)).map(|asset| asset.id).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    fn filter(json: serde_json::Value) -> Filter {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn keys_of_clips_choose_no_assets() {
        for (given, at) in [
            (json!({"must": [{"key": "start_secs", "gte": 1}]}), "must[0].key"),
            (
                json!({"should": [{"key": "name", "eq": "a"}, {"key": "agreement", "exists": true}]}),
                "should[1].key",
            ),
            (
                json!({"must": [{"filter": {"must_not": [{"key": "end_secs", "lt": 4}]}}]}),
                "must[0].filter.must_not[0].key",
            ),
            (json!({"must": [{"key": "size", "eq": 1}]}), "must[0].key"),
        ] {
            assert_eq!(filter(given.clone()).check_of_assets().unwrap_err().at, at, "{given}");
        }
        assert_eq!(filter(json!({"must": [{"key": "kind", "eq": "audio"}]})).check_of_assets(), Ok(()));
    }

    #[test]
    fn a_filter_of_empty_filters_asks_nothing() {
        for given in [
            json!({}),
            json!({"must": [{"filter": {}}, {"filter": {"must": [{"filter": {}}]}}]}),
            json!({"should": [{"key": "name", "eq": "a"}, {"filter": {}}]}),
        ] {
            assert!(filter(given.clone()).asks_nothing(), "{given}");
        }
        for given in [
            json!({"must": [{"key": "name", "eq": "a"}]}),
            json!({"must_not": [{"filter": {}}]}),
            json!({"should": [{"key": "name", "eq": "a"}]}),
            json!({"asset_ids": ["ast_00000000000000000000000000000001"]}),
        ] {
            assert!(!filter(given.clone()).asks_nothing(), "{given}");
        }
    }
}
