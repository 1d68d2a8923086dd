//! Enforces the structure of ARCHITECTURE.md: a layer imports only layers before it, no files import each
//! other in a circle, the decode child imports nothing of the server, and folders stay small.

#![allow(clippy::unwrap_used, clippy::panic)]

mod rules;
mod source;

use std::fs;
use std::path::{Path, PathBuf};

use self::rules::{between_resources, circles, leaks_of_the_child, upward};
use self::source::Crate;

/// Lines that a folder of `src/` may have, with the folders in it.
const MOST_LINES: usize = 5_000;
/// The layers up to the library. They must not mention URLs and flags, which belong to HTTP and the command
/// line.
const LIBRARY: &[&str] = &["outbound", "webhooks", "backup", "collection", "ingest", "standing", "library"];
/// What the library is made with.
const BELOW: &[&str] = &[
    "structure",
    "formats",
    "ffmpeg",
    "decode_child",
    "media",
    "preprocess",
    "manifest",
    "model",
    "embed",
    "ledger",
    "store",
    "sqlite",
    "files",
    "catalog",
    "codes",
    "index",
    "search",
    "jobs",
];
/// How clients and users reach the library.
const DOORS: &[&str] = &["connections", "http_kit", "http_intake", "http", "cli"];

fn rust_files(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

fn sources() -> Vec<(PathBuf, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    let relative = |file: &PathBuf| file.strip_prefix(&src).unwrap().to_owned();
    files.iter().map(|file| (relative(file), fs::read_to_string(file).unwrap())).collect()
}

fn whole() -> Crate {
    Crate::new(sources())
}

#[test]
fn imports_go_one_way() {
    let found = upward(&whole());
    assert!(found.is_empty(), "imports against the direction:\n{}", found.join("\n"));
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let found = circles(&whole());
    assert!(found.is_empty(), "{} circles:\n{}", found.len(), found.join("\n\n"));
}

#[test]
fn the_decode_child_knows_nothing_of_the_server() {
    let found = leaks_of_the_child(&whole());
    assert!(found.is_empty(), "imports of the server's side in the decode child:\n{}", found.join("\n"));
}

#[test]
fn resources_of_http_know_nothing_of_each_other() {
    let found = between_resources(&whole());
    assert!(found.is_empty(), "imports between the folders of src/http:\n{}", found.join("\n"));
}

#[test]
fn folders_stay_small() {
    let mut lines = std::collections::BTreeMap::<String, usize>::new();
    for (path, text) in sources() {
        if path.components().count() > 1 {
            let folder = path.iter().next().unwrap().to_string_lossy().into_owned();
            *lines.entry(folder).or_default() += text.lines().count();
        }
    }
    lines.retain(|_, lines| *lines > MOST_LINES);
    assert!(lines.is_empty(), "folders of more than {MOST_LINES} lines: {lines:?}");
}

/// Lines of code outside tests, in these folders, that hold something.
fn lines_with(folders: &[&str], holds: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in sources() {
        let is_in = path.iter().next().is_some_and(|top| folders.iter().any(|folder| top == *folder));
        let is_for_tests = path.file_stem().is_some_and(|name| name.to_string_lossy().ends_with("tests"));
        if !is_in || is_for_tests {
            continue;
        }
        let code = text.lines().take_while(|line| *line != "#[cfg(test)]");
        let code = code.filter(|line| !line.trim_start().starts_with("//") && holds(line));
        found.extend(code.map(|line| format!("{}: {}", path.display(), line.trim())));
    }
    found
}

#[test]
fn the_library_speaks_of_no_urls_and_no_flags() {
    let flag = |line: &str| {
        let after = |at: usize| line[at + 2..].starts_with(|c: char| c.is_ascii_lowercase());
        line.contains('"') && line.match_indices("--").any(|(at, _)| after(at))
    };
    let found = lines_with(&[BELOW, LIBRARY].concat(), |line| line.contains("/v1/") || flag(line));
    assert!(found.is_empty(), "words of the doors in the library:\n{}", found.join("\n"));
}

#[test]
fn the_doors_leave_the_store_to_the_library() {
    let found = lines_with(DOORS, |line| {
        line.contains(".store()") || line.contains("SqliteStore") || line.contains("dyn Store")
    });
    assert!(found.is_empty(), "uses of the store by the doors:\n{}", found.join("\n"));
}

#[test]
fn what_differs_by_track_is_in_one_place() {
    let all: Vec<String> = sources()
        .iter()
        .filter_map(|(path, _)| path.iter().next())
        .map(|top| top.to_string_lossy().into_owned())
        .collect();
    let all: Vec<&str> = all.iter().map(String::as_str).filter(|top| *top != "types").collect();
    let one = |line: &str, at: usize| {
        let alone = !line[..at].ends_with(|c: char| c.is_ascii_alphanumeric());
        let after =
            line[at..].trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == ':').trim_start();
        let before = line[..at].trim_end();
        alone && (after.starts_with("=>") || before.ends_with("==") || before.ends_with("!="))
    };
    let decides = |line: &str| line.match_indices("Track::").any(|(at, _)| one(line, at));
    assert!(decides("    Track::Video => 0,") && decides("usize::from(found.track == Track::Audio)"));
    assert!(!decides("ExportTrack::Video => Track::Video,") && !decides("clip.tracks[Track::Video] = 1;"));
    let found = lines_with(&all, decides);
    assert!(
        found.is_empty(),
        "code that lists the tracks, which a third one would miss:\n{}",
        found.join("\n")
    );
}

#[test]
fn the_library_has_its_methods_in_one_place() {
    let all: Vec<&str> = LIBRARY.iter().chain(DOORS).copied().collect();
    let found = lines_with(&all, |line| line.starts_with("impl Library {"));
    assert_eq!(found, ["library/mod.rs: impl Library {"], "the logic belongs to its parts");
}

mod forms {
    //! Every form of a bad import is seen.

    use super::*;

    fn tree(files: &[(&str, &str)]) -> Crate {
        Crate::new(files.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())))
    }

    fn upward_from_media(text: &str) -> usize {
        upward(&tree(&[
            ("lib.rs", "pub mod http; pub mod media; pub mod types;"),
            ("http/mod.rs", "mod serve; pub use serve::Serve; pub fn start() {}"),
            ("http/serve.rs", "pub struct Serve;"),
            ("media/mod.rs", "mod decode;"),
            ("media/decode.rs", text),
            ("types.rs", "pub struct Id;"),
        ]))
        .len()
    }

    #[test]
    fn plain_grouped_renamed_and_glob_imports() {
        assert_eq!(upward_from_media("use crate::http::Serve;"), 1);
        assert_eq!(upward_from_media("use crate::{http::start, types::Id};"), 1);
        assert_eq!(upward_from_media("use crate::{types::Id, http};\nfn f() { http::start() }"), 1);
        assert_eq!(upward_from_media("use crate::http as other;\nfn f() { other::start() }"), 1);
        assert_eq!(upward_from_media("use crate::http::*;\nfn f(_: Serve) {}"), 1);
        assert_eq!(upward_from_media("use crate::http::{self};\nfn f() { http::start() }"), 1);
        assert_eq!(upward_from_media("use crate::types::Id;"), 0);
    }

    #[test]
    fn relative_paths() {
        assert_eq!(upward_from_media("use super::super::http::start;"), 1);
        assert_eq!(upward_from_media("fn f() { super::super::http::start() }"), 1);
        assert_eq!(upward_from_media("mod inner { use super::super::super::http::start; }"), 1);
    }

    #[test]
    fn paths_in_code_types_macros_and_attributes() {
        assert_eq!(upward_from_media("fn f() { crate::http::start() }"), 1);
        assert_eq!(upward_from_media("struct S { serve: crate::http::Serve }"), 1);
        assert_eq!(upward_from_media("impl From<crate::http::Serve> for u8 { }"), 1);
        assert_eq!(upward_from_media("fn f() { println!(\"{:?}\", crate::http::start()) }"), 1);
        assert_eq!(
            upward_from_media("#[derive(X)] struct S { #[serde(with = \"crate::http::start\")] a: u8 }"),
            1
        );
    }

    #[test]
    fn a_name_handed_on_by_another_is_of_its_own_file() {
        let handed_on = [
            ("lib.rs", "mod http; mod media; mod types;"),
            ("http.rs", "pub struct Serve;"),
            ("types.rs", "pub use crate::http::Serve;"),
            ("media.rs", "use crate::types::Serve;"),
        ];
        let found = upward(&tree(&handed_on));
        assert_eq!(found.len(), 2, "who hands it on, and who takes it: {found:?}");
    }

    /// A crate whose file at `path` says `text`.
    fn doors_with(path: &str, text: &str) -> Crate {
        let mut files = vec![
            ("lib.rs", "mod connections; mod http; mod http_intake; mod http_kit;"),
            ("connections/mod.rs", "pub struct Conn;"),
            ("http_kit/mod.rs", "pub mod page;"),
            ("http_kit/page.rs", "pub struct Page;"),
            ("http_intake/mod.rs", "pub mod guard; pub mod query; pub use crate::http_kit::page::Page;"),
            ("http_intake/guard/mod.rs", "pub fn guard() {}"),
            ("http_intake/query.rs", "pub struct Query;"),
            ("http/mod.rs", "mod access; mod assets; mod search; mod standing; mod router;"),
            ("http/access/mod.rs", "pub mod keys;"),
            ("http/access/keys.rs", "pub struct Key;"),
            ("http/assets/mod.rs", "pub mod bulk; pub struct Added;"),
            ("http/assets/bulk.rs", "pub struct Deleted;"),
            ("http/search/mod.rs", "pub struct Hit; pub use crate::http_kit::page::Page;"),
            ("http/standing/mod.rs", ""),
        ];
        files.retain(|(known, _)| *known != path);
        files.push((path, text));
        tree(&files)
    }

    #[test]
    fn what_resources_share_takes_nothing_from_them() {
        let upward_at = |path: &str, text: &str| upward(&doors_with(path, text)).len();
        assert_eq!(upward_at("http_kit/page.rs", "use crate::http::assets::Added;"), 1);
        assert_eq!(upward_at("http_kit/page.rs", "use super::super::http::assets::bulk::Deleted;"), 1);
        assert_eq!(upward_at("http_kit/page.rs", "fn f() { crate::http_intake::guard::guard() }"), 1);
        assert_eq!(upward_at("http_kit/mod.rs", "pub use crate::http_intake::query::Query;"), 1);
        assert_eq!(
            upward_at("http_kit/page.rs", "use crate::connections::Conn;"),
            1,
            "they are beside each other"
        );
        assert_eq!(upward_at("connections/mod.rs", "use crate::http_kit::page::Page;"), 1);
        let grouped =
            "use crate::{http::assets, http_kit};\nfn f(_: assets::Added, _: http_kit::page::Page) {}";
        assert_eq!(upward_at("http_intake/query.rs", grouped), 1);
        assert_eq!(upward_at("http_intake/query.rs", "use crate::http::search::Page;"), 0, "it is the kit's");
        assert_eq!(upward_at("http_intake/query.rs", "use crate::connections::Conn;"), 0);
    }

    #[test]
    fn a_resource_takes_nothing_from_another() {
        let between_at = |path: &str, text: &str| between_resources(&doors_with(path, text)).len();
        assert_eq!(between_at("http/search/mod.rs", "use crate::http::assets::Added;"), 1);
        assert_eq!(between_at("http/search/mod.rs", "use super::assets::{Added, bulk::Deleted};"), 2);
        assert_eq!(between_at("http/assets/bulk.rs", "fn f(_: crate::http::search::Hit) {}"), 1);
        assert_eq!(
            between_at("http/standing/mod.rs", "pub use crate::http::access::keys::*;"),
            0,
            "a glob alone"
        );
        assert_eq!(between_at("http/standing/mod.rs", "pub use crate::http::search::Hit;"), 1, "handed on");
        assert_eq!(
            between_at("http/standing/mod.rs", "use crate::http::access::Nothing;"),
            0,
            "no such name"
        );
        assert_eq!(between_at("http/assets/bulk.rs", "use super::Added;"), 0);
        assert_eq!(between_at("http/assets/bulk.rs", "use crate::http_kit::page::Page;"), 0);
        assert_eq!(between_at("http/assets/bulk.rs", "use crate::http::search::Page;"), 0, "it is the kit's");
        assert_eq!(
            between_at("http/router.rs", "use super::{assets::Added, search::Hit};"),
            0,
            "the router may"
        );
        assert_eq!(between_at("http/tags/list.rs", "fn f() {}"), 1, "a folder that the rule does not know");
    }

    #[test]
    fn comments_strings_and_tests_are_no_imports() {
        assert_eq!(upward_from_media("//! see crate::http::start\n/* crate::http::start() */ fn f() {}"), 0);
        assert_eq!(upward_from_media("fn f() -> &'static str { \"crate http start\" }"), 0);
        assert_eq!(upward_from_media("#[cfg(test)] mod tests { use crate::http::start; }"), 0);
        assert_eq!(upward_from_media("#[cfg(test)] use crate::http::start;"), 0);
    }

    #[test]
    fn circles_of_two_and_of_three_and_through_a_parent() {
        let two = [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use crate::b::B; pub struct A;"),
            ("b.rs", "pub struct B; use super::a::A;"),
        ];
        assert_eq!(circles(&tree(&two)).len(), 1);
        let three = [
            ("lib.rs", "mod a; mod b; mod c;"),
            ("a.rs", "use crate::b::B; pub struct A;"),
            ("b.rs", "pub struct B; fn f() { crate::c::c() }"),
            ("c.rs", "pub fn c() { let _: crate::a::A; }"),
        ];
        assert_eq!(circles(&tree(&three)).len(), 1);
        let parent = [
            ("lib.rs", "mod a;"),
            ("a/mod.rs", "mod b; pub const LIMIT: u8 = 1; fn f() { b::work() }"),
            ("a/b.rs", "use super::LIMIT; pub fn work() {}"),
        ];
        assert_eq!(circles(&tree(&parent)).len(), 0, "what a folder's files share lies in its mod.rs");
        let cousins = [
            ("lib.rs", "mod a;"),
            ("a/mod.rs", "mod b; mod c; pub use b::B; pub use c::C;"),
            ("a/b.rs", "use super::C; pub struct B(C);"),
            ("a/c.rs", "use super::B; pub struct C(Option<Box<B>>);"),
        ];
        assert_eq!(circles(&tree(&cousins)).len(), 1, "through names that a face hands on");
        let facade = [
            ("lib.rs", "mod a;"),
            ("a/mod.rs", "mod b; mod c; pub use b::B; pub use c::C;"),
            ("a/b.rs", "pub struct B;"),
            ("a/c.rs", "use super::B; pub struct C(B);"),
        ];
        assert_eq!(circles(&tree(&facade)).len(), 0, "a face that hands names on is no part of a circle");
    }

    #[test]
    fn the_child_may_not_use_its_parent() {
        let leaks_at = |path: &'static str, text: &'static str| {
            let mut files = vec![
                ("lib.rs", "mod decode_child; mod ffmpeg; mod media; mod own_files; mod types;"),
                ("media.rs", "pub struct Pool;"),
                ("own_files.rs", "pub fn remove() {}"),
                ("types.rs", "pub struct Id;"),
                ("ffmpeg/mod.rs", "pub mod filters; pub use crate::media::Pool as Hidden;"),
                ("ffmpeg/filters.rs", "pub struct Filter;"),
                ("decode_child/mod.rs", "pub mod protocol;"),
                ("decode_child/protocol.rs", "pub struct Request;"),
            ];
            let before = leaks_of_the_child(&tree(&files)).len();
            files.retain(|(known, _)| *known != path);
            files.push((path, text));
            leaks_of_the_child(&tree(&files)).len() - before
        };
        assert_eq!(leaks_at("decode_child/job.rs", "use crate::media::Pool;"), 1);
        assert_eq!(leaks_at("decode_child/job.rs", "use crate::{media, types};\nfn f(_: media::Pool) {}"), 1);
        assert_eq!(leaks_at("decode_child/job.rs", "fn f() { crate::own_files::remove() }"), 1);
        assert_eq!(leaks_at("decode_child/job.rs", "pub use crate::media::Pool;"), 1, "handed on");
        assert_eq!(
            leaks_at("decode_child/job.rs", "use crate::ffmpeg::Hidden;"),
            1,
            "through another's name"
        );
        assert_eq!(leaks_at("ffmpeg/filters.rs", "use crate::media::Pool;"), 1, "the child runs that, too");
        assert_eq!(leaks_at("decode_child/job.rs", "use super::protocol::Request; use crate::types::Id;"), 0);
        assert_eq!(leaks_at("decode_child/job.rs", "use crate::ffmpeg::filters::Filter;"), 0);
    }
}
