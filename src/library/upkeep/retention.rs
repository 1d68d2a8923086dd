//! Retention rules, which delete assets once they are old enough.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Upkeep;
use crate::catalog::{Condition, Filter};
use crate::collection::LibraryError;
use crate::ingest::Deletion;
use crate::ledger::WorkKind;
use crate::store::{RetentionRule, RetentionRun};
use crate::types::{AssetId, now_unix_ms, rfc3339_millis};

/// Wait before an interrupted run is resumed.
const RESUME_AFTER: Duration = Duration::from_secs(1);

/// Maximum number of rules.
const MAX_RULES: usize = 100;
/// Longest name of a rule, in characters.
const MAX_NAME_CHARS: usize = 100;
/// Greatest age that a rule may name: a thousand years.
const MAX_AGE_SECS: u64 = 1000 * 365 * 86_400;
/// Value of `by` for an age counted from when the asset was added.
const BY_CREATED: &str = "created";
/// Prefix of metadata keys in `by`.
const METADATA: &str = "metadata.";

/// A retention rule: assets that match the filter are deleted once they are older than the given age.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Unique name of the rule.
    #[schema(example = "dashcam")]
    pub name: String,
    /// Filter as in a search, but without the keys of clips; empty means all assets.
    #[serde(default)]
    pub filter: Filter,
    /// Maximum age in seconds; at least 1.
    #[schema(minimum = 1, maximum = 31536000000i64)]
    pub older_than_secs: u64,
    /// Start of the age: `created` (when the asset was added; the default), or a metadata key, `metadata.…`, with an
    /// RFC 3339 date. Assets without such a date are kept.
    #[serde(default = "by_created")]
    pub by: String,
}

fn by_created() -> String {
    BY_CREATED.to_owned()
}

impl Rule {
    fn check(&self, n: usize) -> Result<(), LibraryError> {
        let wrong = |field: &str, message: String| {
            Err(LibraryError::BadField { at: format!("rules[{n}].{field}"), message })
        };
        let chars = self.name.chars().count();
        if chars == 0 || chars > MAX_NAME_CHARS || self.name.chars().any(char::is_control) {
            return wrong("name", format!("`name` must be 1 to {MAX_NAME_CHARS} characters"));
        }
        if self.older_than_secs == 0 || self.older_than_secs > MAX_AGE_SECS {
            return wrong("older_than_secs", format!("`older_than_secs` must be from 1 to {MAX_AGE_SECS}"));
        }
        if self.by != BY_CREATED && self.by.strip_prefix(METADATA).is_none_or(str::is_empty) {
            return wrong("by", "`by` must be `created` or metadata.…".to_owned());
        }
        match self.filter.check_of_assets() {
            Ok(()) => Ok(()),
            Err(error) => wrong(&format!("filter.{}", error.at), error.message),
        }
    }

    /// The filter for the assets that the rule deletes at this moment.
    fn filter_at(&self, now_unix_ms: i64) -> Filter {
        let age_ms = i64::try_from(self.older_than_secs).unwrap_or(i64::MAX).saturating_mul(1000);
        let before = rfc3339_millis(now_unix_ms.saturating_sub(age_ms));
        let key = if self.by == BY_CREATED { "created_at" } else { self.by.as_str() };
        let old = Condition {
            key: Some(key.to_owned()),
            lt: Some(serde_json::Value::String(before)),
            ..Condition::default()
        };
        let chosen = Condition { filter: Some(Box::new(self.filter.clone())), ..Condition::default() };
        Filter { must: vec![chosen, old], ..Filter::default() }
    }

    fn stored(&self) -> RetentionRule {
        RetentionRule {
            name: self.name.clone(),
            filter: serde_json::json!(self.filter),
            older_than_secs: self.older_than_secs,
            by: self.by.clone(),
        }
    }

    fn of(stored: RetentionRule) -> Result<Self, LibraryError> {
        // Never skip one: a filter that is read wrongly would delete what it was meant to spare.
        let filter = serde_json::from_value(stored.filter).map_err(|error| LibraryError::BadField {
            at: stored.name.clone(),
            message: format!("cannot read the stored rule `{}`: {error}", stored.name),
        })?;
        Ok(Self { name: stored.name, filter, older_than_secs: stored.older_than_secs, by: stored.by })
    }
}

/// Number of assets that a rule deleted or would delete.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct RuleCount {
    /// The rule.
    pub name: String,
    /// Number of assets; an asset that matches several rules counts for the first.
    pub assets: u64,
    /// Their clips.
    pub clips: u64,
}

/// What applying the rules deleted or would delete.
#[derive(Debug, Clone, Default)]
pub struct RetentionReport {
    /// Counts per rule, in the order of the rules.
    pub rules: Vec<RuleCount>,
    /// The assets.
    pub assets: Vec<AssetId>,
    /// Number of their clips.
    pub clips: u64,
}

impl Upkeep {
    /// The rules in force.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn retention(&self) -> Result<Vec<Rule>, LibraryError> {
        self.collection.store.retention_rules().await?.into_iter().map(Rule::of).collect()
    }

    /// Replaces all rules; the new ones are durable when this returns.
    ///
    /// # Errors
    /// [`LibraryError::BadField`] and others.
    pub async fn set_retention(&self, rules: &[Rule]) -> Result<(), LibraryError> {
        if rules.len() > MAX_RULES {
            let message = format!("expected at most {MAX_RULES} rules");
            return Err(LibraryError::BadField { at: "rules".to_owned(), message });
        }
        for (n, rule) in rules.iter().enumerate() {
            rule.check(n)?;
            if rules.iter().take(n).any(|other| other.name == rule.name) {
                let message =
                    format!("expected different names, but several rules are named `{}`", rule.name);
                return Err(LibraryError::BadField { at: format!("rules[{n}].name"), message });
            }
        }
        // The rules must not change while they are applied.
        let _turn = self.retention_turn.lock().await;
        let stored: Vec<_> = rules.iter().map(Rule::stored).collect();
        self.collection.store.set_retention_rules(&stored).await?;
        self.collection.note_work(WorkKind::RetentionRules, "", !rules.is_empty()).await?;
        tracing::info!(rules = rules.len(), "set the retention rules");
        Ok(())
    }

    /// The last runs that deleted something, newest first.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn retention_runs(&self, limit: u32) -> Result<Vec<RetentionRun>, LibraryError> {
        Ok(self.collection.store.retention_runs(limit).await?)
    }

    /// Counts of assets that the rules would delete now.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn retention_due(&self) -> Result<RetentionReport, LibraryError> {
        let mut report = RetentionReport::default();
        let mut seen = std::collections::HashSet::new();
        let now = now_unix_ms();
        for rule in self.retention().await? {
            let mut ids = self.collection.searched.catalog.select_assets(&rule.filter_at(now));
            ids.retain(|id| seen.insert(*id));
            let clips = self.ingest.clips_among(&ids);
            report.clips += clips;
            report.rules.push(RuleCount { name: rule.name, assets: ids.len() as u64, clips });
            report.assets.extend(ids);
        }
        Ok(report)
    }

    /// Deletes what the rules select now, in short transactions. An interrupted run leaves the rest to the
    /// next one.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn apply_retention(&self) -> Result<RetentionReport, LibraryError> {
        let _turn = self.retention_turn.lock().await;
        let mut report = RetentionReport::default();
        let mut run = None;
        let now = now_unix_ms();
        for rule in self.retention().await? {
            let ids = self.collection.searched.catalog.select_assets(&rule.filter_at(now));
            let mut count = RuleCount { name: rule.name, assets: 0, clips: 0 };
            if !ids.is_empty() {
                let run = match &mut run {
                    Some(run) => run,
                    none => none.insert(self.collection.store.begin_retention_run().await?),
                };
                self.apply_rule(&ids, &mut count, &mut report, run).await?;
            }
            report.rules.push(count);
        }
        if let Some(mut run) = run {
            run.ended_unix_ms = now_unix_ms();
            self.collection.store.note_retention_run(&run).await?;
            let (assets, clips) = (run.assets, run.clips);
            tracing::info!(assets, clips, by_rule = %run.by_rule, "applied the retention rules");
        }
        Ok(report)
    }

    async fn apply_rule(
        &self,
        ids: &[AssetId],
        count: &mut RuleCount,
        report: &mut RetentionReport,
        run: &mut RetentionRun,
    ) -> Result<(), LibraryError> {
        for batch in self.ingest.batches(ids) {
            if self.collection.life.stop.is_cancelled() {
                return Err(LibraryError::Stopping);
            }
            let mut deletion = Deletion::default();
            self.ingest.delete_batch(batch, &mut deletion).await?;
            let assets = deletion.assets.len() as u64;
            count.assets += assets;
            count.clips += deletion.clips;
            run.assets += assets;
            run.clips += deletion.clips;
            report.clips += deletion.clips;
            report.assets.extend(deletion.assets);
            if let Some(by_rule) = run.by_rule.as_object_mut() {
                by_rule.insert(count.name.clone(), count.assets.into());
            }
            self.collection.store.note_retention_run(run).await?;
        }
        Ok(())
    }
}

/// Applies the rules while the library is open. Resumes a run that a crash interrupted at once.
pub(super) async fn keep_up(upkeep: Arc<Upkeep>) {
    let Some(every) = upkeep.collection.data.config.keep.retention_every else { return };
    let last = upkeep.collection.store.retention_runs(1).await.unwrap_or_default();
    let cut_off = last.first().is_some_and(|run| run.ended_unix_ms == 0);
    let mut wait = if cut_off { RESUME_AFTER } else { every };
    loop {
        tokio::select! {
            () = upkeep.collection.life.stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        wait = every;
        if !upkeep.collection.data.disk.writable(&upkeep.collection.life.stop).await {
            return;
        }
        match upkeep.apply_retention().await {
            Ok(_) | Err(LibraryError::Stopping) => {}
            // Interrupted: resume once there is room.
            Err(error) if upkeep.collection.data.disk.refuses(&error) => wait = RESUME_AFTER,
            Err(error) => {
                tracing::error!(code = error.code(), %error, "could not apply the retention rules");
            }
        }
    }
}
