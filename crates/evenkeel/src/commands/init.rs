//! `evenkeel init`: a commented system file to begin with.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use crate::show;

/// Runs the command. A file that exists is left alone.
///
/// # Errors
/// When the file exists or can't be written.
pub(crate) fn run(file: &Path) -> Result<ExitCode> {
    let template = evenkeel_system_file::template();
    if file == Path::new("-") {
        show::result(template.trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    let mut created = match File::create_new(file) {
        Ok(created) => created,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            bail!("`{}` exists already; nothing was changed", file.display())
        }
        Err(error) => return Err(error).with_context(|| format!("create `{}`", file.display())),
    };
    created
        .write_all(template.as_bytes())
        .with_context(|| format!("write `{}`", file.display()))?;
    let shown = file.display();
    show::result(&format!(
        "wrote {shown}; next: `evenkeel check {shown}`, then `evenkeel demo {shown}`"
    ));
    Ok(ExitCode::SUCCESS)
}
