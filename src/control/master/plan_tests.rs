//! What is planned for each difference between what a master wants and what is here.

use proptest::prelude::*;

use super::*;
use crate::control::master::wanted::Bound;

const SOURCE: &str = "s1";

fn bound(born: i64) -> Option<Bound> {
    Some(Bound { source: SOURCE.into(), born, revision: born })
}

fn source(config: &str, relay: Option<RelayWish>) -> Option<SourceWish> {
    Some(SourceWish { id: SOURCE.into(), config: Some(config.into()), relay })
}

fn wish(run: bool, born: i64, stage_revision: i64) -> TaskWish {
    TaskWish {
        config: Some(format!("config of {born}")),
        run,
        stopped: false,
        born,
        stage_revision,
        start_time: None,
        unheeded: Vec::new(),
    }
}

fn id(name: &str) -> TaskId {
    TaskId { source: SOURCE.into(), name: name.into() }
}

/// Bound at revision 5, one subtask `t`.
fn wanted(task: Option<TaskWish>) -> Wanted {
    let tasks = task.into_iter().map(|wish| ("t".to_owned(), wish)).collect();
    Wanted { bound: bound(5), source: source("c1", None), tasks, ..Wanted::default() }
}

fn mark(born: i64, bound_born: i64, stage_revision: i64) -> MasterMark {
    MasterMark { born, bound_born, stage_revision }
}

/// `t` runs, as start-task at revision 10 wished.
fn running() -> TaskState {
    TaskState { mark: mark(10, 5, 10), ..TaskState::default() }
}

fn actual(task: Option<TaskState>) -> Actual {
    let state = SourceState { config: "c1".into(), relay: None };
    let tasks = task.into_iter().map(|task| ((SOURCE.to_owned(), "t".to_owned()), task)).collect();
    Actual { worker: "w1".into(), sources: [(SOURCE.to_owned(), state)].into(), tasks }
}

fn planned(wish: TaskWish, state: TaskState) -> Vec<Action> {
    plan(&wanted(Some(wish)), &actual(Some(state)), Standing::Owner)
}

#[test]
fn what_is_as_wanted_gives_no_action() {
    assert_eq!(planned(wish(true, 10, 10), running()), []);
    let paused = TaskState { paused: true, idle: true, ..running() };
    assert_eq!(planned(wish(false, 10, 10), paused), []);
    assert_eq!(plan(&Wanted::default(), &Actual::default(), Standing::Owner), []);
    let mut again = wanted(Some(wish(true, 10, 10)));
    again.bound = Some(Bound { revision: 77, ..bound(5).unwrap() });
    assert_eq!(plan(&again, &actual(Some(running())), Standing::Owner), [], "a repeated bound");
}

#[test]
fn stages_are_followed() {
    let paused = TaskState { paused: true, idle: true, mark: mark(10, 5, 12), ..running() };
    assert_eq!(planned(wish(false, 10, 12), running()), [Action::Pause { task: id("t"), mark: mark(10, 5, 12) }]);
    let resumed = Action::Resume { task: id("t"), config: Some("config of 10".into()), mark: mark(10, 5, 14) };
    assert_eq!(planned(wish(true, 10, 14), paused), std::slice::from_ref(&resumed));
    assert_eq!(planned(wish(true, 10, 14), running()), [resumed], "the same stage again is a resume of what failed");
    let known = [("t".to_owned(), Some(10))].into();
    let start = Action::Start { task: id("t"), wish: wish(false, 10, 12), mark: mark(10, 5, 12), known };
    assert_eq!(plan(&wanted(Some(wish(false, 10, 12))), &actual(None), Standing::Owner), [start]);
    assert_eq!(plan(&wanted(None), &actual(Some(running())), Standing::Owner), [Action::Drop(id("t"))]);
    assert_eq!(planned(wish(true, 20, 20), running()), [Action::Drop(id("t"))], "stopped and started while away");
}

#[test]
fn a_reason_that_went_missing_is_put_back() {
    let forgotten = TaskState { mark: mark(10, 5, 12), ..running() };
    assert_eq!(planned(wish(false, 10, 12), forgotten), [Action::Pause { task: id("t"), mark: mark(10, 5, 12) }]);
    let left = TaskState { paused: true, idle: true, ..running() };
    assert_eq!(
        planned(wish(true, 10, 10), left),
        [Action::Resume { task: id("t"), config: None, mark: mark(10, 5, 10) }]
    );
}

#[test]
fn without_a_lease_everything_is_fenced_and_nothing_else_is_done() {
    let nothing_wanted = Wanted::default();
    assert_eq!(plan(&nothing_wanted, &actual(Some(running())), Standing::Away), [Action::Fence(id("t"))]);
    let fenced = TaskState { lease: Some(LeasePark::Lost), idle: true, ..running() };
    assert_eq!(plan(&nothing_wanted, &actual(Some(fenced.clone())), Standing::Away), []);
    assert_eq!(planned(wish(true, 10, 10), fenced), [Action::Readmit(id("t"))]);
}

#[test]
fn a_subtask_that_another_agent_took_is_not_taken_back_without_being_told() {
    let fenced = TaskState { lease: Some(LeasePark::Fenced), idle: true, ..running() };
    assert_eq!(planned(wish(true, 10, 10), fenced.clone()), []);
    let resume = |revision| {
        vec![Action::Resume { task: id("t"), config: Some("config of 10".into()), mark: mark(10, 5, revision) }]
    };
    assert_eq!(planned(wish(true, 10, 11), fenced.clone()), resume(11), "by resume-task");
    let elsewhere = TaskState { mark: mark(10, 4, 10), ..fenced };
    assert_eq!(planned(wish(true, 10, 10), elsewhere), resume(10), "by giving the source anew");
}

#[test]
fn a_source_that_was_elsewhere_begins_again() {
    let before = TaskState { mark: mark(10, 4, 10), ..running() };
    assert_eq!(planned(wish(true, 10, 10), before.clone()), [Action::Fence(id("t"))]);
    let fenced = TaskState { lease: Some(LeasePark::Lost), ..before.clone() };
    assert_eq!(planned(wish(true, 10, 10), fenced.clone()), [], "on its way to a stop");
    let idle = TaskState { idle: true, ..fenced };
    let resume = Action::Resume { task: id("t"), config: Some("config of 10".into()), mark: mark(10, 5, 10) };
    assert_eq!(planned(wish(true, 10, 10), idle.clone()), [resume]);
    assert_eq!(planned(wish(false, 10, 10), idle), [Action::Pause { task: id("t"), mark: mark(10, 5, 10) }]);
}

#[test]
fn a_source_is_left_in_steps() {
    let other = Wanted {
        bound: Some(Bound { source: "s2".into(), born: 9, revision: 9 }),
        source: Some(SourceWish { id: "s2".into(), config: Some("c2".into()), relay: None }),
        ..Wanted::default()
    };
    assert_eq!(plan(&other, &actual(Some(running())), Standing::Owner), [Action::Release(id("t"))]);
    assert_eq!(plan(&other, &actual(None), Standing::Owner), [Action::Unbind(SOURCE.into())]);
    let bind = Action::Bind(other.source.clone().unwrap());
    assert_eq!(plan(&other, &Actual::default(), Standing::Owner), [bind]);
    let without = Wanted { source: Some(SourceWish { config: None, ..other.source.clone().unwrap() }), ..other };
    assert_eq!(plan(&without, &Actual::default(), Standing::Owner), [], "a bound without a configuration");
}

#[test]
fn a_worker_that_only_keeps_the_relay_log_runs_no_subtask() {
    let relay_only = Wanted { relay_for: bound(5), source: source("c1", Some(RelayWish::Run)), ..Wanted::default() };
    let mut now = actual(Some(running()));
    let actions = plan(&relay_only, &now, Standing::Owner);
    let relay = Action::Relay { source: SOURCE.into(), wish: Some(RelayWish::Run) };
    assert_eq!(actions, [relay, Action::Release(id("t"))]);
    now.tasks.clear();
    now.sources.get_mut(SOURCE).unwrap().relay = Some(RelayWish::Run);
    assert_eq!(plan(&relay_only, &now, Standing::Owner), []);
}

#[test]
fn what_cannot_be_read_is_left_alone() {
    let unreadable = Wanted { unreadable: ["t".to_owned()].into(), ..wanted(None) };
    assert_eq!(plan(&unreadable, &actual(Some(running())), Standing::Owner), []);
    let no_config = TaskWish { config: None, ..wish(true, 10, 10) };
    assert_eq!(planned(no_config.clone(), running()), []);
    assert_eq!(plan(&wanted(Some(no_config)), &actual(None), Standing::Owner), []);
}

#[test]
fn settings_and_relay_log_are_followed() {
    let mut new = wanted(None);
    new.source = source("c2", Some(RelayWish::Pause));
    let mut now = actual(None);
    assert_eq!(plan(&new, &now, Standing::Owner), [Action::Configure { source: SOURCE.into(), config: "c2".into() }]);
    now.sources.get_mut(SOURCE).unwrap().config = "c2".into();
    let relay = Action::Relay { source: SOURCE.into(), wish: Some(RelayWish::Pause) };
    assert_eq!(plan(&new, &now, Standing::Owner), [relay]);
}

#[test]
fn a_start_time_is_cleared_when_it_was_honoured() {
    let given = StartTime { text: "2026-01-01 00:00:00".into(), revision: 9 };
    let wish = TaskWish { start_time: Some(given.clone()), ..wish(true, 10, 10) };
    assert_eq!(planned(wish.clone(), running()), []);
    let flushed = TaskState { flushed: true, ..running() };
    assert_eq!(planned(wish, flushed), [Action::ClearStartTime { task: id("t"), given }]);
}

/// What carrying an action out makes of the world.
fn carry_out(world: &mut Actual, wanted: &mut Wanted, action: &Action) {
    let key = |task: &TaskId| (task.source.clone(), task.name.clone());
    let task = |world: &'_ mut Actual, id: &TaskId| world.tasks.get(&key(id)).cloned().expect("it is there");
    match action {
        Action::Fence(id) => {
            let state = TaskState { lease: Some(LeasePark::Lost), idle: true, ..task(world, id) };
            world.tasks.insert(key(id), state);
        }
        Action::Bind(wish) => {
            assert!(world.sources.is_empty(), "two sources at once");
            let config = wish.config.clone().expect("nothing to open");
            world.sources.insert(wish.id.clone(), SourceState { config, relay: wish.relay });
        }
        Action::Configure { source, config } => world.sources.get_mut(source).unwrap().config = config.clone(),
        Action::Relay { source, wish } => world.sources.get_mut(source).unwrap().relay = *wish,
        Action::Unbind(source) => {
            assert!(world.tasks.keys().all(|key| key.0 != *source), "a source is closed under its subtasks");
            world.sources.remove(source);
        }
        Action::Start { task, wish, mark, .. } => {
            assert!(world.sources.contains_key(&task.source), "a subtask without its source");
            let state = TaskState { mark: *mark, paused: !wish.run, idle: !wish.run, ..TaskState::default() };
            assert!(world.tasks.insert(key(task), state).is_none(), "started twice");
        }
        Action::Pause { task: id, mark } => {
            let state = TaskState { mark: *mark, paused: true, idle: true, ..task(world, id) };
            world.tasks.insert(key(id), state);
        }
        Action::Resume { task: id, mark, .. } => {
            let state = TaskState { mark: *mark, paused: false, idle: false, lease: None, ..task(world, id) };
            world.tasks.insert(key(id), state);
        }
        Action::Readmit(id) => {
            let state = task(world, id);
            world.tasks.insert(key(id), TaskState { lease: None, idle: state.paused, ..state });
        }
        Action::Drop(task) | Action::Release(task) => drop(world.tasks.remove(&key(task))),
        Action::ClearStartTime { task, .. } => {
            if let Some(wish) = wanted.tasks.get_mut(&task.name) {
                wish.start_time = None;
            }
        }
        Action::ClaimLoad { task, .. } => {
            let loader = Loader { worker: world.worker.clone(), revision: 200 };
            wanted.loaders.insert(task.name.clone(), loader);
        }
        Action::ReleaseLoad { task, .. } => drop(wanted.loaders.remove(&task.name)),
    }
}

/// One moment of a history: what is wanted, and how much of the plan is carried out before the next one.
#[derive(Debug, Clone)]
struct Moment {
    wanted: Wanted,
    standing: Standing,
    steps: usize,
    /// Subtasks that another agent takes meanwhile, and those that store a checkpoint.
    fenced: bool,
    flushed: bool,
}

fn any_wanted() -> impl Strategy<Value = Wanted> {
    let task = (any::<bool>(), 10..13_i64, 0..3_i64, any::<bool>()).prop_map(|(run, born, later, timed)| TaskWish {
        start_time: timed.then(|| StartTime { text: "2026-01-01 00:00:00".into(), revision: born - 1 }),
        ..wish(run, born, born + later)
    });
    let tasks = prop::collection::btree_map("[tuv]", task, 0..3);
    let relay = prop::option::of(prop_oneof![Just(RelayWish::Run), Just(RelayWish::Pause)]);
    ("s[12]", 0..3_u8, 4..7_i64, "c[12]", relay, tasks).prop_map(|(id, kind, born, config, relay, tasks)| {
        let given = Some(Bound { source: id.clone(), born, revision: born });
        let (bound, relay_for) = match kind {
            0 => (None, None),
            1 => (given, None),
            _ => (None, given),
        };
        let any = bound.is_some() || relay_for.is_some();
        let source = any.then_some(SourceWish { id, config: Some(config), relay });
        let tasks = if bound.is_some() { tasks } else { BTreeMap::new() };
        Wanted { revision: 100, bound, relay_for, source, tasks, ..Wanted::default() }
    })
}

fn any_moment() -> impl Strategy<Value = Moment> {
    let standing = prop_oneof![Just(Standing::Away), Just(Standing::Owner), Just(Standing::Owner)];
    (any_wanted(), standing, 0..6_usize, any::<bool>(), any::<bool>())
        .prop_map(|(wanted, standing, steps, fenced, flushed)| Moment { wanted, standing, steps, fenced, flushed })
}

/// Plans and carries out until nothing is left to do; at most `limit` actions.
pub(super) fn settle(world: &mut Actual, wanted: &mut Wanted, standing: Standing, limit: usize) -> bool {
    for _ in 0..limit {
        let Some(action) = plan(wanted, world, standing).into_iter().next() else { return true };
        carry_out(world, wanted, &action);
    }
    plan(wanted, world, standing).is_empty()
}

proptest! {
    /// Whatever was seen before, in whatever order and however often, and however far each plan came: the end is that of
    /// a worker that saw nothing but the end.
    #[test]
    fn every_history_ends_in_the_same_state(history in prop::collection::vec(any_moment(), 0..6), last in any_wanted()) {
        let mut world = Actual::default();
        for moment in history {
            let mut wanted = moment.wanted;
            let _ = settle(&mut world, &mut wanted, moment.standing, moment.steps);
            for task in world.tasks.values_mut() {
                task.flushed |= moment.flushed;
                if moment.fenced {
                    (task.lease, task.idle) = (Some(LeasePark::Fenced), true);
                }
            }
        }
        let mut fresh = Actual::default();
        let (mut seen, mut unseen) = (last.clone(), last.clone());
        prop_assert!(settle(&mut world, &mut seen, Standing::Owner, 100), "no end from {world:?}");
        prop_assert!(settle(&mut fresh, &mut unseen, Standing::Owner, 100), "no end from nothing");
        // What another agent took stays taken until somebody says otherwise, and a checkpoint stays stored.
        for (key, task) in &mut world.tasks {
            task.flushed = false;
            if task.lease == Some(LeasePark::Fenced) {
                (task.lease, task.idle) = (None, fresh.tasks.get(key).is_some_and(|task| task.idle));
            }
        }
        prop_assert_eq!(&world, &fresh);
        let source = last.source.as_ref().map(|source| source.id.as_str());
        prop_assert_eq!(world.sources.keys().map(String::as_str).next(), source);
        prop_assert_eq!(world.tasks.len(), last.tasks.len());
        for (key, task) in &world.tasks {
            prop_assert_eq!(task.paused, !last.tasks[&key.1].run);
        }
    }

    /// At most one action a subject, so that they can be carried out beside each other.
    #[test]
    fn subjects_do_not_meet(before in any_wanted(), steps in 0..8_usize, after in any_wanted(), away in any::<bool>()) {
        let mut world = Actual::default();
        let _ = settle(&mut world, &mut before.clone(), Standing::Owner, steps);
        let standing = if away { Standing::Away } else { Standing::Owner };
        let mut subjects: Vec<Subject> = plan(&after, &world, standing).iter().map(Action::subject).collect();
        let count = subjects.len();
        subjects.sort();
        subjects.dedup();
        prop_assert_eq!(subjects.len(), count);
    }
}

/// What masters are told of a copy, by how far the subtask is and who was said to be at it.
#[test]
fn whoever_copies_says_so_and_nobody_does_behind_it() {
    let loader = |worker: &str| Loader { worker: worker.into(), revision: 7 };
    let planned = |task: Option<CopyPart>, said: Option<&str>| {
        let wish = task.map(|_| wish(true, 10, 10));
        let mut wanted = wanted(wish);
        wanted.loaders = said.map(|worker| ("t".to_owned(), loader(worker))).into_iter().collect();
        plan(&wanted, &actual(task.map(|copy| TaskState { copy, ..running() })), Standing::Owner)
    };
    let claim = Action::ClaimLoad { task: id("t"), bound_born: 5 };
    let release = |worker: &str| Action::ReleaseLoad { task: id("t"), bound_born: 5, loader: loader(worker) };
    assert_eq!(planned(Some(CopyPart::AtWork), None), std::slice::from_ref(&claim));
    assert_eq!(planned(Some(CopyPart::AtWork), Some("w2")), std::slice::from_ref(&claim), "the source came here");
    assert_eq!(planned(Some(CopyPart::AtWork), Some("w1")), []);
    assert_eq!(planned(Some(CopyPart::Unknown), Some("w1")), [], "failed in its copy");
    assert_eq!(planned(Some(CopyPart::Parked), Some("w1")), [release("w1")], "it may be moved now");
    assert_eq!(planned(Some(CopyPart::Parked), Some("w2")), []);
    assert_eq!(planned(Some(CopyPart::Over), Some("w1")), [release("w1")]);
    assert_eq!(planned(Some(CopyPart::Over), Some("w2")), [release("w2")], "a stock worker that never came back");
    assert_eq!(planned(Some(CopyPart::Over), None), []);
    assert_eq!(planned(None, Some("w1")), [release("w1")], "stop-task");
    assert_eq!(planned(None, Some("w2")), [], "another worker's own");
}
