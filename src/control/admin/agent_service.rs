//! `dmagent.Agent` on the admin socket: the full status, once or again and again, events, and the log level.
//!
//! Streams own no thread and no channel of their own: each item is made when the client is ready for it, so a slow
//! client costs nothing but its connection.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Interval, MissedTickBehavior};
use tonic::codegen::tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::detail;
use super::journal::Journal;
use super::master_service::{denied, peer_of};
use super::peer::Level;
use crate::control::backend::Backend;
use crate::control::proto::agent::{
    Event, EventsRequest, ResyncTableReply, ResyncTableRequest, SetLogLevelReply, SetLogLevelRequest, StatusReply,
    StatusRequest, WatchStatusRequest, agent_server::Agent,
};
use crate::supervisor::ResyncTable;

/// The shortest interval of a watch.
const SHORTEST_WATCH: Duration = Duration::from_millis(200);

/// The interval where none is asked for.
const USUAL_WATCH: Duration = Duration::from_secs(1);

/// The service of all peers.
pub struct AgentService {
    backend: Arc<dyn Backend>,
    journal: Arc<Journal>,
}

impl AgentService {
    /// Over a backend, with the journal that its events go to.
    pub fn new(backend: Arc<dyn Backend>, journal: Arc<Journal>) -> Self {
        AgentService { backend, journal }
    }
}

#[tonic::async_trait]
impl Agent for AgentService {
    type WatchStatusStream = StatusStream;
    type EventsStream = EventStream;

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        Ok(Response::new(snapshot(&*self.backend)))
    }

    async fn watch_status(&self, request: Request<WatchStatusRequest>) -> Result<Response<StatusStream>, Status> {
        let wanted = match request.get_ref().interval_ms {
            0 => USUAL_WATCH,
            asked => Duration::from_millis(u64::from(asked)).max(SHORTEST_WATCH),
        };
        let mut interval = tokio::time::interval(wanted);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Response::new(StatusStream { interval, backend: self.backend.clone() }))
    }

    async fn set_log_level(&self, request: Request<SetLogLevelRequest>) -> Result<Response<SetLogLevelReply>, Status> {
        let peer = peer_of(&request)?;
        let level = &request.get_ref().level;
        let audit = self.journal.audit(&peer, "log-level", level);
        if peer.level < Level::Admin {
            audit.finish("denied");
            return Err(denied("log-level", &peer, Level::Admin));
        }
        match self.backend.set_log_level(level) {
            Ok(level) => {
                audit.finish("ok");
                Ok(Response::new(SetLogLevelReply { level }))
            }
            Err(failure) => {
                audit.finish(format!("refused: {failure}"));
                Err(Status::invalid_argument(failure.to_string()))
            }
        }
    }

    async fn resync_table(&self, request: Request<ResyncTableRequest>) -> Result<Response<ResyncTableReply>, Status> {
        let peer = peer_of(&request)?;
        let ResyncTableRequest { task, sources, schema, table } = request.into_inner();
        let on = if sources.is_empty() { String::new() } else { format!(" -s {}", sources.join(",")) };
        let audit = self.journal.audit(&peer, "resync-table", &format!("{task} {schema}.{table}{on}"));
        if peer.level < Level::Admin {
            audit.finish("denied");
            return Err(denied("resync-table", &peer, Level::Admin));
        }
        match self.backend.resync_table(ResyncTable { task, sources, schema, table }, peer.actor()).await {
            Ok((source_id, note)) => {
                audit.finish("ok");
                Ok(Response::new(ResyncTableReply { source_id, note }))
            }
            Err(failure) => {
                audit.finish(format!("refused: {failure}"));
                Err(Status::failed_precondition(failure.to_string()))
            }
        }
    }

    async fn events(&self, request: Request<EventsRequest>) -> Result<Response<EventStream>, Status> {
        let EventsRequest { recent, follow } = *request.get_ref();
        let (recent, next) = self.journal.listen(usize::try_from(recent).unwrap_or(usize::MAX));
        Ok(Response::new(EventStream { recent: recent.into(), next: follow.then(|| wait(next)) }))
    }
}

fn snapshot(backend: &dyn Backend) -> StatusReply {
    detail::reply(&backend.status(), backend.ready(), SystemTime::now())
}

/// A snapshot at each tick.
pub struct StatusStream {
    interval: Interval,
    backend: Arc<dyn Backend>,
}

impl Stream for StatusStream {
    type Item = Result<StatusReply, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        ready!(self.interval.poll_tick(cx));
        Poll::Ready(Some(Ok(snapshot(&*self.backend))))
    }
}

/// One event to come, and the receiver back for the next.
type Wait = Pin<Box<dyn Future<Output = (Result<Event, RecvError>, broadcast::Receiver<Event>)> + Send>>;

fn wait(mut next: broadcast::Receiver<Event>) -> Wait {
    Box::pin(async move { (next.recv().await, next) })
}

/// The recent events, then, where wanted, what comes.
pub struct EventStream {
    recent: VecDeque<Event>,
    next: Option<Wait>,
}

impl Stream for EventStream {
    type Item = Result<Event, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(event) = self.recent.pop_front() {
            return Poll::Ready(Some(Ok(event)));
        }
        let Some(next) = self.next.as_mut() else { return Poll::Ready(None) };
        let (event, receiver) = ready!(next.as_mut().poll(cx));
        match event {
            Ok(event) => {
                self.next = Some(wait(receiver));
                Poll::Ready(Some(Ok(event)))
            }
            Err(RecvError::Lagged(count)) => {
                self.next = Some(wait(receiver));
                let text = format!("{count} events left out: they came faster than they were read");
                let at_ms = detail::millis(SystemTime::now());
                Poll::Ready(Some(Ok(Event { at_ms, kind: "lost".to_owned(), text, ..Event::default() })))
            }
            Err(RecvError::Closed) => {
                self.next = None;
                Poll::Ready(None)
            }
        }
    }
}
