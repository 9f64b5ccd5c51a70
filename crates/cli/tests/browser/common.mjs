// What the tests in a browser share: the browser, the command, and what is looked at on every page.

import { execFileSync } from "node:child_process";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import assert from "node:assert/strict";
import { chromium } from "playwright-core";

const { BERTHOLD, SCREENSHOTS } = process.env;
export const berthold = (...words) => execFileSync(BERTHOLD, words, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
export const signInUrl = () => berthold("open", "--print").trim();
export const pause = (time) => new Promise((resolve) => { setTimeout(resolve, time); });
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

export const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  // An address of another host (RFC 5737) leads here.
  args: ["--host-resolver-rules=MAP 192.0.2.7 127.0.0.1", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});

// A page whose complaints, and requests to elsewhere, are gathered in `told` unless `mayFail` is set.
export async function openPage(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  const seen = { context, page, told: [], mayFail: false };
  page.on("console", (message) => message.type() === "error" && !seen.mayFail && seen.told.push(message.text()));
  page.on("pageerror", (error) => seen.told.push(String(error)));
  page.on("request", (request) => {
    const { hostname } = new URL(request.url());
    if (hostname !== "localhost") seen.told.push(`a request to ${request.url()}`);
  });
  context.setDefaultTimeout(60_000);
  return seen;
}

// What axe finds wrong, in light and dark: nothing.
export async function accessible(page, where) {
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    // Through the debugger, which the page's policy does not bind.
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => window.axe.run());
    const said = violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map((node) => node.html).join(" ").slice(0, 400)}`);
    assert.deepEqual(said, [], `${where}, ${colorScheme}`);
    if (SCREENSHOTS) await page.screenshot({ path: `${SCREENSHOTS}/${where}-${colorScheme}.png`, fullPage: true });
  }
  await page.emulateMedia({ colorScheme: "light" });
}

export async function noneWider(page) {
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "nothing is wider than the window");
}
