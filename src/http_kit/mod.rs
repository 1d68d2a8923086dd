//! What every resource of the API is made with: errors and what to do about them, JSON, pages, views. Nothing here knows
//! a request on its way, or a resource.

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
