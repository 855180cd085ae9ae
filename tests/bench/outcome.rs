//! What a case found: series of measurements, what they must reach, and whether they do.
//!
//! Every number of the table comes from here, and every one of these from a measurement: the only numbers written in the
//! source are sizes of the work and the targets.

/// Measurements of one kind, one a round unless they are latencies.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Series(pub Vec<f64>);

impl Series {
    /// A value that has one measurement only.
    pub fn one(value: f64) -> Series {
        Series(vec![value])
    }

    /// Whether there is any.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    /// The middle one; the mean of the middle two.
    pub fn median(&self) -> f64 {
        let sorted = self.sorted();
        match sorted.len() {
            0 => f64::NAN,
            len if len % 2 == 1 => sorted[len / 2],
            len => (sorted[len / 2 - 1] + sorted[len / 2]) / 2.0,
        }
    }

    /// The smallest.
    pub fn min(&self) -> f64 {
        self.0.iter().copied().fold(f64::NAN, f64::min)
    }

    /// The largest.
    pub fn max(&self) -> f64 {
        self.0.iter().copied().fold(f64::NAN, f64::max)
    }

    /// The smallest value that is not exceeded by `share` of all.
    pub fn percentile(&self, share: f64) -> f64 {
        let sorted = self.sorted();
        if sorted.is_empty() {
            return f64::NAN;
        }
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted[rank.clamp(1, sorted.len()) - 1]
    }
}

/// What is compared with a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Ours to the reference's, by median.
    Ratio,
    /// Ours, by median.
    Ours,
    /// CPU a row in µs, by median.
    Cpu,
    /// Peak resident memory in MB, the highest.
    Rss,
}

/// A target.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// No less.
    AtLeast(Measure, f64),
    /// No more.
    AtMost(Measure, f64),
}

/// One line of the table.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// The case.
    pub case: String,
    /// Of both values.
    pub unit: &'static str,
    /// Ours, a value a round.
    pub ours: Series,
    /// What counts as ours, where that is not the median of the rounds: a percentile of all of them together.
    pub overall: Option<f64>,
    /// The reference's in the same rounds; empty where there is none.
    pub reference: Series,
    /// What the reference is.
    pub against: &'static str,
    /// µs of the agent's CPU a row, a value a round.
    pub cpu: Series,
    /// Peak resident memory in MB, a value a round.
    pub rss: Series,
    /// How much was done in a round.
    pub work: String,
    /// Targets; none for lines that only inform.
    pub goals: Vec<Goal>,
}

impl Row {
    /// Ours to the reference's, round by round.
    pub fn ratio(&self) -> Series {
        Series(self.ours.0.iter().zip(&self.reference.0).map(|(ours, reference)| ours / reference).collect())
    }

    fn value(&self, measure: Measure) -> f64 {
        match measure {
            Measure::Ratio => self.ratio().median(),
            Measure::Ours => self.overall.unwrap_or_else(|| self.ours.median()),
            Measure::Cpu => self.cpu.median(),
            Measure::Rss => self.rss.max(),
        }
    }

    /// Whether every target is met; what was not measured meets none.
    pub fn is_ok(&self) -> bool {
        self.goals.iter().all(|goal| match *goal {
            Goal::AtLeast(measure, least) => self.value(measure) >= least,
            Goal::AtMost(measure, most) => self.value(measure) <= most,
        })
    }

    /// The targets in words.
    pub fn target(&self) -> String {
        let name = |measure| match measure {
            Measure::Ratio => "x".to_owned(),
            Measure::Ours => format!(" {}", self.unit),
            Measure::Cpu => " µs CPU".to_owned(),
            Measure::Rss => " MB RSS".to_owned(),
        };
        let word = |goal: &Goal| match *goal {
            Goal::AtLeast(measure, value) => format!("≥ {value}{}", name(measure)),
            Goal::AtMost(measure, value) => format!("≤ {value}{}", name(measure)),
        };
        self.goals.iter().map(word).collect::<Vec<_>>().join(", ")
    }
}

/// Latencies in milliseconds, by round.
#[derive(Debug, Clone, Default)]
pub struct Latencies(pub Vec<Series>);

impl Latencies {
    /// Begins the next round.
    pub fn begin_round(&mut self) {
        self.0.push(Series::default());
    }

    /// Takes one in, in seconds.
    pub fn push(&mut self, seconds: f64) {
        self.0.last_mut().expect("a round has begun").0.push(seconds * 1e3);
    }

    /// The line of a percentile: over all rounds, and from round to round.
    pub fn line(&self, case: &str, percent: u32, most: f64) -> Row {
        let all = Series(self.0.iter().flat_map(|round| round.0.iter().copied()).collect());
        let share = f64::from(percent) / 100.0;
        Row {
            case: format!("{case}, p{percent}"),
            unit: "ms",
            ours: Series(self.0.iter().map(|round| round.percentile(share)).collect()),
            overall: Some(all.percentile(share)),
            work: format!("{} in all", all.0.len()),
            goals: vec![Goal::AtMost(Measure::Ours, most)],
            ..Row::default()
        }
    }
}
