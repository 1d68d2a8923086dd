//! What the server says of itself: its models, health, statistics, documentation and page.

pub mod health;
pub mod models;
pub mod openapi;
pub mod pages;
pub mod stats;
