//! Prints tables, and keeps what was printed for the file in the build folder.

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::outcome::{Row, Series};

/// What was printed so far.
#[derive(Debug, Default)]
pub struct Report {
    text: String,
}

impl Report {
    /// Prints a line.
    pub fn line(&mut self, text: &str) {
        println!("{text}");
        let _ = writeln!(self.text, "{text}");
    }

    /// Prints a table of these rows; how wide each column is follows from all of them.
    pub fn table(&mut self, title: &str, rows: &[Row]) {
        let head = ["case", "ours", "reference", "ratio", "CPU/row", "peak RSS", "target", "", "work a round"];
        let mut lines = vec![head.map(str::to_owned)];
        lines.extend(rows.iter().map(cells));
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        self.line("");
        self.line(title);
        for (number, line) in lines.iter().enumerate() {
            let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
            self.line(cells.join("  ").trim_end());
            if number == 0 {
                self.line(&widths.iter().map(|&width| "-".repeat(width)).collect::<Vec<_>>().join("  "));
            }
        }
    }

    /// Writes everything into the build folder; where that is.
    pub fn save(&self) -> std::io::Result<PathBuf> {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        std::fs::create_dir_all(&folder)?;
        let path = folder.join("bench.txt");
        std::fs::write(&path, &self.text)?;
        Ok(path)
    }
}

/// A row in one line, while the run goes on.
pub fn line(row: &Row) -> String {
    cells(row)
        .iter()
        .filter(|cell| !cell.is_empty() && *cell != "–")
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(" | ")
}

fn cells(row: &Row) -> [String; 9] {
    let reference = match row.reference.is_empty() {
        true => "–".to_owned(),
        false => format!("{} {} {}", number(row.reference.median()), row.unit, row.against),
    };
    let ratio = match row.reference.is_empty() {
        true => "–".to_owned(),
        false => format!("{}x", spread(&row.ratio(), None)),
    };
    let optional = |series: &Series, unit: &str| match series.is_empty() {
        true => "–".to_owned(),
        false => format!("{} {unit}", number(series.max())),
    };
    let cpu = if row.cpu.is_empty() { "–".to_owned() } else { format!("{} µs", number(row.cpu.median())) };
    let verdict = match (row.goals.is_empty(), row.is_ok()) {
        (true, _) => "",
        (false, true) => "ok",
        (false, false) => "short",
    };
    [
        row.case.clone(),
        format!("{} {}", spread(&row.ours, row.overall), row.unit),
        reference,
        ratio,
        cpu,
        optional(&row.rss, "MB"),
        row.target(),
        verdict.to_owned(),
        row.work.clone(),
    ]
}

/// Median, or what counts in its place, and from where to where.
fn spread(series: &Series, overall: Option<f64>) -> String {
    let middle = number(overall.unwrap_or_else(|| series.median()));
    match series.0.len() {
        0 => "–".to_owned(),
        1 => middle,
        _ => format!("{middle} ({}–{})", number(series.min()), number(series.max())),
    }
}

/// Three digits that mean something.
pub fn number(value: f64) -> String {
    match value.abs() {
        _ if value.is_nan() => "?".to_owned(),
        size if size >= 10_000.0 => grouped(&format!("{value:.0}")),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// With a comma before each three digits from the end.
fn grouped(digits: &str) -> String {
    let comma = |at: usize| at > 0 && (digits.len() - at).is_multiple_of(3);
    let piece = |(at, digit): (usize, char)| if comma(at) { format!(",{digit}") } else { digit.to_string() };
    digits.chars().enumerate().map(piece).collect()
}
