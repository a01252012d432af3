//! Where a program runs: in these namespaces, in a named one, in a node's, in a pod's.
//!
//! A test never changes its own namespaces, since its threads are shared with other tests: it starts programs that
//! are born elsewhere.

use std::{process::Command, sync::Arc};

/// A place in which programs can be started.
pub trait Enter {
    /// A command that will run inside. Its environment, arguments and standard streams are the caller's to set.
    fn command(&self, program: &str) -> Command;

    /// What the place is called, as a prefix of what is made in it.
    fn name(&self) -> &str;
}

/// A place that several owners share: it must outlive what was made in it.
pub type Place = Arc<dyn Enter + Send + Sync>;

/// The namespaces of the caller.
#[derive(Debug, Clone, Copy)]
pub struct Here;

/// A network namespace by its name in `/run/netns`, and nothing else of its own: unlike in `ip netns exec`, what is
/// mounted there, as `ip netns add` does, stays.
#[derive(Debug, Clone)]
pub struct Named(pub String);

impl Enter for Here {
    fn command(&self, program: &str) -> Command {
        Command::new(program)
    }

    fn name(&self) -> &'static str {
        "here"
    }
}

impl Enter for Named {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.0)).arg(program);
        command
    }

    fn name(&self) -> &str {
        &self.0
    }
}

impl<T: Enter + ?Sized> Enter for Arc<T> {
    fn command(&self, program: &str) -> Command {
        (**self).command(program)
    }

    fn name(&self) -> &str {
        (**self).name()
    }
}

/// A command in the network namespace that `outer` knows as `name`.
pub fn within(outer: &dyn Enter, name: &str, program: &str) -> Command {
    let mut command = outer.command("ip");
    command.args(["netns", "exec", name, program]);
    command
}

impl Enter for crate::node::Node {
    fn command(&self, program: &str) -> Command {
        Self::command(self, program)
    }

    fn name(&self) -> &str {
        &self.name
    }
}
