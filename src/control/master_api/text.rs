//! Texts that DM's users and scripts match on: a worker's failure inside a master's, and what is wrong with a start
//! time.
//!
//! Pure functions; the recorded texts are in `tests/golden/dmctl`.

use std::fmt::Write;

use crate::error::{Code, Failure};

/// What a master says when a worker's status holds errors: code 38032 around the errors in compact protobuf text.
pub fn worker_error(failures: &[Failure]) -> String {
    let joined: Vec<String> = failures.iter().map(compact).collect();
    operation_failed(&joined.join(", "))
}

/// The same around a plain text.
pub fn operation_failed(what: &str) -> String {
    Failure::new(Code::OperationFailed, format!("some error occurs in dm-worker: {what}")).to_string()
}

/// `ErrCode:10006 ErrClass:"database" …`, fields that are empty left out, a space behind each.
fn compact(failure: &Failure) -> String {
    let mut out = String::new();
    if failure.code != 0 {
        out.push_str(&format!("ErrCode:{} ", failure.code));
    }
    let fields = [
        ("ErrClass", &failure.class),
        ("ErrScope", &failure.scope),
        ("ErrLevel", &failure.level),
        ("Message", &failure.message),
        ("RawCause", &failure.raw_cause),
        ("Workaround", &failure.workaround),
    ];
    for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
        out.push_str(name);
        out.push(':');
        quote(value, &mut out);
        out.push(' ');
    }
    out
}

/// Protobuf's text quoting: a few named escapes, everything that is not printable ASCII in octal, byte by byte.
fn quote(text: &str, out: &mut String) {
    out.push('"');
    for byte in text.bytes() {
        match byte {
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            0x20..=0x7e => out.push(char::from(byte)),
            // Writing to a string cannot fail.
            _ => {
                let _ = write!(out, "\\{byte:03o}");
            }
        }
    }
    out.push('"');
}

/// Checks a start time's form: `2006-01-02 15:04:05`, or with `T`.
pub fn check_start_time(text: &str) -> Result<(), String> {
    let prefix =
        "error while parse start-time, expected in the format like '2006-01-02 15:04:05' or '2006-01-02T15:04:05'";
    let layout = "2006-01-02T15:04:05";
    let complaint = |why: String| format!("{prefix}: parsing time \"{text}\"{why}");
    let mut rest = text;
    let mut numbers = [0_u32; 6];
    let parts = [("2006", 4, "-"), ("01", 2, "-"), ("02", 2, "T"), ("15", 2, ":"), ("04", 2, ":"), ("05", 2, "")];
    for (number, (element, digits, separator)) in numbers.iter_mut().zip(parts) {
        let parsed = rest.get(..digits).filter(|d| d.bytes().all(|b| b.is_ascii_digit())).and_then(|d| d.parse().ok());
        let Some(value) = parsed else {
            return Err(complaint(format!(" as \"{layout}\": cannot parse \"{rest}\" as \"{element}\"")));
        };
        *number = value;
        rest = rest.get(digits..).unwrap_or_default();
        let separated = rest.strip_prefix(separator).or_else(|| rest.strip_prefix(' ').filter(|_| separator == "T"));
        rest = match separated {
            Some(rest) => rest,
            None => return Err(complaint(format!(" as \"{layout}\": cannot parse \"{rest}\" as \"{separator}\""))),
        };
    }
    if !rest.is_empty() {
        return Err(complaint(format!(": extra text: \"{rest}\"")));
    }
    let [year, month, day, hour, minute, second] = numbers;
    let month_name = u8::try_from(month).ok().and_then(|m| time::Month::try_from(m).ok());
    let Some(month_name) = month_name else { return Err(complaint(": month out of range".to_owned())) };
    let last_day = i32::try_from(year).map_or(31, |year| month_name.length(year));
    let wrong = [
        (day == 0 || day > u32::from(last_day), "day"),
        (hour > 23, "hour"),
        (minute > 59, "minute"),
        (second > 59, "second"),
    ];
    match wrong.into_iter().find(|(wrong, _)| *wrong) {
        Some((_, what)) => Err(complaint(format!(": {what} out of range"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_times_are_checked_with_the_texts_of_dm() {
        assert_eq!(check_start_time("2026-11-22 14:30:19"), Ok(()));
        assert_eq!(check_start_time("2026-11-22T14:30:19"), Ok(()));
        let wrong = check_start_time("yesterday").unwrap_err();
        assert_eq!(
            wrong,
            "error while parse start-time, expected in the format like '2006-01-02 15:04:05' or \
             '2006-01-02T15:04:05': parsing time \"yesterday\" as \"2006-01-02T15:04:05\": cannot parse \"yesterday\" \
             as \"2006\""
        );
        for text in [
            "2026-13-01 00:00:00",
            "2026-02-30 00:00:00",
            "2026-01-01 24:00:00",
            "2026-01-01",
            "",
            "2026-01-01 00:00:00 x",
            "２０２６-01-01 00:00:00",
        ] {
            assert!(check_start_time(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn a_workers_failure_reads_as_recorded() {
        let golden = include_str!("../../../tests/golden/dmctl/pause-errored.txt");
        let mut failure = Failure::new(
            Code::ExecuteFailed,
            "startLocation: [position: (mysql-bin.000001, 8360), gtid-set: 9231c604-e680-11f1-ab28-628677c36cd1:1-33], \
             endLocation: [position: (mysql-bin.000001, 8404), gtid-set: 9231c604-e680-11f1-ab28-628677c36cd1:1-33]: \
             execute statement failed: INSERT INTO `e1`.`dup` (`id`,`v`) VALUES (?,?)",
        )
        .cause("Error 1062 (23000): Duplicate entry '5' for key 'PRIMARY'");
        failure.workaround.clear();
        let json = serde_json::to_string(&worker_error(&[failure])).unwrap();
        assert!(golden.contains(&json), "{json} is not in\n{golden}");
    }
}
