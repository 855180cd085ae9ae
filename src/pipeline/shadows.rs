//! What is known of the shadow tables of online DDL tools: which statements changed each since it was created.
//!
//! Invariant: a replay from any place that a lane may go back to comes to the same. So each statement is known by its
//! place and counts once, and what a name meant before is kept until no replay can begin before its end.

use std::collections::HashMap;

use crate::error::{Code, Failure};
use crate::meta::{OnlineDdl, OnlineDdlPlaces, StatementPlace};
use crate::model::{BinlogPosition, Flavor, Gtid, Location, SourceTable, TableName};

/// The transaction that a statement is.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    start: BinlogPosition,
    gtid: Option<Gtid>,
}

impl Place {
    /// The transaction behind `start`.
    pub fn new(start: &BinlogPosition, gtid: Option<&Gtid>) -> Self {
        Place { start: start.clone(), gtid: gtid.cloned() }
    }

    /// Another server of the same topology may have it elsewhere.
    fn is(&self, other: &Place) -> bool {
        match (&self.gtid, &other.gtid) {
            (Some(own), Some(other)) => own == other,
            _ => self.start == other.start,
        }
    }

    fn is_in(&self, location: &Location) -> bool {
        location.has(self.gtid.as_ref(), &self.start)
    }

    fn read(stored: &StatementPlace, flavor: Flavor) -> Result<Self, String> {
        let start = BinlogPosition::parse(&stored.file, stored.pos).map_err(|error| error.to_string())?;
        let gtid = (!stored.gtid.is_empty()).then(|| Gtid::parse(flavor, &stored.gtid)).transpose();
        Ok(Place { start, gtid: gtid.map_err(|error| error.to_string())? })
    }

    fn stored(&self) -> StatementPlace {
        StatementPlace {
            file: self.start.file.name().to_owned(),
            pos: self.start.offset,
            gtid: self.gtid.as_ref().map(Gtid::to_string).unwrap_or_default(),
        }
    }
}

/// Where a statement stands, and everything before it.
#[derive(Debug, Clone, Copy)]
pub struct Here<'a> {
    /// The statement.
    pub at: &'a Place,
    /// What is before.
    pub before: &'a Location,
}

impl Here<'_> {
    fn is_at_or_behind(&self, place: &Place) -> bool {
        place.is(self.at) || place.is_in(self.before)
    }
}

/// A statement that changed a shadow table.
#[derive(Debug, Clone, PartialEq)]
pub struct ShadowChange {
    /// `None` in what a dm-worker stored.
    at: Option<Place>,
    /// Its text, all names qualified.
    pub text: String,
    /// `sql_mode` bits that it was logged with.
    pub sql_mode: u64,
}

/// A shadow table from its creation on.
#[derive(Debug, Clone, PartialEq)]
struct Shadow {
    real: SourceTable,
    begun: Option<Place>,
    changes: Vec<ShadowChange>,
    ended: Option<Place>,
    /// Nothing that was done to it is missing.
    whole: bool,
}

impl Shadow {
    fn new(real: &SourceTable, begun: Option<Place>) -> Self {
        Shadow { real: real.clone(), whole: begun.is_some(), begun, changes: Vec::new(), ended: None }
    }

    /// Whether it was over before `here`.
    fn is_over(&self, here: Here<'_>) -> bool {
        self.ended.as_ref().is_some_and(|ended| !ended.is(here.at) && ended.is_in(here.before))
    }

    fn read(stored: &OnlineDdl, flavor: Flavor) -> Result<Self, String> {
        let place = |place: &Option<StatementPlace>| place.as_ref().map(|place| Place::read(place, flavor)).transpose();
        let places = stored.agent.clone().unwrap_or_default();
        if stored.agent.is_some() && places.ddls.len() != stored.ddls.len() {
            return Err(format!("{} statements at {} places", stored.ddls.len(), places.ddls.len()));
        }
        let mut known = places.ddls.iter();
        let change = |text: &String| {
            let (at, sql_mode) = known.next().map_or((None, 0), |(at, sql_mode)| (Some(at), *sql_mode));
            let at = at.map(|at| Place::read(at, flavor)).transpose()?;
            Ok(ShadowChange { at, text: text.clone(), sql_mode })
        };
        let begun = place(&places.begun)?;
        Ok(Shadow {
            real: SourceTable(TableName::new(stored.schema.as_str(), stored.table.as_str())),
            whole: stored.agent.is_none() || begun.is_some(),
            begun,
            changes: stored.ddls.iter().map(change).collect::<Result<_, String>>()?,
            ended: place(&places.ended)?,
        })
    }

    fn stored(&self) -> OnlineDdl {
        let known = self.changes.iter().filter_map(|change| Some((change.at.as_ref()?.stored(), change.sql_mode)));
        let places = OnlineDdlPlaces {
            begun: self.begun.as_ref().map(Place::stored),
            ended: self.ended.as_ref().map(Place::stored),
            ddls: known.collect(),
        };
        // As a dm-worker left it, it stays.
        let theirs = self.whole && self.begun.is_none();
        OnlineDdl {
            schema: self.real.0.schema.to_string(),
            table: self.real.0.table.to_string(),
            ddls: self.changes.iter().map(|change| change.text.clone()).collect(),
            agent: (!theirs).then_some(places),
            earlier: Vec::new(),
        }
    }
}

/// All shadow tables of a source, by name.
#[derive(Debug, Default)]
pub struct Shadows(HashMap<SourceTable, Vec<Shadow>>);

impl Shadows {
    /// From what is stored: shadow and text of each row.
    pub fn read(rows: Vec<(SourceTable, String)>, flavor: Flavor) -> Result<Self, Failure> {
        let mut shadows = HashMap::new();
        for (name, text) in rows {
            let unreadable = |error: String| {
                let text = format!("online ddl meta invalid: of shadow table {name}: {error}");
                Failure::new(Code::OnlineDdlMeta, text).workaround(
                    "Please remove its row from the task's table `…_onlineddl` in the meta-schema, and make its changes \
                     by hand when the online DDL tool is done; or begin that tool's work anew.",
                )
            };
            let row: OnlineDdl = serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
            let all = row.earlier.iter().chain([&row]).map(|row| Shadow::read(row, flavor));
            shadows.insert(name.clone(), all.collect::<Result<_, _>>().map_err(unreadable)?);
        }
        Ok(Shadows(shadows))
    }

    /// What is to be stored of one; `None` where its row is to be removed.
    pub fn stored(&self, name: &SourceTable) -> Option<String> {
        let (last, earlier) = self.0.get(name)?.split_last()?;
        let row = OnlineDdl { earlier: earlier.iter().map(Shadow::stored).collect(), ..last.stored() };
        // Nothing in it can fail to be written: texts and numbers.
        serde_json::to_string(&row).ok()
    }

    /// One was created as a shadow of `real`. Whether that was not known.
    pub fn begin(&mut self, name: &SourceTable, real: &SourceTable, here: Here<'_>) -> bool {
        let all = self.0.entry(name.clone()).or_default();
        if all.iter().any(|shadow| shadow.begun.as_ref().is_some_and(|begun| begun.is(here.at))) {
            return false;
        }
        all.push(Shadow::new(real, Some(here.at.clone())));
        true
    }

    /// One was changed. Whether that was not known.
    pub fn record(&mut self, name: &SourceTable, real: &SourceTable, change: (String, u64), here: Here<'_>) -> bool {
        let (text, sql_mode) = change;
        if self.now(name, here).is_none_or(|shadow| shadow.is_over(here)) {
            // Its creation was not seen.
            self.0.entry(name.clone()).or_default().push(Shadow::new(real, None));
        }
        let Some(shadow) = self.now(name, here) else { return false };
        let counts = |known: &ShadowChange| match &known.at {
            Some(at) => at.is(here.at),
            None => known.text == text,
        };
        if shadow.changes.iter().any(counts) {
            return false;
        }
        shadow.changes.push(ShadowChange { at: Some(here.at.clone()), text, sql_mode });
        true
    }

    /// One was dropped or left behind. Whether that was not known.
    pub fn forget(&mut self, name: &SourceTable, here: Here<'_>) -> bool {
        match self.now(name, here).filter(|shadow| shadow.ended.is_none()) {
            Some(shadow) => {
                shadow.ended = Some(here.at.clone());
                true
            }
            None => false,
        }
    }

    /// One takes a real table's place: what was done to it; `None` where that is not known, or not all of it.
    pub fn swap(&mut self, name: &SourceTable, here: Here<'_>) -> Option<Vec<ShadowChange>> {
        let known = |shadow: &&mut Shadow| !shadow.is_over(here) && shadow.whole && !shadow.changes.is_empty();
        let shadow = self.now(name, here).filter(known)?;
        shadow.ended.get_or_insert_with(|| here.at.clone());
        Some(shadow.changes.clone())
    }

    /// The table that has the name at `here`.
    fn now(&mut self, name: &SourceTable, here: Here<'_>) -> Option<&mut Shadow> {
        let begun = |shadow: &&mut Shadow| shadow.begun.as_ref().is_none_or(|begun| here.is_at_or_behind(begun));
        self.0.get_mut(name)?.iter_mut().rev().find(begun)
    }

    /// Whether one has ended.
    pub fn is_any_over(&self) -> bool {
        self.0.values().flatten().any(|shadow| shadow.ended.is_some())
    }

    /// Forgets what no replay needs that begins at `stored` or behind it. Names of those that are to be stored anew.
    pub fn prune(&mut self, stored: &Location) -> Vec<SourceTable> {
        let mut pruned = Vec::new();
        for (name, all) in &mut self.0 {
            let passed = |place: &Option<Place>| place.as_ref().is_some_and(|place| place.is_in(stored));
            let followed: Vec<bool> =
                (1..=all.len()).map(|next| all.get(next).is_some_and(|n| passed(&n.begun))).collect();
            let mut followed = followed.into_iter();
            let before = all.len();
            all.retain(|shadow| !(followed.next().unwrap_or(false) || passed(&shadow.ended)));
            if all.len() < before {
                pruned.push(name.clone());
            }
        }
        self.0.retain(|_, all| !all.is_empty());
        pruned
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::GtidSet;

    fn table(name: &str) -> SourceTable {
        SourceTable(TableName::new("d", name))
    }

    fn at(offset: u64) -> (Place, Location) {
        let start = BinlogPosition::parse("b.000001", offset).unwrap();
        (Place::new(&start, None), Location::new(start, GtidSet::empty(Flavor::MySql)))
    }

    /// One of a tool's runs on `t`, at 10 (created), 20, 30 (changed) and 40 (done), shifted by `by`.
    fn play(shadows: &mut Shadows, steps: impl IntoIterator<Item = u64>, by: u64) -> Vec<String> {
        let (shadow, real) = (table("_t_gho"), table("t"));
        let mut out = Vec::new();
        for step in steps {
            let (place, before) = at(step + by);
            let here = Here { at: &place, before: &before };
            match step {
                10 => drop(shadows.begin(&shadow, &real, here)),
                40 => {
                    let changes = shadows.swap(&shadow, here);
                    out = changes.unwrap_or_default().into_iter().map(|change| change.text).collect();
                }
                _ => drop(shadows.record(&shadow, &real, (format!("change {}", step + by), 0), here)),
            }
        }
        out
    }

    /// As an agent that starts again finds it.
    fn again(shadows: &Shadows) -> Shadows {
        let row = shadows.stored(&table("_t_gho")).map(|text| (table("_t_gho"), text));
        Shadows::read(row.into_iter().collect(), Flavor::MySql).unwrap()
    }

    #[test]
    fn any_replay_comes_to_the_same() {
        let all = [10, 20, 30, 40];
        let first = ["change 20", "change 30"].map(str::to_owned).to_vec();
        let second = ["change 120", "change 130"].map(str::to_owned).to_vec();
        for (crash, back) in (0..=all.len()).flat_map(|crash| (0..=crash).map(move |back| (crash, back))) {
            let mut shadows = Shadows::default();
            play(&mut shadows, all[..crash].iter().copied(), 0);
            let mut shadows = again(&shadows);
            assert_eq!(
                play(&mut shadows, all[back..].iter().copied(), 0),
                if back == 4 { vec![] } else { first.clone() }
            );
            // A second run under the same name, and a replay that begins in the first one.
            assert_eq!(play(&mut again(&shadows), all, 100), second);
            play(&mut shadows, all[..crash].iter().copied(), 100);
            let mut shadows = again(&shadows);
            if back < 4 {
                assert_eq!(play(&mut shadows, all[back..].iter().copied(), 0), first, "{crash} {back}");
            }
            assert_eq!(play(&mut shadows, all, 100), second, "{crash} {back}");
        }
    }

    #[test]
    fn what_is_not_whole_is_not_run() {
        let swap = |steps: &[u64]| {
            let mut shadows = Shadows::default();
            play(&mut shadows, steps.iter().copied(), 0)
        };
        // Its creation was not seen; nothing was changed; it was given up.
        assert!(swap(&[20, 30, 40]).is_empty() && swap(&[10, 40]).is_empty() && swap(&[40]).is_empty());
        let mut shadows = Shadows::default();
        play(&mut shadows, [10, 20], 0);
        let (place, before) = at(25);
        assert!(shadows.forget(&table("_t_gho"), Here { at: &place, before: &before }));
        assert!(!shadows.forget(&table("_t_gho"), Here { at: &place, before: &before }));
        assert!(play(&mut shadows, [40], 0).is_empty());
        // Nor is one that went on behind that.
        assert!(play(&mut again(&shadows), [30, 40], 0).is_empty());
    }

    #[test]
    fn what_no_replay_needs_is_forgotten() {
        let mut shadows = Shadows::default();
        play(&mut shadows, [10, 20, 40], 0);
        assert!(shadows.is_any_over());
        assert!(shadows.prune(&at(40).1).is_empty(), "its end may come again");
        play(&mut shadows, [10, 20], 100);
        assert_eq!(shadows.prune(&at(41).1), [table("_t_gho")]);
        assert!(!shadows.is_any_over());
        assert_eq!(play(&mut again(&shadows), [40], 100), ["change 120"]);
        play(&mut shadows, [40], 100);
        assert_eq!(shadows.prune(&at(141).1), [table("_t_gho")]);
        assert_eq!(shadows.stored(&table("_t_gho")), None);
    }

    #[test]
    fn one_of_a_dm_worker_goes_on() {
        let theirs = r#"{"schema":"d","table":"t","ddls":["change 20"]}"#;
        let mut shadows = Shadows::read(vec![(table("_t_gho"), theirs.into())], Flavor::MySql).unwrap();
        // It had stored the first one, and stood before it.
        assert_eq!(play(&mut shadows, [20, 30], 0), Vec::<String>::new());
        let stored = shadows.stored(&table("_t_gho")).unwrap();
        assert_eq!(stored, r#"{"schema":"d","table":"t","ddls":["change 20","change 30"]}"#);
        assert_eq!(play(&mut again(&shadows), [20, 30, 40], 0), ["change 20", "change 30"]);
        for bad in ["", "{", r#"{"schema":"d","table":"t","ddls":["a"],"agent":{"begun":null,"ended":null,"ddls":[]}}"#]
        {
            let error = Shadows::read(vec![(table("_t_gho"), bad.into())], Flavor::MySql).unwrap_err();
            assert!(error.message.starts_with("online ddl meta invalid: of shadow table `d`.`_t_gho`"), "{error}");
        }
    }
}
