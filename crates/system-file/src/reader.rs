//! Takes typed values out of a TOML tree and collects what is wrong with them.
//!
//! A value that cannot be used is reported and its default taken in its place, so that one pass
//! finds every fault of a file. The system is thrown away afterwards if there was an error.

use std::ops::Range;
use std::time::Duration;

use evenkeel_diagnostic::Diagnostic;
use evenkeel_diagnostic::code::Code;
use evenkeel_model::name::NameError;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::defaults::Bounds;
use crate::keys::Shape;
use crate::spans::Spans;
use crate::suggestion::{list, nearest, suggest};
use crate::units;

/// A value of the tree with its place.
pub(crate) type Value<'t> = Spanned<DeValue<'t>>;

/// A text with its place, quotes included.
pub(crate) type Text<'t> = Spanned<&'t str>;

/// Collects diagnostics and places while a file is read.
#[derive(Debug)]
pub(crate) struct Reader<'t> {
    /// The whole file.
    pub(crate) source: &'t str,
    pub(crate) diagnostics: Vec<Diagnostic>,
    pub(crate) spans: Spans,
    /// Where databases are declared or referred to: one error in the end, not one each.
    pub(crate) databases: Vec<Range<usize>>,
}

/// A table whose keys have been checked against its shape.
#[derive(Debug)]
pub(crate) struct Table<'t> {
    pub(crate) entries: &'t DeTable<'t>,
    pub(crate) path: String,
}

impl<'t> Table<'t> {
    pub(crate) fn value(&self, key: &str) -> Option<&'t Value<'t>> {
        self.entries.get(key)
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }
}

impl<'t> Reader<'t> {
    pub(crate) fn new(source: &'t str) -> Self {
        Self { source, diagnostics: Vec::new(), spans: Spans::default(), databases: Vec::new() }
    }

    pub(crate) fn report(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    /// Checks the keys of a table. `key` is where the table is named; the file itself is not.
    pub(crate) fn open(
        &mut self,
        shape: &'static Shape,
        path: String,
        key: Option<Range<usize>>,
        entries: &'t DeTable<'t>,
    ) -> Table<'t> {
        for (name, value) in in_order(entries) {
            let name_text = name.get_ref().as_ref();
            let prefix = if path.is_empty() { String::new() } else { format!("{path}.") };
            let span = if value.get_ref().is_table() { name.span() } else { value.span() };
            self.spans.insert(format!("{prefix}{name_text}"), span);
            if path.is_empty() && name_text == "database" {
                self.note_database_tables(name.span(), value);
            } else if !shape.keys.iter().any(|key| key.name == name_text) {
                self.report_unknown_key(shape, name_text, name.span());
            }
        }
        let unknown = || entries.keys().map(|key| key.get_ref().as_ref());
        for missing in shape.keys.iter().filter(|key| key.required) {
            // A mistyped key has been reported already.
            let mistyped = unknown().any(|key| nearest(key, shape.names()) == Some(missing.name));
            if !entries.contains_key(missing.name) && !mistyped {
                self.report_missing_key(shape, missing.name, missing.doc, key.clone());
            }
        }
        Table { entries, path }
    }

    /// Opens the table that `value` must be.
    pub(crate) fn open_value(
        &mut self,
        shape: &'static Shape,
        path: String,
        key: Range<usize>,
        value: &'t Value<'t>,
    ) -> Option<Table<'t>> {
        let entries = self.table(value, shape.title)?;
        Some(self.open(shape, path, Some(key), entries))
    }

    /// Returns the entries of the table that `value` must be.
    pub(crate) fn table(&mut self, value: &'t Value<'t>, what: &str) -> Option<&'t DeTable<'t>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.report_type(value, &format!("a table for {what}"));
        }
        table
    }

    /// Returns the entries of a table of named things, in the order of the file.
    pub(crate) fn named(
        &mut self,
        table: &Table<'t>,
        key: &str,
    ) -> Vec<(Spanned<&'t str>, &'t Value<'t>)> {
        let Some(value) = table.value(key) else { return Vec::new() };
        let what = format!("names under `{key}`");
        let entries = self.table(value, &what).map(in_order_named).unwrap_or_default();
        let prefix = if table.path.is_empty() { String::new() } else { format!("{}.", table.path) };
        for (name, _) in &entries {
            self.spans.insert(format!("{prefix}{key}.{}", name.get_ref()), name.span());
        }
        entries
    }

    pub(crate) fn text(&mut self, table: &Table<'t>, key: &str) -> Option<Text<'t>> {
        let value = table.value(key)?;
        self.text_of(value)
    }

    pub(crate) fn text_of(&mut self, value: &'t Value<'t>) -> Option<Text<'t>> {
        let text = value.get_ref().as_str();
        if text.is_none() {
            let number = value.get_ref().is_integer() || value.get_ref().is_float();
            let help = number.then(|| "put it in quotes".to_owned());
            self.report_type_with(value, "a text in quotes", help);
        }
        text.map(|text| Spanned::new(value.span(), text))
    }

    /// Returns the elements of a list of texts.
    pub(crate) fn texts(&mut self, table: &Table<'t>, key: &str) -> Vec<Text<'t>> {
        let Some(value) = table.value(key) else { return Vec::new() };
        let Some(elements) = value.get_ref().as_array() else {
            self.report_type(value, "a list of texts such as `[\"a\", \"b\"]`");
            return Vec::new();
        };
        elements.iter().filter_map(|element| self.text_of(element)).collect()
    }

    /// Returns the index of the word in `words`.
    pub(crate) fn word(
        &mut self,
        table: &Table<'t>,
        key: &str,
        words: &[&'static str],
    ) -> Option<&'static str> {
        let text = self.text(table, key)?;
        let found = words.iter().find(|word| *word == text.get_ref()).copied();
        if found.is_none() {
            self.report(
                Diagnostic::error(
                    Code::UnknownChoice,
                    format!("`{}` is not a value of `{key}`", text.get_ref()),
                )
                .label(text.span(), "not one of the choices")
                .help(
                    suggest(text.get_ref(), words.iter().copied()).unwrap_or_else(|| {
                        format!("write one of {}", list(words.iter().copied(), "or"))
                    }),
                ),
            );
        }
        found
    }

    /// Returns the name that the text must be; `what` is what it names: `a host`.
    pub(crate) fn name<T>(
        &mut self,
        text: &Text<'t>,
        what: &str,
        parse: fn(&str) -> Result<T, NameError>,
    ) -> Option<T> {
        parse(text.get_ref())
            .map_err(|error| {
                let shown = text.get_ref().escape_debug();
                self.report(
                    Diagnostic::error(Code::BadName, format!("`{shown}` cannot name {what}"))
                        .label(text.span(), error.to_string()),
                );
            })
            .ok()
    }

    pub(crate) fn boolean(&mut self, table: &Table<'t>, key: &str) -> Option<bool> {
        let value = table.value(key)?;
        let boolean = value.get_ref().as_bool();
        if boolean.is_none() {
            self.report_type(value, "`true` or `false`");
        }
        boolean
    }

    /// Returns the whole number; `None` when it is absent or cannot be used.
    pub(crate) fn integer(
        &mut self,
        table: &Table<'t>,
        key: &str,
        bounds: Bounds<u64>,
    ) -> Option<u64> {
        let value = table.value(key)?;
        let Some(integer) = value.get_ref().as_integer() else {
            let text = value.get_ref().as_str().unwrap_or("");
            let help = text.parse::<u64>().is_ok().then(|| format!("write `{key} = {text}`"));
            self.report_type_with(value, "a whole number without quotes", help);
            return None;
        };
        let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
        let inside = number
            .and_then(|number| u64::try_from(number).ok())
            .filter(|number| (bounds.min..=bounds.max).contains(number));
        if inside.is_none() {
            self.report_bounds(key, value, &bounds.min.to_string(), &bounds.max.to_string());
        }
        inside
    }

    /// Returns the duration, or its default.
    pub(crate) fn duration(
        &mut self,
        table: &Table<'t>,
        key: &str,
        bounds: Bounds<Duration>,
    ) -> Duration {
        let form = Form {
            what: "a duration with a unit, such as `\"20s\"` or `\"500ms\"`",
            units: "the units are `ms`, `s`, `m`, `h` and `d`, without spaces: `\"1m30s\"`",
            unit: "s",
            parse: units::parse_duration,
            format: units::format_duration,
        };
        self.quantity(table, key, bounds, &form)
    }

    /// Returns the size in bytes, or its default.
    pub(crate) fn size(&mut self, table: &Table<'t>, key: &str, bounds: Bounds<u64>) -> u64 {
        let form = Form {
            what: "a size with a unit, such as `\"1MiB\"`",
            units: "the units are `B`, `KiB` (1024 B), `MiB` and `GiB`, without spaces",
            unit: "B",
            parse: units::parse_size,
            format: units::format_size,
        };
        self.quantity(table, key, bounds, &form)
    }

    fn quantity<T: Copy + PartialOrd>(
        &mut self,
        table: &Table<'t>,
        key: &str,
        bounds: Bounds<T>,
        form: &Form<T>,
    ) -> T {
        let Some(value) = table.value(key) else { return bounds.default };
        let Some(text) = value.get_ref().as_str() else {
            let number = value.get_ref().is_integer() || value.get_ref().is_float();
            let written = self.source.get(value.span()).filter(|_| number);
            let unit = form.unit;
            let help = written.map(|number| format!("write `{key} = \"{number}{unit}\"`"));
            self.report_type_with(value, form.what, help);
            return bounds.default;
        };
        match (form.parse)(text) {
            Some(quantity) if (bounds.min..=bounds.max).contains(&quantity) => quantity,
            Some(_) => {
                let format = form.format;
                self.report_bounds(key, value, &format(bounds.min), &format(bounds.max));
                bounds.default
            }
            None => {
                self.report(
                    Diagnostic::error(Code::BadQuantity, format!("`{text}` cannot be read"))
                        .label(value.span(), format!("expected {}", form.what))
                        .help(form.units),
                );
                bounds.default
            }
        }
    }

    pub(crate) fn report_type(&mut self, value: &Value<'t>, expected: &str) {
        self.report_type_with(value, expected, None);
    }

    fn report_type_with(&mut self, value: &Value<'t>, expected: &str, help: Option<String>) {
        let found = match value.get_ref() {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "`true` or `false`",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        let mut diagnostic =
            Diagnostic::error(Code::WrongType, format!("{found} cannot stand here"))
                .label(value.span(), format!("expected {expected}"));
        diagnostic.help = help;
        self.report(diagnostic);
    }

    fn report_bounds(&mut self, key: &str, value: &Value<'t>, min: &str, max: &str) {
        let written = self.source.get(value.span()).unwrap_or("the value").trim_matches('"');
        self.report(
            Diagnostic::error(Code::BadQuantity, format!("`{key}` cannot be {written}"))
                .label(value.span(), format!("outside {min} to {max}")),
        );
    }

    fn report_unknown_key(&mut self, shape: &'static Shape, name: &str, span: Range<usize>) {
        self.report(
            Diagnostic::error(Code::UnknownKey, format!("{} has no key `{name}`", shape.title))
                .label(span, "not known here")
                .help(suggest(name, shape.names()).unwrap_or_else(|| {
                    format!("the keys here are {}", list(shape.names(), "and"))
                })),
        );
    }

    fn report_missing_key(
        &mut self,
        shape: &Shape,
        name: &str,
        doc: &str,
        key: Option<Range<usize>>,
    ) {
        let mut diagnostic =
            Diagnostic::error(Code::MissingKey, format!("{} needs the key `{name}`", shape.title))
                .note(format!("`{name}`: {doc}"));
        diagnostic = match key {
            Some(span) => diagnostic.label(span, format!("has no `{name}`")),
            None => diagnostic.help("`evenkeel init` writes a commented file to begin with"),
        };
        self.report(diagnostic);
    }

    fn note_database_tables(&mut self, key: Range<usize>, value: &Value<'t>) {
        match value.get_ref().as_table() {
            Some(names) if !names.is_empty() => {
                self.databases.extend(in_order(names).map(|(name, _)| name.span()));
            }
            Some(_) | None => self.databases.push(key),
        }
    }
}

/// How a quantity is written.
struct Form<T> {
    what: &'static str,
    units: &'static str,
    unit: &'static str,
    parse: fn(&str) -> Option<T>,
    format: fn(T) -> String,
}

/// Returns the entries of a table in the order of the file.
pub(crate) fn in_order<'t>(
    table: &'t DeTable<'t>,
) -> impl Iterator<Item = (&'t Spanned<toml::de::DeString<'t>>, &'t Value<'t>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries.into_iter()
}

/// Returns the entries of a table in the order of the file, with plain names.
pub(crate) fn in_order_named<'t>(table: &'t DeTable<'t>) -> Vec<(Spanned<&'t str>, &'t Value<'t>)> {
    in_order(table)
        .map(|(key, value)| (Spanned::new(key.span(), key.get_ref().as_ref()), value))
        .collect()
}
