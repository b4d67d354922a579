//! Headers: an ordered multimap from names to bytes, kept encoded and read when looked at.

use bytes::{BufMut, Bytes, BytesMut};
use std::fmt;

/// Ordered names and values with repeats, in one buffer.
///
/// Encoding, private to this crate: for each header, name length and value length as little-endian `u32`, then the
/// name, then the value.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers {
    encoded: BytesMut,
}

impl Headers {
    /// No headers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one at the end; an equal name that is there stays.
    pub fn push(&mut self, name: impl AsRef<str>, value: impl AsRef<[u8]>) {
        let (name, value) = (name.as_ref().as_bytes(), value.as_ref());
        self.encoded.reserve(8 + name.len() + value.len());
        self.encoded.put_u32_le(name.len() as u32);
        self.encoded.put_u32_le(value.len() as u32);
        self.encoded.put_slice(name);
        self.encoded.put_slice(value);
    }

    /// Sets the one header of that name: every earlier one of it goes.
    pub fn set(&mut self, name: impl AsRef<str>, value: impl AsRef<[u8]>) {
        self.remove(name.as_ref());
        self.push(name, value);
    }

    /// Takes away every header of that name.
    pub fn remove(&mut self, name: &str) {
        if self.as_ref().get(name).is_none() {
            return;
        }
        let kept: Vec<(String, Bytes)> = self
            .as_ref()
            .iter()
            .filter(|(at, _)| *at != name)
            .map(|(at, value)| (at.to_owned(), Bytes::copy_from_slice(value)))
            .collect();
        self.encoded.clear();
        for (name, value) in kept {
            self.push(name, value);
        }
    }

    /// Takes away every header, and keeps the buffer.
    #[cfg(feature = "kafka")]
    pub(crate) fn clear(&mut self) {
        self.encoded.clear();
    }

    /// A view that can be read.
    pub fn as_ref(&self) -> HeadersRef<'_> {
        HeadersRef { encoded: &self.encoded }
    }

    /// The value of the last header of that name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.as_ref().get(name)
    }

    /// Every header in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.as_ref().iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.encoded.is_empty()
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(all: I) -> Self {
        let mut headers = Self::new();
        for (name, value) in all {
            headers.push(name, value);
        }
        headers
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ref().fmt(f)
    }
}

/// Headers of a message in a slab, read in place.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct HeadersRef<'a> {
    encoded: &'a [u8],
}

impl<'a> HeadersRef<'a> {
    pub(crate) fn from_encoded(encoded: &'a [u8]) -> Self {
        Self { encoded }
    }

    pub(crate) fn encoded(self) -> &'a [u8] {
        self.encoded
    }

    /// The value of the last header of that name; looks at all of them.
    pub fn get(self, name: &str) -> Option<&'a [u8]> {
        self.iter().filter(|(at, _)| *at == name).last().map(|(_, value)| value)
    }

    /// The value of the last header of that name, if it is UTF-8.
    pub fn text(self, name: &str) -> Option<&'a str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// Every header in order.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let mut rest = self.encoded;
        std::iter::from_fn(move || {
            let (name_len, tail) = rest.split_first_chunk::<4>()?;
            let (value_len, tail) = tail.split_first_chunk::<4>()?;
            let (name, tail) = tail.split_at_checked(u32::from_le_bytes(*name_len) as usize)?;
            let (value, tail) = tail.split_at_checked(u32::from_le_bytes(*value_len) as usize)?;
            rest = tail;
            // Only `Headers::push` writes this encoding, and it takes names as `str`.
            Some((std::str::from_utf8(name).unwrap_or_default(), value))
        })
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.encoded.is_empty()
    }

    /// Headers of their own, copied.
    pub fn to_headers(self) -> Headers {
        Headers { encoded: BytesMut::from(self.encoded) }
    }
}

impl fmt::Debug for HeadersRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|(name, value)| (name, value.escape_ascii().to_string()))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn headers_come_back_in_order_with_repeats(
            all in proptest::collection::vec((".{0,12}", proptest::collection::vec(any::<u8>(), 0..32)), 0..12)
        ) {
            let headers: Headers = all.iter().map(|(n, v)| (n.as_str(), v.as_slice())).collect();
            let back: Vec<(String, Vec<u8>)> = headers.iter().map(|(n, v)| (n.to_owned(), v.to_vec())).collect();
            prop_assert_eq!(back, all);
        }

        #[test]
        fn a_torn_buffer_ends_the_headers_and_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = HeadersRef::from_encoded(&bytes).iter().count();
        }
    }

    #[test]
    fn set_leaves_one_header_of_that_name() {
        let mut headers: Headers = [("a", "1"), ("b", "2"), ("a", "3")].into_iter().collect();
        headers.set("a", "4");
        assert_eq!(headers.iter().collect::<Vec<_>>(), [("b", b"2".as_slice()), ("a", b"4".as_slice())]);
    }
}
