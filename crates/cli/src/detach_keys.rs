//! The keys that are typed to leave an agent to itself, written and meant as in `docker attach --detach-keys`.

use std::str::FromStr;

/// A sequence of keys, and how far it has been typed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DetachKeys {
    /// As it was written.
    text: String,
    /// Not empty.
    sequence: Vec<u8>,
    typed: usize,
}

impl DetachKeys {
    /// The keys, for a person.
    pub(crate) fn shown(&self) -> String {
        self.text.replace(',', " ")
    }

    /// What of `input` is to be passed on, and whether the sequence is complete with it: what follows is then for nobody. The
    /// beginning of the sequence is held back until it is known not to be one.
    pub(crate) fn take(&mut self, input: &[u8]) -> (Vec<u8>, bool) {
        let mut passed_on = Vec::with_capacity(input.len());
        for &byte in input {
            if byte != self.sequence[self.typed] {
                passed_on.extend_from_slice(&self.sequence[..self.typed]);
                self.typed = 0;
                if byte != self.sequence[0] {
                    passed_on.push(byte);
                    continue;
                }
            }
            self.typed += 1;
            if self.typed == self.sequence.len() {
                self.typed = 0;
                return (passed_on, true);
            }
        }
        (passed_on, false)
    }
}

impl FromStr for DetachKeys {
    type Err = String;

    /// `ctrl-p,ctrl-q`: single characters, or `ctrl-` with a letter or one of `@ [ \\ ] ^ _`.
    fn from_str(text: &str) -> Result<Self, String> {
        let key = |name: &str| -> Result<u8, String> {
            let wrong = || {
                format!(
                    "`{name}` is no key; write a character, or ctrl- with a letter or one of @ [ \\ ] ^ _"
                )
            };
            match name.strip_prefix("ctrl-").map(str::as_bytes) {
                None => match name.as_bytes() {
                    &[byte] if byte.is_ascii_graphic() => Ok(byte),
                    _ => Err(wrong()),
                },
                Some(&[byte]) if byte.is_ascii_alphabetic() || b"@[\\]^_".contains(&byte) => Ok(byte & 0x1f),
                Some(_) => Err(wrong()),
            }
        };
        let sequence = text.split(',').map(key).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { text: text.to_owned(), sequence, typed: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is passed on of each input, and whether that ended it.
    fn check(keys: &str, inputs: &[&[u8]], expected: &[(&[u8], bool)]) {
        let mut keys: DetachKeys = keys.parse().unwrap();
        let taken: Vec<(Vec<u8>, bool)> = inputs.iter().map(|input| keys.take(input)).collect();
        let taken: Vec<(&[u8], bool)> =
            taken.iter().map(|(bytes, leaves)| (bytes.as_slice(), *leaves)).collect();
        assert_eq!(taken, expected);
    }

    #[test]
    fn the_sequence_is_not_passed_on_and_what_only_begins_like_it_is() {
        let usual = "ctrl-p,ctrl-q";
        check(usual, &[b"ls\n\x10\x11rest"], &[(b"ls\n", true)]);
        check(usual, &[b"\x10", b"\x11"], &[(b"", false), (b"", true)]);
        check(usual, &[b"\x10", b"x"], &[(b"", false), (b"\x10x", false)]);
        check(usual, &[b"\x10\x10\x11"], &[(b"\x10", true)]);
        check(usual, &[b"\x11\x10"], &[(b"\x11", false)]);
        check("ctrl-@,a,ctrl-\\", &[b"\0a\x1c"], &[(b"", true)]);
        check("x", &[b"abcx"], &[(b"abc", true)]);
    }

    #[test]
    fn what_is_no_key_is_said() {
        for wrong in ["", "ctrl-", "ctrl-1", "ab", "ctrl-p,", "ctrl-p q"] {
            assert!(wrong.parse::<DetachKeys>().is_err(), "{wrong}");
        }
    }
}
