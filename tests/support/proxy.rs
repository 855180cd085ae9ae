//! A TCP proxy between the agent and a server that misbehaves when told to.
//!
//! A held connection loses no byte: what is held is forwarded when the fault ends, as with a network that comes back. A cut connection is
//! reset, so that the peer notices at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What happens to the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Forwarded.
    None,
    /// Nothing passes in either direction; connections stay open, new ones are accepted and get no answer.
    BlackHole,
    /// What the client says passes, the server's replies do not.
    HoldReplies,
    /// Each chunk waits this long, in both directions.
    Delay(Duration),
    /// The connection that carries the n-th byte of replies from now on is reset after it; then back to `None`.
    CutAfter(u64),
    /// Connections are reset, new ones as well.
    Refuse,
    /// New connections are told that the server takes one statement at a time, as some that stand before servers do.
    OneStatement,
    /// The first statement that begins with this word stays on its way; everything else passes.
    HoldStatement(&'static str),
}

#[derive(Debug, Clone, Copy)]
struct State {
    fault: Fault,
    /// Connections made in an earlier generation are reset.
    generation: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToServer,
    ToClient,
}

/// A running proxy; dropping it resets its connections.
#[derive(Debug)]
pub struct Proxy {
    /// The port to connect to on 127.0.0.1.
    pub port: u16,
    control: Arc<Control>,
    /// Its own runtime: it works while the test's own threads are busy, and it ends with the proxy.
    runtime: Option<tokio::runtime::Runtime>,
}

#[derive(Debug)]
struct Control {
    state: watch::Sender<State>,
    reply_bytes: AtomicU64,
    held: AtomicBool,
    server_port: AtomicU16,
}

impl Proxy {
    /// Starts a proxy in front of a port of 127.0.0.1.
    pub fn start(server_port: u16) -> Proxy {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("proxy")
            .enable_all()
            .build()
            .expect("start the proxy's runtime");
        let listener = runtime.block_on_elsewhere(TcpListener::bind(("127.0.0.1", 0)));
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let (state, _) = watch::channel(State { fault: Fault::None, generation: 0 });
        let control = Arc::new(Control {
            state,
            reply_bytes: AtomicU64::new(0),
            held: AtomicBool::new(false),
            server_port: AtomicU16::new(server_port),
        });
        runtime.spawn(accept(listener, control.clone()));
        Proxy { port, control, runtime: Some(runtime) }
    }

    /// Switches the fault.
    pub fn set(&self, fault: Fault) {
        self.control.reply_bytes.store(0, Ordering::SeqCst);
        self.control.state.send_modify(|state| {
            state.fault = fault;
            state.generation += u64::from(fault == Fault::Refuse);
        });
    }

    /// Resets every open connection; new ones are served.
    pub fn reset_connections(&self) {
        self.control.state.send_modify(|state| state.generation += 1);
    }

    /// Whether a statement is being held.
    pub fn holds(&self) -> bool {
        self.control.held.load(Ordering::SeqCst)
    }

    /// Leads to another server from now on, as an address that moves does: open connections are reset.
    pub fn lead_to(&self, server_port: u16) {
        self.control.server_port.store(server_port, Ordering::SeqCst);
        self.reset_connections();
    }

    /// Bytes of replies forwarded since the last switch.
    pub fn reply_bytes(&self) -> u64 {
        self.control.reply_bytes.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Tests drop it inside their own runtime, where waiting is not allowed.
            runtime.shutdown_background();
        }
    }
}

/// Waits for a future of another runtime from inside one.
trait BlockOnElsewhere {
    fn block_on_elsewhere<T: Send + 'static, E: std::fmt::Debug + Send + 'static>(
        &self,
        future: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> T;
}

impl BlockOnElsewhere for tokio::runtime::Runtime {
    fn block_on_elsewhere<T: Send + 'static, E: std::fmt::Debug + Send + 'static>(
        &self,
        future: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> T {
        let (answer, outcome) = std::sync::mpsc::channel();
        self.spawn(async move { answer.send(future.await) });
        outcome.recv().expect("the runtime runs").expect("bind the proxy's port")
    }
}

async fn accept(listener: TcpListener, control: Arc<Control>) {
    while let Ok((client, _)) = listener.accept().await {
        let control = control.clone();
        tokio::spawn(async move { serve(client, &control).await });
    }
}

async fn serve(client: TcpStream, control: &Control) {
    let server = SocketAddr::from(([127, 0, 0, 1], control.server_port.load(Ordering::SeqCst)));
    let state = *control.state.borrow();
    let _ = client.set_zero_linger();
    if state.fault == Fault::Refuse {
        return;
    }
    let Ok(upstream) = TcpStream::connect(server).await else { return };
    let _ = (client.set_nodelay(true), upstream.set_nodelay(true), upstream.set_zero_linger());
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = upstream.into_split();
    let mut watcher = control.state.subscribe();
    // Whichever ends first ends the connection: all four halves are dropped, and with no linger that is a reset.
    tokio::select! {
        () = pump(client_in, server_out, Direction::ToServer, control) => {}
        () = pump(server_in, client_out, Direction::ToClient, control) => {}
        _ = watcher.wait_for(|now| now.generation != state.generation) => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, direction: Direction, control: &Control) {
    let mut watcher = control.state.subscribe();
    let mut buffer = vec![0; 64 * 1024];
    let mut greets = direction == Direction::ToClient;
    loop {
        // Before reading, so that a black hole also fills the sender's buffers; after it, for what was on its way.
        open_way(&mut watcher, direction).await;
        let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
        let fault = open_way(&mut watcher, direction).await;
        if let Fault::Delay(time) = fault {
            tokio::time::sleep(time).await;
        }
        if let Fault::HoldStatement(word) = fault
            && direction == Direction::ToServer
            && buffer[..count].get(5..).is_some_and(|text| text.starts_with(word.as_bytes()))
        {
            control.held.store(true, Ordering::SeqCst);
            if watcher.wait_for(|state| !matches!(state.fault, Fault::HoldStatement(_))).await.is_err() {
                return;
            }
        }
        if std::mem::take(&mut greets) && fault == Fault::OneStatement {
            take_one_at_a_time(&mut buffer[..count]);
        }
        let mut count = count;
        let mut cut = false;
        if direction == Direction::ToClient {
            let before = control.reply_bytes.fetch_add(count as u64, Ordering::SeqCst);
            if let Fault::CutAfter(limit) = fault
                && before + count as u64 >= limit
            {
                count = limit.saturating_sub(before) as usize;
                cut = true;
            }
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
        if cut {
            control.state.send_modify(|state| state.fault = Fault::None);
            return;
        }
    }
}

/// Takes the capability of several statements at a time out of a server's greeting.
fn take_one_at_a_time(greeting: &mut [u8]) {
    // Header and protocol version, the server's version and its end, connection, salt, low capabilities, charset, status.
    let version = greeting.iter().skip(5).position(|byte| *byte == 0).expect("a version");
    greeting[5 + version + 1 + 4 + 9 + 2 + 1 + 2] &= !1;
}

/// Waits until the fault lets this direction pass.
async fn open_way(watcher: &mut watch::Receiver<State>, direction: Direction) -> Fault {
    let open = |state: &State| match state.fault {
        Fault::BlackHole => false,
        Fault::HoldReplies => direction == Direction::ToServer,
        Fault::None | Fault::Delay(_) | Fault::CutAfter(_) | Fault::Refuse => true,
        Fault::OneStatement | Fault::HoldStatement(_) => true,
    };
    match watcher.wait_for(open).await {
        Ok(state) => state.fault,
        Err(_) => Fault::Refuse,
    }
}
