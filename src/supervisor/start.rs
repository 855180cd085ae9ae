//! Where a task starts: by its own words, by a time, or where the source is now.

use mysql_async::Conn;

use super::endpoint::endpoint;
use super::source::{Settings, Source};
use super::{Supervisor, store_failure};
use crate::checkpoint::{forget as forget_checkpoint, peek};
use crate::config::SubtaskConfig;
use crate::error::{Code, Failure, Scope};
use crate::meta::MetaTables;
use crate::model::{BinlogFile, BinlogPosition, Flavor, GtidSet, Location};
use crate::mysql::{Connector, Endpoint};
use crate::pipeline::{kept_here, target_of};
use crate::store::Namespace;
use crate::task::record_key;
use crate::upstream::{DumpStart, Preflight, ServerFacts, StartError, Want, failure_of, find_start, gtids_at};

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
    ) -> Result<Location, Failure> {
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
    pub async fn answer(&self) -> Result<Location, Failure> {
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
            return completed.map_err(|error| error.of_checkpoint(&stored.position));
        }
        match (wanted, self.start_time) {
            (_, time) if !time.is_empty() => self.at_time(facts, time).await,
            (Some(location), _) => complete_gtids(&self.source.receive.endpoint, self.flavor, facts, location).await,
            (None, _) => facts
                .location
                .clone()
                .ok_or_else(|| Failure::new(Code::NoMasterStatus, "the source did not tell where its binlog ends")),
        }
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

    async fn at_time(&self, facts: &ServerFacts, time: &str) -> Result<Location, Failure> {
        let since = parse_time(time)?;
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

/// `2006-01-02 15:04:05` or with a `T`, in UTC.
fn parse_time(text: &str) -> Result<u32, Failure> {
    let bad = || {
        Failure::new(Code::ConfigTask, format!("--start-time '{text}' is not a time"))
            .workaround("Please give it in UTC as '2006-01-02 15:04:05' or 2006-01-02T15:04:05.")
    };
    let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
    let parsed = time::PrimitiveDateTime::parse(&text.trim().replacen('T', " ", 1), format).map_err(|_| bad())?;
    u32::try_from(parsed.assume_utc().unix_timestamp()).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_times_are_utc_in_two_forms() {
        assert_eq!(parse_time("2021-10-21 00:01:00").unwrap(), 1_634_774_460);
        assert_eq!(parse_time("2021-10-21T00:01:00").unwrap(), 1_634_774_460);
        for text in ["", "yesterday", "2021-13-01 00:00:00", "1969-01-01 00:00:00"] {
            assert!(parse_time(text).unwrap_err().message.contains(text));
        }
    }
}
