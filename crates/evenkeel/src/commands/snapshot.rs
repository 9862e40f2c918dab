//! `evenkeel snapshot`: every key into a file, and back.

mod format;

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use evenkeel_client::{
    Client, Compare, Error, Expect, ListOptions, Operand, Operation, PutOptions, Refusal, Relation,
    Transaction,
};
use serde_json::json;
use tokio::runtime::Builder;

use crate::cli::snapshot::{SnapshotArguments, SnapshotCommand};
use crate::commands::kv::{client, refuse};
use crate::failure::{Failure, Outcome};
use crate::show;
use format::{Damaged, Entry, Header, Reader, Writer};

/// Most keys of a transaction: each may need a comparison, and 128 of both are allowed.
const BATCH_MAX: usize = 64;
/// Most bytes of values of a transaction: in base64 they stay below 1 MiB, which any gateway
/// lets through.
const BATCH_BYTES_MAX: usize = 512 << 10;

/// Runs the command. Exit code 2 when the file is not for this store.
///
/// # Errors
/// When the file or the store can't be read or written.
pub(crate) fn run(arguments: &SnapshotArguments) -> Outcome {
    let client = client(&arguments.connection)?;
    let json = arguments.connection.json;
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("start the event loop")?;
    match &arguments.command {
        SnapshotCommand::Save { file } => runtime.block_on(save(&client, file, json)),
        SnapshotCommand::Restore { file, overwrite, force } => {
            let restore = Restore { client: &client, file, overwrite: *overwrite, force: *force };
            runtime.block_on(restore.run(json))
        }
    }
}

async fn save(client: &Client, file: &Path, json: bool) -> Outcome {
    let system = client.system().await.map_err(refuse)?;
    let mut pages = client.pages(&ListOptions::default());
    let mut page = pages.next().await.map_err(refuse)?;
    let revision = page.as_ref().map_or(0, |page| page.revision);
    let part = part_of(file);
    let shown = file.display();
    let write = || format!("write `{}`", part.display());
    let out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part);
    let out = BufWriter::new(out.with_context(write)?);
    let mut writer = Writer::begin(out, &Header { system, revision }).with_context(write)?;
    while let Some(keys) = page {
        for entry in &keys.keys {
            writer.entry(entry).with_context(write)?;
        }
        page = pages.next().await.map_err(refuse)?;
    }
    let (count, leased) = (writer.count, writer.leased);
    keep(writer, &part, file)?;
    if json {
        let object = json!({ "revision": revision, "count": count, "leased": leased });
        show::result(&object.to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    show::result(&format!("saved {} at revision {revision} in `{shown}`", keys_in_words(count)))?;
    if leased > 0 {
        show::say(&format!("{} had a lease; it is not saved", keys_in_words(leased)));
    }
    Ok(ExitCode::SUCCESS)
}

/// Puts a complete file in its place, on disk.
fn keep(writer: Writer<BufWriter<File>>, part: &Path, file: &Path) -> Result<()> {
    let write = || format!("write `{}`", part.display());
    let mut out = writer.finish().with_context(write)?;
    out.flush().with_context(write)?;
    out.get_ref().sync_all().with_context(write)?;
    fs::rename(part, file).with_context(|| format!("replace `{}`", file.display()))?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = File::open(folder.unwrap_or_else(|| Path::new(".")));
    folder.and_then(|folder| folder.sync_all()).context("write the file's folder to disk")
}

fn part_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    PathBuf::from(name)
}

fn keys_in_words(count: u64) -> String {
    show::count(usize::try_from(count).unwrap_or(usize::MAX), "key", "keys")
}

/// What to restore, and how.
struct Restore<'a> {
    client: &'a Client,
    file: &'a Path,
    overwrite: bool,
    force: bool,
}

impl Restore<'_> {
    async fn run(&self, json: bool) -> Outcome {
        // All of it is read before anything is written.
        let (header, mut reader) = self.open()?;
        while reader.next().map_err(|damaged| self.damaged(damaged))?.is_some() {}
        self.check(&header).await?;
        let (_, mut reader) = self.open()?;
        let (mut batch, mut bytes, mut count) = (Vec::new(), 0, 0);
        while let Some(entry) = reader.next().map_err(|damaged| self.damaged(damaged))? {
            let full = batch.len() >= BATCH_MAX || bytes + entry.value.len() > BATCH_BYTES_MAX;
            if full && !batch.is_empty() {
                count += self.write(std::mem::take(&mut batch), count).await?;
                bytes = 0;
            }
            bytes += entry.value.len();
            batch.push(entry);
        }
        count += self.write(batch, count).await?;
        if json {
            show::result(&json!({ "count": count }).to_string())?;
        } else {
            let revision = header.revision;
            let keys = keys_in_words(count);
            show::result(&format!("restored {keys} as of revision {revision} of the saved store"))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn open(&self) -> Result<(Header, Reader<BufReader<File>>), Failure> {
        let file = File::open(self.file).map_err(Damaged::Read);
        let opened = file.and_then(|file| Reader::begin(BufReader::new(file)));
        opened.map_err(|damaged| self.damaged(damaged))
    }

    fn damaged(&self, damaged: Damaged) -> Failure {
        let text = format!("`{}` can't be restored", self.file.display());
        Failure::bad_input(anyhow::Error::new(damaged).context(text))
            .with_help("give a file that `evenkeel snapshot save` has written")
    }

    /// Refuses a store that the file is not for.
    async fn check(&self, header: &Header) -> Result<(), Failure> {
        let here = self.client.system().await.map_err(refuse)?;
        if let (Some(saved), Some(here)) = (&header.system, &here)
            && saved != here
            && !self.force
        {
            let text = format!("the file is of system `{saved}`, and this is `{here}`");
            return Err(Failure::bad_input(anyhow::Error::msg(text))
                .with_help("restore it all the same with --force"));
        }
        let first = ListOptions { limit: Some(1), ..ListOptions::default() };
        let page = self.client.list(&first).await.map_err(refuse)?;
        if !self.overwrite && !page.keys.is_empty() {
            let text = "the store holds keys; nothing was changed";
            return Err(Failure::bad_input(anyhow::Error::msg(text)).with_help(
                "set the file's keys beside and over those with --overwrite: it removes none",
            ));
        }
        Ok(())
    }

    /// Sets some keys at once and returns how many.
    async fn write(&self, batch: Vec<Entry>, before: u64) -> Result<u64, Failure> {
        let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        self.set(batch).await.map_err(|error| {
            let failure = refuse(error);
            let keys = keys_in_words(before);
            failure.with_help(format!("{keys} are restored: go on with the same and --overwrite"))
        })?;
        Ok(count)
    }

    async fn set(&self, mut batch: Vec<Entry>) -> Result<(), Error> {
        // A value of up to 1 MiB goes as it is: in JSON it could become too long.
        if batch.len() == 1
            && let Some(Entry { key, value }) = batch.pop()
        {
            let expect = if self.overwrite { Expect::Any } else { Expect::Absent };
            let options = PutOptions { expect, ..PutOptions::default() };
            return self.client.put(&key, value, &options).await.map(drop);
        }
        if batch.is_empty() {
            return Ok(());
        }
        // Whoever has set a key since the store was looked at keeps it.
        let absent = |entry: &Entry| Compare {
            key: entry.key.clone(),
            relation: Relation::Equal,
            operand: Operand::Version(0),
        };
        let compare = batch.iter().filter(|_| !self.overwrite).map(absent).collect();
        let put = |Entry { key, value }| Operation::Put { key, value, lease: None };
        let success = batch.into_iter().map(put).collect();
        let transaction = Transaction { compare, success, failure: Vec::new() };
        let done = self.client.transact(&transaction, None).await?;
        if done.succeeded {
            return Ok(());
        }
        Err(Error::Refused(Refusal {
            status: 412,
            code: "conflict".to_owned(),
            message: "somebody else sets keys of the file, which are left as they are".to_owned(),
            help: String::new(),
            revision: None,
        }))
    }
}
