// The agents as a table whose rows stay what they are while their content changes, so that focus and selection stay too.

import { agentPath, call } from "./broker.js";
import { colour } from "./map.js";

const AT_A_TIME = 3;
const ORDER = new Intl.Collator("en", { numeric: true });

export const key = (agent) => `${agent.project}/${agent.name}`;
export const shownName = (agent) => (agent.project === "default" ? agent.name : key(agent));
export const isLive = (agent) => ["starting", "running", "stopping"].includes(agent.state);

// An element with text or children. Text is never read as HTML: names, titles and logs are others' words.
export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export function age(time) {
  const seconds = Math.max(0, Math.floor((Date.now() - Date.parse(time)) / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

export function stateText(agent) {
  const text = agent.state === "exited" && agent.exit_code !== null ? `exited (${agent.exit_code})` : agent.state;
  return agent.doubt ? `${text}?` : text;
}

// What can be done with the agent. What cannot be done now is not `disabled`: whoever has the focus there keeps it.
export function actions(agent, act) {
  const button = (text, what, className = "") => {
    const isOff = agent.state === "stopping" || (what === "stop" && !isLive(agent));
    const made = element("button", {
      type: "button", className, onclick: () => isOff || act(what, agent), ariaLabel: `${text} ${shownName(agent)}`,
      ariaDisabled: isOff ? "true" : null,
    }, text);
    made.dataset.what = what;
    return made;
  };
  return [button("Stop", "stop"), button(isLive(agent) ? "Restart" : "Start", "restart"), button("Delete", "delete", "danger")];
}

// Puts other children into an element; who had the focus in it has it again, on the button that does the same or what is called the same.
export function refill(parent, ...children) {
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  const called = (it) => it.dataset.what ?? it.ariaLabel ?? it.textContent;
  const isAlike = (it) => it.tagName === focused.tagName && called(it) === called(focused);
  parent.replaceChildren(...children);
  if (focused) [...parent.querySelectorAll("a, button, [tabindex]")].find(isAlike)?.focus({ preventScroll: true });
}

// What leads to the host of whoever looks, wherever that is.
const LOCAL = /^((.+\.)?localhost|127(\.\d+){3}|\[::1\])$/;

// A link to what an agent serves; none where it would lead astray, as it does to who has this page from another host.
export function linkTo(url, text, properties = {}) {
  if (LOCAL.test(new URL(url).hostname) && !LOCAL.test(location.hostname)) return null;
  return element("a", { href: url, target: "_blank", rel: "noopener", ...properties }, text);
}

// The ports with their links, and what is behind each as far as that is known.
export function portList(agent, behind) {
  const list = element("ul", { className: "ports" });
  for (const [label, port] of Object.entries(agent.ports)) {
    const swatch = element("span", { className: "swatch" });
    swatch.style.setProperty("background", colour(key(agent), "var(--light)"));
    const [url, preview, text] = [agent.urls[label], agent.previews[label], `${label} ${port}`];
    const link = (url && linkTo(url, text)) ?? element("span", {}, text);
    const byName = preview && linkTo(preview, "preview", { className: "preview", ariaLabel: `Preview of ${shownName(agent)}, port ${label}`, title: preview });
    const found = behind?.get(label);
    let told = null;
    if (found && agent.state === "running") {
      const said = found.listens ? ["listening", found.status, found.title].filter(Boolean).join(" · ") : "nothing listens yet";
      told = element("span", { className: found.listens ? "behind on" : "behind" }, said);
    }
    list.append(element("li", {}, swatch, link, byName, told));
  }
  return list;
}

export class AgentTable {
  constructor(table, { act }) {
    this.body = table.tBodies[0];
    this.act = act;
    this.rows = new Map();
    this.behind = new Map();
    this.visible = new Set();
    this.observer = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (entry.isIntersecting) this.visible.add(entry.target.dataset.key);
        else this.visible.delete(entry.target.dataset.key);
      }
    });
  }

  show(agents, search) {
    const words = search.toLowerCase().split(/\s+/).filter(Boolean);
    const text = (agent) => [key(agent), agent.state, agent.runtime, agent.image, ...Object.values(agent.ports)].join(" ").toLowerCase();
    const wanted = [...agents.values()].filter((agent) => words.every((word) => text(agent).includes(word)));
    // agent-2 comes before agent-10.
    wanted.sort((one, other) => ORDER.compare(key(one), key(other)));
    const keys = new Set(wanted.map(key));
    // The place of a row that goes with the focus.
    let left = -1;
    for (const [name, row] of this.rows) {
      if (!keys.has(name)) {
        if (row.contains(document.activeElement)) left = row.sectionRowIndex;
        this.observer.unobserve(row);
        this.visible.delete(name);
        row.remove();
        this.rows.delete(name);
      }
    }
    wanted.forEach((agent, index) => {
      let row = this.rows.get(key(agent));
      if (!row) {
        row = element("tr");
        row.dataset.key = key(agent);
        this.rows.set(key(agent), row);
        this.observer.observe(row);
      }
      this.fill(row, agent);
      if (this.body.children[index] !== row) this.body.insertBefore(row, this.body.children[index] ?? null);
    });
    if (left >= 0) this.focusAt(left);
    return wanted.length;
  }

  fill(row, agent) {
    const behind = this.behind.get(agent.lease);
    const shown = JSON.stringify([agent, behind ? [...behind] : null]);
    if (row.dataset.shown !== shown) {
      row.dataset.shown = shown;
      refill(row,
        element("th", { scope: "row" }, element("a", { href: `#/agents/${key(agent)}` }, shownName(agent))),
        element("td", { className: `state ${agent.state}` }, stateText(agent),
          agent.reason ? element("span", { className: "reason" }, agent.reason) : null),
        element("td", {}, agent.runtime),
        element("td", { className: "age" }),
        element("td", {}, portList(agent, behind)),
        element("td", { className: "actions" }, ...actions(agent, this.act)),
      );
    }
    row.querySelector(".age").textContent = age(agent.state === "running" ? agent.started_at : agent.ended_at ?? agent.started_at ?? Date());
  }

  focus(name) {
    this.rows.get(name)?.querySelector("a").focus();
  }

  // The row that took the place, or the last one; the table where there is none.
  focusAt(place) {
    const row = this.body.rows[Math.min(place, this.body.rows.length - 1)];
    (row?.querySelector("a") ?? this.body.closest("[tabindex]")).focus();
  }

  // Looks at what is behind the ports of the rows that are in sight, at a few at a time: a browser has few connections to one server.
  async look(agents) {
    const inSight = [...this.visible].map((name) => agents.get(name)).filter((agent) => agent?.state === "running").slice(0, 40);
    const leases = new Set([...agents.values()].map((agent) => agent.lease));
    for (const lease of this.behind.keys()) if (!leases.has(lease)) this.behind.delete(lease);
    const lookOn = async () => {
      for (let agent = inSight.shift(); agent; agent = inSight.shift()) {
        const { behind } = await call("GET", agentPath(agent, "/behind")).catch(() => ({ behind: [] }));
        this.behind.set(agent.lease, new Map(behind.map((one) => [one.label, one])));
      }
    };
    await Promise.all(Array.from({ length: AT_A_TIME }, lookOn));
  }
}
