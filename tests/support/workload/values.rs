//! Random values as SQL literals.

use rand::Rng;
use rand::rngs::StdRng;

use super::Table;

/// A key out of a few, so that changes meet. They are around places where an agent may go on with another lane (it deals
/// neighbours out together), so that ranges, and keys that move by one, reach over from lane to lane.
pub fn number(rng: &mut StdRng) -> u32 {
    256 * rng.random_range(1..=16) - 12 + rng.random_range(0..25)
}

/// A short text literal, with what quoting gets wrong.
pub fn quoted(rng: &mut StdRng) -> String {
    const PIECES: [&str; 12] = ["a", "B", "é", "汉", "😀", "''", "\\\\", "\\n", "\\0", "%", " ", "\\\""];
    let pieces: String = (0..rng.random_range(0..8)).map(|_| PIECES[rng.random_range(0..PIECES.len())]).collect();
    format!("'{}{pieces}'", rng.random_range(0..1000))
}

fn bytes(rng: &mut StdRng, limit: usize) -> String {
    let digits: String = (0..rng.random_range(0..limit)).map(|_| format!("{:02x}", rng.random::<u8>())).collect();
    format!("x'{digits}'")
}

fn maybe(rng: &mut StdRng, value: impl FnOnce(&mut StdRng) -> String) -> String {
    if rng.random_bool(0.1) { "NULL".into() } else { value(rng) }
}

/// One row of a table in parentheses, in the order of `Table::columns`.
pub fn table_row(rng: &mut StdRng, table: Table) -> String {
    let cells = match table {
        Table::Plain => vec![number(rng).to_string(), rng.random::<i16>().to_string(), maybe(rng, quoted)],
        Table::Pair => vec![number(rng).to_string(), format!("'k{}'", rng.random_range(0..5)), maybe(rng, quoted)],
        Table::Folded => {
            let name = format!("{}{}", if rng.random_bool(0.5) { "Name" } else { "nAME" }, number(rng));
            vec![format!("'{name}'"), number(rng).to_string()]
        }
        Table::Uniques => {
            let unique = maybe(rng, |rng| number(rng).to_string());
            vec![number(rng).to_string(), unique, quoted(rng), rng.random::<i32>().to_string()]
        }
        Table::Keyless => vec![rng.random_range(0..30).to_string(), maybe(rng, |_| "'same'".into()), "0.1".into()],
        Table::LooseKey => {
            let key = maybe(rng, |rng| rng.random_range(0..40).to_string());
            vec![number(rng).to_string(), key, maybe(rng, quoted)]
        }
        Table::Wide => wide_row(rng),
    };
    format!("({})", cells.join(", "))
}

fn wide_row(rng: &mut StdRng) -> Vec<String> {
    let day = rng.random_range(1..=28);
    let (hour, second) = (rng.random_range(0..24), rng.random_range(0..60));
    let fraction = rng.random_range(0..1_000_000);
    vec![
        number(rng).to_string(),
        rng.random::<u64>().to_string(),
        rng.random::<i8>().to_string(),
        format!("{}.{:02}", rng.random_range(-99_999..99_999), rng.random_range(0..100)),
        format!("{}", rng.random::<f32>()),
        format!("{:e}", rng.random::<f64>() * 1e9),
        maybe(rng, |_| format!("'2024-02-{day:02}'")),
        maybe(rng, |_| format!("'2023-03-{day:02} {hour:02}:59:{second:02}.{fraction:06}'")),
        format!("'2022-10-{day:02} {hour:02}:30:{second:02}.{fraction:06}'"),
        format!("'-{hour:02}:{second:02}:01.{:03}'", fraction / 1000),
        maybe(rng, quoted),
        maybe(rng, |rng| bytes(rng, 40)),
        maybe(rng, |rng| format!("'{{\"k\": {}, \"list\": [1.5, null, \"é\"]}}'", rng.random::<i32>())),
        format!("'{}'", ["small", "large", "it''s"][rng.random_range(0..3)]),
        rng.random_range(0..8).to_string(),
        rng.random_range(0..4096).to_string(),
    ]
}
