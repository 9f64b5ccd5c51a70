//! A port number, and an inclusive interval of them.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

/// A TCP port that can be asked for by number: 1–65535. Port 0 means "any" to the kernel and is not one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(NonZeroU16);

impl Port {
    /// The lowest port.
    pub const MIN: Self = Self(NonZeroU16::MIN);
    /// The highest port.
    pub const MAX: Self = Self(NonZeroU16::MAX);

    /// The port of that number; none for 0.
    pub const fn new(number: u16) -> Option<Self> {
        match NonZeroU16::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number, 1–65535.
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An inclusive interval of ports, written `8000-9000`; a single `8000` is a range of one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PortRange {
    low: Port,
    high: Port,
}

/// Why a text is not a [`PortRange`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PortRangeError {
    /// Nothing, or only white space.
    #[error("the range is empty; write it like 8000-9000")]
    Empty,
    /// One side of the `-` is missing.
    #[error("`{text}` lacks its {side} port; write it like 8000-9000")]
    MissingEnd {
        /// What was given.
        text: String,
        /// `first` or `last`.
        side: &'static str,
    },
    /// More than one `-`.
    #[error("`{text}` has more than one `-`; a range has a first and a last port, like 8000-9000")]
    TooManyParts {
        /// What was given.
        text: String,
    },
    /// A side that is not written in decimal digits alone.
    #[error("`{part}` is not a port number; ports are whole numbers from 1 to 65535")]
    NotANumber {
        /// The side that is wrong.
        part: String,
    },
    /// A number outside 1–65535.
    #[error("port {part} is out of bounds; ports go from 1 to 65535")]
    OutOfBounds {
        /// The side that is wrong.
        part: String,
    },
    /// The first port lies above the last.
    #[error("the range {low}-{high} runs backwards; did you mean {high}-{low}?")]
    Backwards {
        /// The first port given.
        low: Port,
        /// The last port given.
        high: Port,
    },
}

impl PortRange {
    /// The range from `low` to `high`, both included.
    ///
    /// # Errors
    /// [`PortRangeError::Backwards`] if `low` lies above `high`.
    pub fn new(low: Port, high: Port) -> Result<Self, PortRangeError> {
        if low > high {
            return Err(PortRangeError::Backwards { low, high });
        }
        Ok(Self { low, high })
    }

    /// The range of one port.
    pub const fn single(port: Port) -> Self {
        Self { low: port, high: port }
    }

    /// The lowest port in it.
    pub const fn low(self) -> Port {
        self.low
    }

    /// The highest port in it.
    pub const fn high(self) -> Port {
        self.high
    }

    /// How many ports it holds: 1–65535.
    pub const fn size(self) -> usize {
        (self.high.get() - self.low.get()) as usize + 1
    }

    /// Whether `port` lies in it.
    pub fn contains(self, port: Port) -> bool {
        self.low <= port && port <= self.high
    }

    /// Whether the two have a port in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.low <= other.high && other.low <= self.high
    }

    /// Its ports, lowest first.
    pub fn ports(self) -> impl DoubleEndedIterator<Item = Port> {
        (self.low.get()..=self.high.get()).filter_map(Port::new)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.low == self.high {
            return self.low.fmt(f);
        }
        write!(f, "{}-{}", self.low, self.high)
    }
}

impl FromStr for PortRange {
    type Err = PortRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.is_empty() {
            return Err(PortRangeError::Empty);
        }
        let parts: Vec<&str> = text.split('-').map(str::trim).collect();
        match parts[..] {
            [single] => Ok(Self::single(parse_port(single)?)),
            ["", _] => Err(PortRangeError::MissingEnd { text: text.to_owned(), side: "first" }),
            [_, ""] => Err(PortRangeError::MissingEnd { text: text.to_owned(), side: "last" }),
            [low, high] => Self::new(parse_port(low)?, parse_port(high)?),
            _ => Err(PortRangeError::TooManyParts { text: text.to_owned() }),
        }
    }
}

fn parse_port(part: &str) -> Result<Port, PortRangeError> {
    if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(PortRangeError::NotANumber { part: part.to_owned() });
    }
    part.parse().ok().and_then(Port::new).ok_or_else(|| PortRangeError::OutOfBounds { part: part.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let shown = match text.parse::<PortRange>() {
            Ok(range) => format!("{range} holds {}", range.size()),
            Err(error) => error.to_string(),
        };
        assert_eq!(shown, expected, "parsing {text:?}");
    }

    #[test]
    fn right_forms() {
        check("8000-9000", "8000-9000 holds 1001");
        check(" 8000 - 9000 ", "8000-9000 holds 1001");
        check("8000", "8000 holds 1");
        check("8000-8000", "8000 holds 1");
        check("1-65535", "1-65535 holds 65535");
    }

    #[test]
    fn each_wrong_form_has_its_own_error() {
        check("", "the range is empty; write it like 8000-9000");
        check("8000-", "`8000-` lacks its last port; write it like 8000-9000");
        check("-9000", "`-9000` lacks its first port; write it like 8000-9000");
        check("1-2-3", "`1-2-3` has more than one `-`; a range has a first and a last port, like 8000-9000");
        check("eight", "`eight` is not a port number; ports are whole numbers from 1 to 65535");
        check("+80", "`+80` is not a port number; ports are whole numbers from 1 to 65535");
        check("8000-90x", "`90x` is not a port number; ports are whole numbers from 1 to 65535");
        check("0-10", "port 0 is out of bounds; ports go from 1 to 65535");
        check("8000-65536", "port 65536 is out of bounds; ports go from 1 to 65535");
        check("99999999999999", "port 99999999999999 is out of bounds; ports go from 1 to 65535");
        check("9000-8000", "the range 9000-8000 runs backwards; did you mean 8000-9000?");
    }

    #[test]
    fn membership_and_overlap() {
        let range: PortRange = "8000-8003".parse().unwrap();
        let ports: Vec<u16> = range.ports().map(Port::get).collect();
        assert_eq!(ports, [8000, 8001, 8002, 8003]);
        assert!(range.contains(Port::new(8003).unwrap()) && !range.contains(Port::new(8004).unwrap()));
        assert!(range.overlaps("8003-8005".parse().unwrap()) && !range.overlaps("8004".parse().unwrap()));
    }
}
