// The page where answers are slow, or much, and where time alone changes what it shows. `node slow.mjs`, with BERTHOLD, BERTHOLD_HOME (of
// a broker that runs, whose ports cool down) and PROJECT.

import assert from "node:assert/strict";
import { accessible, becomes, berthold, browser, openPage, pause, pixel, signInUrl, swatch } from "./common.mjs";

const { PROJECT } = process.env;
const seen = await openPage();
const { page, told } = seen;
const row = (name) => page.locator(`#agents tr[data-key="${PROJECT}/${name}"]`);
const state = (name, wanted) => row(name).locator(".state", { hasText: new RegExp(`^${wanted}`) }).waitFor();
const run = (name, script) => berthold("start", name, "--runtime", "process", "--", "sh", "-c", script);

// Requests for what has this name in its path wait until that is called which is given back.
async function hold(path) {
  let release = null;
  const released = new Promise((resolve) => { release = resolve; });
  await page.route((url) => url.href.includes(path), async (route) => { await released; await route.continue(); });
  return release;
}

await page.goto(signInUrl());
await page.locator("#live.on").waitFor();

// Ports that have cooled down are shown as free, though no event says so; since when the others are what they are goes on.
berthold("lease", "cold");
await page.locator("#legend li", { hasText: /^leased 2$/ }).waitFor();
await page.locator("#map").hover({ position: { x: 10, y: 10 } });
const cooling = await swatch(page.locator("#legend .swatch.cooling"));
berthold("release", "cold");
await Promise.all([
  page.locator("#legend li", { hasText: /^cooling 2$/ }).waitFor(),
  page.locator("#port-told", { hasText: `: cooling down for ${PROJECT}/cold until ` }).waitFor(),
  becomes("a cell that cools down", () => pixel(page, 0), cooling),
]);
await page.locator("#legend li", { hasText: /^cooling 0$/ }).waitFor();
berthold("lease", "kept");
await page.getByText("The ports that are not free, as a table").click();
const since = page.locator("#ports tr", { hasText: "kept A" }).locator("time");
await since.filter({ hasText: /ago$/ }).waitFor();
const before = await since.textContent();
await page.waitForFunction((before) => ![...document.querySelectorAll("#ports time")].some((time) => time.textContent === before), before);
await accessible(page, "ports");

// What is told late of one agent is not shown with another.
run("first", "sleep 100000");
run("other", "sleep 100000");
await state("other", "running");
const release = await hold(`history?agent=${PROJECT}%2Ffirst`);
await row("first").locator("th a").click();
await page.locator("#detail h2", { hasText: "first" }).waitFor();
await page.goBack();
await row("other").locator("th a").click();
const ports = JSON.parse(berthold("--json", "show", "other")).agent.ports;
const had = page.locator("#detail [aria-label='Ports it has had'] tbody th");
await had.first().waitFor();
const late = page.waitForResponse((response) => response.url().includes("first"));
release();
await (await late).finished();
await pause(300);
assert.deepEqual((await had.allTextContents()).map(Number).sort(), Object.values(ports));
await page.goBack();

// A start that is under way neither keeps another from being made nor meddles with it.
const dialog = page.locator("#start-dialog");
const open = async (name) => {
  await page.getByRole("button", { name: "Start an agent" }).click();
  assert.equal(await dialog.getByLabel("Name").inputValue(), "");
  await dialog.getByLabel("Name").fill(name);
  await dialog.getByLabel("Project").fill(PROJECT);
  await dialog.getByLabel("Runtime").selectOption("process");
  await dialog.getByLabel("Command").fill("sleep 100000");
};
const submit = dialog.getByRole("button", { name: "Start" });
const goOn = await hold("/slow");
const fail = await hold("/Slow");
await open("slow");
await submit.click();
await dialog.locator("[type=submit][aria-disabled]:focus").waitFor();
await accessible(page, "starting");
await dialog.getByRole("button", { name: "Cancel" }).click();
await open("Slow");
await submit.click();
await page.keyboard.press("Escape");
await open("quick");
await submit.click();
await state("quick", "running");
await dialog.waitFor({ state: "hidden" });
await open("typed");
goOn();
await page.waitForFunction((name) => document.querySelector(`#agents tr[data-key="${name}"] .running`), `${PROJECT}/slow`);
seen.mayFail = true;
fail();
await page.locator(".banner", { hasText: "Slow" }).waitFor({ state: "attached" });
assert.equal(await dialog.getByLabel("Name").inputValue(), "typed");
assert.equal(await dialog.locator(".problem").textContent(), "");
// What is wrong is told beside what was typed, where that is still there.
await dialog.getByLabel("Name").fill("Typed");
await submit.click();
await dialog.locator(".problem", { hasText: "Typed" }).waitFor();
assert.equal(await dialog.getByLabel("Name").inputValue(), "Typed");
await dialog.getByRole("button", { name: "Cancel" }).click();
seen.mayFail = false;

// That there is no answer is told until there is one.
const answer = await hold("other/stop");
await page.clock.install();
await row("other").getByRole("button", { name: /Stop/ }).click();
await page.clock.fastForward(31_000);
const banner = page.locator(".banner", { hasText: "other: no answer" });
await banner.waitFor();
answer();
await state("other", "stopped");
await banner.waitFor({ state: "detached" });

// Of a log that is long there is the end.
const line = "line $i of a log of which there is far more than anyone reads";
run("loud", `i=0; while [ $i -lt 100000 ]; do i=$((i+1)); echo "${line}"; [ $((i % 20000)) -gt 0 ] || sleep 1; done; sleep 100000`);
await state("loud", "running");
await row("loud").locator("th a").click();
await page.waitForFunction(() => document.getElementById("log")?.textContent.includes("line 100000 of"));
assert.ok(await page.evaluate(() => document.getElementById("log").textContent.length) <= 1_200_000, "it is bounded");
assert.deepEqual(told, [], "nothing was complained of");
await browser.close();
