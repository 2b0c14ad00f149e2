//! Answers the command line.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    task::JoinHandle,
    time::timeout,
};

use super::protocol::{self, Ask, MAX_REQUEST, Response};

/// Connections that are served at once.
const MAX_CONNECTIONS: usize = 16;
/// Within this time a client has said what it wants, and has taken the answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// What an agent answers.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Result<serde_json::Value, String>> + Send>>;
/// Who answers.
pub(crate) type Handler = Arc<dyn Fn(Ask) -> Answer + Send + Sync>;

/// A socket that listens; it is removed when this is dropped.
pub(crate) struct Server {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl Server {
    /// Listens at `path`, in place of what an earlier run left there. Owner and group may connect. Call it on a runtime,
    /// and only with the lock of the runtime directory.
    pub(crate) fn start(path: &Path, handler: Handler) -> io::Result<Self> {
        // Under another name first, so that nobody finds it before its mode is right.
        let fresh = path.with_extension("new");
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&fresh)?;
        let placed =
            fs::set_permissions(&fresh, PermissionsExt::from_mode(0o660)).and_then(|()| fs::rename(&fresh, path));
        if let Err(error) = placed {
            let _ = fs::remove_file(&fresh);
            return Err(error);
        }
        Ok(Self { path: path.into(), task: tokio::spawn(accept(listener, handler)) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        let _ = fs::remove_file(&self.path);
    }
}

async fn accept(listener: UnixListener, handler: Handler) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors: accepting again at once would spin.
                tracing::debug!("control socket: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        match Arc::clone(&slots).try_acquire_owned() {
            Ok(slot) => {
                let handler = Arc::clone(&handler);
                tokio::spawn(async move {
                    if let Err(error) = serve(stream, &handler).await {
                        tracing::debug!("control socket: {error}");
                    }
                    drop(slot);
                });
            }
            Err(_) => {
                let line =
                    encode(&Err(format!("{MAX_CONNECTIONS} others are asking at this moment; try again")).into());
                let _ = stream.try_write(&line);
            }
        }
    }
}

async fn serve(mut stream: UnixStream, handler: &Handler) -> io::Result<()> {
    let mut line = Vec::new();
    let asked = match timeout(DEADLINE, read_line(&mut stream, &mut line)).await {
        Ok(read) => {
            read?;
            protocol::parse(&line)
        }
        Err(_) => Err(format!("no request came within {} seconds", DEADLINE.as_secs())),
    };
    let response = match asked {
        Ok(ask) => handler(ask).await,
        Err(error) => Err(error),
    };
    timeout(DEADLINE, stream.write_all(&encode(&response.into()))).await.map_err(io::Error::from)?
}

/// Reads to the end of the line, or to the end of what a request may be: such a one does not parse.
async fn read_line(stream: &mut UnixStream, line: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0; 512];
    loop {
        let read = stream.read(&mut buffer).await?;
        let part = &buffer[..read];
        let end = part.iter().position(|byte| *byte == b'\n');
        line.extend_from_slice(&part[..end.unwrap_or(read)]);
        if end.is_some() || read == 0 {
            return Ok(());
        }
        if line.len() > MAX_REQUEST {
            line.clear();
            return Ok(());
        }
    }
}

fn encode(response: &Response) -> Vec<u8> {
    let mut line = serde_json::to_vec(response).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        control::client,
        failure::{Code, Failure},
    };

    fn echo() -> Handler {
        Arc::new(|ask| {
            Box::pin(async move {
                match ask {
                    Ask::Trace { destination } => Ok(destination.into()),
                    other => Err(format!("{other:?} is not for echoes")),
                }
            })
        })
    }

    async fn ask(path: &Path, what: Ask) -> Result<String, Failure> {
        let path = path.to_owned();
        tokio::task::spawn_blocking(move || client::ask(&path, what)).await.unwrap()
    }

    #[tokio::test]
    async fn asks_are_answered_and_the_socket_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let trace = || Ask::Trace { destination: "mill".into() };
        assert_eq!(ask(&path, trace()).await.unwrap_err().code, Code::NotRunning);
        fs::write(&path, "left by an earlier run").unwrap();
        let server = Server::start(&path, echo()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(ask(&path, trace()).await.unwrap(), "mill");
        let error = ask(&path, Ask::Links).await.unwrap_err();
        assert_eq!(error.to_string(), "the agent says: Links is not for echoes.");
        drop(server);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn an_endless_request_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let _server = Server::start(&path, echo()).unwrap();
        let mut stream = UnixStream::connect(&path).await.unwrap();
        // The server may hang up before it has all of it.
        let _ = stream.write_all(&vec![b' '; 2 * MAX_REQUEST]).await;
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        assert!(answer.is_empty() || answer.contains("\"error\""), "{answer}");
    }

    #[tokio::test]
    async fn more_connections_than_slots_are_told_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let _server = Server::start(&path, echo()).unwrap();
        let mut held = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            held.push(UnixStream::connect(&path).await.unwrap());
        }
        let error = ask(&path, Ask::Status).await.unwrap_err().to_string();
        assert!(error.contains("16 others are asking"), "{error}");
    }
}
