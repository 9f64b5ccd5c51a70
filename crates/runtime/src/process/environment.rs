//! The variables of an agent: few of the caller's, and its own.
//!
//! The caller's environment is not the agent's: a broker's own `PORT` or token would reach every agent.

use std::ffi::OsString;

/// What a command needs in order to find programs, its home, its language and its user's session.
const KEPT: [&str; 15] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "TERM",
    "XDG_RUNTIME_DIR",
    "SSH_AUTH_SOCK",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
];
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The kept ones of the caller's variables, then the agent's own; of one name the last wins.
pub(super) fn merged(
    caller: impl Iterator<Item = (OsString, OsString)>,
    own: &[(String, String)],
) -> Vec<(String, String)> {
    let is_kept = |name: &str| KEPT.contains(&name) || name.starts_with("LC_");
    let kept = caller.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let mut variables = vec![("PATH".to_owned(), DEFAULT_PATH.to_owned())];
    for (name, value) in kept.filter(|(name, _)| is_kept(name)).chain(own.iter().cloned()) {
        variables.retain(|(earlier, _)| *earlier != name);
        variables.push((name, value));
    }
    variables
}

/// The last value of the variable.
pub(super) fn value<'a>(variables: &'a [(String, String)], name: &str) -> Option<&'a str> {
    variables.iter().rev().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
}

/// Whether a system would take this as the name of a variable.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(caller: &[(&str, &str)], own: &[(&str, &str)], expected: &[(&str, &str)]) {
        let caller = caller.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        assert_eq!(merged(caller, &pairs(own)), pairs(expected));
    }

    #[test]
    fn only_what_a_command_needs_is_kept() {
        check(
            &[("PORT", "1"), ("PATH", "/bin"), ("LC_ALL", "C"), ("BERTHOLD_HOME", "/x"), ("LISTEN_FDS", "1")],
            &[("PORT", "2")],
            &[("PATH", "/bin"), ("LC_ALL", "C"), ("PORT", "2")],
        );
    }

    #[test]
    fn the_last_of_one_name_wins() {
        check(
            &[("HOME", "/a")],
            &[("HOME", "/b"), ("A", "1"), ("A", "2")],
            &[("PATH", DEFAULT_PATH), ("HOME", "/b"), ("A", "2")],
        );
    }
}
