//! Checks `${…}` in commands and environments. The node fills them in.

use std::ops::Range;

use evenkeel_diagnostic::Diagnostic;
use evenkeel_diagnostic::code::Code;

use crate::reader::{Reader, Text};
use crate::suggestion::{list, nearest};

/// What the node fills in.
pub(crate) const KNOWN: [&str; 4] = ["PORT", "ADDRESS", "HOST", KV_URL];

/// The loopback listener of the key-value store.
pub(crate) const KV_URL: &str = "kv.url";

/// Checks every placeholder of `text` and returns whether [`KV_URL`] is among them.
pub(crate) fn check(reader: &mut Reader<'_>, text: &Text<'_>) -> bool {
    let mut rest = *text.get_ref();
    let mut uses_kv = false;
    while let Some(start) = rest.find("${") {
        let after = &rest[start + 2..];
        let Some(end) = after.find('}') else {
            reader.report(
                Diagnostic::error(Code::UnknownPlaceholder, "a placeholder does not end")
                    .label(find(reader, text, &rest[start..]), "begins here")
                    .help("add the closing `}`"),
            );
            return uses_kv;
        };
        let name = &after[..end];
        if name.starts_with("database.") {
            let span = find(reader, text, &rest[start..start + end + 3]);
            reader.databases.push(span);
        } else if !KNOWN.contains(&name) {
            let span = find(reader, text, &rest[start..start + end + 3]);
            report_unknown(reader, name, span);
        }
        uses_kv |= name == KV_URL;
        rest = &after[end + 1..];
    }
    uses_kv
}

fn report_unknown(reader: &mut Reader<'_>, name: &str, span: Range<usize>) {
    let known = list(KNOWN.map(|name| format!("${{{name}}}")).iter().map(String::as_str), "and");
    let shown = name.escape_debug();
    reader.report(
        Diagnostic::error(Code::UnknownPlaceholder, format!("`${{{shown}}}` is not known"))
            .label(span, "nothing fills this in")
            .note(format!("the placeholders are {known}"))
            .help(nearest(name, KNOWN.into_iter()).map_or_else(
                || "leave the braces out where a shell is to read a variable".to_owned(),
                |known| format!("write `${{{known}}}`"),
            )),
    );
}

/// Returns where `part` stands within `text`; all of it if escapes hide the place.
fn find(reader: &Reader<'_>, text: &Text<'_>, part: &str) -> Range<usize> {
    let all = text.span();
    let within = reader.source.get(all.clone()).and_then(|literal| literal.find(part));
    within.map_or(all.clone(), |offset| {
        let start = all.start + offset;
        start..start + part.len()
    })
}
