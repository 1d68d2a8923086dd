//! How much of a text a word list understands.
//!
//! What counts are the words that carry meaning, each once. Function words ("a", "of", "der") say little about
//! what is searched for, so it does not matter whether a list knows them.

use std::collections::HashSet;

/// Language of a word list that names none: published lists are English.
const DEFAULT: &str = "en";

/// The function words of these languages, in lower case.
pub(super) fn function_words(languages: &[String]) -> HashSet<&'static str> {
    let of = |language: &str| stop_words::lookup(language).unwrap_or_default().iter().copied();
    if languages.is_empty() {
        return of(DEFAULT).collect();
    }
    // "en-GB" is "en" with a region.
    languages.iter().flat_map(|tag| of(tag.split(['-', '_']).next().unwrap_or(tag))).collect()
}

/// Whether a word says something about what is searched for.
pub(super) fn is_meaningful(word: &str, function_words: &HashSet<&'static str>) -> bool {
    !function_words.contains(bare(word).as_str())
}

fn bare(word: &str) -> String {
    word.trim_matches('\'').to_lowercase()
}

/// Share of the words with a meaning that are known, from 0 to 1; 1 if no word with a meaning is left out.
pub(super) fn understood<'a>(
    known: impl Iterator<Item = &'a str>,
    ignored: impl Iterator<Item = &'a str>,
    function_words: &HashSet<&'static str>,
) -> f32 {
    let meaningful = |words: &mut dyn Iterator<Item = &'a str>| {
        let words = words.filter(|word| is_meaningful(word, function_words));
        words.map(bare).collect::<HashSet<String>>()
    };
    let (mut known, mut ignored) = (known, ignored);
    let ignored = meaningful(&mut ignored).len();
    if ignored == 0 {
        return 1.0;
    }
    let known = meaningful(&mut known).len();
    known as f32 / (known + ignored) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(known: &str, ignored: &str, languages: &[&str]) -> f32 {
        let languages: Vec<String> = languages.iter().map(|one| (*one).to_owned()).collect();
        let function_words = function_words(&languages);
        understood(known.split_whitespace(), ignored.split_whitespace(), &function_words)
    }

    #[test]
    fn only_words_with_a_meaning_count_and_each_once() {
        assert_eq!(share("red", "dog", &[]), 0.5);
        assert_eq!(share("red", "a dog", &[]), 0.5);
        assert_eq!(share("red circle", "A the of with", &[]), 1.0);
        assert_eq!(share("red circle red", "zebra Zebra", &[]), 2.0 / 3.0);
        // Of "the dog", the list knows "the".
        assert_eq!(share("the", "dog", &[]), 0.0);
        assert_eq!(share("the", "", &[]), 1.0);
    }

    #[test]
    fn function_words_are_those_of_the_model_s_languages() {
        assert_eq!(share("rot", "der hund", &["de"]), 0.5);
        assert_eq!(share("rot", "der hund", &["de-AT"]), 0.5);
        assert_eq!(share("rot", "der hund", &["en"]), 1.0 / 3.0);
        assert_eq!(share("rouge", "le chien", &["fr", "de"]), 0.5);
        // A language without a list has no function words.
        assert_eq!(share("red", "a dog", &["tlh"]), 1.0 / 3.0);
    }
}
