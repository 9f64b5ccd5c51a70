// The page in a real browser: what a person does, and what they see. `node page.mjs`, with BERTHOLD (the program), BERTHOLD_HOME (of a
// broker that runs), PROJECT and, for agents in containers, IMAGE and ENGINE, the link to
// Docker's socket. Ends with 0 if all was as it should be.

import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { readlinkSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from "node:fs";
import net from "node:net";
import assert from "node:assert/strict";
import { accessible as accessiblePage, becomes, berthold, browser, noneWider, openPage, pause, pixel, signInUrl, swatch } from "./common.mjs";

const { BERTHOLD, BERTHOLD_HOME, PROJECT, IMAGE, ENGINE } = process.env;
const seen = await openPage();
const { context, page, told } = seen;
const accessible = (where) => accessiblePage(page, where);
const row = (name) => page.locator(`#agents tr[data-key="${PROJECT}/${name}"]`);
const state = async (name, wanted) => row(name).locator(".state", { hasText: new RegExp(`^${wanted}`) }).waitFor();
const agentOf = (name) => JSON.parse(berthold("--json", "show", name)).agent;
const until = async (what, isSo) => { for (const since = Date.now(); !isSo(); await pause(200)) assert.ok(Date.now() - since < 60_000, what); };
const legend = (text) => page.locator("#legend li", { hasText: new RegExp(`^${text}$`) }).waitFor();

// The look now and then that is there for what no event tells is left out: all that follows is told.
await page.addInitScript(() => {
  const { setInterval } = window;
  window.setInterval = (work, time, ...words) => time < 10_000 ? setInterval(work, time, ...words) : 0;
});

// Signed out, the page says how to sign in.
const url = signInUrl();
seen.mayFail = true;
await page.goto(new URL("/", url).href);
await page.getByText("berthold open", { exact: true }).waitFor();
await accessible("signed-out");
seen.mayFail = false;

// A ticket lets this browser in, once.
await page.goto(url);
await page.locator("#live.on").waitFor();
assert.equal(new URL(page.url()).hash, "#/", "the ticket is not left in the address");
const other = await (await browser.newContext()).newPage();
await other.goto(url);
await other.getByText("berthold open", { exact: true }).waitFor();
await other.context().close();

// What is started elsewhere is seen without a reload.
await page.evaluate(() => { window.wasNotReloaded = true; });
await page.getByText("No agents yet").waitFor();
berthold("start", "plain", "--runtime", "process", "-e", "COLOUR=red", "--", BERTHOLD, "__demo-server");
await state("plain", "running");
await legend("leased 2");
const startBoxed = (name) => berthold("start", name, "--runtime", "docker", "--image", IMAGE, "--", "sh", "-c", "trap exit TERM; sleep 100000 & wait");
if (IMAGE) {
  startBoxed("boxed");
  await state("boxed", "running");
  await legend("leased 4");
  // The engine accepts what nothing in the container does.
  await row("boxed").locator(".behind", { hasText: "nothing listens yet" }).first().waitFor();
}

// Where each runs, and since when.
for (const [name, runtime] of [["plain", "process"], ...(IMAGE ? [["boxed", "docker"]] : [])]) {
  assert.equal(await row(name).locator("td").nth(1).textContent(), runtime);
  const shownAge = row(name).locator("td").nth(2);
  const before = await shownAge.textContent();
  const oldest = Math.ceil((Date.now() - Date.parse(agentOf(name).started_at)) / 1000);
  assert.ok(oldest > 55 || (/^\d+ s$/.test(before) && parseInt(before, 10) <= oldest), `${name} is ${before} old`);
  await page.waitForFunction(([key, before]) => document.querySelector(`#agents tr[data-key="${key}"] .age`).textContent !== before, [`${PROJECT}/${name}`, before]);
}

// What is behind a port, and the agent's own page by its link.
await row("plain").locator(".behind.on", { hasText: /^listening · 200 · .*plain/ }).first().waitFor();
const [agentPage] = await Promise.all([context.waitForEvent("page"), row("plain").locator("a", { hasText: /^A / }).click()]);
await agentPage.getByText("plain").first().waitFor();
await agentPage.close();

const [preview] = await Promise.all([context.waitForEvent("page"), row("plain").getByRole("link", { name: "Preview of" }).first().click()]);
await preview.waitForLoadState();
// What the broker says in an agent's place has its name, too.
assert.match(await preview.title(), /plain · port/);
assert.equal((await preview.reload()).status(), 200);
assert.ok(new URL(preview.url()).hostname.startsWith("a.plain."), preview.url());
await preview.close();

// It is told anew when the server comes, answers otherwise, and goes.
const wish = `${BERTHOLD_HOME}/answer`;
const moody = `const fs = require("node:fs");
  const answer = () => { try { return Number(fs.readFileSync(process.argv[1], "utf8")); } catch { return 0; } };
  const server = require("node:http").createServer((_, it) => { it.statusCode = answer(); it.end("<title>a mood &amp; more" + " of it".repeat(16) + "</title>"); });
  setInterval(() => { if (Boolean(answer()) !== server.listening) answer() ? server.listen(process.env.AVAILABLE_LOCALHOST_PORT_A, "127.0.0.1") : server.close(); }, 100)`;
berthold("start", "moody", "--runtime", "process", "--", "node", "-e", moody, wish);
const behind = row("moody").locator(".ports li").first().locator(".behind");
const title = `a mood & more${" of it".repeat(16)}`;
for (const [answer, told, isOn] of [[0, "nothing listens yet", false], [500, `listening · 500 · ${title}`, true], [200, `listening · 200 · ${title}`, true], [0, "nothing listens yet", false]]) {
  if (answer) writeFileSync(wish, String(answer));
  else rmSync(wish, { force: true });
  await becomes("what is behind", () => behind.textContent(), told);
  assert.equal(await behind.evaluate((it) => it.classList.contains("on")), isOn);
  assert.ok(await behind.evaluate((it) => { const box = it.closest(".scroll"); return box.scrollWidth <= box.clientWidth; }), "however long, it leaves room for the rest");
  if (answer === 500) await accessible("long-title");
}
berthold("delete", "moody");
await row("moody").waitFor({ state: "detached" });

// An agent's page, at its port and at its preview, is another origin, to which the session says nothing, and from which nothing can be done.
// This one has no policy of its own that would forbid it to try.
const site = `require("node:http").createServer((_, answer) => answer.setHeader("Content-Type", "text/html").end("<h1>a site</h1>"))
  .listen(process.env.AVAILABLE_LOCALHOST_PORT_A, "127.0.0.1")`;
berthold("start", "site", "--wait", "--runtime", "process", "--", "node", "-e", site);
const { origin } = new URL(page.url());
const stop = `${origin}/v1/agents/${PROJECT}/plain/stop`;
const untouched = agentOf("plain");
for (const text of [/^A /, "preview"]) {
  const link = row("site").locator("a", { hasText: text }).first();
  const [foreign] = await Promise.all([context.waitForEvent("page"), link.click()]);
  await foreign.getByText("a site").waitFor();
  assert.notEqual(new URL(foreign.url()).origin, origin);
  assert.equal(await foreign.evaluate(() => localStorage.length), 0, "what the page keeps is its own");
  const tried = await foreign.evaluate(async ([origin, stop]) => {
    const options = { credentials: "include" };
    const tries = ["GET", "POST"].map((method) => fetch(`${origin}/v1/agents`, { ...options, method, headers: { "x-any": "1" } }));
    // What needs nobody's leave to be sent, though not to be read.
    tries.push(fetch(stop, { ...options, method: "POST", mode: "no-cors" }));
    return (await Promise.allSettled(tries)).map(({ status }) => status);
  }, [origin, stop]);
  assert.deepEqual(tried, ["rejected", "rejected", "rejected"], "an agent's page cannot ask the API");
  const answered = foreign.waitForResponse((response) => response.url() === stop);
  await foreign.evaluate((action) => {
    const form = Object.assign(document.createElement("form"), { method: "post", action });
    document.body.append(form);
    form.submit();
  }, stop);
  assert.equal((await answered).status(), 401);
  await foreign.close();
}
assert.deepEqual(agentOf("plain"), untouched);
berthold("delete", "site");

// Who has the page from another host gets no links to what is called localhost, which would be their own; those of a domain they get.
const elsewhere = await (await browser.newContext()).newPage();
await elsewhere.goto(signInUrl().replace("localhost", "192.0.2.7"));
const ports = elsewhere.locator(`#agents tr[data-key="${PROJECT}/plain"] .ports`);
await ports.getByText(/^A \d+$/).waitFor();
assert.equal(await ports.locator("a").count(), 0);
await elsewhere.goto(`http://192.0.2.7:${new URL(origin).port}/#/agents/${PROJECT}/plain`);
await elsewhere.locator("#detail dd", { hasText: "http://a.plain." }).waitFor();
assert.deepEqual(await elsewhere.locator("#detail a").allTextContents(), ["← All agents"]);
const { agents } = JSON.parse(berthold("--json", "list"));
for (const agent of agents) agent.previews.A = `https://a-${agent.name}.preview.example.com/`;
await elsewhere.route("**/v1/agents", (route) => route.fulfill({ json: { agents } }));
await elsewhere.reload();
await elsewhere.locator("#detail").getByRole("link", { name: "https://a-plain.preview.example.com/" }).waitFor();
await elsewhere.goBack();
await ports.getByRole("link", { name: "Preview of" }).waitFor();
await elsewhere.context().close();

// The map by keyboard.
await page.locator("#map").focus();
await page.keyboard.press("Home");
await page.locator("#port-told", { hasText: /leased to .*plain, port A/ }).waitFor();
await accessible("two-agents");
await page.setViewportSize({ width: 390, height: 844 });
await accessible("two-agents-narrow");
await noneWider(page);
await page.setViewportSize({ width: 1280, height: 900 });

// A restart of what runs gives it another life, with the ports that it has.
for (const name of IMAGE ? ["plain", "boxed"] : ["plain"]) {
  const before = agentOf(name);
  await row(name).getByRole("button", { name: /Restart/ }).click();
  await until(`${name} is restarted`, () => agentOf(name).state === "running" && agentOf(name).id !== before.id);
  await state(name, "running");
  const after = agentOf(name);
  assert.deepEqual([after.ports, after.lease === before.lease], [before.ports, false]);
}

// An engine that does not answer is told for as long as it does not, and what runs there stays what it is.
if (IMAGE) {
  const engine = readlinkSync(ENGINE);
  const before = agentOf("boxed");
  unlinkSync(ENGINE);
  const unreachable = page.locator(".banner", { hasText: "docker cannot be reached, and agents run there" });
  await unreachable.waitFor();
  await state("boxed", "running\\?");
  await accessible("unreachable");
  assert.equal(await page.locator(".banner", { hasText: "docker" }).count(), 1, "it is told once");
  assert.equal((await unreachable.textContent()).match(/cannot be reached/g).length, 1);
  symlinkSync(engine, ENGINE);
  await unreachable.waitFor({ state: "detached" });
  await state("boxed", "running$");
  assert.deepEqual([agentOf("boxed").id, agentOf("boxed").ports], [before.id, before.ports]);
}

// What ends outside is seen within two seconds: that is asked of the page, so here alone a time is measured. On a busy machine anything may
// take longer for a moment, so the middle one of three counts.
if (IMAGE) {
  const names = ["boxed", "boxed-2", "boxed-3"];
  const times = [];
  for (const name of names.slice(1)) startBoxed(name);
  for (const name of names) await state(name, "running");
  for (const name of names) {
    execFileSync("docker", ["kill", agentOf(name).id]);
    const killed = performance.now();
    await state(name, "exited");
    times.push(Math.round(performance.now() - killed));
  }
  console.log(`containers that were killed outside are shown as ended after ${times.join(", ")} ms`);
  assert.ok(times.toSorted((a, b) => a - b)[1] < 2000, `${times}`);
  await legend("leased 2");
  berthold("delete", ...names.slice(1));
}

// Search; stop; start again; the agent's own page.
await page.getByLabel("Search").fill("nothing like it");
await page.getByText("No agent matches").waitFor();
await page.getByLabel("Search").fill("plain");
// By keyboard: the focus stays on what it was on, also where that cannot be done any more or is called something else now.
const focused = () => page.evaluate(() => document.activeElement.ariaLabel ?? document.activeElement.textContent);
const colourOfPlain = await swatch(row("plain").locator(".swatch"));
await row("plain").getByRole("button", { name: /Stop/ }).press("Enter");
await state("plain", "stopped");
assert.equal(await focused(), `Stop ${PROJECT}/plain`);
await accessible("stopped");
// The map has its ports as remembered: free within a frame of its colour.
const freeColour = await swatch(page.locator("#legend .swatch.free"));
for (const index of [0, 1]) {
  await becomes("what is in the frame", () => pixel(page, index), freeColour);
  await becomes("the frame", () => pixel(page, index, [1, 10]), colourOfPlain);
  await page.locator("#map").hover({ position: { x: index * 22 + 10, y: 10 } });
  await page.locator("#port-told", { hasText: `remembered for ${PROJECT}/plain` }).waitFor();
}
await page.keyboard.press("Enter");
await page.keyboard.press("Tab");
assert.equal(await focused(), `Start ${PROJECT}/plain`);
await page.keyboard.press("Enter");
await state("plain", "running");
await page.waitForFunction((name) => document.activeElement.ariaLabel === `Restart ${name}`, `${PROJECT}/plain`);
await page.getByLabel("Search").fill("");
await row("plain").locator("th a").click();
await page.locator("#detail pre", { hasText: "AVAILABLE_LOCALHOST_PORT_A=" }).waitFor();
await page.locator("#detail pre", { hasText: "COLOUR=…" }).waitFor();
await page.locator("#detail td", { hasText: "stopped" }).first().waitFor();
await accessible("agent");
await page.setViewportSize({ width: 390, height: 800 });
await noneWider(page);
await accessible("agent-narrow");
await page.setViewportSize({ width: 1280, height: 900 });
await page.getByText("All agents").click();

// Where the eyes are spared light, it is drawn in other colours.
const [leasedLight, freeLight] = [await pixel(page, 0), await pixel(page, 20)];
await page.emulateMedia({ colorScheme: "dark" });
const [leasedDark, freeDark] = [await swatch(row("plain").locator(".swatch")), await swatch(page.locator("#legend .swatch.free"))];
assert.ok(leasedDark !== leasedLight && freeDark !== freeLight);
await becomes("a leased cell in dark", () => pixel(page, 0), leasedDark);
await becomes("a free cell in dark", () => pixel(page, 20), freeDark);
await page.emulateMedia({ colorScheme: "light" });
await becomes("a free cell in light", () => pixel(page, 20), freeLight);

// What someone else holds is shown with who that is, for as long as it is so, though nobody has asked.
const place = 30;
await page.locator("#map").hover({ position: { x: place * 22 + 10, y: 10 } });
const heldPort = Number((await page.locator("#port-told", { hasText: /: free$/ }).textContent()).split(":")[0]);
const intruder = net.createServer().listen(heldPort, "127.0.0.1");
await once(intruder, "listening");
await page.locator("#port-told", { hasText: `${heldPort}: blocked by node (pid ${process.pid})` }).waitFor();
await becomes("a blocked cell", () => pixel(page, place, [4, 4]), await swatch(page.locator("#legend .swatch.blocked")));
assert.notEqual(await pixel(page, place), await pixel(page, place, [4, 4]), "not by colour alone");
intruder.close();
await page.locator("#port-told", { hasText: `${heldPort}: free` }).waitFor();
await becomes("a cell that is free again", () => pixel(page, place, [4, 4]), freeLight);

// Start from the page.
await page.getByRole("button", { name: "Start an agent" }).click();
await accessible("start-dialog");
await page.getByLabel("Name").fill("typed");
await page.getByLabel("Project").fill(PROJECT);
await page.getByLabel("Runtime").selectOption("process");
await page.getByLabel("Command").fill("echo the log of typed; sleep 100000");
await page.locator("#start-dialog [type=submit]").click();
await state("typed", "running");
await row("typed").locator("th a").click();
await page.locator("#log", { hasText: "the log of typed" }).waitFor();
await page.goBack();
assert.ok(await page.evaluate(() => window.wasNotReloaded), "all that was live");

// The same from a template.
await page.getByRole("button", { name: "Start an agent" }).click();
await page.getByLabel("Name").fill("made");
await page.getByLabel("Project").fill(PROJECT);
await page.getByLabel("Template").selectOption("ticker");
await page.locator("#start-dialog [type=submit]").click();
await state("made", "running");

// The map has each port that an agent has in its colour, and is drawn when another one comes.
await legend("leased 6");
const colours = new Map();
for (let index = 0; index < 12; index++) {
  await page.locator("#map").hover({ position: { x: index * 22 + 10, y: 10 } });
  const about = (await page.locator("#port-told").textContent()).match(/leased to [^/]*\/(\w+)|free$/);
  const name = about?.[1] ?? about?.[0];
  if (name) colours.set(name, [...(colours.get(name) ?? []), await pixel(page, index)]);
}
const names = ["made", "plain", "typed"];
assert.deepEqual([...colours.keys()].sort(), ["free", ...names]);
for (const name of names) {
  const own = await swatch(row(name).locator(".swatch"));
  assert.deepEqual(colours.get(name), [own, own], `the cells of ${name}`);
}
assert.equal(new Set([...colours.values()].flat()).size, 4, "each agent has a colour of its own, and what is free has another");

// An agent's page by keyboard: the heading has the focus, what can be done is next. It stays what it is while nothing changes.
await row("made").locator("th a").focus();
await page.keyboard.press("Enter");
await page.locator("#detail h2:focus", { hasText: "made" }).waitFor();
await page.keyboard.press("Tab");
assert.equal(await focused(), `Stop ${PROJECT}/made`);
await page.locator("#detail dd", { hasText: "tick" }).first().evaluate((it) => getSelection().selectAllChildren(it));
const selected = await page.evaluate(() => String(getSelection()));
assert.ok(selected.includes("tick"));
const started = await page.locator("#detail dt:text-is('Started') + dd").textContent();
await page.waitForFunction((started) => [...document.querySelectorAll("#detail dd")].every((it) => it.textContent !== started), started);
assert.equal(await focused(), `Stop ${PROJECT}/made`);
assert.equal(await page.evaluate(() => String(getSelection())), selected);

// Out of sight it asks for nothing, and keeps no connection from other pages; in sight again it is as things are.
const sight = (state) => page.evaluate((state) => {
  Object.defineProperty(document, "hidden", { value: state === "hidden", configurable: true });
  Object.defineProperty(document, "visibilityState", { value: state, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}, state);
const asked = [];
await sight("hidden");
await page.locator("#live", { hasText: "paused" }).waitFor();
page.on("request", (request) => asked.push(request.url()));
const last = Number((await page.locator("#log").textContent()).trim().split("\n").pop().split(" ")[1]);
await pause(4000);
assert.deepEqual(asked, [], "nothing is asked for");
await sight("visible");
await page.locator("#live.on").waitFor();
const ticks = async () => (await page.locator("#log").textContent()).trim().split("\n").map((line) => Number(line.split(" ")[1]));
const untilTick = (wanted) => page.waitForFunction((wanted) => document.getElementById("log")?.textContent.includes(`tick ${wanted}\n`), wanted);
await untilTick(last + 5);
const all = await ticks();
assert.deepEqual(all, all.map((_, index) => index + 1), "each line of the log is there once");

// Another broker, the same page, the same session; what happened meanwhile is there, and an agent's log goes on.
seen.mayFail = true;
berthold("broker", "stop");
await page.locator("#live:not(.on)").waitFor();
berthold("start", "later", "--runtime", "process", "--", "sleep", "100000");
await page.locator("#live.on").waitFor();
// That the connection broke off is told until the log is read again.
await page.waitForFunction(() => /tick \d+\n$/.test(document.getElementById("log")?.textContent));
await untilTick((await ticks()).pop() + 4);
const again = await ticks();
assert.deepEqual(again, again.map((_, index) => index + 1), "each line of the log is there once");
await page.goBack();
await row("made").locator("th a:focus").waitFor();
await state("later", "running");
seen.mayFail = false;

// What could not be done is told until that is dismissed; who dismisses it goes on with the next one, and at last with the agents.
for (const name of ["broken", "broken-too"]) {
  assert.throws(() => berthold("start", name, "--runtime", "process", "--", "/nowhere/at/all"));
  await state(name, "failed");
}
seen.mayFail = true;
const [first, second] = ["broken", "broken-too"].map((name) => page.locator(`.banner[data-about="${PROJECT}/${name}"]`));
await row("broken").getByRole("button", { name: /Start/ }).click();
await first.waitFor();
await first.getByRole("button").focus();
await first.evaluate((it) => { it.isTheSame = true; });
// While another one comes, the focus stays, and that alone is new to who has them read out.
await row("broken-too").getByRole("button", { name: /Start/ }).evaluate((it) => it.click());
await second.waitFor();
await accessible("banners");
seen.mayFail = false;
assert.ok(await first.evaluate((it) => it.isTheSame && it.contains(document.activeElement)), "the first banner is what it was");
await page.keyboard.press("Enter");
await first.waitFor({ state: "detached" });
assert.ok(await second.evaluate((it) => it.contains(document.activeElement)), "the focus is on the next banner");
await page.keyboard.press("Enter");
await second.waitFor({ state: "detached" });
assert.equal(await focused(), "Agents");
berthold("delete", "broken-too");

// A pool that is nearly full is told once, however many leases come and go, and no longer once it is not.
berthold("lease", "hoard", "-n", "28");
const full = page.locator(".banner", { hasText: "nearly full" });
await full.waitFor();
await page.evaluate(() => {
  window.changes = 0;
  const counted = new MutationObserver((changes) => { window.changes += changes.length; });
  counted.observe(document.getElementById("banners"), { subtree: true, childList: true, characterData: true });
});
for (const [more, count] of [["one", 37], ["two", 38]]) {
  berthold("lease", more, "-n", "1");
  await legend(`leased ${count}`);
}
await pause(300);
assert.equal(await page.evaluate(() => window.changes), 0, "it is told once");
for (const lease of ["hoard", "one", "two"]) berthold("release", lease);
await full.waitFor({ state: "detached" });

// An agent that there is not.
await page.evaluate((project) => { location.hash = `#/agents/${project}/nobody`; }, PROJECT);
await page.locator("#detail h2:focus", { hasText: "There is no agent" }).waitFor();
await accessible("no-agent");
await page.keyboard.press("Shift+Tab");
await page.keyboard.press("Enter");
await row("made").waitFor();

// Delete asks first.
const remove = async (name, answer) => {
  await row(name).getByRole("button", { name: /Delete/ }).click();
  if (answer === "Cancel") await accessible("sure-dialog");
  await page.locator("#sure-dialog").getByRole("button", { name: answer }).click();
};
await remove("typed", "Cancel");
await state("typed", "running");
// Who deletes goes on with the next one; on the agent's own page it is told that there is none; at last there is the table alone.
const next = { broken: `${PROJECT}/later`, later: `${PROJECT}/made`, typed: `${PROJECT}/plain` };
for (const name of ["broken", "later", "typed"]) {
  await remove(name, "Delete");
  await row(name).waitFor({ state: "detached" });
  assert.equal(await focused(), next[name]);
}
await row("made").locator("th a").click();
await page.locator("#detail").getByRole("button", { name: /Delete/ }).click();
await page.locator("#sure-dialog").getByRole("button", { name: "Delete" }).click();
await page.locator("#detail h2:focus", { hasText: "There is no agent" }).waitFor();
await page.goBack();
for (const name of ["plain", ...(IMAGE ? ["boxed"] : [])]) {
  await remove(name, "Delete");
  await row(name).waitFor({ state: "detached" });
}
assert.equal(await focused(), "The agents as a table");
await legend("leased 0");
assert.deepEqual(told, [], "nothing was complained of");
await browser.close();
