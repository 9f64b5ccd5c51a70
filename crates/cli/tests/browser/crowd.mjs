// The page with 400 agents in a pool of 1,001 ports. `node crowd.mjs`, with BERTHOLD, BERTHOLD_HOME (of a broker that runs) and PROJECT.

import assert from "node:assert/strict";
import http from "node:http";
import { accessible, browser, mapIsRead, noneWider, openPage, pause, signInUrl } from "./common.mjs";

const { BERTHOLD_HOME, PROJECT } = process.env;
const COUNT = 400;

function start(name) {
  return new Promise((resolve, reject) => {
    const request = http.request({
      socketPath: `${BERTHOLD_HOME}/broker.sock`, method: "PUT", path: `/v1/agents/${PROJECT}/${name}`,
      headers: { "Content-Type": "application/json" },
    }, (answer) => answer.resume().on("end", () => answer.statusCode === 201 ? resolve() : reject(new Error(`${name}: ${answer.statusCode}`))));
    request.on("error", reject);
    request.end(JSON.stringify({ runtime: "process", command: ["sleep", "100000"] }));
  });
}

const { page, told } = await openPage({ hasTouch: true });
await page.goto(signInUrl());
await page.locator("#live.on").waitFor();

// They come while the page is looked at.
const names = Array.from({ length: COUNT }, (_, index) => `agent-${index + 1}`);
const starting = async () => { for (let name = names.shift(); name; name = names.shift()) await start(name); };
await Promise.all(Array.from({ length: 4 }, starting));
await page.waitForFunction((count) => document.querySelectorAll("#agents tbody tr .state.running").length === count, COUNT);
await page.locator("#legend li", { hasText: /^leased 800$/ }).waitFor();
assert.equal(await page.locator("#agents tbody tr").nth(9).getAttribute("data-key"), `${PROJECT}/agent-10`, "10 comes after 9");

// The longest time in which the page did nothing else, while everything in it changes each second.
await page.evaluate(() => { window.longest = 0; new PerformanceObserver((list) => { for (const one of list.getEntries()) window.longest = Math.max(window.longest, one.duration); }).observe({ type: "longtask" }); });
await pause(5000);
console.log(`the longest task of the page with ${COUNT} agents took ${Math.round(await page.evaluate(() => window.longest))} ms`);

await page.locator("#map").focus();
await page.keyboard.press("End");
await page.locator("#port-told", { hasText: /: free$/ }).waitFor();
await mapIsRead(page, 1001, 16, "crowd");
await accessible(page, "crowd");
await noneWider(page);
await page.getByLabel("Search").fill("agent-37");
await page.waitForFunction(() => document.querySelectorAll("#agents tbody tr").length === 11);
await page.getByLabel("Search").fill("");

// On a phone the map is far below, and there is a way to it and back.
await page.setViewportSize({ width: 390, height: 844 });
const isSeen = (selector) => {
  const { top, bottom } = document.querySelector(selector).getBoundingClientRect();
  return bottom > 0 && top < innerHeight;
};
assert.ok(!(await page.evaluate(isSeen, "#pool-title")));
for (const [link, heading] of [["To the ports", "#pool-title"], ["To the agents", "#agents-title"]]) {
  await page.getByRole("link", { name: link }).click();
  await page.waitForFunction(isSeen, heading);
}
await mapIsRead(page, 1001, 16, "crowd-narrow");
await accessible(page, "crowd-narrow");
await noneWider(page);
assert.deepEqual(told, [], "nothing was complained of");
await browser.close();
