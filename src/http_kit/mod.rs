//! Tools for every resource of the API: errors with advice, JSON, pages, views. Nothing here depends on a
//! request in progress, or on a resource.

pub mod advice;
pub mod brief;
pub mod data_uri;
pub mod error;
pub mod etag;
pub mod finish;
pub mod json;
pub mod media_type;
pub mod metadata;
pub mod page;
pub mod secret;
mod status;
pub mod thumbnails;
pub mod views;
pub mod webhook;
