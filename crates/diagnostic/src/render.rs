//! Diagnostics as plain text: the form for files, pipes, tests and terminals without colour.

use std::fmt::Write as _;

use crate::{Diagnostic, Label};

/// Returns the line and the column, both from 1, of a byte of `source`. A byte past the end is
/// taken as the end; columns count characters.
#[must_use]
pub fn locate(source: &str, byte: usize) -> (usize, usize) {
    let before = &source[..floor_boundary(source, byte)];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (line, column)
}

/// Renders one diagnostic over the text it is about, ending in a newline.
///
/// ```text
/// error[EK0109]: no service is named `wbe`
///   --> evenkeel.toml:24:28
///    |
/// 24 | routes = [{ path = "/", to = "wbe" }]
///    |                              ^^^^^ this route goes nowhere
///    |
/// help: did you mean `web`?
/// ```
#[must_use]
pub fn render(diagnostic: &Diagnostic, file: &str, source: &str) -> String {
    let mut text =
        format!("{}[{}]: {}\n", diagnostic.severity.as_str(), diagnostic.code, diagnostic.message);
    let mut marks: Vec<Mark<'_>> = diagnostic
        .labels
        .iter()
        .enumerate()
        .map(|(index, label)| Mark::new(source, label, index == 0))
        .collect();
    let gutter = marks.iter().map(|mark| mark.line.to_string().len()).max().unwrap_or(1);
    if let Some(main) = marks.first() {
        push(&mut text, format_args!("{:gutter$}--> {file}:{}:{}", "", main.line, main.column));
        push(&mut text, format_args!("{:gutter$} |", ""));
        marks.sort_by_key(|mark| (mark.line, mark.column));
        push_marks(&mut text, gutter, &marks, source);
        push(&mut text, format_args!("{:gutter$} |", ""));
    }
    for note in &diagnostic.notes {
        push(&mut text, format_args!("{:gutter$} = note: {note}", ""));
    }
    if let Some(help) = &diagnostic.help {
        push(&mut text, format_args!("help: {help}"));
    }
    text
}

/// A label brought to its line.
struct Mark<'a> {
    line: usize,
    column: usize,
    width: usize,
    main: bool,
    text: &'a str,
}

impl<'a> Mark<'a> {
    fn new(source: &str, label: &'a Label, main: bool) -> Self {
        let start = floor_boundary(source, label.span.start);
        let end = floor_boundary(source, label.span.end).max(start);
        let (line, column) = locate(source, start);
        // A span over several lines is marked on its first one.
        let width = source[start..end].lines().next().unwrap_or("").chars().count().max(1);
        Self { line, column, width, main, text: &label.text }
    }
}

fn push_marks(text: &mut String, gutter: usize, marks: &[Mark<'_>], source: &str) {
    let mut shown = None;
    for mark in marks {
        if shown != Some(mark.line) {
            if shown.is_some_and(|line| line + 1 < mark.line) {
                push(text, format_args!("{:gutter$} :", ""));
            }
            let line = source.split('\n').nth(mark.line - 1).unwrap_or("");
            push(text, format_args!("{:>gutter$} | {}", mark.line, printable(line)));
            shown = Some(mark.line);
        }
        let sign = if mark.main { "^" } else { "-" };
        let under = format!("{}{}", " ".repeat(mark.column - 1), sign.repeat(mark.width));
        push(text, format_args!("{:gutter$} | {under} {}", "", mark.text));
    }
}

/// Appends one line without spaces at its end.
fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    let start = text.len();
    // Writing into a `String` cannot fail.
    if text.write_fmt(line).is_ok() {
        text.truncate(start + text[start..].trim_end().len());
        text.push('\n');
    }
}

/// Replaces what would move the cursor or colour the terminal, keeping one column a character.
fn printable(line: &str) -> String {
    line.trim_end_matches('\r')
        .chars()
        .map(|character| match character {
            '\t' => ' ',
            _ if character.is_control() => '\u{fffd}',
            _ => character,
        })
        .collect()
}

/// Returns the last boundary between characters of `text` that is not after `byte`.
fn floor_boundary(text: &str, byte: usize) -> usize {
    let mut byte = byte.min(text.len());
    while !text.is_char_boundary(byte) {
        byte -= 1;
    }
    byte
}
