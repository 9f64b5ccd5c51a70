//! The URLs of previews behind a domain of one's own: a host name made of an agent's name and a port's label.

use std::fmt;
use std::str::FromStr;

use url::Host;

use crate::{AgentKey, HostUrl, HostUrlError, Label, Name, Port};

/// What a DNS name is limited to (RFC 1035, section 2.3.4): 63 characters between two dots, and 253 in all.
const LONGEST_WORD: usize = 63;
const LONGEST_HOST: usize = 253;

/// The pattern of the URLs of previews, such as `https://{label}-{name}.preview.example.com`.
///
/// `{label}` stands for a port's label in small letters, `{name}` for the agent's name and `{project}` for its project. Without
/// `{project}`, `{name}` is the agent's name as runtimes have it: `shop--dev` for an agent of another project than `default`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PreviewUrl {
    is_https: bool,
    pieces: Vec<Piece>,
    /// A port other than the scheme's own.
    port: Option<Port>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Piece {
    /// In small letters.
    Text(String),
    Label,
    Name,
    Project,
}

/// Why a text is not a [`PreviewUrl`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PreviewUrlError {
    /// Neither http nor https, or more than a host and a port.
    #[error(transparent)]
    Url(HostUrlError),
    /// Its port is not a number from 1 to 65535.
    #[error("`{given}` has a port that is not a number from 1 to 65535")]
    Port {
        /// What was given.
        given: String,
    },
    /// A placeholder that there is not.
    #[error("`{given}` has {{{word}}}, but there are only {{label}}, {{name}} and {{project}}")]
    Unknown {
        /// What was given.
        given: String,
        /// What stands in the braces.
        word: String,
    },
    /// A brace that is not closed or not opened.
    #[error("`{given}` has a brace without its other")]
    Brace {
        /// What was given.
        given: String,
    },
    /// Not every port would have a URL of its own.
    #[error("`{given}` has {times} {{{word}}}, but needs one")]
    Times {
        /// What was given.
        given: String,
        /// `label`, `name` or `project`.
        word: &'static str,
        /// How often it stands there: `no` or `more than one`.
        times: &'static str,
    },
    /// From the host name alone it could not be told what is meant.
    #[error("`{given}` does not tell {one} from {other}: put {between} between them")]
    Ambiguous {
        /// What was given.
        given: String,
        /// A placeholder.
        one: &'static str,
        /// The one after it.
        other: &'static str,
        /// What has to stand between them.
        between: &'static str,
    },
    /// What stands before the domain is written otherwise in a host name.
    #[error("`{given}` has more than letters, digits and hyphens before its domain")]
    Letters {
        /// What was given.
        given: String,
    },
    /// It does not end with a domain: other names would be taken for previews.
    #[error("`{given}` does not end with a domain of its own, such as .preview.example.com")]
    Domain {
        /// What was given.
        given: String,
    },
}

impl PreviewUrl {
    /// The URL of a port of an agent; none where its host name would be none, or longer than DNS allows.
    pub fn at(&self, key: &AgentKey, label: Label) -> Option<String> {
        let has_project = self.pieces.contains(&Piece::Project);
        let mut host = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => host.push_str(text),
                Piece::Label => host.push_str(&label.to_string().to_lowercase()),
                Piece::Project => host.push_str(key.project.as_str()),
                Piece::Name if has_project || key.project == Name::default() => {
                    host.push_str(key.name.as_str());
                }
                Piece::Name => host.push_str(&format!("{}{SEPARATOR}{}", key.project, key.name)),
            }
        }
        let fits = host.len() <= LONGEST_HOST && host.split('.').all(|word| word.len() <= LONGEST_WORD);
        // Where a word begins with `xn--`, not everything may follow (RFC 5891, section 5.4).
        let is_host = || Host::parse(&host).is_ok_and(|parsed| parsed.to_string() == host);
        let port = self.port.map_or_else(String::new, |port| format!(":{port}"));
        (fits && is_host()).then(|| format!("{}://{host}{port}", self.scheme()))
    }

    /// Which ports of which agents `host`, a host name without a port, may stand for; none if it is no preview's. There is more than
    /// one only where a name has `--` in it, and then one agent of them at the most can be there.
    pub fn meant_by(&self, host: &str) -> Vec<(AgentKey, Label)> {
        let host = host.to_ascii_lowercase();
        let mut found = Vec::new();
        matches(&self.pieces, &host, Words::default(), &mut found);
        let has_project = self.pieces.contains(&Piece::Project);
        found.iter().flat_map(|words| words.meanings(has_project)).collect()
    }

    /// `https` or `http`.
    pub fn scheme(&self) -> &'static str {
        if self.is_https { "https" } else { "http" }
    }
}

/// What separates project and name where runtimes have them as one.
const SEPARATOR: &str = "--";

/// What stands in the places of a pattern.
#[derive(Clone, Copy, Default)]
struct Words<'a> {
    label: &'a str,
    name: &'a str,
    project: &'a str,
}

impl Words<'_> {
    fn meanings(&self, has_project: bool) -> Vec<(AgentKey, Label)> {
        let Ok(label) = self.label.to_uppercase().parse::<Label>() else { return Vec::new() };
        let key = |project: &str, name: &str| {
            Some((AgentKey::new(Name::new(project).ok()?, Name::new(name).ok()?), label))
        };
        if has_project {
            return key(self.project, self.name).into_iter().collect();
        }
        let default = Name::default();
        let splits = self.name.match_indices(SEPARATOR);
        let of_projects =
            splits.filter_map(|(at, _)| key(&self.name[..at], &self.name[at + SEPARATOR.len()..]));
        // An agent of the project `default` is never called by both.
        let of_projects = of_projects.filter(|(key, _)| key.project != default);
        key(default.as_str(), self.name).into_iter().chain(of_projects).collect()
    }
}

/// All ways in which `host` is of the pattern. Patterns are checked so that there are few.
fn matches<'a>(pieces: &[Piece], host: &'a str, words: Words<'a>, found: &mut Vec<Words<'a>>) {
    let Some((piece, rest)) = pieces.split_first() else {
        if host.is_empty() {
            found.push(words);
        }
        return;
    };
    let is_part = match piece {
        Piece::Text(text) => {
            if let Some(after) = host.strip_prefix(text.as_str()) {
                matches(rest, after, words, found);
            }
            return;
        }
        Piece::Label => |byte: u8| byte.is_ascii_alphabetic(),
        Piece::Name | Piece::Project => |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-',
    };
    let longest = host.bytes().take_while(|byte| is_part(*byte)).count();
    for length in 1..=longest {
        // What is counted is ASCII, so this is between characters.
        let (word, after) = host.split_at(length);
        let mut words = words;
        match piece {
            Piece::Label => words.label = word,
            Piece::Name => words.name = word,
            _ => words.project = word,
        }
        matches(rest, after, words, found);
    }
}

impl fmt::Display for PreviewUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme())?;
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => f.write_str(text)?,
                Piece::Label => f.write_str("{label}")?,
                Piece::Name => f.write_str("{name}")?,
                Piece::Project => f.write_str("{project}")?,
            }
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl FromStr for PreviewUrl {
    type Err = PreviewUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let given = || text.to_owned();
        let trimmed = text.trim().trim_end_matches('/');
        let (start, rest) = match trimmed.split_once("://") {
            Some((start, rest)) => (start, rest),
            None => ("", trimmed),
        };
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) => {
                // Rust reads `+80` as a number too.
                let port =
                    port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse().ok()).flatten();
                let port = port.and_then(Port::new);
                (host, Some(port.ok_or_else(|| PreviewUrlError::Port { given: given() })?))
            }
            None => (rest, None),
        };
        let mut pieces = pieces(&host.to_lowercase(), text)?;
        let domain = check(&pieces, text)?.to_owned();
        pieces.pop();
        let before: String = pieces
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => text.as_str(),
                _ => "x",
            })
            .collect();
        let scheme = if start.is_empty() { String::new() } else { format!("{start}://") };
        let host_url: HostUrl = format!("{scheme}{before}{domain}")
            .parse()
            .map_err(|error: HostUrlError| PreviewUrlError::Url(error.of_whole(text)))?;
        // Kept as browsers send it: `bücher.example` is `xn--bcher-kva.example` there.
        let host = host_url.host();
        let domain = host.strip_prefix(&before).filter(|domain| domain.starts_with('.'));
        let domain = domain.ok_or_else(|| PreviewUrlError::Letters { given: given() })?;
        // The URL parser drops control characters at the end, which may have been all of it.
        if domain.len() < 2 {
            return Err(PreviewUrlError::Domain { given: given() });
        }
        // It reads `%7B` as what that stands for.
        if domain.contains(['{', '}']) {
            return Err(PreviewUrlError::Brace { given: given() });
        }
        pieces.push(Piece::Text(domain.to_owned()));
        Ok(Self { is_https: host_url.is_https(), pieces, port })
    }
}

fn pieces(host: &str, text: &str) -> Result<Vec<Piece>, PreviewUrlError> {
    let (mut pieces, mut rest) = (Vec::new(), host);
    let brace = || PreviewUrlError::Brace { given: text.to_owned() };
    while let Some((before, after)) = rest.split_once('{') {
        let (word, after) = after.split_once('}').ok_or_else(brace)?;
        if before.contains('}') || word.contains('{') {
            return Err(brace());
        }
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        pieces.push(match word {
            "label" => Piece::Label,
            "name" => Piece::Name,
            "project" => Piece::Project,
            _ => return Err(PreviewUrlError::Unknown { given: text.to_owned(), word: word.to_owned() }),
        });
        rest = after;
    }
    if rest.contains('}') {
        return Err(brace());
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    Ok(pieces)
}

/// Sees to it that every port has a host name of its own, from which it can be told, and gives the domain with which all end.
fn check<'a>(pieces: &'a [Piece], text: &str) -> Result<&'a str, PreviewUrlError> {
    let given = || text.to_owned();
    for (piece, word, is_needed) in
        [(Piece::Label, "label", true), (Piece::Name, "name", true), (Piece::Project, "project", false)]
    {
        match pieces.iter().filter(|it| **it == piece).count() {
            0 if is_needed => return Err(PreviewUrlError::Times { given: given(), word, times: "no" }),
            0 | 1 => {}
            _ => return Err(PreviewUrlError::Times { given: given(), word, times: "more than one" }),
        }
    }
    let mut between = String::new();
    let mut dots_since_name = true;
    let mut before: Option<&Piece> = None;
    for piece in pieces {
        if let Piece::Text(text) = piece {
            between.push_str(text);
            dots_since_name |= text.contains('.');
            continue;
        }
        let ambiguous = |one: &Piece, between| PreviewUrlError::Ambiguous {
            given: given(),
            one: one.shown(),
            other: piece.shown(),
            between,
        };
        if let Some(before) = before {
            if between.is_empty() {
                return Err(ambiguous(before, "a dot"));
            }
            // Labels are letters alone, names have hyphens and letters in them.
            let is_clear = between.contains(|c: char| !c.is_ascii_alphabetic());
            if !is_clear {
                return Err(ambiguous(before, "a dot or a hyphen"));
            }
        }
        if matches!(piece, Piece::Name | Piece::Project) {
            if !dots_since_name {
                let other = if *piece == Piece::Name { &Piece::Project } else { &Piece::Name };
                return Err(ambiguous(other, "a dot"));
            }
            dots_since_name = false;
        }
        between.clear();
        before = Some(piece);
    }
    match pieces.last() {
        Some(Piece::Text(domain)) if domain.starts_with('.') && domain.len() > 1 => Ok(domain),
        _ => Err(PreviewUrlError::Domain { given: given() }),
    }
}

impl Piece {
    fn shown(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Label => "{label}",
            Self::Name => "{name}",
            Self::Project => "{project}",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> PreviewUrl {
        text.parse().unwrap()
    }

    fn at(pattern: &str, key: &str, label: &str) -> String {
        let url = self::pattern(pattern).at(&key.parse().unwrap(), label.parse().unwrap());
        url.unwrap_or_else(|| "none".to_owned())
    }

    fn meant(pattern: &str, host: &str) -> String {
        let meant = self::pattern(pattern).meant_by(host);
        meant.iter().map(|(key, label)| format!("{key} {label}")).collect::<Vec<_>>().join(", ")
    }

    const FLAT: &str = "https://{label}-{name}.preview.example.com/";
    const DEEP: &str = "http://{label}.{name}.{project}.box.example:8443";

    #[test]
    fn a_port_has_a_url() {
        assert_eq!(at(FLAT, "default/dev", "A"), "https://a-dev.preview.example.com");
        assert_eq!(at(FLAT, "shop/dev", "AB"), "https://ab-shop--dev.preview.example.com");
        assert_eq!(at(DEEP, "default/dev", "B"), "http://b.dev.default.box.example:8443");
        assert_eq!(pattern(FLAT).to_string(), "https://{label}-{name}.preview.example.com");
        assert_eq!(pattern(DEEP).to_string(), DEEP);
    }

    #[test]
    fn a_name_that_is_too_long_for_dns_has_none() {
        let name = "n".repeat(61);
        assert_eq!(
            at(FLAT, &format!("default/{name}"), "A"),
            format!("https://a-{name}.preview.example.com")
        );
        assert_eq!(at(FLAT, &format!("default/{name}"), "AA"), "none");
    }

    #[test]
    fn a_domain_is_kept_as_browsers_send_it() {
        let pattern = pattern("https://{label}-{name}.Bücher.example");
        assert_eq!(pattern.to_string(), "https://{label}-{name}.xn--bcher-kva.example");
        let url = pattern.at(&"default/dev".parse().unwrap(), "A".parse().unwrap()).unwrap();
        assert_eq!(url, "https://a-dev.xn--bcher-kva.example");
        assert_eq!(
            meant("https://{label}-{name}.Bücher.example", "a-dev.xn--bcher-kva.example"),
            "default/dev A"
        );
    }

    #[test]
    fn a_name_that_no_browser_takes_for_a_host_has_no_url() {
        assert_eq!(at("https://{name}.{label}.example.com", "default/xn--0", "A"), "none");
        assert_eq!(
            at("https://{label}-{name}.example.com", "default/xn--0", "A"),
            "https://a-xn--0.example.com"
        );
    }

    #[test]
    fn a_host_means_a_port() {
        assert_eq!(meant(FLAT, "a-dev.preview.example.com"), "default/dev A");
        assert_eq!(meant(FLAT, "A-Dev-2.Preview.Example.Com"), "default/dev-2 A");
        assert_eq!(meant(FLAT, "ab-shop--dev.preview.example.com"), "default/shop--dev AB, shop/dev AB");
        assert_eq!(meant(DEEP, "a.dev.shop.box.example"), "shop/dev A");
        assert_eq!(meant("https://{name}-{label}.example.com", "a-b-c.example.com"), "default/a-b C");
        for other in [
            "example.com",
            "preview.example.com",
            "abc-dev.preview.example.com",
            "a-dev.example.com",
            "a-é.preview.example.com",
        ] {
            assert_eq!(meant(FLAT, other), "", "{other}");
        }
    }

    #[test]
    fn what_is_shown_is_what_is_meant() {
        for text in
            [FLAT, DEEP, "https://{name}-{label}.example.com", "https://{project}.{label}-{name}.example.com"]
        {
            for (key, label) in
                [("default/a", "A"), ("shop/a-b", "ZZ"), ("default/x--y", "B"), ("a--b/c--d", "C")]
            {
                let (key, label): (AgentKey, Label) = (key.parse().unwrap(), label.parse().unwrap());
                let pattern = pattern(text);
                let url = pattern.at(&key, label).unwrap();
                let host = url.split_once("://").unwrap().1.split(':').next().unwrap();
                assert!(pattern.meant_by(host).contains(&(key, label)), "{text}: {url}");
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let said = |text: &str| text.parse::<PreviewUrl>().unwrap_err().to_string();
        insta::assert_snapshot!(said("{label}-{name}.example.com"), @"`{label}-{name}.example.com` does not start with http:// or https://");
        insta::assert_snapshot!(said("https://{label}.example.com"), @"`https://{label}.example.com` has no {name}, but needs one");
        insta::assert_snapshot!(said("https://{label}-{label}-{name}.example.com"), @"`https://{label}-{label}-{name}.example.com` has more than one {label}, but needs one");
        insta::assert_snapshot!(said("https://{port}-{name}.example.com"), @"`https://{port}-{name}.example.com` has {port}, but there are only {label}, {name} and {project}");
        insta::assert_snapshot!(said("https://{label}{name}.example.com"), @"`https://{label}{name}.example.com` does not tell {label} from {name}: put a dot between them");
        insta::assert_snapshot!(said("https://{label}x{name}.example.com"), @"`https://{label}x{name}.example.com` does not tell {label} from {name}: put a dot or a hyphen between them");
        insta::assert_snapshot!(said("https://{name}-{label}-{project}.example.com"), @"`https://{name}-{label}-{project}.example.com` does not tell {name} from {project}: put a dot between them");
        insta::assert_snapshot!(said("https://{label}-{name}"), @"`https://{label}-{name}` does not end with a domain of its own, such as .preview.example.com");
        insta::assert_snapshot!(said("https://{label-{name}.example.com"), @"`https://{label-{name}.example.com` has a brace without its other");
        insta::assert_snapshot!(said("https://{label}-{name}.example.com/app"), @"`https://{label}-{name}.example.com/app` has a path, but a host URL is http or https and a host, nothing more");
        assert_eq!(
            "https://{label}.{name}.a%7Bb".parse::<PreviewUrl>(),
            Err(PreviewUrlError::Brace { given: "https://{label}.{name}.a%7Bb".to_owned() })
        );
        assert!(said("https://{label}-{name}.example.com:+80").contains("not a number from 1 to 65535"));
        insta::assert_snapshot!(said("https://{label}-{name}.example.com:99999"), @"`https://{label}-{name}.example.com:99999` has a port that is not a number from 1 to 65535");
        insta::assert_snapshot!(said("https://{label}-{name}.\u{4}"), @"`https://{label}-{name}.\u{4}` does not end with a domain of its own, such as .preview.example.com");
        insta::assert_snapshot!(said("https:///{label}-{name}.example.com"), @"`https:///{label}-{name}.example.com` has no valid host: empty host");
        insta::assert_snapshot!(said("https://é{label}-{name}.example.com"), @"`https://é{label}-{name}.example.com` has more than letters, digits and hyphens before its domain");
        insta::assert_snapshot!(said("https://{label}-{name}.exa mple.com"), @"`https://{label}-{name}.exa mple.com` has no valid host: invalid international domain name");
    }
}
