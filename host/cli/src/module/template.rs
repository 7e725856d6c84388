//! What `module new` writes: the files of a project for each language and kind.
//!
//! Holds: a project builds as it is written, and says in its README what to type next. It decides no
//! policy worth having: they are to be changed.

use maitred_guest_build::{Kind, Lang, MANIFEST};

use super::sdk;

const WIT: &str = include_str!("../../../../wit/policy.wit");
const README: &str = include_str!("../../templates/README.md.in");
const GITIGNORE: &str = include_str!("../../templates/gitignore");
const SCENARIO: &str = include_str!("../../templates/scenario.toml");
/// The keys of a scenario.
const SCENARIO_KEYS: &str = include_str!("../../../../guest-sdk/scenario/README.md");

/// A file: its path in the project, its text, and what it is for when the README is to say so.
pub(super) struct File {
    pub(super) path: String,
    pub(super) text: String,
    purpose: &'static str,
}

/// A project that is not written yet.
pub(super) struct Template {
    pub(super) files: Vec<File>,
    /// What to type next, in the project's folder.
    pub(super) next: Vec<String>,
}

/// The source of a policy, if that language has one of that kind.
fn source(lang: Lang, kind: Kind) -> Option<(&'static str, &'static str)> {
    macro_rules! template {
        ($name:literal) => {
            include_str!(concat!("../../templates/", $name))
        };
    }
    Some(match (lang, kind) {
        (Lang::Rust, Kind::Selector) => ("src/lib.rs", template!("rust/selector.rs")),
        (Lang::Rust, Kind::Scanner) => ("src/lib.rs", template!("rust/scanner.rs")),
        (Lang::Rust, Kind::Callback) => ("src/lib.rs", template!("rust/callback.rs")),
        (Lang::Rust, Kind::Fence) => ("src/lib.rs", template!("rust/fence.rs")),
        (Lang::Js, Kind::Selector) => ("policy.js", template!("js/selector.js")),
        (Lang::Js, Kind::Callback) => ("policy.js", template!("js/callback.js")),
        (Lang::Python, Kind::Selector) => ("policy.py", template!("python/selector.py")),
        (Lang::Python, Kind::Callback) => ("policy.py", template!("python/callback.py")),
        (Lang::C, Kind::Selector) => ("policy.c", template!("c/selector.c")),
        (Lang::C, Kind::Callback) => ("policy.c", template!("c/callback.c")),
        (Lang::Js | Lang::Python | Lang::C, Kind::Scanner | Kind::Fence) => return None,
    })
}

/// The kinds that there is a template of in `lang`.
pub(super) fn kinds(lang: Lang) -> Vec<Kind> {
    let kinds = Kind::ALL.into_iter();
    kinds.filter(|kind| source(lang, *kind).is_some()).collect()
}

/// The files of a project called `name`; none when there is no template of that kind.
///
/// # Errors
/// See [`sdk::files`].
pub(super) fn project(name: &str, lang: Lang, kind: Kind) -> Result<Option<Template>, String> {
    let Some((path, text)) = source(lang, kind) else {
        return Ok(None);
    };
    let mut files = vec![
        file(path, &text.replace("{{name}}", name), "the policy"),
        file(
            MANIFEST,
            &format!("name = \"{name}\"\nlang = \"{lang}\"\nkind = \"{kind}\"\n"),
            "what `module build` reads",
        ),
    ];
    if kind == Kind::Selector || kind == Kind::Scanner {
        let purpose = "what it has to do, for `module test`";
        files.push(file("scenario.toml", SCENARIO, purpose));
        files.push(file("SCENARIO.md", SCENARIO_KEYS, "every key of it"));
    }
    files.extend(tools(name, lang));
    files.push(file(
        "wit/policy.wit",
        WIT,
        "all that a policy sees and answers, with limits",
    ));
    if lang == Lang::Rust {
        let sdk = sdk::files()?.into_iter();
        files.extend(sdk.map(|(path, text)| File {
            path,
            text,
            purpose: "",
        }));
    }
    files.push(file(".gitignore", GITIGNORE, ""));
    let next = next(name, lang, kind);
    files.push(file(
        "README.md",
        &readme(name, lang, kind, &next, &files),
        "",
    ));
    Ok(Some(Template { files, next }))
}

fn file(path: &str, text: &str, purpose: &'static str) -> File {
    File {
        path: path.to_owned(),
        text: text.to_owned(),
        purpose,
    }
}

/// What the language's own tools read.
fn tools(name: &str, lang: Lang) -> Option<File> {
    let (path, text, purpose) = match lang {
        Lang::Rust => (
            "Cargo.toml",
            include_str!("../../templates/rust/Cargo.toml.in"),
            "the crate, with the SDK in `sdk/` as its one dependency",
        ),
        Lang::Js => (
            "package.json",
            include_str!("../../templates/js/package.json"),
            "what makes a component of it: componentize-qjs",
        ),
        Lang::Python => (
            "requirements.txt",
            include_str!("../../templates/python/requirements.txt"),
            "what makes a component of it: componentize-py",
        ),
        Lang::C => return None,
    };
    Some(file(path, &text.replace("{{name}}", name), purpose))
}

/// What to type next.
fn next(name: &str, lang: Lang, kind: Kind) -> Vec<String> {
    let install = match lang {
        Lang::Rust => "rustup target add wasm32-unknown-unknown",
        Lang::Js => "npm install",
        Lang::Python => "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt",
        Lang::C => "python3 -m venv .venv && .venv/bin/pip install ziglang==0.17.1",
    };
    let tried = match kind {
        Kind::Selector | Kind::Scanner => "maitred module test".to_owned(),
        Kind::Callback | Kind::Fence => format!("maitred module check {name}.wasm"),
    };
    vec![
        install.to_owned(),
        "maitred module build".to_owned(),
        tried,
        format!("maitred module push {name} {name}.wasm --activate"),
    ]
}

fn readme(name: &str, lang: Lang, kind: Kind, next: &[String], files: &[File]) -> String {
    let language = match lang {
        Lang::Rust => "Rust",
        Lang::Js => "JavaScript",
        Lang::Python => "Python",
        Lang::C => "C",
    };
    let commands = next.iter().map(|line| format!("    {line}"));
    let told = files.iter().filter(|file| !file.purpose.is_empty());
    let rows = told.map(|file| format!("| `{}` | {} |", file.path, file.purpose));
    let pushed = match kind {
        Kind::Scanner => "scanner (a selector to those who use it)",
        kind => kind.name(),
    };
    README
        .replace("{{name}}", name)
        .replace("{{kind}}", pushed)
        .replace("{{language}}", language)
        .replace("{{next}}", &commands.collect::<Vec<_>>().join("\n"))
        .replace("{{files}}", &rows.collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_to_fill_in() {
        for lang in [Lang::Rust, Lang::Js, Lang::Python, Lang::C] {
            assert!(kinds(lang).len() >= 2);
            for kind in kinds(lang) {
                let template = project("quiet", lang, kind).unwrap().unwrap();
                assert_eq!(template.next.len(), 4);
                let own = template.files.iter();
                for file in own.filter(|file| !file.path.starts_with("sdk/")) {
                    assert!(!file.text.contains("{{"), "{lang} {kind}: {}", file.path);
                }
            }
        }
        assert!(project("quiet", Lang::C, Kind::Fence).unwrap().is_none());
    }
}
