//! What is stored beside the writers' own marks: tables that are there whole, and marks that touch as one.

use std::sync::Arc;

use super::super::patience::{pause, worth_another};
use super::super::state::{store, to_text};
use super::{Engine, MARKS};
use crate::error::Failure;
use crate::meta::ChunkMark;

impl Engine {
    /// Stores tables that ended, in place of their marks. False where another owner has the copy.
    pub(super) async fn store_closed(&mut self) -> Result<bool, Failure> {
        if self.closing.is_empty() {
            return Ok(true);
        }
        let tables = &self.shared.spec.tables;
        let rows = self
            .closing
            .iter()
            .map(|closed| (closed.number, &*closed.name.0.schema, &*closed.name.0.table, to_text(&closed.state)));
        let mut statements = vec![tables.write_copy_tables(rows)];
        statements.extend(self.closing.iter().map(|closed| tables.delete_chunks(closed.number, None)));
        if !self.store(&statements).await? {
            return Ok(false);
        }
        self.closed.append(&mut self.closing);
        Ok(true)
    }

    /// Joins the marks at the beginning of tables that have many.
    pub(super) async fn join_marks(&mut self) -> Result<bool, Failure> {
        let mut joined: Vec<(u32, ChunkMark)> = Vec::new();
        for (number, open) in
            self.open.iter().filter(|(_, open)| open.marks.len() >= MARKS && open.job.plan.key.is_some())
        {
            let mut marks = open.marks.values();
            let Some(mut first) = marks.next().cloned() else { continue };
            let mut count = 1;
            for mark in marks.take_while(|mark| mark.low.is_some()) {
                if mark.low != first.high {
                    break;
                }
                count += 1;
                first = ChunkMark {
                    seq: mark.seq,
                    low: first.low,
                    high: mark.high.clone(),
                    rows: first.rows + mark.rows,
                    bytes: first.bytes + mark.bytes,
                };
            }
            if count >= MARKS / 2 {
                joined.push((*number, first));
            }
        }
        if joined.is_empty() {
            return Ok(true);
        }
        let tables = &self.shared.spec.tables;
        let statements: Vec<String> = joined
            .iter()
            .flat_map(|(number, mark)| {
                [tables.delete_chunks(*number, Some(mark.seq)), tables.write_chunks(*number, [mark])]
            })
            .collect();
        if !self.store(&statements).await? {
            return Ok(false);
        }
        for (number, mark) in joined {
            if let Some(open) = self.open.get_mut(&number) {
                open.marks = open.marks.split_off(&(mark.seq + 1));
                open.marks.insert(mark.seq, mark);
            }
        }
        Ok(true)
    }

    /// Once more on a new connection where the first one is gone.
    async fn store(&mut self, statements: &[String]) -> Result<bool, Failure> {
        let shared = Arc::clone(&self.shared);
        let mut attempt = 0;
        loop {
            match store(&mut self.conn, &shared.spec.tables, shared.epoch, statements).await {
                Err(failure) => {
                    attempt += 1;
                    if !worth_another(&failure, attempt) {
                        return Err(failure);
                    }
                    tokio::time::sleep(pause(attempt)).await;
                    if let Ok(conn) = shared.downstream.connect().await {
                        self.conn = conn;
                    }
                }
                stored => return stored,
            }
        }
    }
}
