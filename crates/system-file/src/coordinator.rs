//! Reads `[coordinator]`.

use std::time::Duration;

use crate::reader::{Reader, Table};
use crate::{defaults, keys};

/// Returns how long a voter may be missing before another host takes its place.
pub(crate) fn read_replace_after<'t>(reader: &mut Reader<'t>, system: &Table<'t>) -> Duration {
    let (path, bounds) = ("coordinator", defaults::REPLACE_AFTER);
    let table = system.value(path).and_then(|value| {
        reader.open_value(&keys::COORDINATOR, path.to_owned(), value.span(), value)
    });
    table.map_or(bounds.default, |table| reader.duration(&table, "replace_after", bounds))
}
