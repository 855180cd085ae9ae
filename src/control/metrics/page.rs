//! Text in Prometheus' exposition format, family by family.

use std::fmt::{Display, Write};

use crate::supervisor::{AgentStatus, SourceStatus};
use crate::task::{DURATION_BOUNDS, Durations, SIZE_BOUNDS, Sizes, TaskStatus, Totals};

/// One of a task's histograms of sizes.
pub type SizesOf = fn(&Totals) -> &Sizes;

/// Text under construction.
#[derive(Default)]
pub struct Page {
    /// What it has come to.
    pub text: String,
}

impl Page {
    /// A family's header.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// One sample of the family above. Its labels come in the order that a Go program prints them in, by name and the
    /// bound of a bucket last: scripts look for whole samples, as DM's own tests do.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let mut labels = labels.to_vec();
        labels.sort_by_key(|(label, _)| (*label == "le", *label));
        self.text.push_str(name);
        for (number, (label, text)) in labels.iter().enumerate() {
            self.text.push(if number == 0 { '{' } else { ',' });
            self.text.push_str(label);
            self.text.push_str("=\"");
            for c in text.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    c => self.text.push(c),
                }
            }
            self.text.push('"');
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{close} {value}");
    }

    /// A family with at most one sample for each task; one without samples is left out.
    pub fn per_task<T: Display>(
        &mut self,
        (name, kind, help): (&str, &str, &str),
        status: &AgentStatus,
        labelled_worker: bool,
        value: impl Fn(&TaskStatus) -> Option<T>,
    ) {
        let samples: Vec<_> = status.tasks.iter().filter_map(|t| value(t).map(|v| (t, v))).collect();
        if samples.is_empty() {
            return;
        }
        self.family(name, kind, help);
        for (task, value) in samples {
            let labels = [("task", &*task.name), ("source_id", &*task.source_id), ("worker", &*status.worker)];
            self.sample(name, if labelled_worker { &labels } else { &labels[..2] }, value);
        }
    }

    /// The same for each source.
    pub fn per_source<T: Display>(
        &mut self,
        (name, kind, help): (&str, &str, &str),
        status: &AgentStatus,
        value: impl Fn(&SourceStatus) -> Option<T>,
    ) {
        let samples: Vec<_> = status.sources.iter().filter_map(|s| value(s).map(|v| (s, v))).collect();
        if samples.is_empty() {
            return;
        }
        self.family(name, kind, help);
        for (source, value) in samples {
            self.sample(name, &[("source_id", &*source.source_id)], value);
        }
    }

    /// A histogram of each task.
    pub fn durations(
        &mut self,
        (name, help): (&str, &str),
        status: &AgentStatus,
        labelled_worker: bool,
        of: fn(&Totals) -> &Durations,
    ) {
        if status.tasks.is_empty() {
            return;
        }
        self.family(name, "histogram", help);
        for task in &status.tasks {
            let durations = of(&task.totals);
            let mut labels = vec![("task", &*task.name), ("source_id", &*task.source_id)];
            labels.extend(labelled_worker.then_some(("worker", &*status.worker)));
            let bounds = DURATION_BOUNDS.iter().map(f64::to_string).zip(durations.up_to);
            self.buckets(name, &labels, bounds, durations.count, durations.seconds);
        }
    }

    /// A histogram of sizes of each task that has any: a sample for each set of labels, beside the task's own.
    pub fn sizes(&mut self, (name, help): (&str, &str), status: &AgentStatus, of: &[(&[(&str, &str)], SizesOf)]) {
        let shown = |task: &&TaskStatus| of.iter().any(|(_, of)| of(&task.totals).count > 0);
        if !status.tasks.iter().any(|task| shown(&task)) {
            return;
        }
        self.family(name, "histogram", help);
        for task in status.tasks.iter().filter(shown) {
            for (more, of) in of {
                let sizes = of(&task.totals);
                let own = [("task", &*task.name), ("source_id", &*task.source_id), ("worker", &*status.worker)];
                let labels: Vec<_> = own.into_iter().chain(more.iter().copied()).collect();
                let bounds = SIZE_BOUNDS.iter().map(u64::to_string).zip(sizes.up_to);
                self.buckets(name, &labels, bounds, sizes.count, sizes.total);
            }
        }
    }

    fn buckets(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        bounds: impl Iterator<Item = (String, u64)>,
        count: u64,
        sum: impl Display,
    ) {
        for (bound, count) in bounds.chain([("+Inf".to_owned(), count)]) {
            let labels: Vec<_> = labels.iter().copied().chain([("le", &*bound)]).collect();
            self.sample(&format!("{name}_bucket"), &labels, count);
        }
        self.sample(&format!("{name}_sum"), labels, sum);
        self.sample(&format!("{name}_count"), labels, count);
    }
}
