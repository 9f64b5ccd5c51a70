// One agent: what it is, its variables, its log as it is written, and which ports it had.

import { agentPath, ask, call } from "./broker.js";
import { age, element, key, portList, shownName, stateText } from "./agents.js";

const LINES = 2000;

export class Detail {
  constructor(article) {
    this.article = article;
    this.reading = null;
    this.agent = null;
  }

  close() {
    this.reading?.abort();
    this.reading = null;
    this.agent = null;
    this.article.hidden = true;
    this.article.replaceChildren();
  }

  // Shows the agent; the log is read anew only when it is another one or a new life of the same.
  show(agent, behind) {
    const life = `${key(agent)} ${agent.lease} ${agent.id}`;
    const isNew = this.life !== life || this.article.hidden;
    this.life = life;
    this.agent = agent;
    this.article.hidden = false;
    if (isNew) {
      this.facts = element("div");
      this.log = element("pre", { id: "log", tabIndex: 0, ariaLabel: "Log" });
      this.history = element("div");
      this.article.replaceChildren(
        element("p", {}, element("a", { href: "#/" }, "← All agents")),
        element("h2", {}, shownName(agent)),
        this.facts,
        element("h3", {}, "Log"), this.log,
        element("h3", {}, "Ports it has had"), this.history,
      );
      this.read(agent);
      this.past(agent);
    }
    const row = (name, value) => value ? [element("dt", {}, name), element("dd", {}, value)] : [];
    const variables = Object.entries(agent.environment).map(([name, value]) => `${name}=${value}`);
    const previews = element("ul", { className: "ports" }, ...Object.values(agent.previews).map((url) =>
      element("li", {}, element("a", { href: url, target: "_blank", rel: "noopener" }, url))));
    this.facts.replaceChildren(
      element("dl", {},
        ...row("State", element("span", { className: `state ${agent.state}` }, stateText(agent))),
        ...row("Why", agent.reason),
        ...row("Runtime", agent.runtime),
        ...row("Image", agent.image),
        ...row("Command", agent.command.join(" ")),
        ...row("Started", agent.started_at ? `${age(agent.started_at)} ago` : null),
        ...row("Published on", agent.published),
        ...row("Ports", Object.keys(agent.ports).length ? portList(agent, behind) : null),
        ...row("Previews", Object.keys(agent.previews).length ? previews : null),
        ...row("Former ports", agent.former_ports.join(", ")),
        ...row("Warnings", agent.warnings.join("; ")),
      ),
      ...(variables.length ? [
        element("h3", {}, "Variables"),
        element("pre", { tabIndex: 0, ariaLabel: "Variables" }, variables.join("\n")),
      ] : []),
    );
  }

  async read(agent) {
    this.reading?.abort();
    const reading = (this.reading = new AbortController());
    try {
      const response = await ask(agentPath(agent, `/logs?follow=true&tail=${LINES}`), { signal: reading.signal });
      if (!response.ok) throw new Error((await response.json()).detail);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        const atEnd = this.log.scrollTop + this.log.clientHeight >= this.log.scrollHeight - 8;
        this.log.append(value);
        while (this.log.childNodes.length > LINES) this.log.firstChild.remove();
        if (atEnd) this.log.scrollTop = this.log.scrollHeight;
      }
    } catch (error) {
      if (!reading.signal.aborted) this.log.append(`— ${error.message}\n`);
    }
  }

  async past(agent) {
    const { history } = await call("GET", `/v1/history?agent=${encodeURIComponent(key(agent))}&limit=50`).catch(() => ({ history: [] }));
    const body = element("tbody");
    for (const entry of history) {
      body.append(element("tr", {},
        element("th", { scope: "row" }, String(entry.port)), element("td", {}, entry.label),
        element("td", {}, new Date(entry.from).toLocaleString()),
        element("td", {}, entry.to ? new Date(entry.to).toLocaleString() : "still"),
        element("td", {}, entry.reason ?? "")));
    }
    const head = element("thead", {}, element("tr", {}, ...["Port", "Label", "From", "Until", "Why it ended"].map((text) => element("th", { scope: "col" }, text))));
    this.history.replaceChildren(history.length
      ? element("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: "Ports it has had" }, element("table", {}, head, body))
      : element("p", { className: "note" }, "none yet"));
  }
}
