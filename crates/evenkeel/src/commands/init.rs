//! `evenkeel init`: a commented system file to begin with.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::failure::{Failure, Outcome};
use crate::show;

/// Runs the command. A file that exists is left alone.
///
/// # Errors
/// When the file exists or can't be written.
pub(crate) fn run(file: &Path) -> Outcome {
    let template = evenkeel_system_file::template();
    if file == Path::new("-") {
        show::result(template.trim_end())?;
        return Ok(ExitCode::SUCCESS);
    }
    let shown = file.display();
    let mut created = File::create_new(file).map_err(|error| refuse(file, error))?;
    created.write_all(template.as_bytes()).with_context(|| format!("write `{shown}`"))?;
    show::result(&format!(
        "wrote {shown}; next: `evenkeel check {shown}`, then `evenkeel demo {shown}`"
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn refuse(file: &Path, error: io::Error) -> Failure {
    let shown = file.display();
    if file.is_dir() {
        let help = format!("`evenkeel init {}`", file.join("evenkeel.toml").display());
        return Failure::new(format!("`{shown}` is a folder")).with_help(help);
    }
    if error.kind() == io::ErrorKind::AlreadyExists {
        return Failure::new(format!("`{shown}` exists already; nothing was changed"))
            .with_help("give another path, or print the file with `evenkeel init -`");
    }
    Failure::from(anyhow::Error::new(error).context(format!("can't create `{shown}`")))
}
