//! Shows how far the start of an agent is, such as the pull of its image.
//!
//! On a terminal that is a bar which is drawn over; elsewhere a line now and then. Where the broker's events cannot be had, the
//! work goes on without.

use std::time::{Duration, Instant};

use api::{Client, ClientError, Event, Events};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use indicatif::{ProgressBar, ProgressStyle};
use pool::AgentKey;

use crate::output::Output;

/// How far apart the lines are where there is no terminal.
const BETWEEN_LINES: Duration = Duration::from_secs(3);

/// Awaits `work` on the agent, and meanwhile shows how far it is.
pub(crate) async fn shown_during<T>(
    work: impl Future<Output = Result<T, ClientError>>,
    client: &Client,
    key: &AgentKey,
    output: &Output,
) -> Result<T, ClientError> {
    // Asked for first, so that nothing is missed.
    let mut events = events(client, key).await;
    let mut display =
        if output.shows_progress() { Display::Bar(None) } else { Display::Lines(Lines::default()) };
    let mut work = std::pin::pin!(work);
    // Both branches are cancel-safe: the work is pinned outside, and the stream keeps what has come.
    let result = loop {
        tokio::select! {
            result = &mut work => break result,
            Some(step) = events.next() => display.show(&step, output),
        }
    };
    display.end();
    result
}

async fn events(client: &Client, key: &AgentKey) -> BoxStream<'static, Step> {
    let Ok(events) = client.events(&Events { agent: Some(key.to_string()) }).await else {
        return stream::pending().boxed();
    };
    let steps = events.filter_map(async |event| match event {
        Ok(Event::Progress { message, current, total, .. }) => Some(Step { message, current, total }),
        _ => None,
    });
    // An end of the events is not an end of the work.
    steps.chain(stream::pending()).boxed()
}

struct Step {
    message: String,
    current: Option<u64>,
    total: Option<u64>,
}

enum Display {
    Bar(Option<ProgressBar>),
    Lines(Lines),
}

#[derive(Default)]
struct Lines {
    last: Option<(Instant, String)>,
}

impl Display {
    fn show(&mut self, step: &Step, output: &Output) {
        match self {
            Self::Bar(bar) => {
                let bar = bar.get_or_insert_with(new_bar);
                match step.total {
                    Some(total) => {
                        bar.set_style(style("{spinner} {msg} {wide_bar:.cyan/blue} {bytes}/{total_bytes}"));
                        bar.set_length(total);
                        bar.set_position(step.current.unwrap_or(0));
                    }
                    None => bar.set_style(style("{spinner} {wide_msg}")),
                }
                bar.set_message(step.message.clone());
            }
            Self::Lines(lines) => {
                if let Some(line) = lines.line(step, Instant::now()) {
                    output.say(&line);
                }
            }
        }
    }

    fn end(self) {
        if let Self::Bar(Some(bar)) = self {
            bar.finish_and_clear();
        }
    }
}

impl Lines {
    /// The line to be written, if it is time for one.
    fn line(&mut self, step: &Step, now: Instant) -> Option<String> {
        let line = match (step.current, step.total) {
            (Some(current), Some(total)) if total > 0 => {
                format!("{} {}%", step.message, current.min(total).saturating_mul(100) / total)
            }
            _ => step.message.clone(),
        };
        let due = self
            .last
            .as_ref()
            .is_none_or(|(at, said)| now.duration_since(*at) >= BETWEEN_LINES && *said != line);
        due.then(|| {
            self.last = Some((now, line.clone()));
            line
        })
    }
}

fn new_bar() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is right")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_few_and_new() {
        let mut lines = Lines::default();
        let start = Instant::now();
        let mut line = |message: &str, current, seconds| {
            let step = Step { message: message.into(), current, total: Some(200) };
            lines.line(&step, start + Duration::from_secs(seconds))
        };
        assert_eq!(line("pulling node:22", None, 0), Some("pulling node:22".into()));
        assert_eq!(line("pulling node:22", Some(10), 2), None);
        assert_eq!(line("pulling node:22", Some(100), 3), Some("pulling node:22 50%".into()));
        assert_eq!(line("pulling node:22", Some(101), 9), None, "nothing new");
        assert_eq!(line("pulling node:22", Some(300), 10), Some("pulling node:22 100%".into()));
    }

    #[test]
    fn the_templates_of_the_bar_are_right() {
        let mut display = Display::Bar(None);
        let (output, _) = crate::output::captured::Captured::new(false);
        display.show(&Step { message: "m".into(), current: None, total: None }, &output);
        display.show(&Step { message: "m".into(), current: Some(1), total: Some(2) }, &output);
        display.end();
    }
}
