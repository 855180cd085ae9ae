//! Safe mode: until when what is applied must be idempotent, and why, for the status.

use std::time::{Duration, Instant};

use super::Coordinator;
use crate::checkpoint::Kept;
use crate::model::RowMark;

/// When safe mode ends.
pub(super) enum Safe {
    Always,
    At(RowMark),
    /// For as long from the first group on.
    For(Duration),
    When(Instant),
}

impl Coordinator {
    /// Safe mode is over where its end is applied, whether or not more comes.
    pub(super) fn pass_safe_window(&mut self) {
        if matches!(&self.safe_until, Some(Safe::At(mark)) if !mark.is_inside() && self.applied.has_passed(mark)) {
            self.leave_safe_mode();
            self.publish();
        }
    }

    pub(super) fn leave_safe_mode(&mut self) {
        if self.safe_until.take().is_some() {
            tracing::info!("disable safe-mode after task initialization finished");
        }
    }

    pub(super) fn is_safe(&mut self, start: &RowMark) -> bool {
        if let Some(Safe::For(duration)) = self.safe_until {
            self.safe_until = Some(Safe::When(Instant::now() + duration));
        }
        let over = match &self.safe_until {
            None | Some(Safe::Always | Safe::For(_)) => false,
            Some(Safe::At(mark)) => start.has_passed(mark),
            Some(Safe::When(at)) => Instant::now() >= *at,
        };
        if over {
            self.leave_safe_mode();
        }
        self.safe_until.is_some()
    }

    /// Why safe mode is on.
    pub(super) fn why_safe(&self) -> Option<String> {
        let safe_mode = self.safe_until.as_ref().map(|safe| match safe {
            Safe::Always => "the task's configuration asks for it".to_owned(),
            Safe::At(mark) if self.options.windows.is(|_| true) => {
                let yields = self.yields_to().map_or_else(String::new, |yields| format!(", {yields}"));
                format!("replaying what changed while rows were copied, until {}{yields}", mark.location)
            }
            Safe::At(mark) if self.book.kept() == Kept::Here => {
                format!("replaying what may have been applied before the interruption, until {}", mark.location)
            }
            Safe::At(mark) => format!("replaying what another worker may have applied, until {}", mark.location),
            Safe::For(_) | Safe::When(_) => "replaying what another worker may have applied before it ended".to_owned(),
        });
        let safe_mode = safe_mode.or_else(|| {
            let why =
                "the transaction at work was applied in part as another server logged it, and is applied once more";
            self.again.then(|| why.to_owned())
        });
        safe_mode.or_else(|| {
            let until = &self.loose_until.as_ref()?.location;
            Some(format!(
                "for tables without transactions, replaying what may have been applied already, until {until}"
            ))
        })
    }
}
