//! BGP speakers of other makes, to be the agent's neighbours.

pub mod scripted;
pub mod top_of_rack;

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result};

use crate::node::Node;
use crate::tools;

/// Where it keeps its configuration and listens for `birdc`: the programs' own defaults, on the host's own `/run`.
const CONFIGURATION: &str = "/run/bird/bird.conf";
const CONTROL: &str = "/run/bird/bird.ctl";

/// BIRD on a host; it ends with this.
#[derive(Debug)]
pub struct Bird {
    host: Arc<Node>,
    program: tools::Bird,
    process: Child,
}

impl Bird {
    /// Starts it with a configuration, of which the router id comes first. `folder` is for its log.
    pub fn start(host: &Arc<Node>, folder: &Path, configuration: &str) -> Result<Self> {
        Self::start_with(host, folder, configuration, &[])
    }

    /// Starts it after a crash: its neighbours are told that it has kept up forwarding.
    pub fn recover(host: &Arc<Node>, folder: &Path, configuration: &str) -> Result<Self> {
        Self::start_with(host, folder, configuration, &["-R"])
    }

    fn start_with(host: &Arc<Node>, folder: &Path, configuration: &str, more: &[&str]) -> Result<Self> {
        let program = tools::bird()?;
        host.run(&["mkdir", "-p", "/run/bird"])?;
        host.write(CONFIGURATION, configuration).context("cannot write bird's configuration")?;
        let log = folder.join(format!("bird-{}.log", host.name));
        let log = fs::File::options().create(true).append(true).open(log)?;
        let process = host
            .command(&program.bird)
            .env("LD_LIBRARY_PATH", &program.libraries)
            .args(more)
            .args(["-f", "-c", CONFIGURATION, "-s", CONTROL])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot run bird")?;
        Ok(Self { host: Arc::clone(host), program, process })
    }

    /// What `birdc` answers.
    pub fn ask(&self, words: &str) -> Result<String> {
        let mut command = self.host.command(&self.program.birdc);
        let answer = command.args(["-s", CONTROL]).args(words.split_whitespace()).output();
        Ok(String::from_utf8_lossy(&answer.context("cannot run birdc")?.stdout).into_owned())
    }
}

impl Drop for Bird {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
