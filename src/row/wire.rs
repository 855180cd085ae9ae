//! Reading numbers and strings of the binlog's inner form: a cursor that never goes beyond its bytes.

/// Little-endian unsigned number of up to eight bytes.
#[inline]
pub(crate) fn le(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Big-endian unsigned number of up to eight bytes.
#[inline]
pub(crate) fn be(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Where in some bytes a reader stands. Every step says `None` where too few bytes are left.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Cursor { rest: bytes }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(head)
    }

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*head)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    #[inline]
    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// Little-endian number of `len` bytes, at most eight.
    #[inline]
    pub(crate) fn uint(&mut self, len: usize) -> Option<u64> {
        if len > 8 {
            return None;
        }
        self.take(len).map(le)
    }

    /// The protocol's length-encoded integer.
    pub(crate) fn lenenc(&mut self) -> Option<u64> {
        match self.u8()? {
            byte @ 0..=250 => Some(u64::from(byte)),
            252 => self.uint(2),
            253 => self.uint(3),
            254 => self.uint(8),
            // 251 is NULL in result sets and 255 an error; neither is a number.
            _ => None,
        }
    }

    /// A length-encoded integer used as a length.
    pub(crate) fn lenenc_len(&mut self) -> Option<usize> {
        usize::try_from(self.lenenc()?).ok()
    }

    /// Bytes behind their length-encoded length.
    pub(crate) fn lenenc_bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.lenenc_len()?;
        self.take(len)
    }

    /// Bytes behind a little-endian length of `width` bytes.
    #[inline]
    pub(crate) fn prefixed(&mut self, width: usize) -> Option<&'a [u8]> {
        let len = match width {
            1 => usize::from(self.u8()?),
            2 => usize::from(self.u16()?),
            _ => usize::try_from(self.uint(width)?).ok()?,
        };
        self.take(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_encoded_numbers() {
        for (bytes, want) in [
            (&[250u8][..], Some(250)),
            (&[252, 1, 2], Some(0x201)),
            (&[253, 1, 2, 3], Some(0x30201)),
            (&[254, 1, 0, 0, 0, 0, 0, 0, 0x80], Some(0x8000_0000_0000_0001)),
            (&[251], None),
            (&[255, 0, 0], None),
            (&[252, 1], None),
        ] {
            assert_eq!(Cursor::new(bytes).lenenc(), want, "{bytes:?}");
        }
    }
}
