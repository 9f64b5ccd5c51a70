//! Pulling an image: one line for what the engine reports of every layer.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bollard::models::CreateImageInfo;

use crate::Progress;

/// How often at most the progress is reported.
const PACE: Duration = Duration::from_millis(200);

/// The image and the tag of `reference`, `latest` if it names neither tag nor digest.
pub(super) fn repository_and_tag(reference: &str) -> (&str, &str) {
    if reference.contains('@') {
        return (reference, "");
    }
    match reference.rsplit_once(':') {
        // A colon before the last slash belongs to the port of the registry.
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (reference, "latest"),
    }
}

/// Whether `reference` can stand in the path of a request; what else is wrong with it the engine knows better.
pub(super) fn is_reference(reference: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte);
    reference.bytes().all(plain) && reference.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// The bytes of all layers as far as they are known.
pub(super) struct PullProgress<'a> {
    image: &'a str,
    listener: &'a dyn Progress,
    /// How much of each layer has been downloaded, and of how much.
    layers: HashMap<String, (u64, u64)>,
    reported: Option<Instant>,
}

impl<'a> PullProgress<'a> {
    pub(super) fn new(image: &'a str, listener: &'a dyn Progress) -> Self {
        Self { image, listener, layers: HashMap::new(), reported: None }
    }

    /// Takes in what the engine says at `now`, and reports if it is time to.
    pub(super) fn take(&mut self, info: &CreateImageInfo, now: Instant) {
        self.add(info);
        if self.reported.is_some_and(|last| now.duration_since(last) < PACE) {
            return;
        }
        self.reported = Some(now);
        let (current, total) =
            self.layers.values().fold((0, 0), |sum, layer| (sum.0 + layer.0, sum.1 + layer.1));
        if total == 0 {
            self.listener.report(&format!("pulling {}", self.image), None, None);
            return;
        }
        let message = format!("pulling {}: {} of {} MB", self.image, megabytes(current), megabytes(total));
        self.listener.report(&message, Some(current), Some(total));
    }

    fn add(&mut self, info: &CreateImageInfo) {
        let (Some(layer), Some(status)) = (&info.id, &info.status) else { return };
        let detail = info.progress_detail.as_ref();
        let bytes = |count: Option<i64>| count.and_then(|count| u64::try_from(count).ok());
        match status.as_str() {
            // The bytes of "Extracting" are counted from the start again, so only downloads count.
            "Downloading" => {
                let total = bytes(detail.and_then(|detail| detail.total));
                let current = bytes(detail.and_then(|detail| detail.current)).unwrap_or(0);
                if let Some(total) = total {
                    self.layers.insert(layer.clone(), (current.min(total), total));
                }
            }
            "Download complete" | "Pull complete" | "Verifying Checksum" => {
                if let Some((current, total)) = self.layers.get_mut(layer) {
                    *current = *total;
                }
            }
            _ => {}
        }
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{}", bytes / 1_000_000, bytes % 1_000_000 / 100_000)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Lines(Mutex<Vec<String>>);

    impl Progress for Lines {
        fn report(&self, message: &str, current: Option<u64>, total: Option<u64>) {
            self.0.lock().unwrap().push(format!("{message} {current:?}/{total:?}"));
        }
    }

    #[test]
    fn references() {
        assert_eq!(repository_and_tag("node"), ("node", "latest"));
        assert_eq!(repository_and_tag("node:22"), ("node", "22"));
        assert_eq!(repository_and_tag("registry:5000/node"), ("registry:5000/node", "latest"));
        assert_eq!(repository_and_tag("registry:5000/node:22"), ("registry:5000/node", "22"));
        assert_eq!(repository_and_tag("node@sha256:0a"), ("node@sha256:0a", ""));
        for wrong in ["", "a b", "../containers", "node?x=1", "node#x", "a//b", "node%2f"] {
            assert!(!is_reference(wrong), "{wrong}");
        }
        assert!(is_reference("registry:5000/node_modules/a-b:1.2"));
    }

    #[test]
    fn layers_are_summed_and_reports_are_paced() {
        let lines = Lines::default();
        let mut progress = PullProgress::new("node:22", &lines);
        let start = Instant::now();
        let mut told = |after: u64, json: &str| {
            progress.take(&serde_json::from_str(json).unwrap(), start + Duration::from_millis(after));
        };
        told(0, r#"{"status":"Pulling from library/node","id":"22"}"#);
        told(50, r#"{"status":"Downloading","id":"a","progressDetail":{"current":1000000,"total":4000000}}"#);
        told(250, r#"{"status":"Downloading","id":"b","progressDetail":{"current":500000,"total":2000000}}"#);
        told(300, r#"{"status":"Downloading","id":"b","progressDetail":{"current":600000,"total":2000000}}"#);
        told(500, r#"{"status":"Download complete","id":"a"}"#);
        told(900, r#"{"status":"Extracting","id":"a","progressDetail":{"current":5,"total":4000000}}"#);
        assert_eq!(
            *lines.0.lock().unwrap(),
            [
                "pulling node:22 None/None",
                "pulling node:22: 1.5 of 6.0 MB Some(1500000)/Some(6000000)",
                "pulling node:22: 4.6 of 6.0 MB Some(4600000)/Some(6000000)",
                "pulling node:22: 4.6 of 6.0 MB Some(4600000)/Some(6000000)",
            ]
        );
    }
}
