//! All keys that begin alike, page by page, as they stood at one revision.

use crate::client::Client;
use crate::error::Error;
use crate::keys::{ListOptions, Page};

/// Most keys of a page.
const PAGE_MAX: u32 = 1000;

/// The pages of a list, see [`Client::pages`].
#[derive(Debug)]
pub struct Pages {
    client: Client,
    options: ListOptions,
    ended: bool,
}

impl Pages {
    pub(crate) fn new(client: Client, options: ListOptions) -> Self {
        let limit = Some(options.limit.map_or(PAGE_MAX, |limit| limit.min(PAGE_MAX)));
        Self { client, options: ListOptions { limit, ..options }, ended: false }
    }

    /// Returns the next page, `None` after the last one. All pages are of one revision.
    ///
    /// # Errors
    /// When a page can't be had; it may be asked for again. The code is `compacted` when the
    /// revision was forgotten on the way.
    pub async fn next(&mut self) -> Result<Option<Page>, Error> {
        if self.ended {
            return Ok(None);
        }
        let page = self.client.list(&self.options).await?;
        self.ended = !page.more;
        self.options.revision = Some(page.revision);
        if let Some(last) = page.keys.last() {
            self.options.after = Some(last.key.clone());
        }
        Ok(Some(page))
    }
}
