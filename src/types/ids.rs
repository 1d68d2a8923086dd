//! Identifiers, each with the prefix of its kind.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::TypeError;

macro_rules! uuid_id {
    ($name:ident, $prefix:literal, $what:literal, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Uuid);

        impl $name {
            /// Generates a new, time-ordered identifier (UUID version 7).
            #[must_use]
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0.simple())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = TypeError;
            fn from_str(text: &str) -> Result<Self, TypeError> {
                text.strip_prefix($prefix)
                    .filter(|rest| rest.len() == 32)
                    .and_then(|rest| Uuid::try_parse(rest).ok())
                    .map(Self)
                    .ok_or_else(|| TypeError::BadId(super::quoted(text), $what))
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .pattern(Some(concat!("^", $prefix, "[0-9a-f]{32}$")))
                    .description(Some($doc))
                    .into()
            }
        }

        impl ToSchema for $name {}

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

uuid_id!(AssetId, "ast_", "asset", "One video, sound or picture file in the library, as `ast_<32 hex>`.");
uuid_id!(JobId, "job_", "job", "One durable batch job, as `job_<32 hex>`.");
uuid_id!(StandingId, "stq_", "standing query", "One standing query, as `stq_<32 hex>`.");
uuid_id!(MatchId, "mat_", "match", "One match of a standing query, as `mat_<32 hex>`.");
uuid_id!(DeliveryId, "msg_", "delivery", "One delivery to a webhook, as `msg_<32 hex>`.");
uuid_id!(SnapshotId, "snp_", "snapshot", "One backup of a library, as `snp_<32 hex>`.");

uuid_id!(KeyId, "key_", "key", "One API key, as `key_<32 hex>`: its id, not the key itself.");
uuid_id!(WatchId, "wch_", "watch", "One watched folder, as `wch_<32 hex>`.");
