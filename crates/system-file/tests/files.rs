//! What an operator is told about files that cannot be used, and what becomes of those that can.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use evenkeel_diagnostic::code::Code;
use evenkeel_diagnostic::render::render;
use evenkeel_system_file::parse;
use expect_test::{expect, expect_file};

fn golden_files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the folder is in the repository")
        .map(|entry| entry.expect("it can be listed").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    files
}

#[test]
fn bad_files_are_answered_with_all_their_faults() {
    let mut emitted = BTreeSet::new();
    for file in golden_files() {
        let text = std::fs::read_to_string(&file).unwrap();
        let diagnostics = parse(&text).unwrap_err();
        emitted.extend(diagnostics.iter().map(|diagnostic| diagnostic.code));
        let name = file.file_name().unwrap().to_string_lossy();
        let rendered: Vec<String> =
            diagnostics.iter().map(|diagnostic| render(diagnostic, &name, &text)).collect();
        expect_file![file.with_extension("txt")].assert_eq(&rendered.join("\n"));
    }
    let all: BTreeSet<Code> =
        Code::ALL.iter().copied().filter(|code| code.as_str() < "EK0200").collect();
    assert_eq!(emitted, all, "codes that no file of tests/golden leads to");
}

#[test]
fn a_file_that_can_be_used_may_come_with_warnings() {
    let text = r#"
system  = "shop"
survive = "process"
[region.fra]
hosts = { a1 = "10.1.0.11" }
[service.web]
command = ["/opt/web", "--store", "${kv.url}"]
"#;
    let parsed = parse(text).unwrap();
    let warnings: Vec<String> =
        parsed.warnings.iter().map(|warning| render(warning, "shop.toml", text)).collect();
    expect![[r#"
        warning[EK0127]: service `web` uses the key-value store without needing it
         --> shop.toml:7:35
          |
        7 | command = ["/opt/web", "--store", "${kv.url}"]
          |                                   ^^^^^^^^^^^ used here
          |
        help: add `needs = ["kv"]`, unless it also works without the store
    "#]]
    .assert_eq(&warnings.join("\n"));
}
