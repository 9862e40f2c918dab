//! `evenkeel explain` and `evenkeel schema`: what a system file may say, in words and as a schema.

use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use evenkeel_diagnostic::code;

use crate::failure::{Failure, Outcome};
use crate::show;

/// Explains one code, or lists all of them.
///
/// # Errors
/// When there is no such code.
pub(crate) fn run(text: Option<&str>) -> Outcome {
    let Some(text) = text else {
        for code in code::Code::ALL {
            show::result(&format!("{code}  {}", code.explanation().title))?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let code = code::find(text).ok_or_else(|| {
        Failure::bad_input(anyhow!("there is no code `{text}`"))
            .with_help("`evenkeel explain` lists them all")
    })?;
    show::result(code.explanation().to_text(code).trim_end())?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the JSON Schema of system files.
///
/// # Errors
/// When it can't be written.
pub(crate) fn schema() -> Outcome {
    let schema = evenkeel_system_file::schema::schema();
    show::result(&serde_json::to_string_pretty(&schema).context("write the schema as JSON")?)?;
    Ok(ExitCode::SUCCESS)
}
