//! Forms of commands that dmctl still takes and no longer shows. Each becomes the command that took its place.

use std::path::PathBuf;

use super::args::{BinlogCommand, EventPlace, OldErrorVerb, OldSchemaVerb, SchemaCommand, TablePlace};
use super::error::CtlError;

/// handle-error; statements may be given in one argument, with semicolons.
pub fn binlog(verb: OldErrorVerb, place: EventPlace, sqls: Vec<String>) -> Result<BinlogCommand, CtlError> {
    match verb {
        OldErrorVerb::Replace if sqls.is_empty() => {
            Err(CtlError::Usage("handle-error replace: give the statements to run in the event's place".to_owned()))
        }
        OldErrorVerb::Replace => Ok(BinlogCommand::Replace { place, sqls }),
        OldErrorVerb::Skip | OldErrorVerb::Revert if !sqls.is_empty() => {
            Err(CtlError::Usage("handle-error: only replace takes statements".to_owned()))
        }
        OldErrorVerb::Skip => Ok(BinlogCommand::Skip(place)),
        OldErrorVerb::Revert => Ok(BinlogCommand::Revert(place)),
    }
}

/// operate-schema.
pub fn schema(
    verb: OldSchemaVerb,
    place: TablePlace,
    file: Option<PathBuf>,
    flush: bool,
    sync: bool,
) -> Result<SchemaCommand, CtlError> {
    match (verb, file) {
        (OldSchemaVerb::Get, None) => Ok(SchemaCommand::List(place)),
        (OldSchemaVerb::Remove, None) => Ok(SchemaCommand::Delete(place)),
        (OldSchemaVerb::Set, file @ Some(_)) => {
            Ok(SchemaCommand::Update { place, file, from_source: false, from_target: false, flush, sync })
        }
        (OldSchemaVerb::Set, None) => {
            Err(CtlError::Usage("operate-schema set: give the file with the CREATE TABLE statement".to_owned()))
        }
        (_, Some(_)) => Err(CtlError::Usage("operate-schema: only set takes a file".to_owned())),
    }
}
