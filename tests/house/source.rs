//! Reads `src/` as Rust: its modules, and what each of them names.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use syn::{
    Attribute, Expr, File, FnArg, Item, ItemFn, Lit, Macro, Meta, Pat, Path as CodePath, UseTree,
    VisRestricted, Visibility,
    visit::{self, Visit},
};

/// All modules of the library, but for the root and what is under `#[cfg(test)]`.
pub struct Source {
    pub modules: Vec<Module>,
    /// What the map in `lib.rs` says: each room, and what it imports.
    pub map: BTreeMap<String, BTreeSet<String>>,
}

/// One file of `src/`.
pub struct Module {
    /// Such as `feeds::srv::answer`.
    pub path: String,
    /// Its parent declares it as `pub`.
    pub is_public: bool,
    /// What it names: of this crate from `crate::` on, of others from their name on.
    pub imports: BTreeSet<String>,
    /// Its structs and enums.
    pub types: BTreeSet<String>,
    /// Its functions, and what each calls its arguments.
    pub functions: BTreeMap<String, Vec<String>>,
}

impl Module {
    /// The top-level module that it is in.
    pub fn room(&self) -> &str {
        self.path.split("::").next().unwrap_or(&self.path)
    }
}

impl Source {
    pub fn read() -> Self {
        let root = parse(&source().join("lib.rs"));
        let mut modules = Vec::new();
        read_children(&root, &[], &mut modules);
        Self { modules, map: map(&root) }
    }
}

/// The table in the documentation of `root`: each room, and what it imports.
fn map(root: &File) -> BTreeMap<String, BTreeSet<String>> {
    let names = |cell: &str| -> BTreeSet<String> {
        // Every name stands between backticks.
        cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let mut map = BTreeMap::new();
    for line in root.attrs.iter().filter_map(doc_line) {
        if let [_, rooms, _, imports, _] = line.split('|').collect::<Vec<_>>()[..] {
            for room in names(rooms) {
                let before = map.insert(room.clone(), names(imports));
                assert!(before.is_none(), "the map of src/lib.rs has {room} twice");
            }
        }
    }
    map
}

fn source() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))
}

fn parse(path: &Path) -> File {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Reads the modules that `file`, the module at `path`, declares, and their own.
fn read_children(file: &File, path: &[String], modules: &mut Vec<Module>) {
    for item in &file.items {
        let Item::Mod(declared) = item else { continue };
        if declared.content.is_some() || is_test(&declared.attrs) {
            continue;
        }
        let path = [path, &[declared.ident.to_string()]].concat();
        let stem = source().join(path.join("/"));
        let (flat, inside) = (stem.with_extension("rs"), stem.join("mod.rs"));
        let file = parse(if flat.exists() { &flat } else { &inside });
        let mut names = Names { path: path.clone(), imports: BTreeSet::new() };
        names.visit_file(&file);
        let functions = file.items.iter().filter_map(|item| match item {
            Item::Fn(function) => Some((function.sig.ident.to_string(), arguments(function))),
            _ => None,
        });
        let types = file.items.iter().filter_map(|item| match item {
            Item::Struct(item) => Some(item.ident.to_string()),
            Item::Enum(item) => Some(item.ident.to_string()),
            _ => None,
        });
        modules.push(Module {
            path: path.join("::"),
            is_public: matches!(declared.vis, Visibility::Public(_)),
            imports: names.imports,
            types: types.collect(),
            functions: functions.collect(),
        });
        read_children(&file, &path, modules);
    }
}

fn arguments(function: &ItemFn) -> Vec<String> {
    let name = |argument: &FnArg| match argument {
        FnArg::Typed(typed) => match &*typed.pat {
            Pat::Ident(pattern) => pattern.ident.to_string(),
            _ => "_".to_owned(),
        },
        FnArg::Receiver(_) => "self".to_owned(),
    };
    function.sig.inputs.iter().map(name).collect()
}

/// Whether something is compiled for tests alone.
fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        _ => false,
    })
}

/// The text of one line of documentation.
fn doc_line(attribute: &Attribute) -> Option<String> {
    match &attribute.meta {
        Meta::NameValue(doc) if doc.path.is_ident("doc") => match &doc.value {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Str(text) => Some(text.value()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

/// Collects what one module names.
struct Names {
    /// The module.
    path: Vec<String>,
    imports: BTreeSet<String>,
}

impl Names {
    fn add(&mut self, segments: &[String]) {
        let Some((first, rest)) = segments.split_first() else { return };
        let ups = segments.iter().take_while(|segment| *segment == "super").count();
        let full = match first.as_str() {
            "crate" => rest.to_vec(),
            "self" => [&self.path, rest].concat(),
            "super" => [&self.path[..self.path.len() - ups], &segments[ups..]].concat(),
            // One word alone is a local name.
            _ if rest.is_empty() => return,
            _ => {
                self.imports.insert(segments.join("::"));
                return;
            }
        };
        self.imports.insert(format!("crate::{}", full.join("::")));
    }

    fn add_tree(&mut self, before: &[String], tree: &UseTree) {
        match tree {
            UseTree::Path(path) => self.add_tree(&[before, &[path.ident.to_string()]].concat(), &path.tree),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_tree(before, tree)),
            UseTree::Name(name) if name.ident == "self" => self.add(before),
            UseTree::Name(name) => self.add(&[before, &[name.ident.to_string()]].concat()),
            UseTree::Rename(name) if name.ident == "self" => self.add(before),
            UseTree::Rename(name) => self.add(&[before, &[name.ident.to_string()]].concat()),
            UseTree::Glob(_) => self.add(before),
        }
    }
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item(&mut self, item: &'ast Item) {
        match item {
            Item::Use(item) if !is_test(&item.attrs) => self.add_tree(&[], &item.tree),
            Item::Mod(item) if is_test(&item.attrs) => {}
            Item::Mod(item) => {
                self.path.push(item.ident.to_string());
                visit::visit_item_mod(self, item);
                self.path.pop();
            }
            Item::Fn(item) if is_test(&item.attrs) => {}
            Item::Impl(item) if is_test(&item.attrs) => {}
            item => visit::visit_item(self, item),
        }
    }

    /// Who may see something is nothing that is used.
    fn visit_vis_restricted(&mut self, _: &'ast VisRestricted) {}

    fn visit_path(&mut self, path: &'ast CodePath) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.add(&segments);
        visit::visit_path(self, path);
    }

    /// What stands inside a macro is no syntax yet: its words are searched for paths.
    fn visit_macro(&mut self, found: &'ast Macro) {
        self.visit_path(&found.path);
        let words = found.tokens.to_string().replace(" :: ", "::");
        for word in words.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':') {
            let segments: Vec<String> = word.split("::").map(str::to_owned).collect();
            if segments.len() > 1
                && segments.iter().all(|segment| !segment.is_empty() && !segment.contains(':'))
            {
                self.add(&segments);
            }
        }
    }
}
