//! The two processes, and that they never outlive the test.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{Error, audit};
use crate::{free_ports, toolchain::Toolchain};

pub(super) struct Processes {
    toolchain: Toolchain,
    folder: PathBuf,
    port: u16,
    etcd_port: u16,
    etcd: Child,
    api_server: Child,
    /// Removes the folder when its standard input closes, which the kernel does however this process ends.
    _sweeper: Child,
}

impl Processes {
    pub(super) fn start(toolchain: &Toolchain, folder: &Path) -> Result<Self, Error> {
        let [port, etcd_port, peer_port] = free_ports().ok_or(Error::Ports)?;
        Ok(Self {
            toolchain: toolchain.clone(),
            folder: folder.to_owned(),
            port,
            etcd_port,
            _sweeper: sweeper(folder)?,
            etcd: spawn(toolchain, folder, "etcd", &etcd_flags(folder, etcd_port, peer_port))?,
            api_server: spawn(
                toolchain,
                folder,
                "kube-apiserver",
                &api_server_flags(folder, port, etcd_port),
            )?,
        })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn etcd_port(&self) -> u16 {
        self.etcd_port
    }

    pub(super) fn stop_api_server(&mut self) -> Result<(), Error> {
        let killed = self.api_server.kill().and_then(|()| self.api_server.wait());
        killed.map(drop).map_err(|source| Error::Spawn {
            program: "kube-apiserver".to_owned(),
            source,
        })
    }

    pub(super) fn start_api_server(&mut self) -> Result<(), Error> {
        let flags = api_server_flags(&self.folder, self.port, self.etcd_port);
        self.api_server = spawn(&self.toolchain, &self.folder, "kube-apiserver", &flags)?;
        Ok(())
    }

    /// Fails when a process ended.
    pub(super) fn check(&mut self) -> Result<(), Error> {
        for (program, child) in [("etcd", &mut self.etcd), ("kube-apiserver", &mut self.api_server)] {
            if let Ok(Some(status)) = child.try_wait() {
                return Err(Error::Ended {
                    program,
                    status: status.to_string(),
                    log: log_tail(&self.folder, program),
                });
            }
        }
        Ok(())
    }

    pub(super) fn api_server_log(&self) -> String {
        log_tail(&self.folder, "kube-apiserver")
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in [&mut self.api_server, &mut self.etcd] {
            // Fails only when it ended before.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// `setpriv` has the kernel kill the program when the thread that started it ends.
fn spawn(toolchain: &Toolchain, folder: &Path, program: &str, flags: &[String]) -> Result<Child, Error> {
    let failed = |source| Error::Spawn {
        program: program.to_owned(),
        source,
    };
    let log = File::create(log_path(folder, program)).map_err(failed)?;
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--"])
        .arg(toolchain.program("kubernetes"))
        .arg(program)
        .args(flags)
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(failed)?)
        .stderr(log)
        // Ctrl-C in a terminal is for the tests, which then end these two.
        .process_group(0)
        .spawn()
        .map_err(failed)
}

fn sweeper(folder: &Path) -> Result<Child, Error> {
    Command::new("sh")
        // The second attempt is for a process that wrote a last file while it was being killed.
        .args(["-c", r#"read -r _; rm -rf -- "$0" || { sleep 1; rm -rf -- "$0"; }"#])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|source| Error::Spawn { program: "sh".into(), source })
}

fn etcd_flags(folder: &Path, port: u16, peer_port: u16) -> Vec<String> {
    let (client, peer) = (
        format!("http://127.0.0.1:{port}"),
        format!("http://127.0.0.1:{peer_port}"),
    );
    vec![
        // The data lives as long as the test.
        "--unsafe-no-fsync".into(),
        format!("--data-dir={}", folder.join("etcd").display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
    ]
}

fn api_server_flags(folder: &Path, port: u16, etcd_port: u16) -> Vec<String> {
    let file = |name: &str| folder.join(name).display().to_string();
    let mut flags = vec![
        format!("--etcd-servers=http://127.0.0.1:{etcd_port}"),
        "--bind-address=127.0.0.1".into(),
        "--advertise-address=127.0.0.1".into(),
        // The address above is no address for Endpoints of a Service.
        "--endpoint-reconciler-type=none".into(),
        format!("--secure-port={port}"),
        format!("--tls-cert-file={}", file("apiserver.crt")),
        format!("--tls-private-key-file={}", file("apiserver.key")),
        format!("--client-ca-file={}", file("ca.crt")),
        "--authorization-mode=RBAC".into(),
        "--allow-privileged=true".into(),
        "--service-cluster-ip-range=10.96.0.0/16".into(),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
        format!("--service-account-key-file={}", file("service-accounts.key")),
        format!("--service-account-signing-key-file={}", file("service-accounts.key")),
    ];
    flags.extend(audit::flags(folder));
    flags
}

fn log_path(folder: &Path, program: &str) -> PathBuf {
    folder.join(format!("{program}.log"))
}

fn log_tail(folder: &Path, program: &str) -> String {
    let log = fs::read_to_string(log_path(folder, program)).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
