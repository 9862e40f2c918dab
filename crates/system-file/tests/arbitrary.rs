//! That no input makes the parser panic, and that each refusal can be shown.

use evenkeel_diagnostic::Severity;
use evenkeel_diagnostic::render::render;
use evenkeel_system_file::{parse, template};
use proptest::prelude::*;

fn check(text: &str) {
    if let Err(diagnostics) = parse(text) {
        assert!(diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error));
        for diagnostic in diagnostics {
            let shown = render(&diagnostic, "file.toml", text);
            assert!(shown.starts_with(diagnostic.severity.as_str()));
            let controls = |c: char| c.is_control() && c != '\n';
            assert!(!shown.contains(controls), "{shown:?}");
        }
    }
}

/// Pieces of files, so that more than the syntax is reached.
fn piece() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "system = \"s\"\n",
        "survive = \"host\"\n",
        "survive = 3\n",
        "[region.a]\n",
        "[region]\n",
        "hosts = { h = \"10.0.0.1\", i = \"::1\" }\n",
        "zones = { z = { j = { role = \"witness\" } } }\n",
        "[service.w]\n",
        "[[service.w]]\n",
        "command = [\"${\", \"${PORT}\", \"${x.y}\"]\n",
        "command = 1979-05-27\n",
        "replicas = 99999999999999999999999\n",
        "replicas = 0x10\n",
        "needs = [\"service.w\", \"service.\", 1]\n",
        "drain = \"9999999999d\"\n",
        "[gateway.g]\n",
        "listen = \":99999\"\n",
        "listen = \"[::]:80\"\n",
        "[[gateway.g.routes]]\n",
        "to = \"w\"\n",
        "body_max = \"1.99999999999TiB\"\n",
        "path = \"\u{1f980}\"\n",
        "[ports]\n",
        "replicas = \"1-0\"\n",
        "kv = -1\n",
        "[database.d]\n",
        "database = 1\n",
        "\"\u{1b}[2J\\u0007\" = 1\n",
        "env = { a = inf }\n",
        "health = { tcp = true, http = \"/\" }\n",
        "\u{feff}",
        "\r\n",
        "'",
        "\"",
        "{",
        "]",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn any_text_is_answered(text in any::<String>()) {
        check(&text);
    }

    #[test]
    fn any_pieces_are_answered(pieces in prop::collection::vec(piece(), 0..24)) {
        check(&pieces.concat());
    }

    #[test]
    fn any_damage_to_a_good_file_is_answered(
        place in any::<prop::sample::Index>(),
        length in 0_usize..40,
        text in "[\\PC\\n\"\\[\\]{}=]{0,6}",
    ) {
        let mut file: Vec<char> = template().chars().collect();
        let start = place.index(file.len());
        let end = (start + length).min(file.len());
        file.splice(start..end, text.chars());
        check(&file.into_iter().collect::<String>());
    }
}
