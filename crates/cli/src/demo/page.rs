//! What an agent of the demo tells of itself, as a page and as JSON.
//!
//! The page is whole in itself: nothing is loaded, and no script runs. All that comes from outside is escaped. Its colour
//! comes from the agent's name, so that two agents in two tabs are told apart at a glance.

use std::fmt::Write;
use std::time::{Duration, Instant};

use pool::environment::{AGENT_VARIABLE, PORT_PREFIX, URL_PREFIX};
use serde_json::{Map, json};

const STYLE: &str = include_str!("page.css");

/// A name of more letters is shown smaller.
const LONG_NAME: usize = 12;

/// What an agent was told, and what it knows of itself.
pub(super) struct Facts {
    project: String,
    name: String,
    ports: Vec<PortFact>,
    /// The variables that it was told all this with, as they are.
    variables: Vec<(String, String)>,
    host: String,
    process: u32,
    since: Instant,
}

/// A port of the agent.
pub(super) struct PortFact {
    label: String,
    /// The number.
    pub(super) number: u16,
    /// Where it is reached, if the agent was told that.
    url: Option<String>,
}

impl PortFact {
    fn url(&self) -> String {
        self.url.clone().unwrap_or_else(|| format!("http://localhost:{}", self.number))
    }
}

impl Facts {
    /// Reads them from the variables of an agent.
    pub(super) fn new(variables: impl Iterator<Item = (String, String)>, host: String, process: u32) -> Self {
        let told = |name: &str| {
            name == AGENT_VARIABLE || name.starts_with(PORT_PREFIX) || name.starts_with(URL_PREFIX)
        };
        let mut variables: Vec<_> = variables.filter(|(name, _)| told(name)).collect();
        // Labels are sorted as they are given out, Z before AA.
        variables.sort_by(|(one, _), (other, _)| (one.len(), one).cmp(&(other.len(), other)));
        let value =
            |wanted: &str| variables.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone());
        let ports = variables.iter().filter_map(|(name, number)| {
            let label = name.strip_prefix(PORT_PREFIX)?;
            Some(PortFact {
                label: label.to_owned(),
                number: number.parse().ok()?,
                url: value(&format!("{URL_PREFIX}{label}")),
            })
        });
        let ports = ports.collect();
        let agent = value(AGENT_VARIABLE).unwrap_or_else(|| "an agent without a name".to_owned());
        let (project, name) = agent.split_once('/').unwrap_or(("", &agent));
        let (project, name) = (project.to_owned(), name.to_owned());
        Self { project, name, ports, variables, host, process, since: Instant::now() }
    }

    /// The agent's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The ports in the order of their labels.
    pub(super) fn ports(&self) -> &[PortFact] {
        &self.ports
    }

    /// The page as it is served from `port`. Only a style with `nonce` is heeded by the browser.
    pub(super) fn page(&self, port: u16, nonce: &str) -> String {
        let (name, project, host) = (escaped(&self.name), escaped(&self.project), escaped(&self.host));
        let length = if self.name.chars().count() > LONG_NAME { " class=\"long\"" } else { "" };
        let cards: String = self.ports.iter().map(|it| card(it, it.number == port)).collect();
        let variables: String = self.variables.iter().map(|(name, value)| variable(name, value)).collect();
        let (hue, process, version) = (hue(&self.name), self.process, env!("CARGO_PKG_VERSION"));
        let (title, uptime) = (title(&name, port), uptime(self.since.elapsed()));
        format!(
            r##"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="description" content="The agent {name}, on its own port {port}">
<title>{title}</title>
<link rel="icon" href="data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Ccircle cx='8' cy='8' r='7' fill='hsl({hue} 55%25 45%25)'/%3E%3C/svg%3E">
<style nonce="{nonce}">
:root {{ --hue: {hue}; }}
{STYLE}</style>
</head>
<body>
<main>
<header>
<p class="over">An agent of the project {project}</p>
<h1{length}>{name}</h1>
<p class="lead">This page comes from the agent’s own web server, on port <b>{port}</b>. No other agent of its broker has that port, and the number is the same inside and outside.</p>
</header>
<section aria-labelledby="ports">
<h2 id="ports">Its ports</h2>
<ul class="ports">
{cards}</ul>
</section>
<section aria-labelledby="told">
<h2 id="told">What it was told</h2>
<pre tabindex="0" role="region" aria-labelledby="told">{variables}</pre>
</section>
<section aria-labelledby="place">
<h2 id="place">Where it runs</h2>
<dl class="facts">
<div><dt>Host name</dt><dd>{host}</dd></div>
<div><dt>Process</dt><dd>{process}</dd></div>
<div><dt>Up for</dt><dd>{uptime}</dd></div>
</dl>
</section>
</main>
<footer>
<svg viewBox="0 0 1200 120" preserveAspectRatio="none" aria-hidden="true"><path d="M0 46C150 12 300 12 450 40S750 78 900 46 1110 20 1200 40V120H0Z" opacity=".55"/><path d="M0 62C180 92 330 88 510 62S840 36 990 62 1140 84 1200 72V120H0Z"/></svg>
<p>Berthold {version} · the same as <a href="/api">JSON</a></p>
</footer>
</body>
</html>
"##
        )
    }

    /// The same for programs.
    pub(super) fn json(&self, port: u16) -> String {
        let by_label =
            |fact: &PortFact| (fact.label.clone(), json!({ "port": fact.number, "url": fact.url() }));
        let ports: Map<_, _> = self.ports.iter().map(by_label).collect();
        let document = json!({
            "project": self.project,
            "name": self.name,
            "served_from": port,
            "ports": ports,
            "host": self.host,
            "process": self.process,
            "up_for_s": self.since.elapsed().as_secs(),
        });
        format!("{document}\n")
    }
}

/// The title of the page that the agent `name` serves from `port`.
pub(super) fn title(name: &str, port: u16) -> String {
    format!("{name} · port {port}")
}

fn card(fact: &PortFact, is_here: bool) -> String {
    let (label, number, url) = (escaped(&fact.label), fact.number, escaped(&fact.url()));
    let (class, current, pill) = match is_here {
        true => (" class=\"here\"", " aria-current=\"page\"", "<span class=\"pill\">You are here</span>"),
        false => ("", "", ""),
    };
    format!(
        "<li{class}><p class=\"top\"><span>Port {label}</span>{pill}</p><b class=\"number\">{number}</b>\
         <a href=\"{url}/\"{current}>{url}</a></li>\n"
    )
}

fn variable(name: &str, value: &str) -> String {
    format!("<i>{}=</i>{}\n", escaped(name), escaped(value))
}

/// A hue in degrees, always the same for a name (FNV-1a, its upper bits spread over the circle).
fn hue(name: &str) -> u64 {
    let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    let mixed = name.bytes().fold(0x811c_9dc5, step);
    // Turned so far that the names of the demo get blue and red.
    (((u64::from(mixed) * 360) >> 32) + 150) % 360
}

fn uptime(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// The text with all that means something in HTML, in element and attribute alike, taken literally.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // Writing to a string cannot fail.
            control if control.is_control() => {
                write!(safe, "{}", control.escape_default()).unwrap_or_default()
            }
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The facts of an agent with three ports and a name that is not kind.
    pub(crate) fn facts() -> Facts {
        let variables = [
            ("AVAILABLE_LOCALHOST_PORT_AA", "8002"),
            ("AVAILABLE_LOCALHOST_PORT_B", "8001"),
            ("AVAILABLE_LOCALHOST_PORT_A", "8000"),
            ("AVAILABLE_LOCALHOST_PORT_C", "not a port"),
            ("AVAILABLE_LOCALHOST_URL_B", "http://203.0.113.7:8001"),
            ("BERTHOLD_AGENT", "shop/<script>alert('x')</script>"),
            ("SECRET", "hunter2"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Facts::new(variables.into_iter(), "box \"1\" & \u{7}co".to_owned(), 1)
    }

    #[test]
    fn ports_are_in_the_order_of_their_labels() {
        let facts = facts();
        let found: Vec<_> = facts.ports().iter().map(|it| (it.label.as_str(), it.number, it.url())).collect();
        let expected = [
            ("A", 8000, "http://localhost:8000".to_owned()),
            ("B", 8001, "http://203.0.113.7:8001".to_owned()),
            ("AA", 8002, "http://localhost:8002".to_owned()),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn the_page_says_whose_it_is_and_from_which_port_it_comes() {
        let page = facts().page(8001, "abc");
        let name = "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;";
        assert!(page.contains(&format!("<title>{name} · port 8001</title>")), "{page}");
        assert!(page.contains(&format!("<h1 class=\"long\">{name}</h1>")), "{page}");
        assert_eq!(page.matches("You are here").count(), 1);
        let here = page.lines().find(|line| line.contains("You are here")).unwrap();
        insta::assert_snapshot!(here, @r#"<li class="here"><p class="top"><span>Port B</span><span class="pill">You are here</span></p><b class="number">8001</b><a href="http://203.0.113.7:8001/" aria-current="page">http://203.0.113.7:8001</a></li>"#);
    }

    #[test]
    fn nothing_from_outside_is_taken_for_markup_and_nothing_else_of_the_environment_is_shown() {
        let page = facts().page(8000, "abc");
        assert!(!page.contains("<script") && !page.contains("hunter2"), "{page}");
        assert!(page.contains(r"<dd>box &quot;1&quot; &amp; \u{7}co</dd>"), "{page}");
        assert!(
            page.contains("<i>AVAILABLE_LOCALHOST_PORT_C=</i>not a port\n"),
            "it is shown as it was told"
        );
    }

    #[test]
    fn the_page_loads_nothing() {
        let page = facts().page(8000, "abc");
        for forbidden in [" src=", "@import", "url(", "<script", " style=", "onclick"] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
        assert_eq!(page.matches("<style nonce=\"abc\">").count(), 1);
        assert_eq!(page.matches('{').count(), page.matches('}').count());
    }

    #[test]
    fn programs_get_the_same() {
        let document: serde_json::Value = serde_json::from_str(&facts().json(8002)).unwrap();
        assert_eq!(document["served_from"], 8002);
        assert_eq!(document["ports"]["B"]["url"], "http://203.0.113.7:8001");
        assert_eq!(document["ports"]["AA"]["port"], 8002);
    }

    #[test]
    fn times_are_short() {
        let shown = |seconds| uptime(Duration::from_secs(seconds));
        assert_eq!([shown(7), shown(61), shown(7380)], ["7 s", "1 min 1 s", "2 h 3 min"]);
    }

    #[test]
    fn the_two_agents_have_colours_of_their_own() {
        assert_eq!((hue("ada"), hue("bert")), (229, 350));
    }
}
