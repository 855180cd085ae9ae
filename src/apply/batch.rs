//! Small statements that go to the server together, in one packet, and are answered in one.
//!
//! A change of many tables is many statements of a row or two, and each one by itself costs a round trip. Invariant: what is
//! sent is executed in its order up to the first error, and nothing behind that; each statement's answer is told from the
//! others'. COMMIT is never among them: before it, the answer of the fence must be seen.

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::parts::StatementInfo;
use crate::downstream::limited;

/// Bytes that are worth being sent together; a longer statement is joined by BEGIN and the fence only. Next to the server no
/// difference to going by itself was measured, on eight lanes either; far from it, it is two round trips less.
const BYTES: usize = 32 << 10;
/// Statements that go together: where one of them fails, so many are undone.
const STATEMENTS: usize = 64;

/// What a statement is for.
#[derive(Debug, Clone)]
pub(super) enum Sent {
    Begin,
    Rows(StatementInfo),
    /// The lanes' positions, for the owner of an epoch.
    Fence,
}

/// Statements that were not sent yet.
#[derive(Debug)]
pub(super) struct Batch {
    sql: Vec<u8>,
    parts: Vec<Sent>,
    /// Statements at most; 1 where the server takes one at a time.
    most: usize,
}

impl Batch {
    /// An empty one, with a buffer that was used before.
    pub(super) fn new(most: usize, mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        Batch { sql: buffer, parts: Vec::new(), most: most.min(STATEMENTS) }
    }

    pub(super) fn into_buffer(self) -> Vec<u8> {
        self.sql
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Bytes of SQL in it.
    pub(super) fn bytes(&self) -> usize {
        self.sql.len()
    }

    /// Whether a statement of that length may join the others, where the server takes `limit` bytes.
    pub(super) fn has_room(&self, length: usize, of: &Sent, limit: usize) -> bool {
        let together = self.sql.len() + 1 + length;
        let worth_it = together <= BYTES || matches!((&*self.parts, of), ([Sent::Begin], _) | (_, Sent::Fence));
        self.is_empty() || self.parts.len() < self.most && together <= limit && worth_it
    }

    /// Adds a statement. A long one changes places with what was in the buffer, which is then left in `sql`.
    pub(super) fn add(&mut self, sql: &mut Vec<u8>, of: Sent) {
        if self.is_empty() && sql.len() > BYTES {
            std::mem::swap(&mut self.sql, sql);
        } else {
            self.sql.extend(if self.is_empty() { None } else { Some(b';') });
            self.sql.extend_from_slice(sql);
        }
        self.parts.push(of);
    }

    /// Sends them: each with how many rows it matched. The error is that of the first part that was not done.
    pub(super) async fn send(&mut self, conn: &mut Conn) -> Result<Vec<(Sent, u64)>, (Sent, mysql_async::Error)> {
        let mut matched = Vec::with_capacity(self.parts.len());
        let answered = limited(answers(conn, &self.sql, self.parts.len(), &mut matched)).await;
        self.sql.clear();
        let mut parts = std::mem::take(&mut self.parts);
        match answered {
            Ok(()) => Ok(parts.into_iter().zip(matched).collect()),
            Err(error) => Err((parts.swap_remove(matched.len().min(parts.len() - 1)), error)),
        }
    }
}

async fn answers(conn: &mut Conn, sql: &[u8], count: usize, matched: &mut Vec<u64>) -> Result<(), mysql_async::Error> {
    if count == 0 {
        return Ok(());
    }
    let mut result = conn.query_iter(sql).await?;
    // The error of one behind the first waits until what came before it is put away.
    while result.columns().is_some() {
        matched.push(result.affected_rows());
        if matched.len() == count {
            return result.drop_result().await;
        }
        // On to the next one's answer: none of them returns rows.
        result.for_each(drop).await?;
    }
    result.drop_result().await?;
    // Fewer answers than statements: nobody knows what is done.
    Err(mysql_async::Error::Io(std::io::Error::other("statements without an answer").into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_ones_go_together_and_a_large_one_with_what_stands_around_it() {
        let room = |parts: &[(usize, Sent)], length: usize, of: Sent, most: usize, limit: usize| {
            let mut batch = Batch::new(most, vec![1; 3]);
            for (length, sent) in parts {
                batch.add(&mut vec![b'x'; *length], sent.clone());
            }
            assert_eq!(batch.bytes(), parts.iter().map(|(length, _)| length + 1).sum::<usize>().saturating_sub(1));
            batch.has_room(length, &of, limit)
        };
        let (begin, fence) = (|length| (length, Sent::Begin), |length| (length, Sent::Fence));
        assert!(room(&[], 1 << 20, Sent::Fence, 64, 10), "alone it goes, whatever the server says to it");
        assert!(room(&[begin(5)], 1 << 20, Sent::Begin, 64, 2 << 20));
        assert!(!room(&[begin(5)], 1 << 20, Sent::Begin, 64, 1 << 20), "longer than the server takes");
        assert!(room(&[begin(5), begin(1 << 20)], 200, Sent::Fence, 64, 2 << 20));
        assert!(!room(&[fence(1 << 20)], 200, Sent::Begin, 64, 2 << 20));
        assert!(room(&[begin(5), begin(100)], 200, Sent::Begin, 64, 1 << 20));
        assert!(!room(&[begin(5), begin(100)], 200, Sent::Begin, 2, 1 << 20), "as many as may go at once");
        assert!(!room(&[begin(5)], 5, Sent::Fence, 1, 1 << 20), "one at a time");
    }
}
