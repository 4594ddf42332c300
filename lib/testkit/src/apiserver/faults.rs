//! A server of one test's own, to which things happen that would disturb others.

use std::{ops::Deref, sync::mpsc, thread};

use tokio::sync::oneshot;

use super::{ApiServer, Error, processes::Processes, start_processes, wait_until_ready};

/// A server that can be stopped and started again. It ends when this is dropped.
pub struct FaultyApiServer {
    server: ApiServer,
    commands: mpsc::Sender<Command>,
}

/// What to do, and where to say that it is done.
struct Command(Action, oneshot::Sender<Result<(), Error>>);

enum Action {
    Stop,
    Start,
}

impl FaultyApiServer {
    /// Starts etcd and an API server.
    ///
    /// # Errors
    /// Says what could not be started.
    pub async fn start() -> Result<Self, Error> {
        let (ready, started) = oneshot::channel();
        let (commands, orders) = mpsc::channel();
        thread::Builder::new()
            .name("kube-apiserver".into())
            .spawn(move || obey(ready, &orders))
            .map_err(|source| Error::Spawn {
                program: "a thread".into(),
                source,
            })?;
        let server = started.await.map_err(|_| Error::Lost)??;
        Ok(Self { server, commands })
    }

    /// Kills the API server; etcd stays.
    ///
    /// # Errors
    /// When the server's thread is gone.
    pub async fn stop(&self) -> Result<(), Error> {
        self.order(Action::Stop).await
    }

    /// Starts the API server again and waits until it is ready.
    ///
    /// # Errors
    /// As [`FaultyApiServer::start`].
    pub async fn start_again(&self) -> Result<(), Error> {
        self.order(Action::Start).await
    }

    async fn order(&self, action: Action) -> Result<(), Error> {
        let (done, answer) = oneshot::channel();
        self.commands.send(Command(action, done)).map_err(|_| Error::Lost)?;
        answer.await.map_err(|_| Error::Lost)?
    }

    /// Has etcd forget everything before now, so that watches that were interrupted have to list again.
    ///
    /// # Errors
    /// etcd's.
    pub async fn compact(&self) -> Result<(), Error> {
        let etcd = self.server.etcd_url.clone();
        let compaction = async {
            let status = etcd_call(&etcd, "/v3/maintenance/status", "{}").await?;
            let status: serde_json::Value = serde_json::from_str(&status)?;
            let revision = status["header"]["revision"].as_str().unwrap_or_default();
            let request = format!(r#"{{"revision":"{revision}","physical":true}}"#);
            etcd_call(&etcd, "/v3/kv/compaction", &request).await
        };
        compaction
            .await
            .map(drop)
            .map_err(|source| Error::Etcd(source.to_string()))
    }
}

impl Deref for FaultyApiServer {
    type Target = ApiServer;

    fn deref(&self) -> &ApiServer {
        &self.server
    }
}

/// etcd's own JSON API over plain HTTP/1.
async fn etcd_call(address: &str, path: &str, body: &str) -> std::io::Result<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
        _ => Err(std::io::Error::other(answer)),
    }
}

/// Keeps the thread that started the processes, which end with it, until nobody gives orders any more.
fn obey(ready: oneshot::Sender<Result<ApiServer, Error>>, orders: &mpsc::Receiver<Command>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => {
            let program = "a runtime".into();
            return drop(ready.send(Err(Error::Spawn { program, source })));
        }
    };
    let (server, mut processes) = match runtime.block_on(start_processes()) {
        Ok(started) => started,
        Err(error) => return drop(ready.send(Err(error))),
    };
    let config = server.config.clone();
    if ready.send(Ok(server)).is_err() {
        return;
    }
    while let Ok(Command(action, done)) = orders.recv() {
        let result = match action {
            Action::Stop => processes.stop_api_server(),
            Action::Start => processes
                .start_api_server()
                .and_then(|()| runtime.block_on(wait_until_ready(&config, &mut processes))),
        };
        // Whoever gave the order may have given up.
        let _ = done.send(result);
    }
    drop::<Processes>(processes);
}
