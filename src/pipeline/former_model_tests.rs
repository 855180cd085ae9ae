//! Random streams with crashes, in which no change may get lost or be applied twice.

use super::*;

/// One step of a source's history.
#[derive(Debug, Clone)]
enum Past {
    Rows { gtid: Option<Gtid>, start: Location, end: Location, events: Vec<Vec<Change>> },
    Ddl { gtid: Option<Gtid>, start: Location, end: Location, number: usize },
    Moved { end: Location },
}

/// A history drawn from numbers: each is one step, of that many rows events.
fn history(drafts: &[(u8, Vec<u8>)], gtids: bool) -> (Vec<Past>, i32, usize) {
    let table = keyed();
    let (mut file, mut offset, mut number) = (1, 4, 0);
    let (mut id, mut ddls) = (0, 0);
    let mut past = Vec::new();
    for (kind, sizes) in drafts {
        let start = at(file, offset, if gtids { number } else { 0 });
        offset += 10;
        match kind {
            0..=1 => {
                (file, offset) = (file + u32::from(*kind == 0), if *kind == 0 { 4 } else { offset });
                past.push(Past::Moved { end: at(file, offset, if gtids { number } else { 0 }) });
                continue;
            }
            _ => number += 1,
        }
        let (gtid, end) = (gtids.then(|| gtid(number)), at(file, offset, if gtids { number } else { 0 }));
        if *kind == 2 {
            past.push(Past::Ddl { gtid, start, end, number: ddls });
            ddls += 1;
            continue;
        }
        let mut ordinal = RowOrdinal::default();
        let events = sizes.iter().map(|&size| {
            let change = |_| {
                id += 1;
                let ordinal = ordinal.take();
                match size {
                    // It moves its row to another key, and must stand alone.
                    7 => {
                        let key = [Some(Some(id - 1)), None, None];
                        change(&table, Some(key), Some([Some(Some(-id)), None, None]), ordinal)
                    }
                    _ => change(&table, None, Some(row(id - 1)), ordinal),
                }
            };
            (0..size).map(change).collect()
        });
        let events = events.collect();
        past.push(Past::Rows { gtid, start, end, events });
    }
    (past, id, ddls)
}

/// The same history as another server logs it: the rows of each transaction in the reverse order.
fn reversed(past: &[Past]) -> Vec<Past> {
    let reverse = |step: &Past| match step {
        Past::Rows { gtid, start, end, events } => {
            let mut ordinal = RowOrdinal::default();
            let mut number = |change: &Change| numbered(change, ordinal.take());
            let events = events.iter().rev().map(|rows| rows.iter().rev().map(&mut number).collect()).collect();
            Past::Rows { gtid: gtid.clone(), start: start.clone(), end: end.clone(), events }
        }
        other => other.clone(),
    };
    past.iter().map(reverse).collect()
}

/// Items as intake makes them for a start at `start`, as (step of the history, item in it).
fn stream(past: &[Past], start: &RowMark, from: usize) -> Vec<(usize, usize)> {
    let mut done = Some(start);
    let mut stream = Vec::new();
    for (number, step) in past.iter().enumerate().skip(from) {
        let items = match step {
            Past::Moved { end } => {
                if done.is_some_and(|done| !end.covers(&done.location)) {
                    continue;
                }
                1
            }
            Past::Rows { gtid, start, .. } | Past::Ddl { gtid, start, .. } => {
                if done.is_some_and(|done| skip(done, gtid.as_ref(), start) == Ok(LaneSkip::All)) {
                    continue;
                }
                done = None;
                match step {
                    Past::Rows { events, .. } => events.len() + 2,
                    _ => 3,
                }
            }
        };
        stream.extend((0..items).map(|item| (number, item)));
    }
    stream
}

fn item(past: &Past, number: usize) -> Item {
    let commit = |location: &Location| Item::Commit { location: location.clone(), timestamp: 0, lsn: 1 };
    match (past, number) {
        (Past::Moved { end }, _) => commit(end),
        (Past::Rows { gtid, start, .. } | Past::Ddl { gtid, start, .. }, 0) => {
            Item::Begin { gtid: gtid.clone(), start: start.clone() }
        }
        (Past::Rows { events, .. }, number) if number <= events.len() => {
            Item::Changes { event: event(&events[number - 1]), lsn: 1 }
        }
        (Past::Ddl { number, .. }, 1) => {
            let (done, _) = oneshot::channel();
            Item::Ddl(DdlItem {
                steps: Vec::new(),
                first_step: *number as u32,
                place: "".into(),
                again: Vec::new(),
                emptied: Vec::new(),
                renamed: Vec::new(),
                over_rows: Vec::new(),
                done,
            })
        }
        (Past::Rows { end, .. } | Past::Ddl { end, .. }, _) => commit(end),
    }
}

fn order(mark: &RowMark) -> (BinlogPosition, RowOrdinal) {
    (mark.location.position.clone(), mark.next)
}

/// What is stored downstream, and how often each change was applied.
struct Downstream {
    marks: Vec<RowMark>,
    rows: BTreeMap<i32, usize>,
    ddls: BTreeMap<u32, usize>,
}

impl Downstream {
    /// In safe mode (`again`) a row may meet its own effect.
    fn apply(&mut self, group: &Group, again: bool, mut shares: impl FnMut() -> bool) {
        for (share, keys) in group.shares.iter().zip(keys(group)) {
            if shares() {
                for key in keys {
                    let times = self.rows.entry(key).or_default();
                    *times = if again { 1 } else { *times + 1 };
                }
                for &lane in &share.lanes {
                    let mark = &mut self.marks[lane as usize];
                    assert!(again || order(mark) <= order(&group.end), "a lane goes back");
                    *mark = group.end.clone();
                }
            }
        }
    }

    fn void(&mut self) {
        self.marks.iter_mut().for_each(|mark| mark.proof = None);
    }

    /// Moves idle lanes along; never back.
    fn store(&mut self, applied: &RowMark) {
        for mark in &mut self.marks {
            if order(mark) < order(applied) {
                *mark = applied.clone();
            }
        }
    }
}

/// One run from the stored marks, which a crash ends where `crashes`; else it comes to the end of the history, or to a
/// transaction that must be applied once more (`false`). Each connection leads to any of the `servers`.
fn live(servers: &[Vec<Past>], down: &mut Downstream, random: &mut StdRng, crashes: bool) -> bool {
    let mut past = &servers[random.random_range(0..servers.len())];
    let start = down.marks.iter().min_by_key(|mark| order(mark)).expect("a lane").clone();
    let passed = |step: &Past| match step {
        Past::Rows { end, .. } | Past::Ddl { end, .. } | Past::Moved { end } => end.position <= start.location.position,
    };
    let first = past.iter().position(|step| !passed(step)).unwrap_or(past.len());
    let stream = stream(past, &start, random.random_range(0..=first));
    let mut former = Former::new(down.marks.clone(), start.clone(), false);
    let (mut next, mut applied, mut wait_for_ddl, mut ddl_ran) = (0, start, false, false);
    let (mut restarts, mut idle) = (0, 0);
    loop {
        for _ in 0..random.random_range(0..4) {
            let Some(&(step, number)) = stream.get(next).filter(|_| !former.is_full() && !wait_for_ddl) else { break };
            if number > 0 && matches!(past[step], Past::Rows { .. }) && restarts < 6 && random.random_bool(0.2) {
                former.take(queued(Item::Restart, 0));
                (next, restarts) = (next - number, restarts + 1);
                past = &servers[random.random_range(0..servers.len())];
                break;
            }
            let item = item(&past[step], number);
            wait_for_ddl = matches!(item, Item::Ddl(_));
            let bytes = if matches!(item, Item::Changes { .. }) { random.random_range(0..LARGE) } else { 0 };
            former.take(queued(item, bytes));
            (next, idle) = (next + 1, 0);
        }
        let inside = applied.next != RowOrdinal::default();
        let (want, rows) = match random.random_range(0..6) {
            0 => (Want::OnlyRows, 3),
            1 if inside => (Want::OnlyOpen, 3),
            _ => (Want::Next, random.random_range(1..8)),
        };
        let shares = random.random_range(1..=down.marks.len());
        let formed = match former.form(Size { rows, shares }, want, SafeMode::Off) {
            Err(FormError::OtherRows { .. }) if servers.len() > 1 => {
                down.void();
                return false;
            }
            formed => formed.expect("form"),
        };
        match formed {
            Formed::Group { group, again, .. } => {
                assert_eq!(group.start, applied, "a gap between groups");
                assert!(again || order(&group.end) >= order(&group.start), "{:?} to {:?}", group.start, group.end);
                assert!(!again || servers.len() > 1);
                assert!(group.rows <= 2 * rows);
                assert!(want != Want::OnlyOpen || group.transactions <= 1);
                if crashes && random.random_bool(0.1) {
                    down.apply(&group, again, || random.random());
                    return false;
                }
                down.apply(&group, again, || true);
                applied = group.end;
                if std::mem::take(&mut ddl_ran) || random.random_bool(0.1) {
                    down.store(&applied);
                }
            }
            Formed::Ddl(ddl) => {
                assert!(want == Want::Next && !ddl_ran);
                *down.ddls.entry(ddl.first_step).or_default() += 1;
                (wait_for_ddl, ddl_ran) = (false, true);
            }
            Formed::Nothing => {
                idle += 1;
                assert!(
                    idle < 200,
                    "stuck at {applied:?}, full: {}, item {next} of {}",
                    former.is_full(),
                    stream.len()
                );
                if want == Want::Next && next == stream.len() {
                    break;
                }
            }
        }
    }
    down.store(&applied);
    true
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn no_change_is_lost_or_doubled(
        drafts in prop::collection::vec((0..10u8, prop::collection::vec(0..8u8, 0..4)), 0..12),
        (gtids, two_servers, lanes, crashes) in (any::<bool>(), any::<bool>(), 1..=4usize, 0..4usize),
        seed in any::<u64>(),
    ) {
        let (past, changes, ddls) = history(&drafts, gtids);
        let mut random = StdRng::seed_from_u64(seed);
        let marks = vec![RowMark::at(at(1, 4, 0)); lanes];
        let mut down = Downstream { marks, rows: BTreeMap::new(), ddls: BTreeMap::new() };
        let other = reversed(&past);
        let servers = if two_servers { vec![past.clone(), other] } else { vec![past.clone()] };
        for _ in 0..crashes {
            live(&servers, &mut down, &mut random, true);
        }
        let mut lives = 0;
        while !live(&servers, &mut down, &mut random, false) {
            lives += 1;
            prop_assert!(lives < 100, "it comes to no end");
        }
        for key in 0..changes {
            prop_assert_eq!(down.rows.get(&key), Some(&1), "key {}", key);
        }
        prop_assert_eq!(down.rows.len(), changes as usize);
        // A crash between a statement and the end of its transaction repeats it; that is for its intent to tell.
        prop_assert!((0..ddls as u32).all(|ddl| down.ddls.contains_key(&ddl)));
        let end = past.last().map_or(at(1, 4, 0), |last| match last {
            Past::Rows { end, .. } | Past::Ddl { end, .. } | Past::Moved { end } => end.clone(),
        });
        prop_assert!(down.marks.iter().all(|mark| *mark == RowMark::at(end.clone())));
    }
}
