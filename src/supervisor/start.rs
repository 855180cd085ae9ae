//! Where a task starts: by its own words, by a time, or where the source is now.

use mysql_async::Conn;

use super::endpoint::endpoint;
use super::source::{Settings, Source};
use super::{Supervisor, store_failure};
use crate::checkpoint::{forget as forget_checkpoint, peek};
use crate::config::SubtaskConfig;
use crate::error::{Code, Failure, Scope};
use crate::meta::{MetaTables, StoredMark};
use crate::model::{BinlogFile, BinlogPosition, Flavor, GtidSet, Location, RowMark};
use crate::mysql::{Connector, Endpoint};
use crate::pipeline::{kept_here, target_of};
use crate::store::Namespace;
use crate::task::record_key;
use crate::upstream::{
    DumpStart, Preflight, ServerFacts, StartError, Want, failure_of, find_start, gtids_at, local_time,
};

/// Where a subtask begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begin {
    /// The place.
    pub at: Location,
    /// Up to here its rows may be downstream already; `None` where the place says what is.
    pub safe_until: Option<Location>,
}

impl Begin {
    /// A place behind everything that is downstream.
    pub fn exactly(at: Location) -> Begin {
        Begin { at, safe_until: None }
    }

    /// Both as they are stored with the task.
    pub fn to_stored_pair(&self) -> (Option<StoredMark>, Option<StoredMark>) {
        let mark = |location: &Location| StoredMark::from(&RowMark::at(location.clone()));
        (Some(mark(&self.at)), self.safe_until.as_ref().map(mark))
    }
}

/// What a start is made of.
pub struct StartQuestion<'a> {
    /// The source.
    pub source: &'a Settings,
    /// Its dialect.
    pub flavor: Flavor,
    /// The subtask.
    pub subtask: &'a SubtaskConfig,
    /// `--start-time`; empty for none.
    pub start_time: &'a str,
    /// Where a stored checkpoint lets it go on; decides before everything else.
    pub stored: Option<Location>,
}

/// Connects to a source.
pub async fn connect(endpoint: &Endpoint) -> Result<Conn, Failure> {
    let connector = Connector::new(endpoint.clone());
    connector.connect().await.map_err(|error| connector.failure(&error, Scope::Upstream))
}

impl Supervisor {
    /// Finds where a subtask begins: where it goes on by what is stored of it, else by its own words. With `anew` what is
    /// stored is not asked but forgotten, once the answer is known.
    pub(super) async fn find_begin(
        &self,
        source: &Source,
        subtask: &SubtaskConfig,
        start_time: &str,
        anew: bool,
    ) -> Result<Begin, Failure> {
        let settings = source.settings();
        let tables = MetaTables::new(&subtask.meta_schema, &subtask.name, &subtask.source_id);
        let downstream = endpoint(&subtask.to, self.key().as_ref());
        let connector = Connector::new(downstream.clone());
        let connected = connector.connect().await;
        let mut conn = connected.map_err(|error| connector.failure(&error, Scope::Downstream))?;
        let mut stored = None;
        if !anew {
            stored = peek(&mut conn, &tables, source.flavor).await?;
        }
        // In a cluster the source may have been elsewhere since.
        if !anew && stored.is_none() && !self.inner.options.joined {
            stored = kept_here(&self.ledger(subtask), &target_of(&downstream), source.flavor).await?;
        }
        let question = StartQuestion { source: &settings, flavor: source.flavor, subtask, start_time, stored };
        let begin = question.answer().await?;
        if anew {
            forget_checkpoint(&mut conn, &tables).await?;
            let key = record_key(&subtask.source_id, &subtask.name);
            let forgotten = self.inner.db.remove(Namespace::Checkpoint, &key).await;
            forgotten.map_err(|error| store_failure(&error, "forget the checkpoint"))?;
        }
        Ok(begin)
    }
}

impl Supervisor {
    /// Where a checkpoint that is stored downstream lets a subtask go on.
    pub(super) async fn stored_begin(
        &self,
        flavor: Flavor,
        subtask: &SubtaskConfig,
    ) -> Result<Option<Location>, Failure> {
        let tables = MetaTables::new(&subtask.meta_schema, &subtask.name, &subtask.source_id);
        let connector = Connector::new(endpoint(&subtask.to, self.key().as_ref()));
        let connected = connector.connect().await;
        let mut conn = connected.map_err(|error| connector.failure(&error, Scope::Downstream))?;
        peek(&mut conn, &tables, flavor).await
    }
}

impl StartQuestion<'_> {
    /// Checks the source and answers.
    pub async fn answer(&self) -> Result<Begin, Failure> {
        let wanted = if self.stored.is_some() { None } else { self.wanted()? };
        let mut conn = connect(&self.source.receive.endpoint).await?;
        let want = Want {
            flavor: Some(self.flavor),
            server_id: self.source.receive.server_id,
            enable_gtid: self.source.config.enable_gtid,
            start: wanted.as_ref().map(|location| self.dump_start(location)),
            start_is_given: true,
        };
        let preflight = Preflight::read(&mut conn, &want).await?;
        if let Some(failure) = failure_of(&preflight.check(&want)) {
            return Err(failure);
        }
        let facts = preflight.facts();
        if let Some(stored) = &self.stored {
            // A dm-worker without GTIDs stored a position alone.
            let completed = with_gtids(&self.source.receive.endpoint, self.flavor, facts, stored.clone()).await;
            return completed.map(Begin::exactly).map_err(|error| error.of_checkpoint(&stored.position));
        }
        if !self.start_time.is_empty() {
            let at = self.at_time(&mut conn, facts, self.start_time).await?;
            return Ok(Begin { at, safe_until: facts.location.clone() });
        }
        let at = match wanted {
            Some(location) => complete_gtids(&self.source.receive.endpoint, self.flavor, facts, location).await,
            None => facts
                .location
                .clone()
                .ok_or_else(|| Failure::new(Code::NoMasterStatus, "the source did not tell where its binlog ends")),
        };
        at.map(Begin::exactly)
    }

    fn dump_start(&self, location: &Location) -> DumpStart {
        if self.source.config.enable_gtid && !location.gtids.is_empty() {
            DumpStart::Gtids(location.gtids.clone())
        } else {
            DumpStart::Position(location.position.clone())
        }
    }

    /// The task's `meta`.
    fn wanted(&self) -> Result<Option<Location>, Failure> {
        let Some(meta) = &self.subtask.meta else { return Ok(None) };
        if meta.binlog_name.is_empty() && meta.binlog_gtid.is_empty() {
            return Ok(None);
        }
        let gtids = GtidSet::parse(self.flavor, &meta.binlog_gtid)
            .map_err(|error| Failure::new(Code::ParseGtid, format!("mysql-instances.meta.binlog-gtid: {error}")))?;
        let file = match meta.binlog_name.as_str() {
            "" => BinlogFile::unknown(),
            name => BinlogFile::parse(name).map_err(|error| {
                Failure::new(Code::BinlogPosition, format!("mysql-instances.meta.binlog-name: {error}"))
            })?,
        };
        let offset = meta.binlog_pos.max(BinlogPosition::FIRST_OFFSET);
        Ok(Some(Location::new(BinlogPosition::new(file, offset), gtids)))
    }

    /// The time is one of the source, in the task's `timezone` if it has one, else in that of its sessions: as in DM.
    async fn at_time(&self, conn: &mut Conn, facts: &ServerFacts, time: &str) -> Result<Location, Failure> {
        let (plain, ends) = parse_time(time)?;
        let since = match local_time(conn, self.subtask.timezone(), &plain).await? {
            Some(since) => since,
            None if ends => return Err(StartError::TooLate(time.to_owned()).failure()),
            None => return Err(no_time(time)),
        };
        let files: Vec<BinlogFile> = facts.binlogs.iter().map(|binlog| binlog.file.clone()).collect();
        let found = find_start(&self.source.receive.endpoint, self.flavor, &files, since, time).await;
        let mut location = found.map_err(|error| error.failure())?;
        if !facts.purged.is_empty() && !location.gtids.is_empty() {
            location.gtids.extend(&facts.purged);
        }
        Ok(location)
    }
}

/// A position alone is completed by the GTIDs up to it, so that both are known from the start.
pub async fn complete_gtids(
    endpoint: &Endpoint,
    flavor: Flavor,
    facts: &ServerFacts,
    location: Location,
) -> Result<Location, Failure> {
    with_gtids(endpoint, flavor, facts, location).await.map_err(|error| error.failure())
}

async fn with_gtids(
    endpoint: &Endpoint,
    flavor: Flavor,
    facts: &ServerFacts,
    location: Location,
) -> Result<Location, StartError> {
    let known = !location.gtids.is_empty() || location.position.file.name().is_empty();
    if known || facts.location.as_ref().is_none_or(|now| now.gtids.is_empty()) {
        return Ok(location);
    }
    let gtids = gtids_at(endpoint, flavor, &location.position, &facts.purged).await?;
    Ok(Location::new(location.position, gtids))
}

/// `2006-01-02 15:04:05` or with a `T`: the first form, and whether it is beyond what some servers count seconds to.
fn parse_time(text: &str) -> Result<(String, bool), Failure> {
    const FIRST_UNSURE_YEAR: i32 = 2038;
    let plain = text.trim().replacen('T', " ", 1);
    let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
    let parsed = time::PrimitiveDateTime::parse(&plain, format).map_err(|_| no_time(text))?;
    Ok((plain, parsed.year() >= FIRST_UNSURE_YEAR))
}

fn no_time(text: &str) -> Failure {
    Failure::new(Code::ConfigTask, format!("--start-time '{text}' is not a time")).workaround(
        "Please give it as '2006-01-02 15:04:05' or 2006-01-02T15:04:05, in the task's `timezone`, or where that is not \
         set in the source's (`SELECT @@global.time_zone`).",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_times_have_two_forms() {
        for text in ["2021-10-21 00:01:00", "2021-10-21T00:01:00"] {
            assert_eq!(parse_time(text).unwrap(), ("2021-10-21 00:01:00".to_owned(), false));
        }
        assert!(!parse_time("2037-12-12 01:02:03").unwrap().1 && parse_time("2038-01-01 00:00:00").unwrap().1);
        for text in ["", "yesterday", "2021-13-01 00:00:00", "2021-10-21 00:00:00' OR '"] {
            assert!(parse_time(text).unwrap_err().message.contains(text));
        }
    }
}
