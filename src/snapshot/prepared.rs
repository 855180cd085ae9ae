//! XA transactions that were prepared before the copy began and are not ended: no read sees their rows, and the binlog has them
//! before L0, where nobody applies them any more. Only their end is logged behind it, without rows.
//!
//! So the copy waits for their end before it reads the first row. Those prepared later need no care: they are in the binlog
//! behind L0, whole. The same holds for a table that is read again: what was prepared before the place where the task stands was
//! applied then, and would go with the rows that a read does not see.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row, Value};

use super::source::{Source, answered, query_failed};
use super::structure::text;
use crate::error::{Code, Failure, Scope, server_error_code};

/// How long their end is waited for, and the pause between two looks.
const WAIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(200);
/// Transactions named in a failure.
const NAMED: usize = 10;

/// An XA transaction's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Xid {
    format: i64,
    gtrid: Vec<u8>,
    bqual: Vec<u8>,
}

impl fmt::Display for Xid {
    /// As XA COMMIT and XA ROLLBACK take it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        write!(f, "X'{}',X'{}',{}", hex(&self.gtrid), hex(&self.bqual), self.format)
    }
}

/// What is prepared now. `None` where the account may not see it.
pub(super) async fn prepared(conn: &mut Conn) -> Result<Option<BTreeSet<Xid>>, Failure> {
    const RECOVER: &str = "XA RECOVER";
    let rows: Vec<Row> = match answered(conn.query(RECOVER)).await {
        Ok(rows) => rows,
        Err(error) if server_error_code(&error).is_some() => return Ok(None),
        Err(error) => return Err(query_failed(&error, RECOVER)),
    };
    let xid = |row| {
        // One that was passed over would be a transaction that nobody waits for.
        xid(row).ok_or_else(|| {
            Failure::new(Code::QueryFailed, format!("a line of the answer to {RECOVER} cannot be understood"))
                .scope(Scope::Upstream)
                .workaround("Please end what XA RECOVER shows on the source, then resume-task; and report it.")
        })
    };
    rows.iter().map(xid).collect::<Result<_, _>>().map(Some)
}

fn xid(row: &Row) -> Option<Xid> {
    let number = |at| text(row, at)?.parse::<i64>().ok();
    let (format, gtrid, bqual) = (number(0)?, number(1)?, number(2)?);
    let data = match row.as_ref(3)? {
        Value::Bytes(data) => data.as_slice(),
        _ => return None,
    };
    let (gtrid, bqual) = (usize::try_from(gtrid).ok()?, usize::try_from(bqual).ok()?);
    let (gtrid, rest) = data.split_at_checked(gtrid)?;
    Some(Xid { format, gtrid: gtrid.to_vec(), bqual: rest.get(..bqual)?.to_vec() })
}

/// Waits until none is left of what is prepared now, which must be asked when it is known where the binlog begins to count.
/// `before` says what for, `say` is told what is waited for. `Ok` with what the operator should know.
pub(super) async fn wait_for_ends(
    source: &Source,
    before: &str,
    say: impl Fn(String),
) -> Result<Option<String>, Failure> {
    let mut conn = source.connect().await?;
    let Some(mut open) = prepared(&mut conn).await? else { return unseen(&mut conn).await };
    let begun = Instant::now();
    while let Some(first) = open.first() {
        if begun.elapsed() >= WAIT {
            return Err(in_the_way(&open, before));
        }
        say(format!("waiting for {} XA transactions that were prepared before: {first}", open.len()));
        tokio::time::sleep(PAUSE).await;
        // The right to see them may be taken away meanwhile.
        let Some(still) = prepared(&mut conn).await? else { return unseen(&mut conn).await };
        open.retain(|xid| still.contains(xid));
    }
    Ok(None)
}

/// Where they cannot be seen, a server that has had any may have some now.
async fn unseen(conn: &mut Conn) -> Result<Option<String>, Failure> {
    const COUNT: &str = "SHOW GLOBAL STATUS LIKE 'Com_xa_prepare'";
    let count: Option<(String, String)> =
        answered(conn.query_first(COUNT)).await.map_err(|error| query_failed(&error, COUNT))?;
    let some = count.is_some_and(|(_, count)| count != "0");
    Ok(some.then(|| {
        "the source has XA transactions, and this account may not see which are prepared: rows of one that was prepared before \
         rows were read and is committed behind that are missing (GRANT XA_RECOVER_ADMIN ON *.* to the account, so that the \
         copy waits for them)"
            .to_owned()
    }))
}

/// They do not end.
pub(super) fn in_the_way(open: &BTreeSet<Xid>, when: &str) -> Failure {
    let named: Vec<String> = open.iter().take(NAMED).map(Xid::to_string).collect();
    let more = open.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let text = format!(
        "XA transactions were prepared before {when}, and are neither committed nor rolled back after {} s, so that their rows \
         would be missing: {}{more}",
        WAIT.as_secs(),
        named.join("; ")
    );
    Failure::new(Code::QueryFailed, text).scope(Scope::Upstream).workaround(
        "Please end each on the source (XA COMMIT or XA ROLLBACK, with the name as it is given), then resume-task.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_given_as_the_server_takes_them() {
        let xid = |number: u8| Xid { format: 1, gtrid: vec![b'a', number], bqual: vec![] };
        assert_eq!(xid(7).to_string(), "X'6107',X'',1");
        let failure = in_the_way(&(0..12).map(xid).collect(), "the copy began");
        assert!(
            failure.message.contains("X'6100',X'',1; X'6101'") && failure.message.ends_with("and 2 more"),
            "{failure}"
        );
        assert!(failure.workaround.contains("XA COMMIT"));
    }
}
