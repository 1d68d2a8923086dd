//! Which files of a folder or bucket are selected, by their names.

use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::types::nfc;

/// Selects files by globs over their paths relative to the folder. `*` stays within a name, `**` crosses
/// folders; a pattern without `/` applies in every folder. Case does not matter.
#[derive(Debug, Clone, Default)]
pub struct NameFilter {
    include: Option<GlobSet>,
    exclude: GlobSet,
}

impl NameFilter {
    /// A filter; without `include`, everything that `exclude` does not match is selected.
    ///
    /// # Errors
    /// A message that names the invalid pattern.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, String> {
        let include = if include.is_empty() { None } else { Some(globs(include)?) };
        Ok(Self { include, exclude: globs(exclude)? })
    }

    /// Whether a file or object is selected, by its path relative to the folder.
    #[must_use]
    pub fn wants(&self, relative: &Path) -> bool {
        let composed = relative.to_str().map(nfc);
        let relative = composed.as_deref().map_or(relative, Path::new);
        self.include.as_ref().is_none_or(|include| include.is_match(relative))
            && !self.exclude.is_match(relative)
    }
}

fn globs(patterns: &[String]) -> Result<GlobSet, String> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let anywhere = if pattern.contains('/') { pattern.clone() } else { format!("**/{pattern}") };
        let glob = GlobBuilder::new(&nfc(&anywhere)).literal_separator(true).case_insensitive(true).build();
        set.add(glob.map_err(|error| format!("`{pattern}`: {}", error.kind()))?);
    }
    set.build().map_err(|error| error.to_string())
}
