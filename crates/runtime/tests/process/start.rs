//! Creating, starting, looking and reading.

use std::os::unix::fs::PermissionsExt;

use futures_util::StreamExt;
use futures_util::future::join_all;
use runtime::process::Identity;
use runtime::{ErrorKind, LogRequest, Network, ObservedState, Publish, Runtime, Spec, Volume};
use rustix::process::{Pid, Signal, getpgid, getsid};

use crate::host::{Host, shell, spec, text};

pub(crate) async fn an_agent_runs_and_ends_with_its_code_and_output(host: &Host) {
    let publish = Publish { address: "127.0.0.1".parse().unwrap(), host: 8000, container: 8000 };
    let script = "echo out; echo err >&2; pwd; read line; exit 7";
    let spec = Spec {
        workdir: Some("/usr".into()),
        publish: vec![publish],
        ..shell(
            "dev",
            &format!("while ! test -e {}/go; do sleep 0.01; done; {script}", host.scratch().display()),
        )
    };
    let id = host.processes.create(&spec).await.unwrap().id;
    assert_eq!(host.state(&id).await, ObservedState::Created);
    host.processes.start(&id).await.unwrap();

    let running = host.processes.inspect("dev").await.unwrap().unwrap();
    assert_eq!((&*running.id, &*running.name, running.image), (&*id, "dev", None));
    assert_eq!(running.labels, spec.labels);
    assert_eq!(running.published, [publish]);
    assert!(matches!(running.state, ObservedState::Running { since: Some(_) }), "{:?}", running.state);
    assert_eq!(host.processes.list().await.unwrap(), host.processes.inspect(&id).await.unwrap().as_slice());

    std::fs::write(host.scratch().join("go"), "").unwrap();
    assert_eq!(host.ended(&id).await, (Some(7), None));
    assert_eq!(host.log(&id, None).await, "out\nerr\n/usr\n");
    assert_eq!(host.log(&id, Some(1)).await, "/usr\n");
}

pub(crate) async fn an_agent_that_a_signal_ended_has_its_code(host: &Host) {
    let id = host.start(&shell("dev", "kill -SEGV $$")).await;
    assert_eq!(host.ended(&id).await, (Some(139), Some("ended by signal 11".into())));
}

pub(crate) async fn an_agent_has_its_own_session_and_group(host: &Host) {
    host.start_ready("dev", "echo ready; exec sleep 1000").await;
    let (leader, shim) = (host.recorded("dev", "started.json"), host.recorded("dev", "shim.json"));
    assert!(leader.is_alive().unwrap() && shim.is_alive().unwrap());
    let pid = |identity: &Identity| Pid::from_raw(identity.pid().try_into().unwrap());
    assert_eq!(getsid(pid(&leader)).ok(), pid(&leader));
    assert_eq!(getpgid(pid(&leader)).ok(), pid(&leader));
    assert_eq!(getsid(pid(&shim)).ok(), pid(&shim));
    let directory = std::fs::read_link(format!("/proc/{}/cwd", shim.pid())).unwrap();
    assert_eq!(directory.to_str(), Some("/"));
    for process in [&leader, &shim] {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", process.pid())).unwrap();
        // The shim may just be closing one.
        for target in descriptors.flatten().flat_map(|descriptor| std::fs::read_link(descriptor.path())) {
            let target = target.to_str().unwrap();
            assert!(!target.starts_with("socket:"), "{target} was inherited");
        }
    }
}

pub(crate) async fn an_agent_has_a_clean_environment(host: &Host) {
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some(), "a variable that must not be passed on");
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let env = vec![variable("PORT", "1"), variable("PORT", "8000"), variable("HOME", "/nowhere")];
    let id = host.start(&Spec { env, ..spec("dev", &["env"]) }).await;
    assert_eq!(host.ended(&id).await.0, Some(0));
    let log = host.log(&id, None).await;
    assert!(log.contains("PORT=8000\n") && log.contains("HOME=/nowhere\n") && log.contains("PATH="), "{log}");
    let allowed = [
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
        "PORT",
        "BERTHOLD_PROCESS",
    ];
    for name in log.lines().filter_map(|line| Some(line.split_once('=')?.0)) {
        assert!(allowed.contains(&name) || name.starts_with("LC_"), "{name} was passed on");
    }
}

pub(crate) async fn a_command_that_cannot_be_run_is_told_apart(host: &Host) {
    let plain = host.scratch().join("plain");
    std::fs::write(&plain, "no program").unwrap();
    let cases = [
        ("no-such-command", ErrorKind::Command, 127, "command not found: no-such-command"),
        (plain.to_str().unwrap(), ErrorKind::Command, 126, "command is not executable: "),
    ];
    for (command, kind, code, detail) in cases {
        let id = host.processes.create(&spec("dev", &[command])).await.unwrap().id;
        let error = host.processes.start(&id).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.contains(detail), "{error}");
        let (found, why) = host.ended(&id).await;
        assert_eq!(found, Some(code));
        assert!(why.as_ref().is_some_and(|why| why.starts_with(detail)), "{why:?}");
        assert!(!host.recorded("dev", "shim.json").is_alive().unwrap());
        assert!(!host.recorded("dev", "started.json").is_alive().unwrap());
        host.processes.remove(&id).await.unwrap();
    }

    let workdir = host.scratch().join("soon-gone");
    std::fs::create_dir(&workdir).unwrap();
    let spec = Spec { workdir: Some(workdir.to_str().unwrap().into()), ..spec("dev", &["true"]) };
    let id = host.processes.create(&spec).await.unwrap().id;
    std::fs::remove_dir(&workdir).unwrap();
    assert_eq!(host.processes.start(&id).await.unwrap_err().kind, ErrorKind::Invalid);
}

pub(crate) async fn of_many_creations_of_one_name_one_wins(host: &Host) {
    let spec = spec("dev", &["true"]);
    let created = join_all((0..16).map(|_| host.processes.create(&spec))).await;
    let (won, lost): (Vec<_>, Vec<_>) = created.into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, 15));
    for error in lost.into_iter().map(Result::unwrap_err) {
        assert_eq!(error.kind, ErrorKind::NameTaken, "{error}");
    }
    assert_eq!(host.state("dev").await, ObservedState::Created);
    assert_eq!(std::fs::read_dir(host.directory()).unwrap().count(), 1, "the losers left something behind");
}

pub(crate) async fn of_many_starts_one_starts_it(host: &Host) {
    let id = host.processes.create(&shell("dev", "echo $$; exec sleep 1000")).await.unwrap().id;
    for started in join_all((0..8).map(|_| host.processes.start(&id))).await {
        started.unwrap();
    }
    host.processes.start(&id).await.unwrap();
    host.output_with(&id, "\n").await;
    host.processes.stop(&id, std::time::Duration::ZERO).await.unwrap();
    assert_eq!(host.log(&id, None).await.lines().count(), 1, "it was started more than once");
    let again = host.processes.start(&id).await.unwrap_err();
    assert!(again.message.contains("has run already"), "{again}");
}

pub(crate) async fn what_a_process_cannot_do_is_refused_by_name(host: &Host) {
    let volume = Volume { source: "/data".into(), target: "/data".into(), read_only: false };
    let fine = spec("dev", &["true"]);
    let cases = [
        (Spec { image: Some("node:22".into()), ..fine.clone() }, ErrorKind::Unsupported, "images"),
        (Spec { volumes: vec![volume], ..fine.clone() }, ErrorKind::Unsupported, "volumes"),
        (Spec { network: Network::None, ..fine.clone() }, ErrorKind::Unsupported, "network"),
        (Spec { network: Network::Named("blue".into()), ..fine.clone() }, ErrorKind::Unsupported, "blue"),
        (Spec { command: Vec::new(), ..fine.clone() }, ErrorKind::Invalid, "no command"),
        (Spec { workdir: Some("/no/such".into()), ..fine.clone() }, ErrorKind::Invalid, "/no/such"),
        (Spec { workdir: Some("relative".into()), ..fine.clone() }, ErrorKind::Invalid, "relative"),
        (Spec { env: vec![("A=B".into(), "C".into())], ..fine.clone() }, ErrorKind::Invalid, "A=B"),
        (Spec { name: "../escape".into(), ..fine.clone() }, ErrorKind::Invalid, "../escape"),
        (Spec { name: ".hidden".into(), ..fine.clone() }, ErrorKind::Invalid, ".hidden"),
    ];
    for (spec, kind, word) in cases {
        let error = host.processes.create(&spec).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.contains(word), "{error}");
    }
    assert_eq!(host.processes.list().await.unwrap(), []);
    assert_eq!(host.processes.inspect("../agents").await.unwrap(), None);
    host.processes.create(&Spec { network: Network::Host, ..fine }).await.unwrap();
}

pub(crate) async fn logs_are_followed_to_the_end(host: &Host) {
    let id = host
        .start_ready(
            "dev",
            "echo early; echo ready; trap 'echo late; exit' TERM; while :; do sleep 0.01; done",
        )
        .await;
    let request = LogRequest { tail: Some(1), follow: true };
    let mut followed = host.processes.logs(&id, &request).await.unwrap();
    let first = followed.next().await.unwrap().unwrap();
    assert_eq!(first, runtime::Output::Stdout("ready\n".into()));
    let leader = host.recorded("dev", "started.json");
    assert!(leader.signal(Signal::TERM).unwrap());
    assert_eq!(text(followed).await, "late\n");
    assert_eq!(text(host.processes.logs(&id, &request).await.unwrap()).await, "late\n");
    let none = host.processes.logs("other", &request).await.err().unwrap();
    assert_eq!(none.kind, ErrorKind::NotFound);
}

pub(crate) async fn a_listing_is_complete_or_fails(host: &Host) {
    assert_eq!(host.processes.list().await.unwrap(), []);
    for name in ["one", "two"] {
        host.processes.create(&spec(name, &["true"])).await.unwrap();
    }
    host.processes.create(&Spec { labels: [].into(), ..spec("foreign", &["true"]) }).await.unwrap();
    let names = || async {
        let mut names: Vec<_> = host.processes.list().await?.into_iter().map(|agent| agent.name).collect();
        names.sort();
        Ok::<_, runtime::RuntimeError>(names)
    };
    assert_eq!(names().await.unwrap(), ["one", "two"]);

    let two = host.file("two", "spec.json");
    let sound = std::fs::read(&two).unwrap();
    for file in ["spec.json", "started.json"] {
        let path = host.file("two", file);
        std::fs::write(&path, "{ damaged").unwrap();
        let error = names().await.unwrap_err();
        assert!(error.message.contains(path.to_str().unwrap()), "{error}");
        std::fs::remove_file(&path).unwrap();
        if file == "spec.json" {
            assert!(names().await.is_err(), "an agent without spec.json was passed over");
            std::fs::write(&two, &sound).unwrap();
        }
    }
    assert_eq!(names().await.unwrap(), ["one", "two"]);
    host.processes.remove("foreign").await.unwrap();
}

pub(crate) async fn a_folder_is_no_one_elses_business(host: &Host) {
    let id = host.start(&spec("dev", &["true"])).await;
    host.ended(&id).await;
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let folder = host.directory().join("dev");
    assert_eq!((mode(&host.directory()), mode(&folder)), (0o700, 0o700));
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(mode(&entry.path()), 0o600, "{}", entry.path().display());
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    let expected = ["exited.json", "lock", "log", "shim.json", "shim.log", "spec.json", "started.json"];
    assert_eq!(names, expected);
    assert_eq!(std::fs::read_to_string(folder.join("shim.log")).unwrap(), "");
}
