// One agent: what it is, its variables, its log as it is written, and which ports it had.

import { agentPath, ask, call } from "./broker.js";
import { actions, age, element, key, portList, refill, shownName, stateText } from "./agents.js";
import { whileInSight } from "./sight.js";

const LINES = 2000;
// The life of an agent that there is not.
const NOBODY = Symbol("nobody");

const back = () => element("p", {}, element("a", { href: "#/" }, "← All agents"));

export class Detail {
  constructor(article, { act }) {
    this.article = article;
    this.act = act;
    this.reading = null;
    this.life = null;
  }

  close() {
    this.reading?.abort();
    this.reading = null;
    this.life = null;
    this.article.hidden = true;
    this.article.replaceChildren();
  }

  // What was read may have gone on unseen: it is read anew when it is shown next.
  missed() {
    if (this.life !== NOBODY) this.life = null;
  }

  focus() {
    this.article.querySelector("h2")?.focus();
  }

  showNobody(name) {
    if (this.life === NOBODY && this.article.dataset.nobody === name) return;
    const hadFocus = this.article.contains(document.activeElement);
    this.close();
    this.life = NOBODY;
    this.article.dataset.nobody = name;
    this.article.hidden = false;
    this.article.replaceChildren(back(), element("h2", { tabIndex: -1 }, `There is no agent ${name}`));
    if (hadFocus) this.focus();
  }

  // Shows the agent; the log is read anew only when it is another one or a new life of the same.
  show(agent, behind) {
    const life = `${key(agent)} ${agent.lease} ${agent.id}`;
    if (this.life !== life) {
      const isOther = this.name !== key(agent) || this.life === NOBODY || this.article.hidden;
      this.life = life;
      this.name = key(agent);
      if (isOther) this.lay(agent);
      this.read(agent);
      this.past(agent);
    }
    for (const { read, build, parent, about } of this.facts) {
      const found = read(agent, behind);
      const shown = JSON.stringify(found ?? null);
      if (parent.dataset.shown === shown) continue;
      parent.dataset.shown = shown;
      const isThere = found !== null && found !== undefined && found.length !== 0;
      for (const one of [parent, about]) one.hidden = !isThere;
      if (isThere) refill(parent, build(found));
    }
  }

  lay(agent) {
    this.article.hidden = false;
    this.log = element("pre", { id: "log", tabIndex: 0, ariaLabel: "Log" });
    this.history = element("div");
    // Each changes for itself: the focus, and what is marked in the others, stays.
    this.facts = [];
    const fact = (parent, about, read, build = (text) => text) => {
      this.facts.push({ parent, about, read, build });
      return [about, parent];
    };
    const row = (name, read, build) => fact(element("dd"), element("dt", {}, name), read, build);
    const list = (texts) => texts.join(", ");
    const done = element("p", { className: "actions" });
    const links = (urls) => element("ul", { className: "ports" }, ...urls.map((url) =>
      element("li", {}, element("a", { href: url, target: "_blank", rel: "noopener" }, url))));
    this.article.replaceChildren(
      back(),
      element("h2", { tabIndex: -1 }, shownName(agent)),
      ...fact(done, element("span"), (it) => [it.project, it.name, it.state], ([project, name, state]) => {
        const buttons = document.createDocumentFragment();
        buttons.append(...actions({ project, name, state }, this.act));
        return buttons;
      }),
      element("dl", {},
        ...row("State", (it) => [stateText(it), it.state], ([text, state]) => element("span", { className: `state ${state}` }, text)),
        ...row("Why", (it) => it.reason),
        ...row("Runtime", (it) => it.runtime),
        ...row("Image", (it) => it.image),
        ...row("Command", (it) => it.command.join(" ")),
        ...row("Started", (it) => it.started_at && `${age(it.started_at)} ago`),
        ...row("Published on", (it) => it.published),
        ...row("Ports", (it, behind) => Object.keys(it.ports).length ? [it, behind ? [...behind] : null] : null,
          ([it, behind]) => portList(it, behind && new Map(behind))),
        ...row("Previews", (it) => Object.values(it.previews), links),
        ...row("Former ports", (it) => it.former_ports, list),
        ...row("Warnings", (it) => it.warnings, (texts) => texts.join("; ")),
      ),
      ...fact(element("pre", { tabIndex: 0, ariaLabel: "Variables" }), element("h3", {}, "Variables"),
        (it) => Object.entries(it.environment).map(([name, value]) => `${name}=${value}`), (lines) => lines.join("\n")),
      element("h3", {}, "Log"), this.log,
      element("h3", {}, "Ports it has had"), this.history,
    );
  }

  async read(agent) {
    this.reading?.abort();
    const reading = (this.reading = new AbortController());
    // When the page is in sight again, all is told as missed.
    const signal = AbortSignal.any([reading.signal, whileInSight()]);
    try {
      const response = await ask(agentPath(agent, `/logs?follow=true&tail=${LINES}`), { signal });
      if (signal.aborted) return;
      this.log.replaceChildren();
      if (!response.ok) throw new Error((await response.json()).detail);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { value, done } = await reader.read();
        if (done || signal.aborted) return;
        const atEnd = this.log.scrollTop + this.log.clientHeight >= this.log.scrollHeight - 8;
        this.log.append(value);
        while (this.log.childNodes.length > LINES) this.log.firstChild.remove();
        if (atEnd) this.log.scrollTop = this.log.scrollHeight;
      }
    } catch (error) {
      if (!signal.aborted) this.log.append(`— ${error.message}\n`);
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
