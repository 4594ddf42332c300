//! The node's own `/run`, `/var/lib` and `/var/log`, and its first image.

use std::time::Duration;

use tokio::process::Command;

use super::Error;
use super::layout::{CONTAINERD_SOCKET, Layout, text};
use crate::command;

const RETRY: Duration = Duration::from_millis(100);

/// How containerd keeps file systems of containers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Snapshotter {
    Overlay,
    /// Copies: slow, for machines whose own files are on an overlay, which does not carry another one.
    Native,
}

impl Snapshotter {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Overlay => "overlayfs",
            Self::Native => "native",
        }
    }
}

/// Puts the node's own folders over the machine's, in this mount namespace only.
pub(super) async fn set_up(layout: &Layout) -> Result<Snapshotter, Error> {
    let (lib, log) = (text(&layout.folder.var("lib")), text(&layout.folder.var("log")));
    mount(&["-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"]).await?;
    mount(&["--bind", &lib, "/var/lib"]).await?;
    mount(&["--bind", &log, "/var/log"]).await?;
    // Mounts that the kubelet makes for a pod have to appear in containers that run already.
    mount(&["--make-rshared", "/"]).await?;
    probe_overlay().await
}

async fn probe_overlay() -> Result<Snapshotter, Error> {
    let folders = ["lower", "upper", "work", "merged"].map(|name| format!("/var/lib/probe/{name}"));
    for folder in &folders {
        std::fs::create_dir_all(folder).map_err(Error::prepare(format!("create {folder}")))?;
    }
    let [lower, upper, work, merged] = &folders;
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    let works = mount(&["-t", "overlay", "-o", &options, "overlay", merged])
        .await
        .is_ok();
    if works {
        let mut umount = Command::new("umount");
        umount.arg(merged);
        command::run(umount).await?;
    }
    std::fs::remove_dir_all("/var/lib/probe").map_err(Error::prepare("remove /var/lib/probe"))?;
    Ok(if works {
        Snapshotter::Overlay
    } else {
        Snapshotter::Native
    })
}

/// Waits for containerd and gives it the image that every pod begins with.
pub(super) async fn import_pause(layout: &Layout, snapshotter: Snapshotter) -> Result<(), Error> {
    while tokio::net::UnixStream::connect(CONTAINERD_SOCKET).await.is_err() {
        tokio::time::sleep(RETRY).await;
    }
    let archive = text(&layout.program("pause.tar"));
    let mut ctr = Command::new(layout.program("ctr"));
    ctr.args([
        "--address",
        CONTAINERD_SOCKET,
        "--namespace",
        "k8s.io",
        "images",
        "import",
    ]);
    ctr.args(["--snapshotter", snapshotter.name(), &archive]);
    command::run(ctr).await?;
    Ok(())
}

async fn mount(args: &[&str]) -> Result<(), Error> {
    let mut command = Command::new("mount");
    command.args(args);
    command::run(command).await?;
    Ok(())
}
