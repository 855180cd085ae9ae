//! One connection: its limits, and the end of it.
//!
//! Invariant: no connection holds the server. A request has a time limit until its answer begins, a connection without
//! a request is closed after the idle limit, headers and bodies have a largest size, and on a stop everything ends
//! within the drain limit.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::{Request, Response, StatusCode};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::pages::is_grpc;

/// Largest head of an HTTP/1 request, and most of one that is buffered.
const HEAD_LIMIT: usize = 64 * 1024;

/// Largest list of HTTP/2 headers.
const HEADER_LIST_LIMIT: u32 = 16 * 1024;

/// Requests at once on one connection.
const STREAMS: u32 = 32;

/// How the server bounds what peers may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Of them, by one user other than root and our own.
    pub per_user: usize,
    /// A connection without a request is closed after this, twice this at most.
    pub idle: Duration,
    /// A request's answer must begin within this.
    pub request: Duration,
    /// What is under way at a stop has this long.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 128,
            per_user: 32,
            idle: Duration::from_secs(60),
            // Above every limit of a command, so that the command's own text is what the client gets.
            request: Duration::from_secs(600),
            drain: Duration::from_secs(2),
        }
    }
}

/// Serves one connection until either side ends it.
pub async fn serve<S>(stream: S, router: axum::Router, limits: Limits, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let activity = Arc::new(Activity::default());
    let service = PerConnection { router, activity: activity.clone(), limit: limits.request };
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // A client may say that it has said everything, and still wants the answer.
    builder.http1().half_close(true);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.idle).max_buf_size(HEAD_LIMIT);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS).max_header_list_size(HEADER_LIST_LIMIT);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut deadline: Option<Instant> = None;
    loop {
        let ending = deadline.is_some();
        tokio::select! {
            biased;
            // 1. The connection's own end; a malformed request ends it too, and is the peer's affair.
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection");
                }
                return;
            }
            // 2. The drain limit has passed.
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if ending => return,
            // 3. Somebody wants it to end.
            () = stop.cancelled(), if !ending => {}
            () = activity.idle(limits.idle), if !ending => {}
        }
        deadline = Some(Instant::now() + limits.drain);
        connection.as_mut().graceful_shutdown();
    }
}

/// Whether anything goes on. A stream of answers is under way until its last one.
#[derive(Default)]
struct Activity {
    under_way: AtomicUsize,
    changes: AtomicUsize,
}

impl Activity {
    fn begin(self: &Arc<Self>) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        self.changes.fetch_add(1, Ordering::Relaxed);
        UnderWay(self.clone())
    }

    /// Returns when nothing was under way and nothing changed for `limit`.
    async fn idle(&self, limit: Duration) {
        loop {
            let before = self.changes.load(Ordering::Relaxed);
            tokio::time::sleep(limit).await;
            if self.under_way.load(Ordering::Relaxed) == 0 && self.changes.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }
}

struct UnderWay(Arc<Activity>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
        self.0.changes.fetch_add(1, Ordering::Relaxed);
    }
}

/// The routes, for one connection.
struct PerConnection {
    router: axum::Router,
    activity: Arc<Activity>,
    limit: Duration,
}

impl hyper::service::Service<Request<Incoming>> for PerConnection {
    type Response = Response<Tracked>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let guard = self.activity.begin();
        let grpc = is_grpc(request.headers());
        let answer = timeout(self.limit, self.router.clone().oneshot(request.map(axum::body::Body::new)));
        Box::pin(async move {
            let response = match answer.await {
                Ok(Ok(response)) => response,
                Ok(Err(never)) => match never {},
                Err(_) => overdue(grpc),
            };
            Ok(response.map(|body| Tracked { body, _guard: guard }))
        })
    }
}

fn overdue(grpc: bool) -> Response<axum::body::Body> {
    if grpc {
        return tonic::Status::deadline_exceeded("no answer within the limit").into_http();
    }
    let mut response = Response::new(axum::body::Body::from("no answer within the limit\n"));
    *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
    response
}

/// A body that counts as under way until it is gone.
struct Tracked {
    body: axum::body::Body,
    _guard: UnderWay,
}

impl Body for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
