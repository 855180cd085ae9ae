//! The thread that accepts and serves.
//!
//! Owns the listener, the socket file and a runtime of its own with one thread: the data path's runtime may be as busy
//! as it likes. When this ends, by a stop or a drop, every connection is gone and so is the file.

use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::journal::Journal;
use super::peer::{Credentials, Host, Level, Peer};
use super::routes::router;
use super::socket::{AdminSocket, SocketFile};
use crate::control::backend::{AgentEvent, Backend};
use crate::control::connection::{Limits, serve};
use crate::control::worker_port::{self, WorkerPort};
use crate::runtime::spawn;

/// How long to wait after the system could not accept, for want of descriptors perhaps.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The running admin server.
#[derive(Debug)]
pub struct AdminServer {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl AdminServer {
    /// Serves a socket on a new thread, and a port of an agent without a cluster.
    pub fn start(socket: AdminSocket, port: Option<WorkerPort>, backend: Arc<dyn Backend>) -> io::Result<AdminServer> {
        Self::with_limits(socket, port, backend, Limits::default())
    }

    pub(super) fn with_limits(
        socket: AdminSocket,
        port: Option<WorkerPort>,
        backend: Arc<dyn Backend>,
        limits: Limits,
    ) -> io::Result<AdminServer> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stop = CancellationToken::new();
        let (listener, file) = socket.into_parts();
        let thread = std::thread::Builder::new().name("admin".to_owned()).spawn({
            let stop = stop.clone();
            move || {
                if let Err(error) = runtime.block_on(run(listener, port, &file, backend, limits, stop)) {
                    tracing::error!(path = %file.path().display(), %error, "serve admin socket");
                }
            }
        })?;
        Ok(AdminServer { stop, thread: Some(thread) })
    }

    /// Whether the thread has ended, which before a stop means that the socket is dead and the daemon should end too.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends it: no new connections, a short while for what is under way. Blocks for as long.
    pub fn stop(mut self) {
        self.shut_down();
    }

    fn shut_down(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the admin thread panicked");
        }
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        self.shut_down();
    }
}

async fn run(
    listener: StdListener,
    port: Option<WorkerPort>,
    file: &SocketFile,
    backend: Arc<dyn Backend>,
    limits: Limits,
    stop: CancellationToken,
) -> io::Result<()> {
    let listener = UnixListener::from_std(listener)?;
    // Whoever comes over the network counts apart, so that he cannot keep those of this machine out.
    let port =
        port.map(|port| spawn("worker-port", port.serve(worker_port::alone(backend.clone()), limits, stop.clone())));
    let journal = Arc::new(Journal::new());
    let mut events = Some(backend.events());
    let address = format!("unix:{}", file.path().display());
    let mut doors = Doors {
        host: Host::this(file.gid()),
        router: router(backend, journal.clone(), address),
        limits,
        stop: stop.clone(),
        connections: JoinSet::new(),
        users: HashMap::new(),
    };
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(ended) = doors.connections.join_next(), if !doors.connections.is_empty() => doors.left(ended),
            event = next_event(&mut events) => match event {
                Ok(event) => journal.record(event),
                Err(RecvError::Lagged(count)) => journal.lost(count),
                Err(RecvError::Closed) => events = None,
            },
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => doors.entered(stream),
                Err(error) => {
                    tracing::warn!(%error, "accept on admin socket");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    // Each connection ends itself within the drain limit.
    while doors.connections.join_next().await.is_some() {}
    if let Some(port) = port
        && let Err(error) = port.await
    {
        tracing::error!(%error, "worker-addr ended badly");
    }
    Ok(())
}

async fn next_event(events: &mut Option<broadcast::Receiver<AgentEvent>>) -> Result<AgentEvent, RecvError> {
    match events {
        Some(events) => events.recv().await,
        None => std::future::pending().await,
    }
}

/// Who is in, and who may come in.
struct Doors {
    host: Host,
    router: axum::Router,
    limits: Limits,
    stop: CancellationToken,
    connections: JoinSet<u32>,
    users: HashMap<u32, usize>,
}

impl Doors {
    /// A connection that is one too many is closed at once; the peer sees an end of file.
    fn entered(&mut self, stream: UnixStream) {
        let credentials = match stream.peer_cred() {
            Ok(cred) => Credentials { uid: cred.uid(), gid: cred.gid(), pid: cred.pid() },
            Err(error) => return tracing::warn!(%error, "read credentials of admin peer"),
        };
        let peer = self.host.peer(credentials);
        let mine = self.users.entry(peer.uid).or_default();
        let crowded = *mine >= self.limits.per_user && peer.level != Level::Admin;
        if crowded || self.connections.len() >= self.limits.connections {
            return tracing::warn!(%peer, connections = self.connections.len(), "too many admin connections");
        }
        *mine += 1;
        self.admit(stream, peer);
    }

    fn admit(&mut self, stream: UnixStream, peer: Peer) {
        let (router, limits, stop) = (self.router.clone(), self.limits, self.stop.clone());
        self.connections.spawn(async move {
            let uid = peer.uid;
            // The services ask who it is.
            serve(stream, router.layer(axum::Extension(peer)), limits, stop).await;
            uid
        });
    }

    fn left(&mut self, ended: Result<u32, tokio::task::JoinError>) {
        match ended {
            Ok(uid) => {
                if let Some(count) = self.users.get_mut(&uid) {
                    *count = count.saturating_sub(1);
                    if *count == 0 {
                        self.users.remove(&uid);
                    }
                }
            }
            Err(error) => tracing::error!(%error, "admin connection ended badly"),
        }
    }
}
