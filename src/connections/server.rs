//! The accept loop: bounded connections, slow clients dropped, a graceful end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Request, Response};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use super::conn::{Conn, Patience};
use super::registry::{Caps, Place, Registry};
use super::stream::Watched;

/// How long running requests may take to end once the server stops.
const GRACE: Duration = Duration::from_secs(15);
/// How long a peer may leave sent data unacknowledged, or its window closed.
const PEER_TIMEOUT: Duration = Duration::from_secs(60);
/// The kernel takes twice as much. Without a limit, a client that reads nothing would occupy megabytes, and
/// the rate at which it reads would show only when these are full.
const SEND_BUFFER_BYTES: usize = 256 << 10;
/// How long an accepted connection waits for a place where all others are at work, and how many do.
const PLACE_TIMEOUT: Duration = Duration::from_secs(2);
static WAITING: Semaphore = Semaphore::const_new(256);
/// Longest head of a request: a connection buffers no more.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// Pause after a connection could not be accepted: another one was closed for it, or none could be.
const PAUSE_WITH_ROOM: Duration = Duration::from_millis(1);
const PAUSE_WITHOUT: Duration = Duration::from_millis(100);
/// How long a refused client has to send its request and read the answer.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// How often to check whether another connection can be closed.
const PLACE_EVERY: Duration = Duration::from_millis(200);
/// How often to check whether the last request of an evicted connection has been answered.
const LAST_REQUEST_EVERY: Duration = Duration::from_millis(50);
/// Descriptors of a connection: the socket, and the files of a body or an answer.
const DESCRIPTORS_EACH: u64 = 3;
/// Descriptors of everything else: the store, the index, decoders.
const DESCRIPTORS_KEPT: u64 = 256;

/// How many connections there may be, and how slow they.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections open at once; fewer if the process may not have so many files open.
    pub total: usize,
    /// Connections of one address; default: three quarters of all.
    pub per_address: Option<usize>,
    /// Limits for slow peers.
    pub patience: Patience,
}

/// The other end of a connection, in the extensions of every request.
#[derive(Debug, Clone, Copy)]
pub struct PeerAddr(pub SocketAddr);

/// Serves until `stop` resolves; `stopping` then ends the long-running responses. `pressure` is notified
/// whenever a body was refused for lack of room.
pub async fn run(
    listener: TcpListener,
    app: Router,
    limits: Limits,
    pressure: Arc<Notify>,
    stop: impl Future<Output = ()> + Send,
    stopping: CancellationToken,
) {
    let total = fit_descriptors(limits.total.max(1));
    let per_address = limits.per_address.unwrap_or((total - total / 4).max(1));
    let registry = Registry::new(Caps { total, per_address }, limits.patience);
    let graceful = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    // Heads and idle connections have their own limits in the registry; this is the last resort.
    let longest = limits.patience.head + limits.patience.idle;
    http.timer(TokioTimer::new()).header_read_timeout(longest).max_buf_size(MAX_HEAD_BYTES);
    let relief = tokio::spawn(relieve(pressure, Arc::clone(&registry)));
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = accept(&listener, &registry) => accepted,
        };
        let Some((stream, address)) = accepted else { continue };
        let server = Connections {
            http: http.clone(),
            app: app.clone(),
            registry: Arc::clone(&registry),
            watcher: graceful.watcher(),
        };
        server.take(stream, address);
        // Bytes that have arrived on other connections are seen before one of them is closed for the next
        // newcomer.
        tokio::task::yield_now().await;
    }
    drop(listener);
    relief.abort();
    stopping.cancel();
    if tokio::time::timeout(GRACE, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests did not finish in time and were cut off");
    }
}

async fn accept(listener: &TcpListener, registry: &Registry) -> Option<(TcpStream, SocketAddr)> {
    match listener.accept().await {
        Ok(accepted) => Some(accepted),
        Err(error) => {
            // Out of file descriptors, mostly: another connection may go for this one.
            tracing::warn!(%error, "could not accept a connection");
            let pause = if registry.evict_one() { PAUSE_WITH_ROOM } else { PAUSE_WITHOUT };
            tokio::time::sleep(pause).await;
            None
        }
    }
}

/// Slow bodies take up the room for which others were refused: one of them is aborted each time.
async fn relieve(pressure: Arc<Notify>, registry: Arc<Registry>) {
    loop {
        pressure.notified().await;
        registry.evict_body();
    }
}

/// The service of an accepted connection.
struct Connections {
    http: http1::Builder,
    app: Router,
    registry: Arc<Registry>,
    watcher: Watcher,
}

impl Connections {
    /// Serves a connection if there is a place for it; some may wait a moment for one.
    fn take(self, stream: TcpStream, address: SocketAddr) {
        if let Ok(place) = self.registry.admit(address.ip(), Instant::now()) {
            tokio::spawn(self.serve(stream, place, PeerAddr(address)));
            return;
        }
        let Ok(turn) = WAITING.try_acquire() else { return refuse(stream) };
        tokio::spawn(async move {
            let place = tokio::time::timeout(PLACE_TIMEOUT, find_place(&self.registry, address)).await;
            drop(turn);
            match place {
                Ok(place) => self.serve(stream, place, PeerAddr(address)).await,
                Err(_) => refuse(stream),
            }
        });
    }

    async fn serve(self, stream: TcpStream, place: Place, peer: PeerAddr) {
        set_options(&stream);
        let conn = Arc::clone(&place.conn);
        let service = service_fn({
            let (app, conn) = (self.app, Arc::clone(&conn));
            move |request| answer(app.clone(), Arc::clone(&conn), peer, request)
        });
        let stream = TokioIo::new(Watched::new(stream, Arc::clone(&conn)));
        let connection = self.watcher.watch(self.http.serve_connection(stream, service));
        tokio::pin!(connection);
        let mut evicted = false;
        let ended = loop {
            // The connection first: a request that came just in time is not thrown away.
            tokio::select! {
                biased;
                ended = &mut connection => break ended,
                () = conn.evicted(), if !evicted => evicted = true,
                () = tokio::time::sleep(LAST_REQUEST_EVERY), if evicted => {}
            }
            if evicted && conn.rank(Instant::now()).is_some() {
                break Ok(());
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended early");
        }
        drop(place);
    }
}

/// A place for a connection, waited for where all are at work.
async fn find_place(registry: &Arc<Registry>, address: SocketAddr) -> Place {
    loop {
        let _ = tokio::time::timeout(PLACE_EVERY, registry.freed()).await;
        if let Ok(place) = registry.admit(address.ip(), Instant::now()) {
            return place;
        }
    }
}

/// Tells a client that all connections are busy, once it has sent a request: an answer before the question is an
/// error to most clients.
fn refuse(mut stream: TcpStream) {
    metrics::counter!("triptych_http_refused_total", "code" => "too_many_connections").increment(1);
    // Beyond a few at a time the connection is just closed.
    let Ok(turn) = REFUSALS.try_acquire() else { return };
    tokio::spawn(async move {
        let answered = async {
            let mut buffer = [0; 4096];
            if stream.read(&mut buffer).await? == 0 {
                return Ok(());
            }
            let answer = format!("{TOO_MANY_HEAD}Content-Length: {}\r\n\r\n{TOO_MANY}", TOO_MANY.len());
            stream.write_all(answer.as_bytes()).await?;
            stream.shutdown().await?;
            // Closed with something unread the client would see a reset instead of the answer.
            while stream.read(&mut buffer).await? > 0 {}
            std::io::Result::Ok(())
        };
        let _ = tokio::time::timeout(REFUSAL_TIMEOUT, answered).await;
        drop(turn);
    });
}

/// How many refused connections are answered at a time.
static REFUSALS: Semaphore = Semaphore::const_new(64);
const TOO_MANY_HEAD: &str = "HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nRetry-After: 1\r\n\
    Connection: close\r\n";
const TOO_MANY: &str = r#"{"error":{"message":"all the connections that this address or the server may have are at work; use them again, or try later","type":"rate_limit_error","param":null,"code":"too_many_connections","request_id":""}}"#;

/// Serves one request and updates the connection's record.
async fn answer(
    mut app: Router,
    conn: Arc<Conn>,
    peer: PeerAddr,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Infallible> {
    let mut request = request.map(Body::new);
    conn.begin(Instant::now(), !request.body().is_end_stream());
    request.extensions_mut().insert(Arc::clone(&conn));
    request.extensions_mut().insert(peer);
    let response = app.call(request).await?;
    conn.answering(Instant::now());
    Ok(response.map(|body| Answer { body, conn }))
}

/// The body of an answer; when it goes, the connection is free for the next request.
struct Answer {
    body: Body,
    conn: Arc<Conn>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.conn.answered(Instant::now());
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Takes all the file descriptors that the system allows; how many connections they suffice for.
fn fit_descriptors(wanted: usize) -> usize {
    let limits = getrlimit(Resource::Nofile);
    let most = limits.maximum.unwrap_or(u64::MAX);
    if limits.current.unwrap_or(u64::MAX) < most {
        let raised = Rlimit { current: limits.maximum, maximum: limits.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "could not raise the limit on open files");
        }
    }
    let current = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let fits = (current.saturating_sub(DESCRIPTORS_KEPT) / DESCRIPTORS_EACH).max(16);
    let fits = usize::try_from(fits).unwrap_or(usize::MAX);
    if fits < wanted {
        tracing::warn!(
            max_connections = wanted,
            open_files = current,
            "the limit on open files is too low for --max-connections: the server accepts {fits}; raise the limit with ulimit -n"
        );
    }
    fits.min(wanted)
}

fn set_options(stream: &TcpStream) {
    let timeout = u32::try_from(PEER_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    let set = stream
        .set_nodelay(true)
        .and_then(|()| Ok(rustix::net::sockopt::set_tcp_user_timeout(stream, timeout)?))
        .and_then(|()| Ok(rustix::net::sockopt::set_socket_send_buffer_size(stream, SEND_BUFFER_BYTES)?));
    if let Err(error) = set {
        tracing::debug!(%error, "could not set a socket option");
    }
}
