//! How diagnostics and explanations look, and that the registry is in order.

use evenkeel_diagnostic::Diagnostic;
use evenkeel_diagnostic::code::{Code, explain, find};
use evenkeel_diagnostic::render::{locate, render};
use expect_test::{Expect, expect};

fn check(diagnostic: &Diagnostic, source: &str, expected: &Expect) {
    expected.assert_eq(&render(diagnostic, "evenkeel.toml", source));
}

#[test]
fn renders_a_label_with_note_and_help() {
    let source = "system = \"shop\"\nroutes = [{ to = \"wbe\" }]\n";
    let start = source.find("\"wbe\"").unwrap();
    let diagnostic = Diagnostic::error(Code::DanglingReference, "no service is named `wbe`")
        .label(start..start + 5, "this route goes nowhere")
        .note("the services are `api` and `web`")
        .help("did you mean `web`?");
    check(
        &diagnostic,
        source,
        &expect![[r#"
            error[EK0109]: no service is named `wbe`
             --> evenkeel.toml:2:18
              |
            2 | routes = [{ to = "wbe" }]
              |                  ^^^^^ this route goes nowhere
              |
              = note: the services are `api` and `web`
            help: did you mean `web`?
        "#]],
    );
}

#[test]
fn renders_far_labels_in_the_order_of_the_file() {
    let source = "a = 1\n\n\n\n\n\n\n\n\n\u{e9} = \"\u{1b}[31m\tred\"\nb = 1";
    let last = source.rfind("b = 1").unwrap();
    let escape = source.find('"').unwrap();
    let diagnostic = Diagnostic::warning(Code::DuplicateName, "three places")
        .label(last..last + 1, "main")
        .label(0..1, "first")
        .label(escape..escape + 3, "")
        .label(9999..99999, "end");
    check(
        &diagnostic,
        source,
        &expect![[r#"
            warning[EK0106]: three places
              --> evenkeel.toml:11:1
               |
             1 | a = 1
               | - first
               :
            10 | é = "�[31m red"
               |     ---
            11 | b = 1
               | ^ main
               |      - end
               |
        "#]],
    );
}

#[test]
fn renders_without_a_place() {
    let diagnostic = Diagnostic::error(Code::NoHost, "the file names no host").help("add one");
    check(
        &diagnostic,
        "",
        &expect![[r#"
            error[EK0116]: the file names no host
            help: add one
        "#]],
    );
}

#[test]
fn locates_bytes_inside_and_outside_characters() {
    assert_eq!(locate("a\n\u{e9}b", 2), (2, 1));
    assert_eq!(locate("a\n\u{e9}b", 3), (2, 1));
    assert_eq!(locate("a\n\u{e9}b", 4), (2, 2));
    assert_eq!(locate("a\n", 99), (2, 1));
    assert_eq!(locate("", 0), (1, 1));
}

#[test]
fn every_code_is_found_by_its_number_and_explains_itself() {
    for (index, &code) in Code::ALL.iter().enumerate() {
        assert_eq!(find(&code.as_str().to_lowercase()), Some(code));
        assert_eq!(code.as_str().len(), 6);
        assert!(Code::ALL[..index].iter().all(|other| other.as_str() < code.as_str()), "{code}");
        let explanation = code.explanation();
        for text in [
            explanation.title,
            explanation.checks,
            explanation.matters,
            explanation.example,
            explanation.fix,
        ] {
            assert!(!text.trim().is_empty(), "{code}");
            assert!(text.lines().all(|line| line.chars().count() <= 110), "{code}: {text}");
        }
    }
    assert_eq!(explain("EK9999"), None);
}

#[test]
fn explains_as_text() {
    let text = explain("ek0102").unwrap().to_text(Code::UnknownKey);
    expect![[r#"
        EK0102: the key is not known

        What is checked
            That every key of the file has a meaning at the place where it stands.

        Why it matters
            A mistyped key would be passed over in silence, and its default used instead.

        Example
            [service.web]
            replica = 3

        How to fix it
            [service.web]
            replicas = 3
    "#]]
    .assert_eq(&text);
}
