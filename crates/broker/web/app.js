// The page: what is known of the broker, and what of it is shown.

import { Refusal, agentPath, call, follow, keepHalf, onSignedIn, wait } from "./broker.js";
import { AgentTable, age, element, isLive, key, shownName } from "./agents.js";
import { Detail } from "./detail.js";
import { PortMap } from "./map.js";

// How often what no event tells is looked at.
const LOOK = 15_000;
// After how long it is told that there is no answer to what was asked for an agent.
const LONG = 30_000;
// How many ports the table has, so that it is no burden.
const ROWS = 2000;

const byId = (id) => document.getElementById(id);
const agents = new Map();
let pool = null;
let poolShown = null;
let cooled = null;
let broker = null;
const problems = new Map();

const map = new PortMap(byId("map"), byId("port-told"));
const table = new AgentTable(byId("agents"), { act });
const detail = new Detail(byId("detail"), { act });

// Several calls for the same within a moment, or while it is done, are one.
function gathered(work, pause) {
  let isWanted = false;
  let isBusy = false;
  return async () => {
    isWanted = true;
    if (isBusy) return;
    isBusy = true;
    try {
      while (isWanted) {
        await wait(pause);
        isWanted = false;
        await work();
      }
    } finally { isBusy = false; }
  };
}

const showSoon = gathered(show, 30);
const poolSoon = gathered(loadPool, 150);
const brokerSoon = gathered(loadBroker, 150);

// The ticket that the address brings.
const ticket = () => location.hash.match(/^#ticket=([0-9a-f]+)$/)?.[1];

// The agent whose page is wanted.
const shownAgent = () => location.hash.match(/^#\/agents\/([^/]+\/[^/]+)$/)?.[1];

function show() {
  if (!byId("sign-in").hidden) return;
  const name = shownAgent();
  const wanted = name && agents.get(name);
  byId("overview").hidden = Boolean(name);
  if (wanted) detail.show(wanted, table.behind.get(wanted.lease));
  else if (name && isLoaded) detail.showNobody(name);
  else if (!name) detail.close();
  const search = byId("search").value;
  const count = table.show(agents, search);
  const none = byId("no-agents");
  none.hidden = count > 0;
  none.textContent = agents.size ? `No agent matches “${search}”.` : "No agents yet. Start one here, or with berthold start NAME.";
  const running = [...agents.values()].filter((agent) => agent.state === "running").length;
  document.title = `${running} running · Berthold`;
  showBanners();
  showSince();
}

// What is told at the top, by what it is about.
function warnings() {
  const said = new Map(problems);
  for (const runtime of broker?.runtimes ?? []) {
    const its = [...agents.values()].filter((agent) => agent.runtime === runtime.name);
    if (runtime.reachable || its.length === 0) continue;
    const what = `${runtime.name} cannot be reached`;
    const why = (runtime.detail ?? "").replace(`${what}: `, "");
    said.set(`runtime ${runtime.name}`, its.some(isLive)
      ? `${what}, and agents run there: ${why}. Nothing of theirs is given back meanwhile.`
      : `${what}, so its agents cannot be started: ${why}.`);
  }
  if (pool?.enabled) {
    const few = Math.ceil(Math.max(pool.ports_per_agent, pool.size / 10));
    // Not how many there are, which changes with each lease and would be read out each time.
    if (pool.counts.free + pool.counts.remembered < few) said.set("the pool", `The pool is nearly full: fewer than ${few} of ${pool.size} ports can still be given.`);
  }
  // What the broker has found out of such a runtime would be the same once more.
  const isTold = (text) => broker.runtimes.some(({ name, warning }) => warning === text && said.has(`runtime ${name}`));
  for (const warning of broker?.warnings ?? []) if (!isTold(warning)) said.set(`warning ${warning}`, warning);
  return said;
}

// A banner stays what it is while others come and go: the focus stays in it, and only what is new is read out.
function showBanners() {
  const said = warnings();
  const box = byId("banners");
  const banners = () => [...box.children];
  // The place of a banner that goes with the focus.
  let left = -1;
  for (const banner of banners()) {
    if (said.has(banner.dataset.about)) continue;
    if (banner.contains(document.activeElement)) left = banners().indexOf(banner);
    banner.remove();
  }
  [...said].forEach(([about, text], index) => {
    let banner = banners().find((it) => it.dataset.about === about);
    if (!banner) {
      const dismiss = () => { problems.delete(about); showSoon(); };
      banner = element("p", { className: "banner" }, element("span"), problems.has(about) ? element("button", { type: "button", onclick: dismiss }, "Dismiss") : null);
      banner.dataset.about = about;
      box.insertBefore(banner, box.children[index] ?? null);
    }
    if (banner.firstChild.textContent !== text) banner.firstChild.textContent = text;
  });
  if (left < 0) return;
  // To the one that took the place or the last one; where there is none, to what the page is about.
  const buttons = [...box.querySelectorAll("button")];
  const next = buttons.find((it) => banners().indexOf(it.parentElement) >= left) ?? buttons.at(-1);
  if (next) next.focus();
  else if (shownAgent()) detail.focus();
  else byId("agents-title").focus();
}

async function loadPool() {
  const answer = await call("GET", "/v1/pool").catch(signedOut);
  if (!answer) return;
  pool = answer.pool;
  lookAgain();
  const text = JSON.stringify(pool);
  if (poolShown === text) return;
  poolShown = text;
  const counts = pool.counts;
  byId("pool-facts").textContent = pool.enabled ? `${pool.range} · ${counts.free} of ${pool.size} free` : "no pool is configured";
  byId("legend").replaceChildren(...Object.entries(counts).map(([state, count]) =>
    element("li", {}, element("span", { className: `swatch ${state}` }), `${state} ${count}`)));
  byId("map-box").hidden = !pool.enabled;
  if (pool.enabled) map.show(pool);
  const rows = pool.ports.slice(0, ROWS).map((port) => element("tr", {},
    element("th", { scope: "row" }, String(port.port)), element("td", {}, port.state),
    element("td", {}, [port.agent, port.label].filter(Boolean).join(" ")), element("td", {}, port.since && element("time", { dateTime: port.since })),
    element("td", {}, port.detail ?? "")));
  const further = pool.ports.length - rows.length;
  if (further > 0) rows.push(element("tr", {}, element("td", { colSpan: 5 }, `and ${further} more, which berthold ports lists.`)));
  byId("ports").tBodies[0].replaceChildren(...rows);
  showSoon();
}

// No event tells that ports have cooled down: the pool is looked at again once the first of them has, if that is before the next look.
function lookAgain() {
  clearTimeout(cooled);
  const until = (port) => (port.state === "cooling" ? Date.parse(port.detail.replace("until ", "")) : Infinity);
  // What is told has no parts of a second.
  const left = pool.ports.reduce((first, port) => Math.min(first, until(port)), Infinity) + 1000 - Date.now();
  if (0 < left && left < LOOK) cooled = setTimeout(() => !document.hidden && poolSoon(), left);
}

function showSince() {
  if (!byId("ports").closest("details").open) return;
  for (const time of byId("ports").querySelectorAll("time")) time.textContent = `${age(time.dateTime)} ago`;
}

async function loadBroker() {
  const answer = await call("GET", "/v1/broker").catch(signedOut);
  if (!answer) return;
  broker = answer.broker;
  byId("broker").textContent = `${broker.version} · ${broker.runtimes.filter((runtime) => runtime.reachable).map((runtime) => runtime.name).join(", ")}`;
  showSoon();
}

// What events have told since a listing was asked for is newer than the listing.
let newer = null;
let isLoaded = false;

async function loadAll() {
  const since = (newer = new Map());
  const answer = await call("GET", "/v1/agents");
  // Another one was asked for meanwhile.
  if (newer !== since) return;
  newer = null;
  agents.clear();
  for (const agent of answer.agents) agents.set(key(agent), agent);
  for (const [name, agent] of since) take(name, agent);
  isLoaded = true;
  show();
  poolSoon();
  await loadBroker();
  look();
}

function take(name, agent) {
  newer?.set(name, agent);
  if (agent) agents.set(name, agent);
  else agents.delete(name);
}

let isLooking = false;

async function look() {
  if (document.hidden || isLooking) return;
  isLooking = true;
  const wanted = shownAgent();
  if (wanted) table.visible.add(wanted);
  await table.look(agents);
  isLooking = false;
  showSoon();
}

function signedOut(error) {
  if (error instanceof Refusal && error.status === 401) askToSignIn();
  return null;
}

function askToSignIn(why) {
  if (why) byId("sign-in-why").textContent = `${why} On the broker's host, run`;
  byId("sign-in").hidden = false;
  byId("overview").hidden = true;
  detail.close();
  told("signed out");
}

// How the page stands with the broker.
function told(text) {
  byId("live").textContent = text;
  byId("live").className = text === "live" ? "on" : "";
}

async function act(what, agent) {
  const name = shownName(agent);
  if (what === "delete" && !(await isSure(`Delete ${name}?`, isLive(agent) ? "It runs; it will be stopped, and its container removed." : "Its container and log are removed."))) return;
  const [method, path] = what === "delete" ? ["DELETE"] : what === "restart" && !isLive(agent) ? ["PUT"] : ["POST", `/${what}`];
  const error = await attempt(agent, method, path, method === "DELETE" ? undefined : {});
  if (error) complain(agent, error);
}

// Asks for something for an agent; the error that came of it, if any. What takes long, such as an image that is fetched, is told meanwhile.
async function attempt(agent, method, path, body) {
  problems.delete(key(agent));
  const late = setTimeout(() => complain(agent, new Error("no answer from the broker yet")), LONG);
  const error = await call(method, agentPath(agent, path), body).then(() => null, (error) => error);
  clearTimeout(late);
  problems.delete(key(agent));
  showSoon();
  return error;
}

function complain(agent, { message }) {
  const name = shownName(agent);
  problems.set(key(agent), message.includes(name) ? message : `${name}: ${message}`);
  showSoon();
}

function isSure(title, text) {
  const dialog = byId("sure-dialog");
  byId("sure-title").textContent = title;
  byId("sure-text").textContent = text;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

const startDialog = byId("start-dialog");
const startForm = startDialog.querySelector("form");
const startButton = startForm.querySelector("[type=submit]");
// How often the dialog was opened: what has become of a start is told there only if it has not been opened anew since.
let opened = 0;

byId("start").addEventListener("click", () => {
  opened++;
  // What is still being started needs no second start.
  if (startButton.ariaDisabled) startForm.reset();
  startButton.ariaDisabled = null;
  const options = (names, first) => [element("option", { value: "" }, first), ...names.map((name) => element("option", { value: name }, name))];
  startForm.elements.template.replaceChildren(...options(broker?.templates ?? [], "none"));
  startForm.elements.runtime.replaceChildren(...options((broker?.runtimes ?? []).filter((it) => it.reachable).map((it) => it.name), `the default (${broker?.default_runtime ?? "none"})`));
  startForm.querySelector(".problem").textContent = "";
  startDialog.showModal();
});

startDialog.querySelector("[data-close]").addEventListener("click", () => startDialog.close());

startForm.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (startButton.ariaDisabled) return;
  const its = opened;
  const typed = Object.fromEntries(new FormData(startForm));
  const agent = { project: typed.project.trim() || "default", name: typed.name.trim() };
  const request = {};
  for (const name of ["template", "image", "runtime"]) if (typed[name].trim()) request[name] = typed[name].trim();
  if (typed.command.trim()) request.command = ["sh", "-c", typed.command.trim()];
  startButton.ariaDisabled = "true";
  const error = await attempt(agent, "PUT", "", request);
  const isStill = opened === its;
  if (isStill) startButton.ariaDisabled = null;
  if (error && isStill && startDialog.open) startForm.querySelector(".problem").textContent = error.message;
  else if (error) complain(agent, error);
  else if (isStill) {
    startDialog.close();
    startForm.reset();
  }
});

byId("search").addEventListener("input", show);
addEventListener("hashchange", (event) => {
  // A link of `berthold open` in a page that is there already.
  if (ticket()) return location.reload();
  const before = new URL(event.oldURL).hash.match(/^#\/agents\/(.+)$/)?.[1];
  show();
  // Who reads or types goes where what is shown has gone.
  if (shownAgent()) detail.focus();
  else if (before) table.focus(before);
  look();
});

function begin() {
  byId("overview").hidden = false;
  follow({
    onConnect: () => { told("live"); detail.missed(); },
    onMissed: loadAll,
    onLost: () => told("connecting again"),
    onPaused: () => told("paused"),
    onSignedOut: () => askToSignIn(),
    onEvent: (event) => {
      if (event.event === "broker") return brokerSoon();
      if (event.event === "agent") take(key(event.agent), event.agent);
      if (event.event === "agent_deleted") take(key(event), null);
      poolSoon();
      showSoon();
    },
  });
  setInterval(look, 3000);
  setInterval(() => { if (!document.hidden) { brokerSoon(); poolSoon(); } }, LOOK);
  setInterval(() => !document.hidden && showSoon(), 1000);
}

// Hands in the ticket of the address, if there is one; why that did not do.
async function signIn() {
  const handedIn = ticket();
  if (!handedIn) return null;
  // Out of the address bar and the history at once.
  history.replaceState(null, "", "/#/");
  return call("POST", "/signin", { ticket: handedIn }).then(({ page }) => { keepHalf(page); }, (error) => `${error.message}.`);
}

onSignedIn(() => { if (!byId("sign-in").hidden) location.reload(); });
const refused = await signIn();
const error = await call("GET", "/v1/agents").then(() => null, (error) => error);
if (error?.status === 401) askToSignIn(refused);
else {
  if (refused) problems.set("sign-in", refused);
  begin();
}
