//! REST API and page.
