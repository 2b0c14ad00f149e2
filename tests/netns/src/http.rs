//! A small web server and client: what a laptop fetches, and large transfers that are checked byte for byte.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{Namespace, Pattern, packet::wait_readable};

const MAX_CONNECTIONS: usize = 64;
const MAX_REQUEST: u64 = 8192;
const MAX_PAGE: u64 = 1 << 20;
const PIECE: usize = 64 << 10;

/// A web server inside a namespace, on port 80; ends when dropped.
///
/// `/` is a short page that names the client's address. `/pattern/SEED/LENGTH/RATE` is LENGTH bytes of
/// [`Pattern`] SEED, at RATE bytes a second (0: as fast as it goes).
#[derive(Debug)]
pub struct WebServer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl WebServer {
    /// Starts a server on these addresses of the namespace.
    ///
    /// # Errors
    /// If an address cannot be bound.
    pub fn start(namespace: &Namespace, addresses: &[IpAddr]) -> Result<Self> {
        let listeners = addresses
            .iter()
            .map(|address| {
                let listener = namespace
                    .inside(|| TcpListener::bind(SocketAddr::new(*address, 80)))
                    .with_context(|| format!("binding a web server to {address} in {}", namespace.name()))?;
                listener.set_nonblocking(true)?;
                Ok(listener)
            })
            .collect::<Result<Vec<_>>>()?;
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || serve(&listeners, &stop)
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(listeners: &[TcpListener], stop: &Arc<AtomicBool>) {
    let open = Arc::new(AtomicUsize::new(0));
    while !stop.load(Ordering::Relaxed) {
        wait_readable(listeners, Duration::from_millis(50));
        for listener in listeners {
            let Ok((stream, from)) = listener.accept() else { continue };
            if open.load(Ordering::Relaxed) >= MAX_CONNECTIONS {
                continue;
            }
            open.fetch_add(1, Ordering::Relaxed);
            let (open, stop) = (Arc::clone(&open), Arc::clone(stop));
            std::thread::spawn(move || {
                // The client went away or asked for nonsense: its loss.
                let _ = answer(stream, from, &stop);
                open.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }
}

fn answer(mut stream: TcpStream, from: SocketAddr, stop: &AtomicBool) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.set_write_timeout(Some(Duration::from_millis(500)))?;
    let mut reader = BufReader::new(stream.try_clone()?).take(MAX_REQUEST);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let path = request.split_whitespace().nth(1).unwrap_or("/");
    let mut parts = path.trim_start_matches('/').split('/');
    if parts.next() == Some("pattern") {
        let mut number = || parts.next().and_then(|part| part.parse::<u64>().ok()).unwrap_or(0);
        let (seed, length, rate) = (number(), number(), number());
        write!(
            stream,
            "HTTP/1.0 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n"
        )?;
        return send_pattern(&mut stream, seed, length, rate, stop);
    }
    let page = format!(
        "<!doctype html>\n<title>The Internet</title>\n<p>This page comes from the Internet. You are {}.\n",
        from.ip()
    );
    let answer = format!("HTTP/1.0 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n{page}", page.len());
    stream.write_all(answer.as_bytes())
}

fn send_pattern(stream: &mut TcpStream, seed: u64, length: u64, rate: u64, stop: &AtomicBool) -> io::Result<()> {
    let mut pattern = Pattern::new(seed);
    let start = Instant::now();
    let mut sent = 0;
    // At a given rate, twenty pieces a second.
    let most = if rate == 0 { PIECE as u64 } else { (rate / 20).clamp(1, PIECE as u64) };
    let mut piece = vec![0; PIECE];
    while sent < length {
        let size = most.min(length - sent) as usize;
        pattern.fill(&mut piece[..size]);
        let mut rest = &piece[..size];
        while !rest.is_empty() {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            match stream.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => rest = &rest[count..],
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(error),
            }
        }
        sent += size as u64;
        if let Some(expected) = (sent * 1000).checked_div(rate) {
            std::thread::sleep(Duration::from_millis(expected).saturating_sub(start.elapsed()));
        }
    }
    Ok(())
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

/// What a web server answered.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The body, as text.
    pub body: String,
    /// From the first packet to the last byte.
    pub elapsed: Duration,
}

/// Connects and asks for `path`; gives the stream behind the header, the status and the content length.
fn request(
    namespace: &Namespace,
    server: IpAddr,
    path: &str,
    limit: Duration,
) -> Result<(BufReader<TcpStream>, u16, u64)> {
    let address = SocketAddr::new(server, 80);
    let mut stream = namespace
        .inside(|| TcpStream::connect_timeout(&address, limit))
        .with_context(|| format!("connecting to {address} from {}", namespace.name()))?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    let host = if server.is_ipv6() { format!("[{server}]") } else { server.to_string() };
    // One write, so that the request is one segment.
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes())?;
    let mut reader = BufReader::with_capacity(PIECE, stream);
    let mut line = String::new();
    reader.read_line(&mut line).with_context(|| format!("reading the answer of {address}"))?;
    let status = line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).context("no HTTP answer")?;
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let header = line.trim().to_ascii_lowercase();
        if header.is_empty() {
            return Ok((reader, status, length));
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().context("a content length that is no number")?;
        }
    }
}

/// Fetches `http://SERVER/PATH` from inside a namespace.
///
/// # Errors
/// If there is no whole answer within `limit`.
pub fn fetch(namespace: &Namespace, server: IpAddr, path: &str, limit: Duration) -> Result<Response> {
    let start = Instant::now();
    let (reader, status, length) = request(namespace, server, path, limit)?;
    let mut body = Vec::new();
    reader.take(length.min(MAX_PAGE)).read_to_end(&mut body)?;
    Ok(Response { status, body: String::from_utf8_lossy(&body).into_owned(), elapsed: start.elapsed() })
}

/// How far a download is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Bytes that arrived and were right.
    pub bytes: u64,
    /// The longest time in which nothing arrived.
    pub longest_stall: Duration,
    /// Since the start.
    pub elapsed: Duration,
}

/// A download of a pattern that runs on a thread of its own, each byte checked.
#[derive(Debug)]
pub struct Download {
    stop: Arc<AtomicBool>,
    bytes: Arc<AtomicU64>,
    stall: Arc<Mutex<Duration>>,
    start: Instant,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Download {
    /// Starts to download `length` bytes of the pattern `seed`, at `rate` bytes a second (0: as fast as it goes).
    ///
    /// # Errors
    /// If the server does not answer within 5 s.
    pub fn start(namespace: &Namespace, server: IpAddr, seed: u64, length: u64, rate: u64) -> Result<Self> {
        let path = format!("/pattern/{seed}/{length}/{rate}");
        let (reader, status, _) = request(namespace, server, &path, Duration::from_secs(5))?;
        if status != 200 {
            bail!("the server answered {status}");
        }
        let start = Instant::now();
        let stop = Arc::new(AtomicBool::new(false));
        let bytes = Arc::new(AtomicU64::new(0));
        let stall = Arc::new(Mutex::new(Duration::ZERO));
        let thread = std::thread::spawn({
            let (stop, bytes, stall) = (Arc::clone(&stop), Arc::clone(&bytes), Arc::clone(&stall));
            move || receive(reader, seed, length, &stop, &bytes, &stall)
        });
        Ok(Self { stop, bytes, stall, start, thread: Some(thread) })
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress {
            bytes: self.bytes.load(Ordering::Relaxed),
            longest_stall: *self.stall.lock().unwrap_or_else(PoisonError::into_inner),
            elapsed: self.start.elapsed(),
        }
    }

    /// Whether it ended, well or not.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it is not whole within `limit`, broke off, or a byte was wrong.
    pub fn finish(mut self, limit: Duration) -> Result<Progress> {
        let deadline = Instant::now() + limit;
        while !self.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        if !self.is_finished() {
            bail!("the download was not whole in time: {:?}", self.progress());
        }
        let progress = self.progress();
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(outcome)) => outcome.map(|()| progress),
            _ => bail!("the download's thread panicked"),
        }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn receive(
    mut reader: BufReader<TcpStream>,
    seed: u64,
    length: u64,
    stop: &AtomicBool,
    bytes: &AtomicU64,
    stall: &Mutex<Duration>,
) -> Result<()> {
    reader.get_ref().set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut pattern = Pattern::new(seed);
    let mut buffer = vec![0; PIECE];
    let mut got = 0;
    let mut last = Instant::now();
    while got < length {
        if stop.load(Ordering::Relaxed) {
            bail!("stopped after {got} of {length} bytes");
        }
        let count = match reader.read(&mut buffer) {
            Ok(0) => bail!("the connection ended after {got} of {length} bytes"),
            Ok(count) => count,
            Err(error) if is_timeout(&error) => 0,
            Err(error) => return Err(error).with_context(|| format!("after {got} of {length} bytes")),
        };
        {
            let mut longest = stall.lock().unwrap_or_else(PoisonError::into_inner);
            *longest = (*longest).max(last.elapsed());
        }
        if count > 0 {
            last = Instant::now();
            if let Err(position) = pattern.check(&buffer[..count]) {
                bail!("byte {position} of {length} is wrong");
            }
            got += count as u64;
            bytes.store(got, Ordering::Relaxed);
        }
    }
    Ok(())
}
