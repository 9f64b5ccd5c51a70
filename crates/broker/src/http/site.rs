//! Under which names the broker answers.
//!
//! A page of any site can have its own name lead to 127.0.0.1 (DNS rebinding), and its requests then carry that name in `Host`. So
//! what a browser may do is done only under names that no one else can own: addresses, `localhost`, and that of `host_url`.

use std::net::IpAddr;

use crate::host;

/// Whether `host`, as the header has it, is a name of the broker itself; `further` is one more.
pub(super) fn is_own(host: &str, further: Option<&str>) -> bool {
    let name = host::name(host);
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    is("localhost") || name.parse::<IpAddr>().is_ok() || further.is_some_and(is)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_no_one_else_can_own() {
        for own in
            ["localhost", "LOCALHOST:9800", "127.0.0.1:9800", "[::1]:9800", "192.0.2.7", "box.example:80"]
        {
            assert!(is_own(own, Some("box.example")), "{own}");
        }
        for foreign in [
            "",
            "evil.example:9800",
            "a.dev.localhost:9800",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
        ] {
            assert!(!is_own(foreign, Some("box.example")), "{foreign}");
        }
        assert!(!is_own("box.example", None));
    }
}
