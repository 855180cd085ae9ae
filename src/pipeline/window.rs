//! What is still to be done behind a copy of existing rows, until the place where the target equals the source.
//!
//! Invariant: a row change is left out only if its table has it already (it was copied as it was at one later place), or if
//! the table is stale: then a later DDL statement has it read again, or the task stops at the window's end. What is decided
//! here follows from what is stored downstream, so that a replay after a crash decides the same.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::watch;

use super::former::skip;
use crate::dispatch::LaneSkip;
use crate::error::{Code, Failure};
use crate::model::{Gtid, Location, RowMark, SourceTable};
use crate::snapshot::Replay;

/// Tables named in a failure.
const NAMED: usize = 10;

/// The window as intake and coordinator share it. They change it in turn: intake while it hands rows on, the coordinator
/// while intake waits for it.
#[derive(Debug)]
pub struct Windows {
    shared: Arc<watch::Sender<Option<Window>>>,
    seen: watch::Receiver<Option<Window>>,
}

impl Windows {
    /// A window, or that there is none.
    pub fn new(window: Option<Window>) -> Self {
        let (shared, seen) = watch::channel(window);
        Windows { shared: Arc::new(shared), seen }
    }

    /// For the other side.
    pub fn share(&self) -> Self {
        Windows { shared: Arc::clone(&self.shared), seen: self.shared.subscribe() }
    }

    /// As it is.
    pub fn now(&self) -> Option<Window> {
        self.seen.borrow().clone()
    }

    /// Whether it is so; `false` without one.
    pub fn is(&self, so: impl Fn(&Window) -> bool) -> bool {
        self.seen.borrow().as_ref().is_some_and(so)
    }

    /// Changes it.
    pub fn set(&mut self, window: Option<Window>) {
        self.shared.send_replace(window);
        self.seen.mark_unchanged();
    }

    /// What the other side made of it; `None` where it is as it was.
    pub fn changed(&mut self) -> Option<Option<Window>> {
        self.seen.has_changed().unwrap_or(false).then(|| self.seen.borrow_and_update().clone())
    }

    /// Waits for the other side to change it; `None` where that has gone.
    pub async fn next(&mut self) -> Option<Option<Window>> {
        self.seen.changed().await.ok()?;
        Some(self.seen.borrow_and_update().clone())
    }
}

/// The window between L0 and L1.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    from: Location,
    structures_at: Location,
    until: Location,
    starts: HashMap<SourceTable, Location>,
    stale: HashSet<SourceTable>,
    /// Of these, the ones that an operator ordered.
    ordered: HashSet<SourceTable>,
    of_copy: bool,
}

impl Window {
    /// As it is stored.
    pub fn new(replay: &Replay) -> Self {
        Window {
            from: replay.from.clone(),
            structures_at: replay.structures_at.clone(),
            until: replay.until.clone(),
            starts: replay.starts.iter().cloned().collect(),
            stale: replay.stale.iter().cloned().collect(),
            ordered: replay.ordered.iter().cloned().collect(),
            of_copy: replay.of_copy,
        }
    }

    /// Nothing is left to be done but what comes at `at`.
    pub fn opened(at: &Location) -> Self {
        Window {
            from: at.clone(),
            structures_at: at.clone(),
            until: at.clone(),
            starts: HashMap::new(),
            stale: HashSet::new(),
            ordered: HashSet::new(),
            of_copy: false,
        }
    }

    /// Whether rows of tables are still of several instants at `at`, so that they may be together there as they never were on
    /// the source.
    pub fn mixes_instants(&self, at: &Location) -> bool {
        self.of_copy && !self.is_over(at)
    }

    /// An operator wants a table read again.
    pub fn order(&mut self, table: &SourceTable) {
        self.stale.insert(table.clone());
        self.ordered.insert(table.clone());
    }

    /// Whether an operator wants it read again.
    pub fn is_ordered(&self, table: &SourceTable) -> bool {
        self.ordered.contains(table)
    }

    /// As it is to be stored.
    pub fn to_replay(&self) -> Replay {
        let mut starts: Vec<_> = self.starts.iter().map(|(table, at)| (table.clone(), at.clone())).collect();
        starts.sort_by(|a, b| a.0.cmp(&b.0));
        let stale = self.stale();
        let mut ordered: Vec<_> = self.ordered.iter().cloned().collect();
        ordered.sort();
        let Window { from, structures_at, until, of_copy, .. } = self.clone();
        Replay { from, structures_at, until, starts, stale, ordered, of_copy }
    }

    /// Tables that it says something of.
    pub fn tables(&self) -> impl Iterator<Item = &SourceTable> {
        self.starts.keys().chain(&self.stale)
    }

    /// Where the binlog begins to count.
    pub fn from(&self) -> &Location {
        &self.from
    }

    /// Where it ends.
    pub fn until(&self) -> &Location {
        &self.until
    }

    /// Whether everything up to its end is also up to `at`.
    pub fn is_over(&self, at: &Location) -> bool {
        at.covers(&self.until)
    }

    /// Whether the effect of a DDL statement whose transaction begins at `start` may have come with the structures.
    pub fn structures_may_have(&self, start: &Location) -> bool {
        !start.covers(&self.structures_at)
    }

    /// Whether changes of a table, in the transaction behind `start`, are not to be applied.
    pub fn leaves_out(&self, table: &SourceTable, gtid: Option<&Gtid>, start: &Location) -> bool {
        let has = |at: &Location| matches!(skip(&RowMark::at(at.clone()), gtid, start), Ok(LaneSkip::All));
        self.stale.contains(table) || self.starts.get(table).is_some_and(has)
    }

    /// The table has another structure than the rows that come: left out until it is read again. False where that is known.
    pub fn mark_stale(&mut self, table: &SourceTable) -> bool {
        self.stale.insert(table.clone())
    }

    /// Whether a table waits to be read again.
    pub fn is_stale(&self, table: &SourceTable) -> bool {
        self.stale.contains(table)
    }

    /// Missing tables were made at its end, as they are on the source there: the effect of any statement before may be there.
    pub fn made_at_end(&mut self) {
        self.structures_at = self.until.clone();
    }

    /// Tables that wait to be read again, in order of their names.
    pub fn stale(&self) -> Vec<SourceTable> {
        let mut stale: Vec<_> = self.stale.iter().cloned().collect();
        stale.sort();
        stale
    }

    /// Whether some table waits to be read again.
    pub fn has_stale(&self) -> bool {
        !self.stale.is_empty()
    }

    /// A table was read again, as it was at `at` just then (`exact`), or bit by bit up to it.
    pub fn read_again(&mut self, table: &SourceTable, at: &Location, exact: bool) {
        self.stale.remove(table);
        self.ordered.remove(table);
        self.starts.remove(table);
        if exact {
            self.starts.insert(table.clone(), at.clone());
        }
        self.stretch(at);
    }

    /// A table could not be read again, since at `at` it had another structure already: a statement is on its way.
    pub fn differs(&mut self, table: &SourceTable, at: &Location) {
        self.starts.remove(table);
        self.stale.insert(table.clone());
        self.stretch(at);
    }

    /// A statement made the table empty, or took it away: it is now what the binlog makes of it. Whether something changed.
    pub fn begins_empty(&mut self, table: &SourceTable) -> bool {
        let was_stale = self.stale.remove(table);
        self.ordered.remove(table);
        self.starts.remove(table).is_some() || was_stale
    }

    /// Fails where the end is reached and a table was not read again.
    pub fn check_end(&self) -> Result<(), Failure> {
        if self.stale.is_empty() {
            return Ok(());
        }
        let mut names: Vec<String> = self.stale.iter().map(SourceTable::to_string).collect();
        names.sort();
        let more = names.len().saturating_sub(NAMED);
        names.truncate(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let text = format!(
            "tables have another structure on the source than on the target, and no DDL statement up to {} makes them the \
             same, so that their rows cannot be read again: {}{more}",
            self.until,
            names.join(", ")
        );
        Err(Failure::new(Code::ColumnCount, text).workaround(
            "Please give the target's tables the source's columns, then resume-task: they are read again then. Or leave them \
             out by the block-allow-list.",
        ))
    }

    fn stretch(&mut self, at: &Location) {
        if !self.until.covers(at) {
            self.until = at.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BinlogPosition, Flavor, GtidSet, TableName};

    const UUID: &str = "9231c604-e680-11f1-ab28-628677c36cd1";

    fn at(offset: u64) -> Location {
        Location::new(BinlogPosition::parse("b.000001", offset).unwrap(), GtidSet::empty(Flavor::MySql))
    }

    fn by_set(last: u64) -> Location {
        let set = GtidSet::parse(Flavor::MySql, &format!("{UUID}:1-{last}")).unwrap();
        Location::new(BinlogPosition::parse("b.000001", 100 * last).unwrap(), set)
    }

    fn table(name: &str) -> SourceTable {
        SourceTable(TableName::new("s", name))
    }

    fn window() -> Window {
        Window::new(&Replay {
            from: at(100),
            structures_at: at(200),
            until: at(900),
            starts: vec![(table("keyless"), at(500))],
            stale: vec![table("stale")],
            ordered: Vec::new(),
            of_copy: true,
        })
    }

    #[test]
    fn a_table_copied_at_one_place_has_what_was_logged_up_to_it() {
        let window = window();
        let leaves_out = |name, offset| window.leaves_out(&table(name), None, &at(offset));
        // The transaction that begins at 499 ends at or before 500, where the table was read.
        assert!(leaves_out("keyless", 100) && leaves_out("keyless", 499));
        assert!(!leaves_out("keyless", 500) && !leaves_out("keyless", 700));
        assert!(!leaves_out("other", 100) && leaves_out("stale", 700));
    }

    #[test]
    fn sets_decide_where_there_are_any() {
        let mut window = window();
        window.read_again(&table("keyless"), &by_set(7), true);
        let gtid = |number| Gtid::parse(Flavor::MySql, &format!("{UUID}:{number}")).unwrap();
        assert!(window.leaves_out(&table("keyless"), Some(&gtid(7)), &by_set(6)));
        assert!(!window.leaves_out(&table("keyless"), Some(&gtid(8)), &by_set(7)));
    }

    #[test]
    fn it_is_stretched_and_never_shrinks() {
        let mut window = window();
        window.read_again(&table("stale"), &at(1200), false);
        assert!(!window.has_stale() && !window.leaves_out(&table("stale"), None, &at(700)));
        assert!(!window.is_over(&at(1100)) && window.is_over(&at(1200)));
        window.read_again(&table("t"), &at(1000), true);
        assert!(!window.is_over(&at(1100)) && window.leaves_out(&table("t"), None, &at(999)));
        window.differs(&table("t"), &at(1300));
        assert!(window.leaves_out(&table("t"), None, &at(2000)) && !window.is_over(&at(1299)));
    }

    #[tokio::test]
    async fn each_side_sees_what_the_other_changed() {
        let mut one = Windows::new(Some(window()));
        let mut other = one.share();
        assert!(one.changed().is_none() && other.changed().is_none());
        one.set(None);
        assert!(one.changed().is_none(), "its own change");
        assert_eq!(other.changed(), Some(None));
        other.set(Some(window()));
        assert_eq!(one.next().await, Some(Some(window())));
        assert!(one.is(Window::has_stale) && other.is(Window::has_stale));
    }

    #[test]
    fn what_begins_empty_needs_nothing_more() {
        let mut window = window();
        assert!(window.begins_empty(&table("keyless")) && window.begins_empty(&table("stale")));
        assert!(!window.begins_empty(&table("keyless")));
        assert!(!window.leaves_out(&table("keyless"), None, &at(100)) && window.check_end().is_ok());
    }

    #[test]
    fn what_an_operator_orders_is_due_at_once_and_over_when_it_was_read() {
        let mut window = Window::opened(&at(300));
        assert!(
            window.is_over(&at(300))
                && !window.mixes_instants(&at(200))
                && !window.has_stale()
                && !window.structures_may_have(&at(300))
        );
        window.order(&table("t"));
        assert!(window.is_ordered(&table("t")) && window.leaves_out(&table("t"), None, &at(300)));
        assert_eq!(Window::new(&window.to_replay()), window);
        window.read_again(&table("t"), &at(400), false);
        assert!(!window.is_ordered(&table("t")) && !window.has_stale() && !window.is_over(&at(399)));
    }

    #[test]
    fn a_table_left_stale_is_named_with_what_to_do() {
        let failure = window().check_end().unwrap_err();
        assert!(failure.message.contains("`s`.`stale`") && failure.workaround.contains("read again"), "{failure}");
    }

    #[test]
    fn it_comes_back_as_it_was_stored() {
        let replay = window().to_replay();
        assert_eq!(Window::new(&replay), window());
        assert!(window().structures_may_have(&at(100)) && !window().structures_may_have(&at(200)));
        assert!(window().mixes_instants(&at(899)) && !window().mixes_instants(&at(900)));
    }
}
