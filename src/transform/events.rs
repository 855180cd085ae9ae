//! DM's names for what a binlog event does, as event filters list them.
//!
//! Invariant: a name that DM accepts is known here, and the class of each is DM's. Some never come: DM accepts them in a
//! list and gives them to no event.

/// What `all dml`, `all ddl` and `incompatible ddl changes` mean of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Dml,
    Ddl,
    /// DDL that may lose what rows hold.
    Incompatible,
}

macro_rules! events {
    ($($event:ident $name:literal $class:ident,)*) => {
        /// What an event does.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub(super) enum Event { $($event),* }

        impl Event {
            const ALL: &[Event] = &[$(Event::$event),*];

            /// DM's name for it.
            pub fn name(self) -> &'static str {
                match self { $(Event::$event => $name),* }
            }

            fn class(self) -> Class {
                match self { $(Event::$event => Class::$class),* }
            }
        }
    };
}

events! {
    Insert "insert" Dml,
    Update "update" Dml,
    Delete "delete" Dml,
    CreateDatabase "create database" Ddl,
    AlterDatabase "alter database" Ddl,
    DropDatabase "drop database" Incompatible,
    CreateTable "create table" Ddl,
    DropTable "drop table" Incompatible,
    TruncateTable "truncate table" Incompatible,
    RenameTable "rename table" Incompatible,
    AlterTable "alter table" Ddl,
    CreateIndex "create index" Ddl,
    DropIndex "drop index" Incompatible,
    CreateView "create view" Ddl,
    DropView "drop view" Ddl,
    AddTablePartition "add table partition" Ddl,
    DropTablePartition "drop table partition" Incompatible,
    TruncateTablePartition "truncate table partition" Incompatible,
    ValueRangeDecrease "value range decrease" Incompatible,
    PrecisionDecrease "precision decrease" Incompatible,
    ModifyColumn "modify column" Incompatible,
    RenameColumn "rename column" Incompatible,
    RenameIndex "rename index" Incompatible,
    DropColumn "drop column" Incompatible,
    DropPrimaryKey "drop primary key" Incompatible,
    DropUniqueKey "drop unique key" Incompatible,
    ModifyDefaultValue "modify default value" Incompatible,
    ModifyConstraint "modify constraint" Incompatible,
    ModifyColumnsOrder "modify columns order" Incompatible,
    ModifyCharset "modify charset" Incompatible,
    ModifyCollation "modify collation" Incompatible,
    RemoveAutoIncrement "remove auto increment" Incompatible,
    ModifyStorageEngine "modify storage engine" Incompatible,
    ReorganizePartition "reorganize table partition" Incompatible,
    RebuildPartition "rebuild table partition" Incompatible,
    CoalescePartition "coalesce table partition" Incompatible,
    SplitPartition "split table partition" Incompatible,
    ExchangePartition "exchange table partition" Incompatible,
    AddForeignKey "add foreign key" Incompatible,
    DropForeignKey "drop foreign key" Incompatible,
    ModifySchemaCharsetAndCollate "modify schema charset and collate" Incompatible,
    ModifyTableCharsetAndCollate "modify table charset and collate" Incompatible,
    ModifyTableComment "modify table comment" Incompatible,
    RecoverTable "recover table" Incompatible,
    AlterTablePartitioning "alter table partitioning" Incompatible,
    RemovePartitioning "remove table partitioning" Incompatible,
    AddColumn "add column" Incompatible,
    SetDefaultValue "set default value" Incompatible,
    RebaseAutoId "rebase auto id" Incompatible,
    AddPrimaryKey "add primary key" Incompatible,
    AlterIndexVisibility "alter index visibility" Incompatible,
    AlterTtlInfo "alter ttl info" Incompatible,
    AlterTtlRemove "alter ttl remove" Incompatible,
    MultiSchemaChange "multi schema change" Incompatible,
}

/// What stands in a rule's `events`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EventWord {
    All,
    AllDml,
    AllDdl,
    None,
    NoneDml,
    NoneDdl,
    Incompatible,
    One(Event),
    /// An empty name, which DM accepts and which no event has.
    Nothing,
}

impl EventWord {
    /// Reads a name; case does not matter.
    pub fn parse(text: &str) -> Option<EventWord> {
        let text = text.to_lowercase();
        Some(match text.as_str() {
            "" => EventWord::Nothing,
            "all" => EventWord::All,
            "all dml" => EventWord::AllDml,
            "all ddl" => EventWord::AllDdl,
            "none" => EventWord::None,
            "none dml" => EventWord::NoneDml,
            "none ddl" => EventWord::NoneDdl,
            "incompatible ddl changes" => EventWord::Incompatible,
            "create schema" => EventWord::One(Event::CreateDatabase),
            "alter schema" => EventWord::One(Event::AlterDatabase),
            "drop schema" => EventWord::One(Event::DropDatabase),
            name => EventWord::One(*Event::ALL.iter().find(|event| event.name() == name)?),
        })
    }

    /// Whether it decides about the event, and how.
    fn decides(self, event: Event) -> Option<bool> {
        let dml = event.class() == Class::Dml;
        match self {
            EventWord::All => Some(true),
            EventWord::None => Some(false),
            EventWord::AllDml => dml.then_some(true),
            EventWord::NoneDml => dml.then_some(false),
            EventWord::AllDdl => (!dml).then_some(true),
            EventWord::NoneDdl => (!dml).then_some(false),
            EventWord::Incompatible => (event.class() == Class::Incompatible).then_some(true),
            EventWord::One(one) => (one == event).then_some(true),
            EventWord::Nothing => None,
        }
    }
}

/// Whether a rule's list means the event: the first word that decides does.
pub(super) fn listed(words: &[EventWord], event: Event) -> bool {
    words.iter().find_map(|word| word.decides(event)).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_listed(words: &[&str], event: Event) -> bool {
        let words: Vec<EventWord> = words.iter().map(|word| EventWord::parse(word).expect(word)).collect();
        listed(&words, event)
    }

    #[test]
    fn the_first_word_that_decides_does() {
        for (words, event, expected) in [
            (&["all"][..], Event::Insert, true),
            (&["ALL DML"], Event::Delete, true),
            (&["all dml"], Event::CreateIndex, false),
            (&["all dml", "none ddl"], Event::DropTable, false),
            (&["all dml", "all"], Event::DropTable, true),
            (&["none", "all"], Event::DropTable, false),
            (&["none ddl", "drop table"], Event::DropTable, false),
            (&["drop table", "none ddl"], Event::DropTable, true),
            (&["none dml", "all"], Event::DropTable, true),
            (&["none dml", "all"], Event::Update, false),
            (&["incompatible DDL changes"], Event::DropColumn, true),
            (&["incompatible ddl changes"], Event::AlterTable, false),
            (&["incompatible ddl changes"], Event::Delete, false),
            // A clause that has a name of its own is not `alter table`.
            (&["alter table"], Event::DropColumn, false),
            (&["create schema"], Event::CreateDatabase, true),
            (&["", "insert"], Event::Insert, true),
            (&[], Event::Insert, false),
        ] {
            assert_eq!(is_listed(words, event), expected, "{words:?} {event:?}");
        }
    }

    #[test]
    fn each_name_reads_back() {
        for event in Event::ALL {
            assert_eq!(EventWord::parse(&event.name().to_uppercase()), Some(EventWord::One(*event)));
        }
        for wrong in ["create", "insert ", "all  ddl", "I don't know"] {
            assert_eq!(EventWord::parse(wrong), None, "{wrong}");
        }
    }
}
