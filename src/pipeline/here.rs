//! DDL intents of a task whose positions are kept on this machine. Nothing fences another agent off there; the lock on
//! the server still keeps two from running DDL at a time.

use mysql_async::Conn;

use crate::apply::{ApplyError, Intents};
use crate::checkpoint::Book;
use crate::meta::DdlIntent;

/// Intents in the book.
pub struct BookIntents<'a>(pub &'a mut Book);

#[tonic::async_trait]
impl Intents for BookIntents<'_> {
    async fn store(&mut self, _: &mut Conn, intent: &DdlIntent) -> Result<(), ApplyError> {
        Ok(self.0.intend(intent.clone()).await?)
    }
}
