//! Asks the running agent.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use serde::de::DeserializeOwned;

use super::protocol::{Ask, MAX_RESPONSE, Request, Response, VERSION};
use crate::failure::{Code, Failure};

/// Longest wait for an answer that needs no probing.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest wait for a trace: 32 hops that do not answer.
const TRACE_PATIENCE: Duration = Duration::from_secs(180);

/// Asks the agent behind `socket` and decodes its answer.
///
/// # Errors
/// [`Code::NotRunning`] if nobody listens there; else what the agent or the system says.
pub(crate) fn ask<T: DeserializeOwned>(socket: &Path, ask: Ask) -> Result<T, Failure> {
    let mut stream = UnixStream::connect(socket).map_err(|error| unreachable(socket, &error))?;
    let patience = if matches!(ask, Ask::Trace { .. }) { TRACE_PATIENCE } else { PATIENCE };
    let response = exchange(&mut stream, &Request { v: VERSION, ask }, patience).map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                format!("it gave no answer within {} seconds", patience.as_secs())
            }
            _ => error.to_string(),
        };
        Failure::new(
            Code::Other,
            format!(
                "the agent behind {} could not be asked: {why}. Look at its log, and restart it if it hangs.",
                socket.display()
            ),
        )
    })?;
    if let Some(error) = response.error {
        return Err(Failure::new(Code::Other, format!("the agent says: {error}.")));
    }
    serde_json::from_value(response.ok.unwrap_or_default()).map_err(|error| {
        Failure::new(
            Code::Other,
            format!("the agent's answer is not understood ({error}): it is of another version. Restart the agent so that both are the same."),
        )
    })
}

fn exchange(stream: &mut UnixStream, request: &Request, patience: Duration) -> io::Result<Response> {
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    // A busy agent answers and hangs up without reading: its answer counts, not the broken pipe.
    let written = stream.write_all(&line);
    let mut answer = Vec::new();
    let read = BufReader::new(stream.take(MAX_RESPONSE)).read_until(b'\n', &mut answer);
    if answer.last() != Some(&b'\n') {
        written?;
        read?;
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it hung up in the middle of the answer"));
    }
    Ok(serde_json::from_slice(&answer)?)
}

fn unreachable(socket: &Path, error: &io::Error) -> Failure {
    let path = socket.display();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Failure::new(
            Code::NotRunning,
            format!(
                "the agent is not running: nobody listens at {path}. Start it with `grange run`, `systemctl start grange` or `/etc/init.d/grange start`. \
                 If it runs with another runtime directory, name that with --runtime-dir."
            ),
        ),
        io::ErrorKind::PermissionDenied => Failure::new(
            Code::Rights,
            format!(
                "you may not speak to the agent at {path}: run the command as root (with sudo), or as a member of the socket's group."
            ),
        ),
        _ => Failure::new(Code::Other, format!("the agent at {path} could not be reached: {error}.")),
    }
}
