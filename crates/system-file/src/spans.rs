//! Where in the text each part of a system stands.

use std::collections::BTreeMap;
use std::ops::Range;

/// Finds the part of the text that set a value, by a dotted path.
///
/// Paths are those of the file, such as `survive`, `service.web.replicas` or `gateway.public.listen`,
/// and besides `host.NAME` and `zone.REGION.ZONE`, which stand deeper in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spans(BTreeMap<String, Range<usize>>);

impl Spans {
    pub(crate) fn insert(&mut self, path: String, span: Range<usize>) {
        self.0.insert(path, span);
    }

    /// Returns the span of what `path` names, if it stands in the file itself.
    #[must_use]
    pub fn find_exactly(&self, path: &str) -> Option<Range<usize>> {
        self.0.get(path).cloned()
    }

    /// Returns the span of what `path` names, or of the nearest part around it that the file has:
    /// a value left to its default is found as the table that could have set it. `None` when
    /// not even the first segment stands in the file.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<Range<usize>> {
        let mut path = path;
        loop {
            if let Some(span) = self.0.get(path) {
                return Some(span.clone());
            }
            path = path.rsplit_once('.')?.0;
        }
    }
}
