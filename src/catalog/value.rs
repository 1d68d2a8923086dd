//! Values that filters compare.

use crate::types::nfc;

/// A value that can be compared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scalar {
    /// `true` or `false`.
    Bool(bool),
    /// A number; never NaN or infinite.
    Number(Number),
    /// A date in microseconds since 1970.
    Time(i64),
    /// Text in NFC.
    Text(std::sync::Arc<str>),
}

/// A finite number with a total order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Number(f64);

impl Eq for Number {}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Scalar {
    /// A number. -0 and 0 become the same value.
    #[must_use]
    pub fn number(value: f64) -> Self {
        Self::Number(Number(value + 0.0))
    }

    /// A text in NFC, the form in which texts are compared.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::Text(nfc(text).as_ref().into())
    }

    /// The value of a JSON string, number or boolean for `eq` and `in`; `None` for other types.
    #[must_use]
    pub fn of(value: &serde_json::Value) -> Option<Self> {
        match value {
            serde_json::Value::Bool(value) => Some(Self::Bool(*value)),
            serde_json::Value::Number(value) => value.as_f64().map(Self::number),
            serde_json::Value::String(text) => Some(Self::text(text)),
            _ => None,
        }
    }

    /// The value of a JSON number or date string for `gt`, `gte`, `lt` and `lte`; `None` for anything else.
    #[must_use]
    pub fn ordered(value: &serde_json::Value) -> Option<Self> {
        match value {
            serde_json::Value::Number(value) => value.as_f64().map(Self::number),
            serde_json::Value::String(text) => time_of(text).map(Self::Time),
            _ => None,
        }
    }
}

/// Parses `2026-11-25` or `2026-11-25T01:30:00Z` to microseconds since 1970.
pub(super) fn time_of(text: &str) -> Option<i64> {
    let first = text.as_bytes().first()?;
    if !first.is_ascii_digit() || text.len() < 10 {
        return None;
    }
    if let Ok(instant) = chrono::DateTime::parse_from_rfc3339(text) {
        return Some(instant.timestamp_micros());
    }
    let day = chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    Some(day.and_hms_opt(0, 0, 0)?.and_utc().timestamp_micros())
}

/// Lower and upper end of a range.
pub(super) type Bounds = (std::ops::Bound<Scalar>, std::ops::Bound<Scalar>);

/// Whether a value from `eq` or `in` lies in a range. A text is compared as the date that it represents.
pub(super) fn lies_within(value: &Scalar, bounds: &Bounds) -> bool {
    let ordered = match value {
        Scalar::Text(text) => time_of(text).map(Scalar::Time),
        other => Some(other.clone()),
    };
    ordered.is_some_and(|value| std::ops::RangeBounds::contains(bounds, &value))
}
