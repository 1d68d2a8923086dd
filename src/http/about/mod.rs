//! The server about itself: models, health, statistics, documentation and web page.

pub mod health;
pub mod models;
pub mod openapi;
pub mod pages;
pub mod stats;
