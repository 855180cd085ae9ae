//! Character sets by collation number, the form in which the binlog's metadata names them.

/// The character set a collation number belongs to; `None` for numbers that no known server uses.
///
/// MariaDB adds two blocks: 1024 and up repeat the old numbers for NO PAD variants, and 2048 and up are the UCA 14.0.0
/// collations, 256 numbers for each Unicode encoding.
pub fn charset_of_collation(collation: u32) -> Option<&'static str> {
    Some(match collation {
        2048.. => {
            return ["utf8mb3", "utf8mb4", "ucs2", "utf16", "utf32"].get((collation as usize - 2048) / 256).copied();
        }
        1024.. => return charset_of_collation(collation - 1024),
        63 => "binary",
        45 | 46 | 224..=247 | 255..=323 | 608..=623 => "utf8mb4",
        33 | 76 | 83 | 192..=215 | 223 | 576..=591 => "utf8mb3",
        5 | 8 | 15 | 31 | 47 | 48 | 49 | 94 => "latin1",
        11 | 65 => "ascii",
        28 | 87 => "gbk",
        248..=250 => "gb18030",
        24 | 86 => "gb2312",
        13 | 88 => "sjis",
        95 | 96 => "cp932",
        12 | 91 => "ujis",
        97 | 98 => "eucjpms",
        1 | 84 => "big5",
        19 | 85 => "euckr",
        35 | 90 | 128..=151 | 159 | 640..=655 => "ucs2",
        54 | 55 | 101..=124 | 672..=687 => "utf16",
        56 | 62 => "utf16le",
        60 | 61 | 160..=183 | 736..=751 => "utf32",
        2 | 9 | 21 | 27 | 77 => "latin2",
        30 | 78 => "latin5",
        20 | 41 | 42 | 79 => "latin7",
        26 | 34 | 44 | 66 | 99 => "cp1250",
        14 | 23 | 50 | 51 | 52 => "cp1251",
        57 | 67 => "cp1256",
        29 | 58 | 59 => "cp1257",
        4 | 80 => "cp850",
        40 | 81 => "cp852",
        36 | 68 => "cp866",
        7 | 74 => "koi8r",
        22 | 75 => "koi8u",
        16 | 71 => "hebrew",
        25 | 70 => "greek",
        18 | 89 => "tis620",
        3 | 69 => "dec8",
        6 | 72 => "hp8",
        10 | 82 => "swe7",
        32 | 64 => "armscii8",
        37 | 73 => "keybcs2",
        38 | 43 => "macce",
        39 | 53 => "macroman",
        92 | 93 => "geostd8",
        _ => return None,
    })
}

/// Whether text of one can be taken for text of the other: equal bytes mean equal characters in both, as far as both know
/// them.
pub fn reads_alike(one: &str, other: &str) -> bool {
    let unicode = |name: &str| matches!(name, "utf8" | "utf8mb3" | "utf8mb4");
    let within = |small: &str, large: &str| small == "ascii" && is_ascii_compatible(large);
    one == other || (unicode(one) && unicode(other)) || within(one, other) || within(other, one)
}

/// Whether bytes below 128 mean ASCII there, so that a plain literal can stand for them.
pub fn is_ascii_compatible(charset: &str) -> bool {
    !matches!(charset, "ucs2" | "utf16" | "utf16le" | "utf32" | "swe7" | "binary")
}

/// Whether each byte is a character there.
pub fn is_single_byte(charset: &str) -> bool {
    let several =
        ["gbk", "gb18030", "gb2312", "sjis", "cp932", "ujis", "eucjpms", "big5", "euckr", "utf8mb3", "utf8mb4"];
    is_ascii_compatible(charset) && !several.contains(&charset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_both_families() {
        assert_eq!(charset_of_collation(255), Some("utf8mb4"));
        assert_eq!(charset_of_collation(8), Some("latin1"));
        assert_eq!(charset_of_collation(1024 + 45), Some("utf8mb4"));
        assert_eq!(charset_of_collation(2304), Some("utf8mb4"));
        assert_eq!(charset_of_collation(608), Some("utf8mb4"));
        assert_eq!(charset_of_collation(9999), None);
    }

    #[test]
    fn what_reads_alike() {
        for (one, other, alike) in [
            ("utf8mb3", "utf8mb4", true),
            ("ascii", "latin1", true),
            ("latin1", "utf8mb4", false),
            ("gbk", "gbk", true),
        ] {
            assert_eq!((reads_alike(one, other), reads_alike(other, one)), (alike, alike), "{one} {other}");
        }
        assert!(is_single_byte("latin1") && !is_single_byte("gbk") && !is_single_byte("ucs2"));
    }
}
