//! Installs the Debian package of a program that is missing, when this user may.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::failure::Failure;
use crate::show;

/// Where Debian and its children have it.
const APT_GET: &str = "/usr/bin/apt-get";

/// Returns whether this machine takes packages in by `apt-get`.
pub(crate) fn can_install() -> bool {
    Path::new(APT_GET).exists()
}

/// Installs a package and says so.
///
/// # Errors
/// When `apt-get` fails; it has then said why.
pub(crate) fn install(package: &str) -> Result<(), Failure> {
    show::say(&format!("installs the package `{package}`: apt-get install {package}"));
    // On a new machine nothing is known of any package before the first update.
    let installed = run(&["install", package]) || (run(&["update"]) && run(&["install", package]));
    if installed {
        return Ok(());
    }
    let text = format!("`apt-get install {package}` failed; nothing was started");
    Err(Failure::new(text).with_help("run it by hand to see why"))
}

/// Runs `apt-get`, which is quiet but for errors, and returns whether it succeeded.
fn run(words: &[&str]) -> bool {
    let mut command = Command::new(APT_GET);
    command
        .args(["-qq", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=60"])
        .args(words);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
