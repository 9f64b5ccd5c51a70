// How a browser comes to be signed in, the page in many windows, and on a connection that goes silently dead. `node lost.mjs`, with BERTHOLD,
// BERTHOLD_HOME (of a broker that runs) and PROJECT.

import net from "node:net";
import assert from "node:assert/strict";
import { accessible, berthold, browser, openPage, pause, signInUrl } from "./common.mjs";

const { PROJECT } = process.env;
const live = (page) => page.locator("#live.on").waitFor();

// A tab that asks to sign in goes on once another one, or it itself, is given a link.
const seen = await openPage();
const { context, page, told } = seen;
// That nobody is signed in, and that what is broken off on purpose fails, Chromium complains of.
seen.mayFail = true;
const origin = new URL("/", signInUrl()).href;
await page.goto(origin);
await page.getByText("berthold open", { exact: true }).waitFor();
await page.goto(signInUrl());
await live(page);
assert.equal(new URL(page.url()).hash, "#/", "the ticket is not left in the address");
await context.clearCookies();
await page.reload();
await page.getByText("berthold open", { exact: true }).waitFor();
const used = signInUrl();
seen.mayFail = false;
const second = await context.newPage();
await second.goto(used);
await live(second);
await live(page);

// A link that has been used is no harm to who is signed in, and told to who is not.
const third = await context.newPage();
await third.goto(used);
await live(third);
await third.locator(".banner", { hasText: "berthold open" }).waitFor();
await third.locator("#legend li").first().waitFor();
await accessible(third, "used-ticket");
assert.equal(new URL(third.url()).hash, "#/");
const stranger = await (await browser.newContext()).newPage();
await stranger.goto(used);
await stranger.locator("#sign-in-why", { hasText: "makes a new one" }).waitFor();
await stranger.context().close();
for (const one of [second, third]) await one.close();

// However many windows there are, each goes on with what it shows, and what is asked for in it is done.
berthold("start", "made", "--template", "ticker");
const windows = [page];
while (windows.length < 6) windows.push(await context.newPage());
for (const one of windows) {
  await one.goto(`${origin}#/agents/${PROJECT}/made`);
  // Where a network of the host comes or goes, as engines' do, Chromium breaks off what it loads.
  await one.locator("#live.on").waitFor({ timeout: 15_000 }).catch(() => one.reload());
}
const ticks = async (one) => (await one.locator("#log").textContent()).trim().split("\n").map((line) => Number(line.split(" ")[1]));
await Promise.all(windows.map(async (one) => {
  await one.locator("#log", { hasText: "tick" }).waitFor();
  const wanted = `tick ${(await ticks(one)).pop() + 4}\n`;
  await one.waitForFunction((wanted) => document.getElementById("log")?.textContent.includes(wanted), wanted);
  const all = await ticks(one);
  assert.deepEqual(all, all.map((_, index) => index + 1), "each line of the log is there once");
}));
await windows[5].locator("#detail").getByRole("button", { name: /Stop/ }).click();
for (const one of windows) await one.locator("#detail .state.stopped").waitFor();
for (const one of windows.slice(1)) await one.close();
berthold("delete", "made");

// A way to the broker on which connections can go dead without a word to either end, as behind the lid of a laptop.
const streams = [];
const way = net.createServer((near) => {
  const far = net.connect(new URL(origin).port, "127.0.0.1");
  near.on("data", (data) => data.includes("GET /v1/events") && streams.push([near, far]));
  near.pipe(far).pipe(near);
  for (const end of [near, far]) end.on("error", () => { near.destroy(); far.destroy(); });
});
await new Promise((resolve) => { way.listen(0, "127.0.0.1", resolve); });
const url = new URL(signInUrl());
url.port = way.address().port;
await page.clock.install();
await page.goto(url.href);
await live(page);
await page.getByText("No agents yet").waitFor();

// A comment is a sign of life.
await page.clock.fastForward(25_000);
streams[0][0].write("3\r\n:\n\n\r\n");
await pause(1000);
await page.clock.fastForward(25_000);
await pause(1000);
assert.equal(streams.length, 1, "the connection is kept");

// Without any the page connects again and shows what it has missed, also where that cannot be had at once.
for (const end of streams[0]) end.unpipe().pause();
seen.mayFail = true;
berthold("start", "unheard", "--runtime", "process", "--", "sleep", "100000");
assert.equal(await page.locator("#agents tbody tr").count(), 0);
await page.route("**/v1/agents", (route) => route.abort(), { times: 1 });
await page.clock.fastForward(45_000);
await page.locator(`#agents tr[data-key="${PROJECT}/unheard"]`).waitFor();
await live(page);
assert.equal(streams.length, 3);
assert.deepEqual(told, [], "nothing was complained of");
await browser.close();
process.exit();
