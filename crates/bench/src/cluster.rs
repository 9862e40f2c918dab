//! A running system: starts its members, finds its leader, kills and restarts a member, and leaves
//! nothing behind, however it ends.
#![expect(clippy::print_stdout, reason = "says what could not be cleaned up")]

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::time::{sleep, timeout};

use crate::client::{Client, Manner, Operation, Target};
use crate::system::{self, Programs, System};

/// Longest wait until every member is in step.
const READY_MAX: Duration = Duration::from_secs(60);
/// Longest wait for one answer while they get there.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// Time to settle once all are in step: to measure round trips, to close what the start opened.
const SETTLE: Duration = Duration::from_secs(1);

/// The members of one system.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) system: System,
    programs: Programs,
    folder: PathBuf,
    /// The process of each member, while it runs.
    children: Vec<Option<Child>>,
}

impl Cluster {
    /// Starts `count` members on an empty folder and waits until they are in step.
    pub(crate) async fn start(
        system: System,
        count: usize,
        programs: &Programs,
        folder: &Path,
    ) -> Result<Self> {
        clear(&programs.evenkeel, folder)?;
        fs::create_dir_all(folder).context("make a data folder")?;
        if system == System::Evenkeel {
            fs::write(system::system_file(folder), System::system_text(count))
                .context("write the system file")?;
        }
        let children = std::iter::repeat_with(|| None).take(count).collect();
        let (programs, folder) = (programs.clone(), folder.to_path_buf());
        let mut cluster = Self { system, programs, folder, children };
        for index in 0..count {
            cluster.start_member(index)?;
        }
        cluster.wait_until_ready().await?;
        Ok(cluster)
    }

    /// Starts a member on the folder that it has.
    pub(crate) fn start_member(&mut self, index: usize) -> Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(self.log(index));
        let log = log.context("open a member's log")?;
        let mut command =
            self.system.command(&self.programs, index, self.children.len(), &self.folder);
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share a member's log")?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {command:?}"))?;
        self.children[index] = Some(child);
        Ok(())
    }

    /// Kills a member with SIGKILL: no goodbye, nothing written any more.
    pub(crate) fn kill_member(&mut self, index: usize) -> Result<()> {
        let Some(mut child) = self.children[index].take() else { return Ok(()) };
        child.kill().context("kill a member")?;
        child.wait().context("wait for a killed member").map(drop)
    }

    /// Returns how many members there are.
    pub(crate) const fn len(&self) -> usize {
        self.children.len()
    }

    /// Returns where clients of a member go.
    pub(crate) fn target(&self, index: usize) -> Target {
        Target { system: self.system, address: self.system.api(index), manner: Manner::Shared }
    }

    /// Returns the process of each running member.
    pub(crate) fn processes(&self) -> Vec<u32> {
        self.children.iter().flatten().map(Child::id).collect()
    }

    /// Returns the folder that the data of all members is in.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Waits until every member names the same leader and takes a put, and has settled.
    pub(crate) async fn wait_until_ready(&mut self) -> Result<()> {
        let until = Instant::now() + READY_MAX;
        loop {
            let Err(error) = self.check().await else { break };
            for index in 0..self.len() {
                let child = self.children[index].as_mut();
                if let Some(status) = child.map(Child::try_wait).transpose()?.flatten() {
                    bail!("member {index} has ended with {status}:\n{}", self.log_end(index));
                }
            }
            if Instant::now() > until {
                let text = self.log_end(0);
                return Err(error.context(format!("{} is not ready; log: {text}", self.system)));
            }
            sleep(PAUSE).await;
        }
        sleep(SETTLE).await;
        Ok(())
    }

    /// Returns the member that leads.
    pub(crate) async fn leader(&self) -> Result<usize> {
        let mut seen = Vec::new();
        for index in 0..self.len() {
            let asked = timeout(ANSWER_MAX, leader_seen(self.target(index))).await;
            seen.push(asked.context("a member did not answer in time")??);
        }
        let leader = seen.first().context("there is no member")?.leader.clone();
        if leader.is_empty() || seen.iter().any(|view| view.leader != leader) {
            bail!("the members do not agree on a leader");
        }
        let found = match self.system {
            System::Evenkeel => (0..self.len()).position(|index| system::name(index) == leader),
            System::Etcd(_) => seen.iter().position(|view| view.own == leader),
        };
        found.context("an unknown member leads")
    }

    async fn check(&self) -> Result<()> {
        self.leader().await?;
        for index in 0..self.len() {
            let put = async {
                Client::open(self.target(index)).await?.carry_out(Operation::Put, 0).await
            };
            timeout(ANSWER_MAX, put).await.context("a put was not answered in time")??;
        }
        Ok(())
    }

    fn log(&self, index: usize) -> PathBuf {
        self.folder.join(format!("{}.log", system::name(index)))
    }

    fn log_end(&self, index: usize) -> String {
        let text = fs::read_to_string(self.log(index)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(10).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for index in 0..self.len() {
            if let Err(error) = self.kill_member(index) {
                println!("bench: {error:#}");
            }
        }
        if let Err(error) = clear(&self.programs.evenkeel, &self.folder) {
            println!("bench: {error:#}");
        }
    }
}

/// What a member says of itself and of the leader.
struct View {
    own: String,
    /// Empty when it knows none.
    leader: String,
}

async fn leader_seen(target: Target) -> Result<View> {
    match Client::open(target).await? {
        Client::Http(mut connection) => {
            let leader = connection.leader().await?.unwrap_or_default();
            Ok(View { own: String::new(), leader })
        }
        Client::Grpc(mut channel) => {
            let status = channel.status().await?;
            let leader = if status.leader == 0 { String::new() } else { status.leader.to_string() };
            Ok(View { own: status.member.to_string(), leader })
        }
    }
}

/// Stops what a system that is no more has left running, and removes its data. A killed node leaves
/// its gateway behind, because in production that must go on.
pub(crate) fn clear(evenkeel: &Path, folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    let mut stopping = Vec::new();
    for entry in fs::read_dir(folder).context("read the data folder")? {
        let data = entry.context("read the data folder")?.path();
        // Only a host of Evenkeel has one.
        if data.join("identity.json").exists() {
            let mut down = Command::new(evenkeel);
            down.arg("down").arg("--data").arg(&data);
            let child = down.stdout(Stdio::null()).spawn().context("start `evenkeel down`")?;
            stopping.push(child);
        }
    }
    for mut child in stopping {
        let status = child.wait().context("wait for `evenkeel down`")?;
        if !status.success() {
            println!("bench: `evenkeel down` ended with {status}");
        }
    }
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Takes the lock that keeps two runs from using the same addresses.
pub(crate) fn lock(folder: &Path) -> Result<File> {
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let file = File::create(folder.join("lock")).context("open the lock")?;
    if file.try_lock().is_err() {
        bail!("another run uses {}", folder.display());
    }
    Ok(file)
}
