//! The life of a subtask, as a pure table.
//!
//! ```text
//!             start, no reason                 park                    ended
//!   New ───────────────────────► Running ───────────────► Pausing ─────────────► Paused
//!    │                            │  ▲  ▲                  │    ▲                 │ │
//!    │ start, some reason         │  │  │ ended      unpark│    │park        unpark│ │ stop
//!    └──────────────► Paused      │  │  └──────── Resuming ◄────┘    (none left)  │ │
//!                                 │  └────────────────────────────────────────────┘ │
//!                            stop │            ended                                ▼
//!                                 └─► Stopping ─────────────────────────────────► Stopped
//!
//!   New, Running, Pausing, Resuming ──done──► Finished ──stop──► Stopped
//! ```
//! A task runs only while its set of park reasons is empty; which reasons are in it is the caller's business, so that
//! one reason can never lift another. A task that has an end (mode `full`) is kept as Finished when it has come to it: there is
//! nothing to pause or to resume any more.

use super::status::Stage;

/// What happens to a subtask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It was created, or loaded after a restart.
    Start,
    /// A reason was added to the set, or was there already.
    Park,
    /// A reason was taken out of the set, or was not there.
    Unpark,
    /// Its pipeline ended, whatever way.
    Ended,
    /// Its pipeline ended at the task's own end, or had before a restart.
    Done,
    /// It is to go.
    Stop,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// Start a pipeline.
    StartPipeline,
    /// Let the pipeline stop at a boundary.
    Drain,
    /// The subtask is over.
    Remove,
}

/// The stage behind `stage` after `event`, where `parked` says whether the set of reasons is not empty now.
pub fn step(stage: Stage, event: Event, parked: bool) -> (Stage, Effect) {
    use Effect as E;
    use Event as V;
    use Stage as S;
    match (stage, event) {
        (S::New, V::Start) if parked => (S::Paused, E::None),
        (S::New, V::Start) => (S::Running, E::StartPipeline),
        (S::New | S::Paused, V::Stop) => (S::Stopped, E::Remove),
        (S::Running, V::Park) if parked => (S::Pausing, E::Drain),
        (S::Running, V::Stop) => (S::Stopping, E::Drain),
        (S::Running, V::Ended) if parked => (S::Paused, E::None),
        (S::Running, V::Ended) => (S::Running, E::StartPipeline),
        (S::Pausing, V::Unpark) if !parked => (S::Resuming, E::None),
        (S::Pausing | S::Resuming, V::Ended) if parked => (S::Paused, E::None),
        (S::Pausing | S::Resuming, V::Ended) => (S::Running, E::StartPipeline),
        (S::Pausing | S::Resuming, V::Stop) => (S::Stopping, E::None),
        (S::Resuming, V::Park) if parked => (S::Pausing, E::None),
        (S::Paused, V::Unpark) if !parked => (S::Running, E::StartPipeline),
        (S::New | S::Running | S::Pausing | S::Resuming, V::Done) => (S::Finished, E::None),
        (S::Stopping, V::Ended | V::Done) | (S::Finished, V::Stop) => (S::Stopped, E::Remove),
        (stage, _) => (stage, E::None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_edge() {
        use Effect as E;
        use Event as V;
        use Stage as S;
        let edges = [
            (S::New, V::Start, false, S::Running, E::StartPipeline),
            (S::New, V::Start, true, S::Paused, E::None),
            (S::New, V::Stop, false, S::Stopped, E::Remove),
            (S::New, V::Park, true, S::New, E::None),
            (S::New, V::Unpark, false, S::New, E::None),
            (S::New, V::Ended, false, S::New, E::None),
            (S::Running, V::Start, false, S::Running, E::None),
            (S::Running, V::Park, true, S::Pausing, E::Drain),
            (S::Running, V::Unpark, false, S::Running, E::None),
            (S::Running, V::Ended, true, S::Paused, E::None),
            (S::Running, V::Ended, false, S::Running, E::StartPipeline),
            (S::Running, V::Stop, false, S::Stopping, E::Drain),
            (S::Pausing, V::Park, true, S::Pausing, E::None),
            (S::Pausing, V::Unpark, true, S::Pausing, E::None),
            (S::Pausing, V::Unpark, false, S::Resuming, E::None),
            (S::Pausing, V::Ended, true, S::Paused, E::None),
            (S::Pausing, V::Stop, true, S::Stopping, E::None),
            (S::Resuming, V::Park, true, S::Pausing, E::None),
            (S::Resuming, V::Ended, false, S::Running, E::StartPipeline),
            (S::Resuming, V::Ended, true, S::Paused, E::None),
            (S::Resuming, V::Stop, false, S::Stopping, E::None),
            (S::Paused, V::Park, true, S::Paused, E::None),
            (S::Paused, V::Unpark, true, S::Paused, E::None),
            (S::Paused, V::Unpark, false, S::Running, E::StartPipeline),
            (S::Paused, V::Stop, true, S::Stopped, E::Remove),
            (S::Stopping, V::Park, true, S::Stopping, E::None),
            (S::Stopping, V::Unpark, false, S::Stopping, E::None),
            (S::Stopping, V::Ended, false, S::Stopped, E::Remove),
            (S::New, V::Done, true, S::Finished, E::None),
            (S::Running, V::Done, false, S::Finished, E::None),
            (S::Pausing, V::Done, true, S::Finished, E::None),
            (S::Resuming, V::Done, false, S::Finished, E::None),
            (S::Stopping, V::Done, false, S::Stopped, E::Remove),
            (S::Finished, V::Start, false, S::Finished, E::None),
            (S::Finished, V::Park, true, S::Finished, E::None),
            (S::Finished, V::Unpark, false, S::Finished, E::None),
            (S::Finished, V::Ended, false, S::Finished, E::None),
            (S::Finished, V::Stop, true, S::Stopped, E::Remove),
            (S::Stopped, V::Start, false, S::Stopped, E::None),
            (S::Stopped, V::Unpark, false, S::Stopped, E::None),
        ];
        for (stage, event, parked, next, effect) in edges {
            assert_eq!(step(stage, event, parked), (next, effect), "{stage:?} {event:?} parked={parked}");
        }
    }

    #[test]
    fn a_parked_task_never_starts_a_pipeline() {
        let stages = [
            Stage::New,
            Stage::Running,
            Stage::Paused,
            Stage::Pausing,
            Stage::Resuming,
            Stage::Stopping,
            Stage::Finished,
        ];
        for stage in stages {
            for event in [Event::Start, Event::Park, Event::Unpark, Event::Ended, Event::Done, Event::Stop] {
                assert_ne!(step(stage, event, true).1, Effect::StartPipeline, "{stage:?} {event:?}");
            }
        }
    }
}
