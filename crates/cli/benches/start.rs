//! What `berthold start` costs over the engine itself: `berthold start` and `docker run -d -p …` of the same container in
//! turn, 20 pairs, and the median of the ratios. The machine's speed cancels out in each pair.
//!
//! `cargo bench -p cli --bench start`; `PAIRS=5` for fewer. Needs Docker and the tests' image (BERTHOLD_TEST_IMAGE).

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its figures")]

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const BERTHOLD: &str = env!("CARGO_BIN_EXE_berthold");

fn main() {
    let pairs: usize = std::env::var("PAIRS").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    let image =
        std::env::var("BERTHOLD_TEST_IMAGE").unwrap_or_else(|_| "localhost/berthold-test:1".to_owned());
    if !run(Command::new("docker").args(["image", "inspect", &image])).0 {
        println!("not measured: Docker does not answer, or has no image {image}");
        return;
    }
    let home = tempfile::tempdir().expect("a scratch home can be made");
    let settings = "server: { broker: { listen: none, port_pool: { range: \"17000-17039\" } } }\n";
    std::fs::write(home.path().join("settings.yaml"), settings).expect("the scratch home can be written to");
    let berthold = |arguments: &[&str]| {
        let mut command = Command::new(BERTHOLD);
        command.env("BERTHOLD_HOME", home.path()).args(arguments);
        command
    };
    let log =
        std::fs::File::create(home.path().join("broker.log")).expect("the scratch home can be written to");
    let broker =
        berthold(&["serve"]).stdout(Stdio::null()).stderr(log).spawn().expect("the broker can be started");
    let _broker = Ended(broker);
    while !run(&mut berthold(&["broker", "status"])).0 {
        std::thread::sleep(Duration::from_millis(50));
    }

    let (mut ours, mut engine, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    // The first pair warms both up and does not count.
    for pair in 0..=pairs {
        let start = || {
            run(&mut berthold(&[
                "start",
                "bench",
                "--runtime",
                "docker",
                "--image",
                &image,
                "--",
                "sleep",
                "1000",
            ]))
        };
        let docker = || {
            let publish = ["-p", "127.0.0.1:17050:17050", "-p", "127.0.0.1:17051:17051"];
            run(Command::new("docker")
                .args(["run", "-d", "--name", "berthold-bench"])
                .args(publish)
                .args([&image, "sleep", "1000"]))
        };
        // Who goes first alternates, so that neither always has the quieter half.
        let (a, b) = if pair % 2 == 0 {
            let a = start();
            (a, docker())
        } else {
            let b = docker();
            (start(), b)
        };
        run(&mut berthold(&["delete", "bench", "-t", "0s"]));
        run(Command::new("docker").args(["rm", "-f", "berthold-bench"]));
        assert!(a.0 && b.0, "a start failed: berthold {}, docker {}", a.0, b.0);
        if pair > 0 {
            ours.push(a.1.as_secs_f64());
            engine.push(b.1.as_secs_f64());
            ratios.push(a.1.as_secs_f64() / b.1.as_secs_f64());
        }
    }
    run(&mut berthold(&["broker", "stop"]));
    let [ours, engine, ratio] = [ours, engine, ratios].map(spread);
    println!("{pairs} pairs                min    median       max");
    println!("berthold start     {:>8.3} s {:>8.3} s {:>8.3} s", ours[0], ours[1], ours[2]);
    println!("docker run -d -p   {:>8.3} s {:>8.3} s {:>8.3} s", engine[0], engine[1], engine[2]);
    println!("ratio              {:>8.2}   {:>8.2}   {:>8.2}", ratio[0], ratio[1], ratio[2]);
}

/// Whether it succeeded, and how long it took as a whole process.
fn run(command: &mut Command) -> (bool, Duration) {
    let begun = Instant::now();
    let output = command.stdin(Stdio::null()).output();
    let took = begun.elapsed();
    match output {
        Ok(output) if output.status.success() => (true, took),
        Ok(output) => {
            eprintln!("{}", String::from_utf8_lossy(&output.stderr));
            (false, took)
        }
        Err(error) => {
            eprintln!("{error}");
            (false, took)
        }
    }
}

/// Minimum, median and maximum.
fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [values[0], values[values.len() / 2], values[values.len() - 1]]
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
