// One agent: what it is, its variables, its log as it is written, and which ports it had.

import { AGAIN, agentPath, ask, call, inPlace, wait } from "./broker.js";
import { actions, age, element, key, linkTo, portList, refill, shownName, stateText } from "./agents.js";
import { whileInSight } from "./sight.js";

const LINES = 2000;
// How much of a log is shown, in characters: the older ones go.
const MUCH = 1 << 20;
// The life of an agent that there is not.
const NOBODY = Symbol("nobody");

const back = () => element("p", {}, element("a", { href: "#/" }, "← All agents"));

// What is read of a log, shown as it comes; where much comes, now and then, so that there is time for all else that the page does.
class LogText {
  constructor(log, signal) {
    this.log = log;
    this.signal = signal;
    this.waiting = "";
    this.length = 0;
    this.isAnew = false;
    this.pause = 30;
    this.timer = null;
  }

  // What was there before goes as what comes now is shown.
  clear() {
    this.isAnew = true;
    this.waiting = "";
    this.add("");
  }

  add(text) {
    this.waiting = (this.waiting + text).slice(-MUCH);
    this.timer ??= setTimeout(() => this.show(), this.pause);
  }

  show() {
    this.timer = null;
    if (this.signal.aborted) return;
    const { log } = this;
    const began = performance.now();
    const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
    if (this.isAnew) {
      log.replaceChildren();
      this.length = 0;
      this.isAnew = false;
    }
    // Blocks of whole lines: the browser lays out those alone that are new.
    for (const lines of this.waiting.match(/[^]{1,8192}[^\n]*\n?/g) ?? []) {
      if (log.lastChild && !log.lastChild.textContent.endsWith("\n")) log.lastChild.append(lines);
      else log.append(element("div", {}, lines));
    }
    this.length += this.waiting.length;
    this.waiting = "";
    while (this.length > MUCH && log.childNodes.length > 1) {
      this.length -= log.firstChild.textContent.length;
      log.firstChild.remove();
    }
    if (atEnd) log.scrollTop = log.scrollHeight;
    this.pause = Math.max(30, 4 * (performance.now() - began));
  }
}

export class Detail {
  constructor(article, { act }) {
    this.article = article;
    this.act = act;
    this.reading = null;
    this.life = null;
    // How often a history was asked for.
    this.asked = 0;
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
    this.log = element("pre", { id: "log", tabIndex: 0, role: "region", ariaLabel: "Log" });
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
    const links = (urls) => element("ul", { className: "ports" }, ...urls.map((url) => element("li", {}, linkTo(url, url) ?? url)));
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
        ...row("In doubt", (it) => it.doubt),
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
        (it) => [...Object.entries(it.environment).map(([name, value]) => `${name}=${value}`), ...it.own_variables.map((name) => `${name}=… (its own)`)],
        (lines) => lines.join("\n")),
      element("h3", {}, "Log"), this.log,
      element("h3", {}, "Ports it has had"), this.history,
    );
  }

  async read(agent) {
    this.reading?.abort();
    const reading = (this.reading = new AbortController());
    // When the page is in sight again, all is told as missed.
    const signal = AbortSignal.any([reading.signal, whileInSight()]);
    const text = new LogText(this.log, signal);
    const answer = async (isFollowed) => {
      const response = await ask(agentPath(agent, `/logs?follow=${isFollowed}&tail=${LINES}`), { signal });
      if (isFollowed || !response.ok) text.clear();
      if (!response.ok) throw new Error((await response.json()).detail);
      return response;
    };
    const follow = async () => {
      const reader = (await answer(true)).body.pipeThrough(new TextDecoderStream()).getReader();
      for (let read = await reader.read(); !read.done; read = await reader.read()) text.add(read.value);
    };
    let whole = null;
    try {
      while (!signal.aborted && !(await inPlace(follow))) {
        const before = whole;
        whole = await (await answer(false)).text();
        const goesOn = before !== null && whole.startsWith(before);
        if (!goesOn) text.clear();
        text.add(goesOn ? whole.slice(before.length) : whole);
        await wait(AGAIN);
      }
    } catch (error) {
      text.add(`— ${error.message}\n`);
      if (!(error instanceof TypeError)) return;
      // The connection broke off.
      await wait(AGAIN);
      if (!signal.aborted) this.read(agent);
    }
  }

  async past(agent) {
    const turn = ++this.asked;
    const { history } = await call("GET", `/v1/history?agent=${encodeURIComponent(key(agent))}&limit=50`).catch(() => ({ history: [] }));
    // Another one was asked for meanwhile.
    if (this.asked !== turn) return;
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
