//! kube-router, one process a node: it follows the cluster, plans what the kernel should hold, and writes the
//! difference. Here is only the way from the command line to [`app`]; the files beside it are the parts.

mod app;
mod cluster;
mod config;
mod flags;
mod log;
mod node {
    pub(crate) mod cni_file;
}
mod pflag;
mod reconcile;

use std::process::ExitCode;

fn main() -> ExitCode {
    app::main(std::env::args(), kernel::NoKernel)
}

mod kernel {
    //! The kernel side of a build that has none.

    use router_core::cluster::{Event, HostView};
    use router_core::plan::ebpf::{EbpfPlane, Tables};
    use router_core::plan::{Group, Owner};
    use tokio::sync::{mpsc, watch};

    use crate::app::KernelSide;
    use crate::config::Services;
    use crate::reconcile::{Driver, Scope};

    pub(crate) struct NoKernel;
    pub(crate) enum NoDriver {}

    type Plane = EbpfPlane<[u8; 4]>;

    impl Driver<Plane> for NoDriver {
        async fn read(&mut self, _: &Scope) -> anyhow::Result<Tables<[u8; 4]>> {
            match *self {}
        }

        async fn apply(
            &mut self,
            _: &[Group<<Plane as router_core::plan::Plane>::Op>],
        ) -> Vec<(Owner, anyhow::Error)> {
            match *self {}
        }
    }

    impl KernelSide for NoKernel {
        type Driver = NoDriver;

        async fn start(
            self,
            _: &Services,
            _: mpsc::Sender<Event>,
            _: watch::Receiver<HostView>,
        ) -> anyhow::Result<NoDriver> {
            anyhow::bail!("this build programs no kernel; start it with --run-service-proxy=false")
        }
    }
}
