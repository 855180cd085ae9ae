//! dm-agent: the worker-side agent daemon of TiDB Data Migration (DM). It follows the binlog of MySQL and MariaDB
//! servers, keeps it in a relay log, applies it downstream exactly once, and parks on `pause-task`.
//!
//! Two binaries come from this crate: `dm-agent`, the daemon ([`daemon`]), and `dm-agentctl`, the command line ([`ctl`]).
//! The README says how to use them. This page is the map for reading the code.
//!
//! # The flow
//!
//! ```text
//!       one for each source                     one for each task and source
//! ┌──────────────────────────────┐ ┌────────────────────────────────────────────────────────┐
//! source ─► upstream ─► relay log ─► decode ─► transform ─► schema ─► dispatch ─► apply ─► downstream
//!            reader      sled         events    allow list   bind to   groups,     lanes   rows and the
//!                        segments     to rows   routes, DDL  columns   compaction    │     lane's mark in
//!                           │                                                        ▼     one transaction
//!              received ≥ relayed                 received ≥ dispatched ≥ applied ≥ checkpointed (dm_meta)
//!
//! dm-agentctl, curl ─► control::admin ─► supervisor ─► task (one actor) ─► pipeline (from a start or resume to a park)
//! ```
//!
//! Receiving knows of no task: a park stops the right half and leaves the left half running. A pipeline is built at each
//! start and resume, begins by claiming what is stored downstream, and is gone when it parks.
//!
//! A *group* is what waits, whole source transactions, as many as the downstream takes in about 100 ms; a transaction that
//! does not fit is cut. Groups are applied one after the other. Within a group a row's lane follows from its table and
//! key, and each lane commits its rows together with its new mark. The next group is formed meanwhile and dealt out when
//! every lane is done, so between groups all lanes are done up to one mark, and a DDL statement, a checkpoint and a park
//! need no agreement beyond that. (What is stored of lanes that had nothing to do is moved along about once a second.)
//!
//! # Invariants
//!
//! 1. received ≥ relayed, and received ≥ dispatched ≥ applied ≥ checkpointed. Each is a type of its own in [`model`].
//! 2. *Relayed* is said after the flush that covers it, *applied* after the downstream acknowledged COMMIT on all lanes.
//! 3. A lane's rows and its mark are one downstream transaction. After a crash each lane goes on behind its own mark:
//!    nothing lost, nothing twice, without safe mode. `kill -9` is correct at any instant; draining only shortens replay.
//! 4. A mark is written `WHERE epoch = ours`. Whoever claims a task raises the epoch; the former owner then writes nothing.
//! 5. Which changes come, and which lane each goes to, follows from the task's rules, the number of lanes, and the
//!    tables' structures downstream. This mapping is stored before it is used, and changes only where all lanes stand at
//!    one transaction boundary.
//! 6. DDL runs alone, after everything before it is applied, in the session it had on the source. Its intent is stored
//!    before, its end before anything behind, and that it was refused.
//! 7. Relay log goes only when every task, running or parked, has passed it. At the budget or the free-disk floor
//!    receiving stops; what is not applied is never deleted.
//! 8. A task runs only while its set of park reasons is empty. Reasons are stored before a command is answered; none lifts
//!    another, so a task that resumes by itself never overrules an operator.
//! 9. One actor owns a task's state. Others send it commands and read a snapshot: no status waits for a lock held over
//!    I/O, for a source or for a downstream. The admin socket has a thread of its own.
//! 10. What is in flight is bounded in items, bytes and time.
//! 11. What cannot be understood stops the task with its place and a remedy. Nothing is guessed or left out silently.
//!
//! # Which checkpoint wins
//!
//! The rows in `dm_meta` downstream decide at each start; the store on this machine remembers locations for the status
//! and for the relay log only. DM's row decides first ([`checkpoint`]):
//!
//! | DM's row for this task and source | then |
//! |---|---|
//! | is the one we wrote last | each lane goes on behind its own row |
//! | is another one (a dm-worker went on, a backup was restored) | it wins, and the lanes are set to it |
//! | is missing (`--remove-meta`, a new downstream) | the lanes are void, the task's start location holds |
//!
//! # The map
//!
//! Dependencies point down: `daemon`, `control` and `ctl` stand above the supervisor, no stage knows another one (but
//! [`apply`] takes the work that [`dispatch`] makes), and [`pipeline`] alone knows their order.
//!
//! | Module | What is in it |
//! |---|---|
//! | [`daemon`] | the process: boot order, lock, log, signals, service manager, shutdown |
//! | [`ctl`] | commands and output of dm-agentctl |
//! | [`control`] | the admin socket: DM's `pb.Master`, our own service, HTTP pages, levels, audit; in a cluster, the master's wishes and `pb.Worker` |
//! | [`supervisor`] | sources and tasks: what is wanted against what is |
//! | [`task`] | a task on a source: life cycle (a pure table), driver (the actor), status |
//! | [`pipeline`] | builds the stages, owns them, stops them; the receiver of a source |
//! | *stages* | |
//! | [`upstream`] | connection to a source: login, preflight, binlog reader, where to start |
//! | [`relay`] | the relay log: writer, reader, recovery, purge, runway |
//! | [`decode`] | raw events to transactions, rows and statements |
//! | [`transform`] | block-allow list, filters and routes, for rows and for DDL |
//! | [`dispatch`] | groups: compaction by key, lanes, waves |
//! | [`apply`] | lanes: SQL, marks, the fence, retries; DDL with its intent |
//! | [`snapshot`] | the copy of existing rows: chunks with marks, structures, tables read again |
//! | [`checkpoint`] | claiming a task, which stored location wins, moving it on |
//! | *beside and below* | |
//! | [`config`] | files and flags to checked types; every problem at once; what is refused, what has no effect |
//! | [`store`] | the embedded store (sled); nothing else names it |
//! | [`binlog`] | outer form of events: headers, checksums, transaction boundaries |
//! | [`row`] | inner form of row events: table maps, images, values |
//! | [`schema`] | table structures, and how a row image maps onto a downstream table |
//! | [`meta`] | tables in `dm_meta`: names, definitions, SQL |
//! | [`downstream`] | connections to the downstream with the session that literals are written for |
//! | [`mysql`] | SQL connections, for both ends |
//! | [`tls`] | TLS from PEM files: databases, and the cluster |
//! | [`runtime`] | background tasks with an owner |
//! | [`clock`] | the clock that nobody sets, to compare a source's with |
//! | [`error`] | the failure type: DM's codes, causes, remedies; what heals by waiting |
//! | [`model`] | positions, GTID sets, locations, names: values without I/O |

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod apply;
pub mod binlog;
pub mod checkpoint;
pub mod clock;
pub mod config;
pub mod control;
pub mod ctl;
pub mod daemon;
pub mod decode;
pub mod dispatch;
pub mod downstream;
pub mod error;
pub mod meta;
pub mod model;
pub mod mysql;
pub mod pipeline;
pub mod relay;
pub mod row;
pub mod runtime;
pub mod schema;
pub mod snapshot;
pub mod store;
pub mod supervisor;
pub mod task;
pub mod tls;
pub mod transform;
pub mod upstream;
