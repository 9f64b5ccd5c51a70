//! Labels of the ports of a lease: `A`, `B`, … `Z`, `AA`, … `ZZ`.

use std::fmt;
use std::str::FromStr;

/// How many labels there are, and so the most ports that a lease can have: 26 + 26².
pub const LABEL_COUNT: u16 = 702;

/// The label of one port of a lease, by its place: `A` is the first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(u16);

/// A text that is not a [`Label`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{given}` is not a port label; labels are A to Z, then AA to ZZ")]
pub struct LabelError {
    /// What was given.
    pub given: String,
}

impl Label {
    /// The label of the port at `index` (from 0); none from [`LABEL_COUNT`] on.
    pub fn from_index(index: usize) -> Option<Self> {
        u16::try_from(index).ok().filter(|index| *index < LABEL_COUNT).map(Self)
    }

    /// The place of the port in its lease, from 0.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// All labels in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..LABEL_COUNT).map(Self)
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = |n: u16| char::from(b'A' + (n % 26) as u8);
        match self.0.checked_sub(26) {
            None => write!(f, "{}", letter(self.0)),
            Some(rest) => write!(f, "{}{}", letter(rest / 26), letter(rest)),
        }
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Label {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digit = |byte: u8| u16::from(byte - b'A');
        match *text.as_bytes() {
            [one @ b'A'..=b'Z'] => Ok(Self(digit(one))),
            [first @ b'A'..=b'Z', second @ b'A'..=b'Z'] => Ok(Self(26 + digit(first) * 26 + digit(second))),
            _ => Err(LabelError { given: text.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_run_from_a_to_zz_and_back() {
        let shown: Vec<String> = Label::all().map(|label| label.to_string()).collect();
        assert_eq!(shown.len(), 702);
        assert_eq!(
            [&*shown[0], &*shown[25], &*shown[26], &*shown[51], &*shown[52], &*shown[701]],
            ["A", "Z", "AA", "AZ", "BA", "ZZ"]
        );
        for (index, text) in shown.iter().enumerate() {
            assert_eq!(text.parse::<Label>().unwrap().index(), index);
        }
        assert_eq!(Label::from_index(702), None);
    }

    #[test]
    fn wrong_labels() {
        for text in ["", "a", "AAA", "1", "A1"] {
            assert!(text.parse::<Label>().is_err(), "{text}");
        }
    }
}
