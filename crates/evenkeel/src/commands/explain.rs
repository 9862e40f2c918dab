//! `evenkeel explain` and `evenkeel schema`: what a system file may say, in words and as a schema.

use std::process::ExitCode;

use anyhow::Result;
use evenkeel_diagnostic::code;

use crate::commands::BAD_INPUT;
use crate::show;

/// Explains one code, or lists all of them.
///
/// # Errors
/// Never; the type is that of every command.
pub(crate) fn run(text: Option<&str>) -> Result<ExitCode> {
    let Some(text) = text else {
        for code in code::Code::ALL {
            show::result(&format!("{code}  {}", code.explanation().title));
        }
        return Ok(ExitCode::SUCCESS);
    };
    let Some(code) = code::find(text) else {
        show::say(&format!("error: there is no code `{text}`; `evenkeel explain` lists them all"));
        return Ok(ExitCode::from(BAD_INPUT));
    };
    show::result(code.explanation().to_text(code).trim_end());
    Ok(ExitCode::SUCCESS)
}

/// Prints the JSON Schema of system files.
///
/// # Errors
/// When the schema can't be written as JSON.
pub(crate) fn schema() -> Result<ExitCode> {
    show::result(&serde_json::to_string_pretty(&evenkeel_system_file::schema::schema())?);
    Ok(ExitCode::SUCCESS)
}
