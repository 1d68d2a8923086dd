//! Token ids equal those of the reference implementation, for published kinds of tokenizers: see
//! `tests/tokens/make.py`, which made the expected values.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::*;

const COUNT: usize = 5000;
const BLOCK: usize = 100;

#[derive(Deserialize)]
struct Pieces {
    languages: Vec<Vec<String>>,
    marks: Vec<String>,
    odd: Vec<String>,
}

#[derive(Deserialize)]
struct Case {
    spec: serde_json::Value,
    specials: Vec<String>,
    /// Ids and masks of the first texts, for whoever looks for a difference.
    first: Vec<(Vec<i64>, Vec<i64>)>,
    /// SHA-256 of the ids and masks of every 100 texts.
    blocks: Vec<String>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tokens")
}

fn read<T: for<'de> Deserialize<'de>>(name: &str) -> T {
    serde_json::from_slice(&std::fs::read(folder().join(name)).unwrap()).unwrap()
}

/// A linear congruential generator (Knuth's MMIX).
struct Draw(u64);

impl Draw {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    fn of<'a>(&mut self, words: &'a [String]) -> &'a str {
        &words[self.below(words.len())]
    }
}

/// The texts of `make.py`: words of one language or several, emoji, control characters, special tokens, very
/// long ones.
fn texts(pieces: &Pieces, specials: &[String]) -> Vec<String> {
    let mut draw = Draw(15);
    let text = |n: usize| {
        let words = &pieces.languages[n % pieces.languages.len()];
        let mut length = 1 + draw.below(12);
        if n % 50 == 49 {
            length = 60 + draw.below(400);
        }
        let mut text = String::new();
        for _ in 0..length {
            let word = match draw.below(20) {
                0..15 => draw.of(words).to_owned(),
                15 => {
                    let other = &pieces.languages[draw.below(pieces.languages.len())];
                    draw.of(other).to_owned()
                }
                16 => draw.of(&pieces.odd).to_owned(),
                17 => draw.below(1_000_000).to_string(),
                18 if n.is_multiple_of(7) => draw.of(specials).to_owned(),
                _ => draw.of(words).to_uppercase(),
            };
            text += &word;
            text += draw.of(&pieces.marks);
        }
        text
    };
    (0..COUNT).map(text).collect()
}

fn joined(values: &[i64]) -> String {
    values.iter().map(i64::to_string).collect::<Vec<_>>().join(" ")
}

#[test]
fn ids_equal_those_of_the_reference() {
    let (pieces, cases): (Pieces, std::collections::BTreeMap<String, Case>) =
        (read("pieces.json"), read("cases.json"));
    assert!(pieces.languages.len() >= 12 && cases.len() >= 5);
    for (name, case) in cases {
        let spec: TokenSpec = serde_json::from_value({
            let mut spec = case.spec.clone();
            spec.as_object_mut().unwrap().remove("kind");
            spec
        })
        .unwrap();
        let bytes = std::fs::read(folder().join(&spec.tokenizer)).unwrap();
        let tokenizer = TextTokenizer::new(&bytes, &TextSpec::Tokens(spec.clone())).unwrap();
        let texts = texts(&pieces, &case.specials);
        let encoded: Vec<Encoded> =
            texts.iter().map(|text| tokenizer.encode(text, Role::Query).unwrap()).collect();
        for (text, (encoded, (ids, mask))) in texts.iter().zip(encoded.iter().zip(&case.first)) {
            assert_eq!((&*encoded.ids, &*encoded.mask), (&**ids, &**mask), "{name}: {text:?}");
        }
        let longest = encoded.iter().map(|encoded| encoded.ids.len()).max().unwrap();
        assert_eq!(longest, spec.max_tokens, "{name}: some texts are too long and are cut");
        assert_eq!(case.blocks.len(), COUNT / BLOCK);
        for (at, (block, expected)) in encoded.chunks(BLOCK).zip(&case.blocks).enumerate() {
            let lines: Vec<String> =
                block.iter().map(|e| format!("{}|{}", joined(&e.ids), joined(&e.mask))).collect();
            let got = hex::encode(Sha256::digest(lines.join("\n")));
            assert_eq!(got, *expected, "{name}: texts {} to {}", at * BLOCK, (at + 1) * BLOCK - 1);
        }
    }
}

#[test]
fn a_prompt_goes_around_the_text_by_its_role() {
    let spec = |prompts: serde_json::Value| -> TokenSpec {
        serde_json::from_value(serde_json::json!({
            "tokenizer": "gemma.json", "max_tokens": 48, "special_tokens": true, "padding": "none",
            "prompts": prompts}))
        .unwrap()
    };
    let bytes = std::fs::read(folder().join("gemma.json")).unwrap();
    let of = |spec: TokenSpec| TextTokenizer::new(&bytes, &TextSpec::Tokens(spec)).unwrap();
    let plain = of(spec(serde_json::json!({})));
    let prompted = of(spec(serde_json::json!({"query": "query: {text}", "document": "text: {text}."})));
    for (role, said) in [(Role::Query, "query: a dog"), (Role::Document, "text: a dog.")] {
        let expected = plain.encode(said, Role::Query).unwrap();
        assert_eq!(prompted.encode("a dog", role).unwrap().ids, expected.ids);
    }
    // A text that looks like a prompt is a text.
    let odd = prompted.encode("{text}", Role::Query).unwrap();
    assert_eq!(odd.ids, plain.encode("query: {text}", Role::Query).unwrap().ids);
}

#[test]
fn what_the_tokenizer_cannot_do_is_said() {
    let bytes = std::fs::read(folder().join("gemma.json")).unwrap();
    let made = |max_tokens: usize, pad_id: u32| {
        let spec = serde_json::json!({"tokenizer": "gemma.json", "max_tokens": max_tokens, "special_tokens": true,
                                      "padding": "max", "pad_id": pad_id});
        let spec: TokenSpec = serde_json::from_value(spec).unwrap();
        TextTokenizer::new(&bytes, &TextSpec::Tokens(spec)).map(|_| ())
    };
    assert!(made(2, 0).unwrap_err().contains("adds 2 special tokens"));
    assert!(made(8, 1_000_000).unwrap_err().contains("no token has the id 1000000"));
    assert!(made(8, 0).is_ok());
}
