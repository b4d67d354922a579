//! What an heir is told in the metadata of a commit: how often owners died here, which message runs alone, and what is
//! finished beyond the committed offset.
//!
//! ASCII, because a client library turns other bytes into U+FFFD, and a broker counts characters:
//! `L1`, then numbers in base 64 (five bits a character, the sixth says that there is more), then six characters of
//! checksum. The numbers: base offset, owners that died, 0 or the offset that runs alone less the base and 1 and its
//! runs, and for each finished run the unfinished offsets before it and its length.

use std::ops::Range;

/// The longest metadata that a broker takes unless it is told otherwise (`offset.metadata.max.bytes`), in characters.
pub(crate) const LONGEST: usize = 4_096;
const VERSION: &[u8] = b"L1";
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// Characters of the checksum: 36 bits hold its 32.
const SUM: usize = 6;
/// The most characters of one number: five bits each of 64.
const NUMBER: usize = 13;

/// What is said of a partition, beside what is finished.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Note {
    /// Owners in a row that ended without a word and without progress.
    pub(crate) unclean: u32,
    /// The message that runs alone, and how many such runs were begun.
    pub(crate) mark: Option<(u64, u32)>,
}

/// What came of writing one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Noted {
    pub(crate) text: String,
    /// Below this offset everything that is finished is in it.
    pub(crate) covers: u64,
    /// Characters that it would have taken to say everything.
    pub(crate) wanted: usize,
}

/// Writes what fits into so many characters, the lowest runs first. Empty where there is nothing to say.
pub(crate) fn write(base: u64, note: Note, finished: impl Iterator<Item = Range<u64>>, longest: usize) -> Noted {
    let mut text = VERSION.to_vec();
    put(&mut text, base);
    put(&mut text, u64::from(note.unclean));
    match note.mark.filter(|(offset, _)| *offset >= base) {
        Some((offset, runs)) => {
            put(&mut text, (offset - base).saturating_add(1));
            put(&mut text, u64::from(runs));
        }
        None => put(&mut text, 0),
    }
    let bare = text.len();
    let (mut wanted, mut covers) = (text.len() + SUM, u64::MAX);
    let mut end = base;
    for run in finished {
        let before = text.len();
        put(&mut text, run.start - end);
        put(&mut text, run.end - run.start);
        wanted += text.len() - before;
        if covers < u64::MAX || text.len() + SUM > longest {
            text.truncate(before);
            covers = covers.min(run.start);
        }
        end = run.end;
    }
    if note == Note::default() && text.len() == bare || text.len() + SUM > longest {
        return Noted { text: String::new(), covers, wanted };
    }
    let sum = checksum(&text);
    text.extend((0..SUM).map(|at| DIGITS[(sum >> (6 * at) & 63) as usize]));
    Noted { text: String::from_utf8(text).expect("its digits are ASCII"), covers, wanted }
}

/// Reads one that was committed together with that offset. `None` where it says nothing about this log: it is somebody
/// else's or damaged, it was written for another offset, or the log ends before what it says is finished.
pub(crate) fn read(text: &str, committed: u64, log_end: Option<u64>) -> Option<(Note, Vec<Range<u64>>)> {
    let bytes = text.as_bytes();
    if bytes.len() > LONGEST || !bytes.starts_with(VERSION) {
        return None;
    }
    let (said, sum) = bytes.split_at_checked(bytes.len().checked_sub(SUM)?)?;
    let mut given = 0u64;
    for (at, digit) in sum.iter().enumerate() {
        given |= value(*digit)? << (6 * at);
    }
    if given != u64::from(checksum(said)) {
        return None;
    }
    let mut rest = said.get(VERSION.len()..)?;
    if take(&mut rest)? != committed {
        return None;
    }
    let unclean = u32::try_from(take(&mut rest)?).ok()?;
    let mark = match take(&mut rest)? {
        0 => None,
        beyond => Some((committed.checked_add(beyond - 1)?, u32::try_from(take(&mut rest)?).ok()?)),
    };
    let (mut finished, mut end) = (Vec::new(), committed);
    while !rest.is_empty() {
        let (gap, length) = (take(&mut rest)?, take(&mut rest)?);
        let start = end.checked_add(gap)?;
        end = start.checked_add(length)?;
        if gap == 0 || length == 0 {
            return None;
        }
        finished.push(start..end);
    }
    let beyond = mark.map_or(end, |(offset, _)| end.max(offset));
    log_end.is_none_or(|log_end| beyond <= log_end).then_some((Note { unclean, mark }, finished))
}

fn put(text: &mut Vec<u8>, mut number: u64) {
    while number >= 32 {
        text.push(DIGITS[(32 | number & 31) as usize]);
        number >>= 5;
    }
    text.push(DIGITS[number as usize]);
}

fn take(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for at in 0..NUMBER {
        let (digit, tail) = rest.split_first()?;
        *rest = tail;
        let five = value(*digit)? & 31;
        number |= five.checked_shl(5 * at as u32).filter(|moved| moved >> (5 * at) == five)?;
        if value(*digit)? & 32 == 0 {
            return Some(number);
        }
    }
    None
}

fn value(digit: u8) -> Option<u64> {
    DIGITS.iter().position(|at| *at == digit).map(|at| at as u64)
}

/// FNV-1a of 32 bits.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs in order with something unfinished before each.
    fn runs(base: u64, steps: &[(u64, u64)]) -> Vec<Range<u64>> {
        let mut end = base;
        steps
            .iter()
            .map(|(gap, length)| {
                let start = end + gap;
                end = start + length;
                start..end
            })
            .collect()
    }

    fn steps() -> impl Strategy<Value = Vec<(u64, u64)>> {
        proptest::collection::vec((prop_oneof![1u64..40, 1u64..1 << 40], prop_oneof![1u64..40, 1u64..1 << 40]), 0..300)
    }

    fn note() -> impl Strategy<Value = Note> {
        (any::<u32>(), proptest::option::of((0u64..1 << 50, any::<u32>())))
            .prop_map(|(unclean, mark)| Note { unclean, mark })
    }

    #[test]
    fn a_partition_without_history_has_nothing_to_say() {
        let noted = write(7, Note::default(), std::iter::empty(), LONGEST);
        assert_eq!((noted.text.as_str(), noted.covers), ("", u64::MAX));
    }

    #[test]
    fn every_second_one_of_four_thousand_offsets_fits() {
        let every_second = (1..2_030u64).map(|n| 2 * n..2 * n + 1);
        assert_eq!(write(1, Note::default(), every_second, LONGEST).covers, u64::MAX);
    }

    proptest! {
        #[test]
        fn what_fits_comes_back_and_the_rest_is_not_claimed(
            base in 0u64..1 << 50, note in note(), steps in steps(), longest in 60usize..LONGEST,
        ) {
            let note = Note { mark: note.mark.map(|(offset, runs)| (base + offset, runs)), ..note };
            let finished = runs(base, &steps);
            let noted = write(base, note, finished.iter().cloned(), longest);
            prop_assert!(noted.text.len() <= longest && noted.text.is_ascii());
            prop_assert_eq!(noted.wanted > longest, noted.covers < u64::MAX);
            let kept: Vec<_> = finished.into_iter().filter(|run| run.start < noted.covers).collect();
            if noted.text.is_empty() {
                prop_assert_eq!((note, kept.len()), (Note::default(), 0));
            } else {
                prop_assert_eq!(read(&noted.text, base, None), Some((note, kept)));
            }
        }

        #[test]
        fn one_that_was_written_for_another_offset_or_a_longer_log_is_ignored(
            base in 0u64..1 << 50, other in 0u64..1 << 50, steps in steps(), short in 1u64..1 << 50,
        ) {
            let finished = runs(base, &steps);
            let text = write(base, Note { unclean: 1, mark: None }, finished.iter().cloned(), LONGEST).text;
            prop_assert_eq!(read(&text, other, None).is_some(), base == other);
            let kept = read(&text, base, None).unwrap().1;
            let end = kept.last().map_or(base, |run| run.end);
            prop_assert!(read(&text, base, Some(end)).is_some());
            prop_assert!(read(&text, base, Some(end.saturating_sub(short))).is_none() || end == 0);
        }

        #[test]
        fn damage_is_seen(
            base in 0u64..1 << 50, steps in steps(), at in any::<proptest::sample::Index>(), by in 1u8..128,
        ) {
            let text = write(base, Note { unclean: 1, mark: None }, runs(base, &steps).into_iter(), LONGEST).text;
            let mut bytes = text.into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = (bytes[at] ^ by) & 127;
            prop_assert_eq!(read(std::str::from_utf8(&bytes).unwrap(), base, None), None);
        }

        #[test]
        fn whatever_stands_there_is_read_without_a_panic(text in ".{0,80}", committed in any::<u64>()) {
            prop_assert_eq!(read(&text, committed, None), None);
            read(&format!("L1{text}"), committed, Some(0));
        }

        #[test]
        fn any_numbers_under_a_right_checksum_are_read_without_a_panic(
            digits in proptest::collection::vec(0usize..64, 0..60), committed in 0u64..4,
        ) {
            let mut text = VERSION.to_vec();
            text.extend(digits.iter().map(|digit| DIGITS[*digit]));
            let sum = checksum(&text);
            text.extend((0..SUM).map(|at| DIGITS[(sum >> (6 * at) & 63) as usize]));
            if let Some((_, finished)) = read(std::str::from_utf8(&text).unwrap(), committed, None) {
                prop_assert!(finished.windows(2).all(|two| two[0].end < two[1].start));
            }
        }
    }
}
