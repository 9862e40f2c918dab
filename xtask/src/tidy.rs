//! Rules of this repository that neither rustfmt nor clippy knows: layers, headers, sizes, licences.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::layers::{CRATES, Layer, is_pure};

/// Longest source file, in lines.
const LINES_MAX: usize = 600;

/// Licences that an outside crate may offer; one of its alternatives is enough.
const LICENCES: &[&str] = &[
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
    "0BSD",
    "CC0-1.0",
    "BSL-1.0",
];

/// Checks every rule and fails with all the places that break one.
///
/// # Errors
/// When a rule is broken or the tree can't be read.
pub(crate) fn run() -> Result<()> {
    println!("xtask: tidy");
    let mut faults = Vec::new();
    check_layers(&mut faults)?;
    check_sources(&mut faults)?;
    check_licences(&mut faults)?;
    if faults.is_empty() {
        return Ok(());
    }
    bail!("{} places break a rule:\n  {}", faults.len(), faults.join("\n  "));
}

fn metadata(extra: &[&str]) -> Result<Value> {
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(extra)
        .current_dir(crate::root())
        .output()
        .context("run `cargo metadata`")?;
    if !output.status.success() {
        bail!("`cargo metadata` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).context("parse the output of `cargo metadata`")
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn layer_of(name: &str) -> Option<(Layer, &'static [&'static str])> {
    let short = name.strip_prefix("evenkeel-").unwrap_or(name);
    CRATES
        .iter()
        .find(|(crate_name, ..)| *crate_name == short)
        .map(|(_, layer, allowed)| (*layer, *allowed))
}

fn check_layers(faults: &mut Vec<String>) -> Result<()> {
    let metadata = metadata(&["--no-deps"])?;
    for package in list(&metadata, "packages") {
        let name = text(package, "name");
        let manifest = text(package, "manifest_path");
        if !manifest.contains("/crates/") {
            check_apart(package, name, manifest, faults);
            continue;
        }
        let Some((layer, allowed)) = layer_of(name) else {
            faults.push(format!("{manifest}: crate `{name}` is not listed in xtask/src/layers.rs"));
            continue;
        };
        let folder = Path::new(manifest).parent().unwrap_or_else(|| Path::new(""));
        if is_pure(layer) && !folder.join("clippy.toml").is_symlink() {
            faults
                .push(format!("{manifest}: a pure crate links clippy.toml to ../clippy-core.toml"));
        }
        for dependency in list(package, "dependencies") {
            // Tests may use what they like.
            if !dependency.get("kind").is_none_or(Value::is_null) {
                continue;
            }
            let other = text(dependency, "name");
            match layer_of(other).filter(|_| other.starts_with("evenkeel-")) {
                Some((below, _)) if below >= layer => {
                    faults.push(format!(
                        "{manifest}: `{name}` may not use `{other}`: arrows point down"
                    ));
                }
                None if is_pure(layer) && !allowed.contains(&other) => {
                    faults.push(format!(
                        "{manifest}: `{other}` is not on the list of pure crate `{name}`"
                    ));
                }
                Some(_) | None => {}
            }
        }
    }
    Ok(())
}

/// An example is what a user copies: it shows that nothing of ours is needed.
fn check_apart(package: &Value, name: &str, manifest: &str, faults: &mut Vec<String>) {
    for dependency in list(package, "dependencies") {
        let other = text(dependency, "name");
        if manifest.contains("/examples/") && other.starts_with("evenkeel") {
            faults.push(format!("{manifest}: example `{name}` may not use `{other}`"));
        }
    }
}

fn check_sources(faults: &mut Vec<String>) -> Result<()> {
    let mut sources = Vec::new();
    for folder in ["crates", "examples", "xtask"] {
        collect(&crate::root().join(folder), &mut sources)?;
    }
    for path in sources {
        let shown = path.strip_prefix(crate::root()).unwrap_or(&path).display();
        let source = fs::read_to_string(&path).with_context(|| format!("read {shown}"))?;
        if !source.starts_with("//!") {
            faults.push(format!("{shown}:1: no `//!` header that says what is decided here"));
        }
        let lines = source.lines().count();
        if lines > LINES_MAX {
            faults.push(format!("{shown}: {lines} lines, at most {LINES_MAX}"));
        }
        for (index, line) in source.lines().enumerate() {
            if line.contains(concat!("#[", "ignore"))
                || line.contains(concat!("#[", "should_panic"))
            {
                faults.push(format!(
                    "{shown}:{}: tests are neither ignored nor expected to panic",
                    index + 1
                ));
            }
        }
    }
    Ok(())
}

fn collect(folder: &Path, sources: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, sources)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(path);
        }
    }
    Ok(())
}

fn check_licences(faults: &mut Vec<String>) -> Result<()> {
    let metadata = metadata(&["--filter-platform", "x86_64-unknown-linux-gnu"])?;
    for package in list(&metadata, "packages") {
        let licence = text(package, "license").replace('/', " OR ");
        let every_part_allowed = |alternative: &str| {
            alternative
                .split(" AND ")
                .all(|part| LICENCES.contains(&part.trim_matches([' ', '(', ')'])))
        };
        if !licence.split(" OR ").any(every_part_allowed) {
            faults.push(format!(
                "crate `{}`: licence `{licence}` is not on the list",
                text(package, "name")
            ));
        }
    }
    Ok(())
}
