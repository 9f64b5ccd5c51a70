//! What an engine's refusal means.
//!
//! The API has no codes for its failures: the same status stands for a port that someone else has, a command that is not
//! there and a full disk. So the sentence decides. The sentences in the tests are real ones, of Docker 1.12 to 29, Docker
//! Desktop, rootless Docker and Podman 2 to 5; a new wording is added there first.
//!
//! Two mistakes would be expensive and are ruled out here: taking a name that is in use for a port that is (it would
//! block a free port), and taking any "not found" for the container's absence (it would free ports that are held).

use crate::ErrorKind;

/// The default of `net.ipv4.ip_unprivileged_port_start`, see ip(7).
const FIRST_UNPRIVILEGED: u16 = 1024;

/// What a refusal means, and the engine's own sentence without what helps nobody.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Refusal {
    pub(crate) kind: ErrorKind,
    pub(crate) sentence: String,
}

/// Reads the engine's `message`, sent with the HTTP `status` or in the middle of an answer.
pub(crate) fn classify(status: Option<u16>, message: &str) -> Refusal {
    let lower = message.to_lowercase();
    let kind = kind_by_sentence(&lower).unwrap_or(match status {
        Some(400) => ErrorKind::Invalid,
        Some(501) => ErrorKind::Unsupported,
        // A proxy in front of the engine, such as Docker Desktop's while the engine starts.
        Some(502..=504) => ErrorKind::Unreachable,
        _ => ErrorKind::Other,
    });
    let sentence = trimmed(message);
    let sentence = match (sentence.is_empty(), status) {
        (false, _) => sentence,
        (true, Some(status)) => format!("the engine answered with status {status} and no reason"),
        (true, None) => "the engine gave no reason".to_owned(),
    };
    Refusal { kind, sentence }
}

fn kind_by_sentence(lower: &str) -> Option<ErrorKind> {
    let has = |needle: &str| lower.contains(needle);
    let any = |needles: &[&str]| needles.iter().any(|needle| lower.contains(needle));

    if has("already in use") && any(&["container name", "name is already in use"]) {
        return Some(ErrorKind::NameTaken);
    }
    if any(&["no such container", "no container with name or id"]) {
        return Some(ErrorKind::NotFound);
    }
    if any(&["is not running", "container state improper", "is paused, unpause"])
        && !has("cannot join network")
    {
        return Some(ErrorKind::NotRunning);
    }
    if has("cannot assign requested address") {
        return Some(ErrorKind::Invalid);
    }
    if is_about_a_port(lower) {
        let port = refused_port(lower);
        // A rootless engine refuses these whoever holds them.
        let is_privileged = has("privileged port")
            || has("permission denied") && port.is_some_and(|port| port < FIRST_UNPRIVILEGED);
        return Some(if is_privileged { ErrorKind::Forbidden } else { ErrorKind::PortRefused { port } });
    }
    if any(&["no such image", "image not known", "pull access denied", "manifest unknown"]) {
        return Some(ErrorKind::Image);
    }
    let is_about_a_mount =
        ["invalid mount config", "bind source path", "statfs ", "error mounting", "mounts denied"];
    if any(&is_about_a_mount)
        || any(&["chdir to cwd", "working directory", "no such network", "unable to find network"])
    {
        return Some(ErrorKind::Invalid);
    }
    if has("network") && has("not found") && !has("exec") {
        return Some(ErrorKind::Invalid);
    }
    is_about_the_command(lower).then_some(ErrorKind::Command)
}

fn is_about_a_port(lower: &str) -> bool {
    let has = |needle: &str| lower.contains(needle);
    // Docker's own chains in the packet filter are gone: every port would be refused alike.
    if has("iptables") || has("nftables") {
        return false;
    }
    let says_so = [
        "port is already allocated",
        "ports are not available",
        "cannot listen on the tcp port",
        "cannot expose privileged port",
        "failed to bind port",
        "failed to bind any port",
        "failed to bind host port",
        "failure eaddrinuse",
        "portmanager.addport()",
        "rootlessport",
        "proxy already running",
    ];
    let bind_failed =
        ["address already in use", "bind: permission denied", "only one usage of each socket address"];
    says_so.iter().any(|needle| has(needle))
        || bind_failed.iter().any(|needle| has(needle))
            && ["listen tcp", "bind", "port"].iter().any(|needle| has(needle))
}

/// The port of the host that the refusal names.
fn refused_port(lower: &str) -> Option<u16> {
    // What stands before the host's address or port, the most telling first: a sentence may name the container's as well.
    const BEFORE: [&str; 12] = [
        "exposing port tcp ",
        "failed to bind host port for ",
        "failed to bind host port ",
        "cannot expose privileged port ",
        "failed to bind port ",
        "option '-t ",
        "any port for '-t ",
        "bind for ",
        "listen tcp4 ",
        "listen tcp6 ",
        "listen tcp ",
        "listen udp ",
    ];
    BEFORE.iter().find_map(|before| {
        let (_, rest) = lower.split_once(before)?;
        leading_port(rest)
    })
}

/// The port at the start of `8000…`, `:8000…`, `0.0.0.0:8000…`, `[::]:8000…` and `:::8000…`.
fn leading_port(text: &str) -> Option<u16> {
    let address = text.split(|character: char| character.is_whitespace() || character == ',').next()?;
    let after_host = if let Some(bracketed) = address.strip_prefix('[') {
        bracketed.split_once("]:")?.1
    } else if let Some(rest) = address.strip_prefix(":::") {
        rest
    } else if let Some((host, rest)) = address.split_once(':').filter(|(host, _)| !is_number(host)) {
        // An address of version 6 without brackets ends with the port.
        if host.is_empty() || host.contains('.') { rest } else { address.rsplit_once(':')?.1 }
    } else {
        address
    };
    let digits = after_host.bytes().take_while(u8::is_ascii_digit).count();
    after_host[..digits].parse().ok().filter(|port| *port != 0)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.split('-').all(|part| part.bytes().all(|byte| byte.is_ascii_digit()))
}

fn is_about_the_command(lower: &str) -> bool {
    let has = |needle: &str| lower.contains(needle);
    if has("executable file") && has("not found") || has("no command") || has("exec format error") {
        return true;
    }
    // runc quotes the command behind `exec:`; crun calls it `executable`, or leaves the verdict to Podman.
    let is_exec =
        has("exec: ") || has("exec user process") || has("executable") || has("oci permission denied");
    let reasons = ["no such file or directory", "permission denied", "is a directory", "not a directory"];
    is_exec && reasons.iter().any(|reason| has(reason))
}

/// The sentence without the names of the layers that passed it on, and without the hash of the endpoint.
fn trimmed(message: &str) -> String {
    const LAYERS: [&str; 13] = [
        "Error response from daemon: ",
        "failed to set up container networking: ",
        "Error starting userland proxy: ",
        "error while calling PortManager.AddPort(): ",
        "error while calling RootlessKit PortManager.AddPort(): ",
        "failed to create task for container: ",
        "failed to create shim task: ",
        "failed to create shim: ",
        "OCI runtime create failed: ",
        "OCI runtime exec failed: ",
        "exec failed: ",
        "runc create failed: ",
        "unable to start container process: ",
    ];
    let mut sentence = message.trim();
    loop {
        let before = sentence;
        for layer in LAYERS {
            sentence = sentence.strip_prefix(layer).unwrap_or(sentence);
        }
        sentence = without_endpoint(sentence);
        if sentence == before {
            break;
        }
    }
    let sentence = sentence.trim_end_matches(['.', '\n']);
    let sentence = sentence.strip_suffix(": unknown").unwrap_or(sentence);
    let mut characters = sentence.chars();
    match (characters.next(), characters.next()) {
        (Some(first), Some(second)) if !second.is_uppercase() => {
            first.to_lowercase().chain(sentence[first.len_utf8()..].chars()).collect()
        }
        _ => sentence.to_owned(),
    }
}

fn without_endpoint(sentence: &str) -> &str {
    sentence
        .strip_prefix("driver failed programming external connectivity on endpoint ")
        .and_then(|rest| rest.split_once("): "))
        .map_or(sentence, |(_, reason)| reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "d5bda004c9be51ea36bfa876e0bd4f9bb118c85d9bba9bc05e5dd4546c409b91";

    fn kind(status: u16, message: &str) -> ErrorKind {
        classify(Some(status), message).kind
    }

    #[test]
    fn refused_ports() {
        let endpoint = format!("driver failed programming external connectivity on endpoint web ({HASH}): ");
        for (port, message) in [
            (Some(9980), format!("{endpoint}Bind for 127.0.0.1:9980 failed: port is already allocated")),
            (Some(8000), format!("{endpoint}Bind for :::8000 failed: port is already allocated")),
            (Some(80), format!("{endpoint}Error starting userland proxy: listen tcp4 0.0.0.0:80: bind: address already in use")),
            (Some(80), format!("{endpoint}Error starting userland proxy: listen tcp6 [::]:80: bind: address already in use")),
            (Some(80), format!("{endpoint}Error starting userland proxy: Bind for 0.0.0.0:80: unexpected error (Failure EADDRINUSE)")),
            (Some(9095), format!("{endpoint}Error starting userland proxy: listen tcp 127.0.0.1:9095: bind: Only one usage of each socket address (protocol/network address/port) is normally permitted.")),
            (Some(7148), format!("failed to set up container networking: {endpoint}failed to bind host port for 0.0.0.0:7148:172.18.0.2:7148/tcp: address already in use")),
            (Some(7149), format!("failed to set up container networking: {endpoint}failed to bind host port for [::]:7149:[fd00::2]:80/tcp: address already in use")),
            (Some(53), format!("failed to set up container networking: {endpoint}failed to bind host port 0.0.0.0:53/tcp: address already in use")),
            (None, format!("{endpoint}Error starting userland proxy: error while calling RootlessKit PortManager.AddPort(): conflict with ID 3")),
            (Some(8000), "Ports are not available: exposing port TCP 0.0.0.0:8000 -> 0.0.0.0:0: listen tcp 0.0.0.0:8000: bind: Only one usage of each socket address (protocol/network address/port) is normally permitted.".into()),
            (Some(8001), "Ports are not available: exposing port TCP 127.0.0.1:8001 -> 127.0.0.1:0: listen tcp 127.0.0.1:8001: bind: address already in use".into()),
            (Some(50070), "Ports are not available: listen tcp 0.0.0.0:50070: bind: An attempt was made to access a socket in a way forbidden by its access permissions.".into()),
            (Some(11000), "cannot listen on the TCP port: listen tcp4 :11000: bind: address already in use".into()),
            (Some(8080), "error starting container f8433cc4: cannot listen on the TCP port: listen tcp4 0.0.0.0:8080: bind: address already in use".into()),
            (Some(54322), "rootlessport listen tcp 127.0.0.1:54322: bind: address already in use".into()),
            (Some(9080), "failed to expose ports via rootlessport: \"listen tcp 0.0.0.0:9080: bind: address already in use\\n\"".into()),
            (Some(54648), "pasta failed with exit code 1:\nFailed to bind port 54648 (Address already in use) for option '-t 54648-54648:8000-8000'".into()),
            (Some(5000), "pasta failed with exit code 1:\nFailed to bind any port for '-t 5000-5000:5000-5000', exiting".into()),
            (None, "something went wrong with the request: \"proxy already running\\n\"".into()),
        ] {
            assert_eq!(kind(500, &message), ErrorKind::PortRefused { port }, "{message}");
        }
    }

    #[test]
    fn what_looks_like_a_refused_port_but_is_none() {
        for (status, expected, message) in [
            (
                500,
                ErrorKind::Forbidden,
                "driver failed programming external connectivity on endpoint web (9f): Error starting userland proxy: error while calling PortManager.AddPort(): cannot expose privileged port 443, you can add 'net.ipv4.ip_unprivileged_port_start=443' to /etc/sysctl.conf (currently 1024), or choose a larger port number (>= 1024): listen tcp4 192.0.2.1:443: bind: permission denied.",
            ),
            (
                500,
                ErrorKind::Forbidden,
                "rootlessport cannot expose privileged port 80, you can add 'net.ipv4.ip_unprivileged_port_start=80' to /etc/sysctl.conf (currently 1024), or choose a larger port number (>= 1024): listen tcp 0.0.0.0:80: bind: permission denied",
            ),
            (500, ErrorKind::Forbidden, "rootlessport listen tcp 0.0.0.0:80: bind: permission denied"),
            (
                409,
                ErrorKind::NameTaken,
                "Conflict. The container name \"/web-8000\" is already in use by container \"0a1b2c\". You have to remove (or rename) that container to be able to reuse that name.",
            ),
            (
                500,
                ErrorKind::NameTaken,
                "creating container storage: the container name \"web\" is already in use by 0a1b2c. You have to remove that container to be able to reuse that name: that name is already in use",
            ),
            (
                500,
                ErrorKind::Other,
                "driver failed programming external connectivity on endpoint web (9f):  (iptables failed: iptables --wait -t nat -A DOCKER -p tcp -d 0/0 --dport 8000 -j DNAT --to-destination 172.17.0.2:8000 ! -i docker0: iptables: No chain/target/match by that name.",
            ),
            (
                500,
                ErrorKind::Invalid,
                "driver failed programming external connectivity on endpoint bind (46ab): Error starting userland proxy: listen tcp 172.17.42.1:10000: bind: cannot assign requested address.",
            ),
        ] {
            assert_eq!(kind(status, message), expected, "{message}");
        }
    }

    #[test]
    fn commands_that_cannot_be_run() {
        for message in [
            "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: exec: \"nonexistent\": executable file not found in $PATH: unknown",
            "OCI runtime create failed: container_linux.go:348: starting container process caused \"exec: \\\"/bin/sh\\\": stat /bin/sh: no such file or directory\": unknown",
            "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: error during container init: exec: \"/etc/passwd\": permission denied: unknown",
            "runc: runc create failed: unable to start container process: error during container init: exec: \"/etc\": is a directory: OCI runtime attempted to invoke a command that was not found",
            "crun: executable file `nonexistent` not found in $PATH: No such file or directory: OCI runtime attempted to invoke a command that was not found",
            "crun: open executable: Permission denied: OCI permission denied",
            "OCI runtime exec failed: exec failed: unable to start container process: exec: \"bash\": executable file not found in $PATH: unknown",
            "No command specified",
            "no command or entrypoint provided, and no CMD or ENTRYPOINT from image",
        ] {
            assert_eq!(kind(400, message), ErrorKind::Command, "{message}");
        }
        let of_the_cgroup = "crun: open /sys/fs/cgroup/machine.slice/libpod-35ee.scope/container/cgroup.freeze: No such file or directory: OCI runtime attempted to invoke a command that was not found";
        assert_eq!(kind(500, of_the_cgroup), ErrorKind::Other);
    }

    #[test]
    fn the_rest() {
        for (status, expected, message) in [
            (404, ErrorKind::NotFound, "No such container: web"),
            (404, ErrorKind::NotFound, "no container with name or ID \"web\" found: no such container"),
            (404, ErrorKind::Other, "404 page not found"),
            (404, ErrorKind::Image, "No such image: nothing:latest"),
            (404, ErrorKind::Image, "nothing:latest: image not known"),
            (
                404,
                ErrorKind::Image,
                "pull access denied for nothing, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
            ),
            (404, ErrorKind::Invalid, "network nowhere not found"),
            (
                400,
                ErrorKind::Invalid,
                "invalid mount config for type \"bind\": bind source path does not exist: /nowhere",
            ),
            (500, ErrorKind::Invalid, "statfs /nowhere: no such file or directory"),
            (
                400,
                ErrorKind::Invalid,
                "OCI runtime exec failed: exec failed: unable to start container process: chdir to cwd (\"/nowhere\") set in config.json failed: no such file or directory: unknown",
            ),
            (409, ErrorKind::NotRunning, "Container 0a1b2c is not running"),
            (
                409,
                ErrorKind::NotRunning,
                "can only create exec sessions on running containers: container state improper",
            ),
            (409, ErrorKind::NotRunning, "Container 0a1b2c is paused, unpause the container before exec"),
            (501, ErrorKind::Unsupported, "configured logging driver does not support reading"),
            (503, ErrorKind::Unreachable, ""),
            (500, ErrorKind::Other, "write /var/lib/docker/tmp: no space left on device"),
        ] {
            assert_eq!(kind(status, message), expected, "{message}");
        }
    }

    #[test]
    fn sentences() {
        let check =
            |message: &str, expected: &str| assert_eq!(classify(Some(500), message).sentence, expected);
        check(
            &format!(
                "failed to set up container networking: driver failed programming external connectivity on endpoint web ({HASH}): failed to bind host port 0.0.0.0:53/tcp: address already in use"
            ),
            "failed to bind host port 0.0.0.0:53/tcp: address already in use",
        );
        check(
            &format!(
                "driver failed programming external connectivity on endpoint web ({HASH}): Bind for 0.0.0.0:8000 failed: port is already allocated"
            ),
            "bind for 0.0.0.0:8000 failed: port is already allocated",
        );
        check(
            "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: exec: \"x\": executable file not found in $PATH: unknown",
            "exec: \"x\": executable file not found in $PATH",
        );
        check("No such image: x:latest", "no such image: x:latest");
        check(
            "OCI runtime exec failed: exec failed: unable to start container process: exec: \"bash\": executable file not found in $PATH: unknown\r\n",
            "exec: \"bash\": executable file not found in $PATH",
        );
        check("OCI permission denied", "OCI permission denied");
        check("", "the engine answered with status 500 and no reason");
    }
}
