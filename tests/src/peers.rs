//! BGP speakers of other makes, to be the agent's neighbours.

pub mod scripted;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result};

use crate::node::Node;
use crate::tools;

/// BIRD on a host; it ends with this.
#[derive(Debug)]
pub struct Bird {
    host: Arc<Node>,
    program: tools::Bird,
    process: Child,
    control: PathBuf,
}

impl Bird {
    /// Starts it with a configuration, of which the router id comes first. `folder` is for its files.
    pub fn start(host: &Arc<Node>, folder: &Path, configuration: &str) -> Result<Self> {
        Self::start_with(host, folder, configuration, &[])
    }

    /// Starts it after a crash: its neighbours are told that it has kept up forwarding.
    pub fn recover(host: &Arc<Node>, folder: &Path, configuration: &str) -> Result<Self> {
        Self::start_with(host, folder, configuration, &["-R"])
    }

    fn start_with(host: &Arc<Node>, folder: &Path, configuration: &str, more: &[&str]) -> Result<Self> {
        let program = tools::bird()?;
        let file = folder.join(format!("bird-{}.conf", host.name));
        let control = folder.join(format!("bird-{}.ctl", host.name));
        fs::write(&file, configuration).context("cannot write bird's configuration")?;
        let log = fs::File::options().create(true).append(true).open(file.with_extension("log"))?;
        let process = host
            .command(&program.bird)
            .env("LD_LIBRARY_PATH", &program.libraries)
            .args(more)
            .arg("-f")
            .arg("-c")
            .arg(&file)
            .arg("-s")
            .arg(&control)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot run bird")?;
        Ok(Self { host: Arc::clone(host), program, process, control })
    }

    /// What `birdc` answers.
    pub fn ask(&self, words: &str) -> Result<String> {
        let mut command = self.host.command(&self.program.birdc);
        command.env("LD_LIBRARY_PATH", &self.program.libraries).arg("-s").arg(&self.control);
        let answer = command.args(words.split_whitespace()).output().context("cannot run birdc")?;
        Ok(String::from_utf8_lossy(&answer.stdout).into_owned())
    }
}

impl Drop for Bird {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
