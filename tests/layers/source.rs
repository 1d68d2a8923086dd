//! A crate's sources as modules: definitions, imports and paths of each file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

/// Segments from the crate's root, which is empty.
pub type Module = Vec<String>;

/// Names brought in by `use`.
#[derive(Debug, Clone)]
pub struct Import {
    /// As others call it here; `None` for a glob.
    pub name: Option<String>,
    pub path: Vec<String>,
    /// Handed on, not only used.
    pub public: bool,
}

type Seen = BTreeSet<(Module, Vec<String>)>;

/// One file.
#[derive(Debug, Default)]
pub struct Source {
    pub defined: BTreeSet<String>,
    pub imports: Vec<Import>,
    /// Every path written outside `use`: in code, types, attributes and macros.
    pub paths: BTreeSet<Vec<String>>,
    /// Structs with their number of fields.
    pub structs: Vec<(String, usize)>,
    /// How many modules in braces are open while the file is read: its text is taken as if there were none.
    inside: usize,
}

/// All files, by module.
#[derive(Debug, Default)]
pub struct Crate {
    pub files: BTreeMap<Module, (PathBuf, Source)>,
}

impl Crate {
    /// Reads the files of a crate, given by their paths below `src`. Test-only code is left out.
    pub fn new(files: impl IntoIterator<Item = (PathBuf, String)>) -> Self {
        let mut parsed: BTreeMap<Module, (PathBuf, syn::File)> = BTreeMap::new();
        for (path, text) in files {
            let file = syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            parsed.insert(module_of(&path), (path, file));
        }
        let mut for_tests: BTreeSet<Module> = BTreeSet::new();
        for (module, (_, file)) in &parsed {
            for item in &file.items {
                if let syn::Item::Mod(child) = item
                    && is_for_tests(&child.attrs)
                {
                    for_tests.insert([&module[..], &[child.ident.to_string()]].concat());
                }
            }
        }
        parsed.retain(|module, _| !for_tests.iter().any(|test| module.starts_with(test)));
        let files = parsed.into_iter().map(|(module, (path, file))| {
            let mut source = Source::default();
            source.read(&file.items);
            (module, (path, source))
        });
        Self { files: files.collect() }
    }

    /// The module whose file defines what `path`, written in `module`, names; `None` for other crates, and for a
    /// module alone.
    pub fn definer(&self, module: &Module, path: &[String]) -> Option<Module> {
        self.resolve(module, path, &mut BTreeSet::new())
    }

    fn resolve(&self, module: &Module, path: &[String], seen: &mut Seen) -> Option<Module> {
        // Files hand on each other's names: none is followed twice.
        if !seen.insert((module.clone(), path.to_vec())) {
            return None;
        }
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => self.within(&Module::new(), rest, seen),
            "self" => self.within(module, rest, seen),
            "super" => self.within(&module[..module.len().checked_sub(1)?].to_vec(), rest, seen),
            _ => self.within(module, path, seen),
        }
    }

    fn within(&self, module: &Module, path: &[String], seen: &mut Seen) -> Option<Module> {
        let (first, rest) = path.split_first()?;
        if first == "super" || first == "self" {
            return self.resolve(module, path, seen);
        }
        let child = [&module[..], std::slice::from_ref(first)].concat();
        if self.files.contains_key(&child) {
            return self.within(&child, rest, seen);
        }
        let (_, source) = self.files.get(module)?;
        if source.defined.contains(first) {
            return Some(module.clone());
        }
        for import in &source.imports {
            let whole = match &import.name {
                Some(name) if name == first => [&import.path[..], rest].concat(),
                None => [&import.path[..], path].concat(),
                Some(_) => continue,
            };
            // `use a::a` takes from another crate, or the name would be a file's.
            if import.path.first() == Some(first) {
                continue;
            }
            if let Some(found) = self.resolve(module, &whole, seen) {
                return Some(found);
            }
        }
        None
    }

    /// Which files each file takes something from. Handing a name on is no use of it.
    pub fn arrows(&self) -> BTreeMap<Module, BTreeMap<Module, BTreeSet<String>>> {
        let mut arrows: BTreeMap<Module, BTreeMap<Module, BTreeSet<String>>> = BTreeMap::new();
        for (module, (_, source)) in &self.files {
            let taken = source.imports.iter().filter(|import| !import.public).map(|import| &import.path);
            for path in taken.chain(&source.paths) {
                if let Some(definer) = self.definer(module, path).filter(|definer| definer != module) {
                    arrows
                        .entry(module.clone())
                        .or_default()
                        .entry(definer)
                        .or_default()
                        .insert(path.join("::"));
                }
            }
        }
        arrows
    }

    pub fn path(&self, module: &Module) -> &Path {
        &self.files[module].0
    }
}

/// `ffmpeg/sound/mod.rs` is the module `ffmpeg::sound`.
fn module_of(path: &Path) -> Module {
    let mut module: Module =
        path.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if matches!(module.last().map(String::as_str), Some("mod" | "lib")) {
        module.pop();
    }
    module
}

fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
    })
}

impl Source {
    fn read(&mut self, items: &[syn::Item]) {
        for item in items {
            self.define(item);
            self.visit_item(item);
        }
    }

    fn define(&mut self, item: &syn::Item) {
        let name = match item {
            syn::Item::Const(item) => &item.ident,
            syn::Item::Enum(item) => &item.ident,
            syn::Item::Fn(item) => &item.sig.ident,
            syn::Item::Static(item) => &item.ident,
            syn::Item::Struct(item) => &item.ident,
            syn::Item::Trait(item) => &item.ident,
            syn::Item::Type(item) => &item.ident,
            syn::Item::Union(item) => &item.ident,
            // What stands in braces belongs to the file.
            syn::Item::Mod(item) if item.content.is_some() => &item.ident,
            // A macro of ours defines what its arguments name.
            syn::Item::Macro(item) => {
                let names = idents(item.mac.tokens.clone());
                self.defined.extend(names);
                return;
            }
            _ => return,
        };
        self.defined.insert(name.to_string());
    }

    fn bring_in(&mut self, tree: &syn::UseTree, mut prefix: Vec<String>, public: bool) {
        match tree {
            syn::UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.bring_in(&path.tree, prefix, public);
            }
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.bring_in(tree, prefix.clone(), public);
                }
            }
            syn::UseTree::Glob(_) => {
                let path = self.outside(prefix);
                if !path.is_empty() {
                    self.imports.push(Import { name: None, path, public });
                }
            }
            syn::UseTree::Name(name) => self.named(prefix, &name.ident.to_string(), None, public),
            syn::UseTree::Rename(rename) => {
                self.named(prefix, &rename.ident.to_string(), Some(rename.rename.to_string()), public);
            }
        }
    }

    fn named(&mut self, mut path: Vec<String>, last: &str, rename: Option<String>, public: bool) {
        if last != "self" {
            path.push(last.to_owned());
        }
        let name = rename.or_else(|| path.last().cloned());
        self.imports.push(Import { name, path: self.outside(path), public });
    }

    /// A path as it would be written outside of the modules in braces.
    fn outside(&self, mut path: Vec<String>) -> Vec<String> {
        let up = path.iter().take_while(|part| *part == "super").count().min(self.inside);
        path.drain(..up);
        path
    }
}

impl<'ast> Visit<'ast> for Source {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !is_for_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.inside += 1;
        visit::visit_item_mod(self, item);
        self.inside -= 1;
    }

    fn visit_impl_item(&mut self, item: &'ast syn::ImplItem) {
        let attributes = match item {
            syn::ImplItem::Fn(item) => &item.attrs[..],
            syn::ImplItem::Const(item) => &item.attrs,
            _ => &[],
        };
        if !is_for_tests(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let public = !matches!(item.vis, syn::Visibility::Inherited);
        self.bring_in(&item.tree, Vec::new(), public);
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.structs.push((item.ident.to_string(), item.fields.len()));
        visit::visit_item_struct(self, item);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let path_here = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.paths.insert(self.outside(path_here));
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, mac: &'ast syn::Macro) {
        self.take_tokens(mac.tokens.clone());
        visit::visit_macro(self, mac);
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        if let syn::Meta::List(list) = &attribute.meta {
            self.take_tokens(list.tokens.clone());
        }
        visit::visit_attribute(self, attribute);
    }
}

impl Source {
    /// Paths among the tokens of a macro or an attribute; a string in an attribute may hold one too, as serde's do.
    fn take_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.take_path(&mut path);
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.take_path(&mut path);
                    self.take_tokens(group.stream());
                }
                TokenTree::Literal(literal) => {
                    self.take_path(&mut path);
                    let text = literal.to_string();
                    if let Ok(inside) = syn::parse_str::<syn::Path>(text.trim_matches('"')) {
                        self.visit_path(&inside);
                    }
                }
                TokenTree::Punct(_) => self.take_path(&mut path),
            }
        }
        self.take_path(&mut path);
    }

    fn take_path(&mut self, path: &mut Vec<String>) {
        if !path.is_empty() {
            let path = self.outside(std::mem::take(path));
            self.paths.insert(path);
        }
    }
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Every word of a stream of tokens.
fn idents(tokens: TokenStream) -> Vec<String> {
    tokens
        .into_iter()
        .flat_map(|token| match token {
            TokenTree::Ident(ident) => vec![ident.to_string()],
            TokenTree::Group(group) => idents(group.stream()),
            _ => Vec::new(),
        })
        .collect()
}
