//! Character sets by collation number, and their conversion to UTF-8.
//!
//! Conversion is lossless or refused: bytes that mean nothing in their character set never become a replacement character.

use std::borrow::Cow;

use encoding_rs::Encoding;

/// A character set of the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charset {
    /// The servers' name for it, as an introducer takes it (without the underscore).
    pub name: &'static str,
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Utf8,
    /// A superset of ASCII with a table.
    Table(&'static Encoding),
    /// A superset of ASCII without one here: only ASCII can be converted.
    AsciiOnly,
    /// No superset of ASCII, and no table here.
    Unsupported,
    Utf16Be,
    Utf16Le,
    Ucs2,
    Utf32,
}

/// MariaDB numbers its NO PAD collations by adding this to their padded counterpart's.
const NO_PAD: u32 = 1024;

impl Charset {
    /// Finds the character set of a collation. Numbers of no known set are UTF-8's, whose collations grow with each
    /// release of either server.
    pub fn of_collation(collation: u32) -> Charset {
        use Form::{AsciiOnly, Table, Unsupported, Utf8};
        let number = if (NO_PAD..2 * NO_PAD).contains(&collation) { collation - NO_PAD } else { collation };
        let (name, form) = match number {
            1 | 84 => ("big5", Table(encoding_rs::BIG5)),
            2 | 9 | 21 | 27 | 77 => ("latin2", Table(encoding_rs::ISO_8859_2)),
            3 | 69 => ("dec8", AsciiOnly),
            4 | 80 => ("cp850", AsciiOnly),
            5 | 8 | 15 | 31 | 47 | 48 | 49 | 94 => ("latin1", Table(encoding_rs::WINDOWS_1252)),
            6 | 72 => ("hp8", AsciiOnly),
            7 | 74 => ("koi8r", Table(encoding_rs::KOI8_R)),
            10 | 82 => ("swe7", Unsupported),
            11 | 65 => ("ascii", AsciiOnly),
            12 | 91 => ("ujis", Table(encoding_rs::EUC_JP)),
            13 | 88 => ("sjis", Table(encoding_rs::SHIFT_JIS)),
            14 | 23 | 50 | 51 | 52 => ("cp1251", Table(encoding_rs::WINDOWS_1251)),
            16 | 71 => ("hebrew", Table(encoding_rs::ISO_8859_8)),
            18 | 89 => ("tis620", Table(encoding_rs::WINDOWS_874)),
            19 | 85 => ("euckr", Table(encoding_rs::EUC_KR)),
            20 | 41 | 42 | 79 => ("latin7", Table(encoding_rs::ISO_8859_13)),
            22 | 75 => ("koi8u", Table(encoding_rs::KOI8_U)),
            24 | 86 => ("gb2312", Table(encoding_rs::GBK)),
            25 | 70 => ("greek", Table(encoding_rs::ISO_8859_7)),
            26 | 34 | 44 | 66 | 99 => ("cp1250", Table(encoding_rs::WINDOWS_1250)),
            28 | 87 => ("gbk", Table(encoding_rs::GBK)),
            29 | 58 | 59 => ("cp1257", Table(encoding_rs::WINDOWS_1257)),
            30 | 78 => ("latin5", Table(encoding_rs::WINDOWS_1254)),
            32 | 64 => ("armscii8", AsciiOnly),
            36 | 68 => ("cp866", Table(encoding_rs::IBM866)),
            37 | 73 => ("keybcs2", AsciiOnly),
            38 | 43 => ("macce", AsciiOnly),
            39 | 53 => ("macroman", Table(encoding_rs::MACINTOSH)),
            40 | 81 => ("cp852", AsciiOnly),
            57 | 67 => ("cp1256", Table(encoding_rs::WINDOWS_1256)),
            63 => ("binary", Utf8),
            92 | 93 => ("geostd8", AsciiOnly),
            95 | 96 => ("cp932", Table(encoding_rs::SHIFT_JIS)),
            97 | 98 => ("eucjpms", Table(encoding_rs::EUC_JP)),
            248..=250 => ("gb18030", Table(encoding_rs::GB18030)),
            other => return Self::of_unicode_collation(other),
        };
        Charset { name, form }
    }

    fn of_unicode_collation(number: u32) -> Charset {
        let (name, form) = match number {
            35 | 90 | 128..=151 | 159 | 640..=655 | 2560..=2815 => ("ucs2", Form::Ucs2),
            54 | 55 | 101..=124 | 672..=687 | 2816..=3071 => ("utf16", Form::Utf16Be),
            56 | 62 => ("utf16le", Form::Utf16Le),
            60 | 61 | 160..=183 | 736..=751 | 3072..=3327 => ("utf32", Form::Utf32),
            33 | 76 | 83 | 192..=215 | 223 | 576..=591 | 2048..=2303 => ("utf8mb3", Form::Utf8),
            _ => ("utf8mb4", Form::Utf8),
        };
        Charset { name, form }
    }

    /// Whether it is the character set of binary strings.
    pub fn is_binary(&self) -> bool {
        self.name == "binary"
    }

    /// Converts text to UTF-8; `None` where the bytes are not valid, or not supported, in this character set. Binary is
    /// taken for UTF-8.
    pub fn to_utf8<'a>(&self, bytes: &'a [u8]) -> Option<Cow<'a, str>> {
        match self.form {
            Form::Utf8 => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
            Form::AsciiOnly => bytes.is_ascii().then(|| std::str::from_utf8(bytes).ok()).flatten().map(Cow::Borrowed),
            Form::Unsupported => None,
            Form::Table(encoding) => encoding.decode_without_bom_handling_and_without_replacement(bytes),
            Form::Utf16Be => units16(bytes, u16::from_be_bytes).map(Cow::Owned),
            Form::Utf16Le => units16(bytes, u16::from_le_bytes).map(Cow::Owned),
            Form::Ucs2 => units16(bytes, u16::from_be_bytes)
                .filter(|text| text.chars().all(|character| u32::from(character) <= 0xffff))
                .map(Cow::Owned),
            Form::Utf32 => units32(bytes).map(Cow::Owned),
        }
    }
}

fn units16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Option<String> {
    let (units, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    char::decode_utf16(units.iter().map(|bytes| unit(*bytes))).collect::<Result<String, _>>().ok()
}

fn units32(bytes: &[u8]) -> Option<String> {
    let (units, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return None;
    }
    units.iter().map(|bytes| char::from_u32(u32::from_be_bytes(*bytes))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn converts_or_refuses() {
        let convert = |collation, bytes| Charset::of_collation(collation).to_utf8(bytes).map(Cow::into_owned);
        assert_eq!(convert(8, b"\xe9\xe8\xa4\x80"), Some("éè¤€".to_owned()));
        assert_eq!(convert(28, b"\xba\xba\xd7\xd6"), Some("汉字".to_owned()));
        assert_eq!(convert(28, b"\xba"), None);
        assert_eq!(convert(13, b"\x83\x5c"), Some("ソ".to_owned()));
        assert_eq!(convert(35, &[0x6c, 0x49]), Some("汉".to_owned()));
        assert_eq!(convert(35, &[0xd8, 0x3d, 0xde, 0x00]), None);
        assert_eq!(convert(54, &[0xd8, 0x3d, 0xde, 0x00]), Some("😀".to_owned()));
        assert_eq!(convert(60, &[0, 1, 0xf6, 0]), Some("😀".to_owned()));
        assert_eq!(convert(255, "é".as_bytes()), Some("é".to_owned()));
        assert_eq!(convert(45, b"\xe9"), None);
        assert_eq!(convert(11, b"\xe9"), None);
        assert_eq!(convert(8 + NO_PAD, b"\xe9"), Some("é".to_owned()));
    }

    #[test]
    fn names() {
        let name = |collation| Charset::of_collation(collation).name;
        assert_eq!(
            [name(63), name(33), name(255), name(2304), name(128)],
            ["binary", "utf8mb3", "utf8mb4", "utf8mb4", "ucs2"]
        );
        assert!(Charset::of_collation(63).is_binary());
    }
}
