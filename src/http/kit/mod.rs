//! What every resource of the API is made with: state, errors, bodies, pages, views. Nothing here knows a resource.

pub mod advice;
pub mod brief;
pub mod client;
pub mod data_uri;
pub mod error;
pub mod etag;
pub mod extract;
pub mod finish;
pub mod form;
pub mod json;
pub mod media_type;
pub mod metadata;
pub mod middleware;
pub mod open;
pub mod page;
pub mod secret;
pub mod spaces;
pub mod state;
pub mod thumbnails;
#[cfg(feature = "otlp")]
pub mod trace;
pub mod views;
pub mod webhook;
