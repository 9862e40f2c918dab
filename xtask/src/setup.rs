//! Installs what tests and measurements need: Debian packages, through `apt-get`, when run as root.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// A program the tests start, and the Debian package that holds it.
const PROGRAMS: &[(&str, &str)] = &[("ip", "iproute2"), ("nft", "nftables")];

/// What the comparison with etcd starts.
const PROGRAMS_FOR_ETCD: &[(&str, &str)] = &[("etcd", "etcd-server"), ("setpriv", "util-linux")];

/// Installs every missing program. Without root the missing ones are named, and the tests that
/// need them fail with the same words.
///
/// # Errors
/// When `apt-get` fails.
pub(crate) fn install() -> Result<()> {
    let missing = missing(PROGRAMS);
    if !missing.is_empty() && !is_root()? {
        println!("xtask: missing packages: {}; install them as root", missing.join(" "));
        return Ok(());
    }
    install_packages(&missing)
}

/// Installs etcd for the comparison with it.
///
/// # Errors
/// When it is missing and this is not root, or `apt-get` fails.
pub(crate) fn install_for_etcd() -> Result<()> {
    let missing = missing(PROGRAMS_FOR_ETCD);
    if !missing.is_empty() && !is_root()? {
        bail!("missing packages: {}; install them as root", missing.join(" "));
    }
    install_packages(&missing)
}

fn missing(programs: &[(&'static str, &'static str)]) -> Vec<&'static str> {
    let missing = programs.iter().filter(|(program, _)| !is_installed(program));
    missing.map(|(_, package)| *package).collect()
}

fn install_packages(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    crate::run(Command::new("apt-get").args(["update", "-qq"]))?;
    let mut install = Command::new("apt-get");
    install.args(["install", "-y", "-qq", "--no-install-recommends"]).args(packages);
    crate::run(install.env("DEBIAN_FRONTEND", "noninteractive"))
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path).chain(system).any(|folder| folder.join(program).is_file())
}

fn is_root() -> Result<bool> {
    let output = Command::new("id").arg("-u").output().context("run `id -u`")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim() == "0")
}
