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
  // Where a network of the host comes or goes, as engines' do, Chromium breaks off what it loads.
  const isOfHost = (text) => text.includes("net::ERR_NETWORK_CHANGED");
  page.on("console", (message) => message.type() === "error" && !seen.mayFail && !isOfHost(message.text()) && seen.told.push(message.text()));
  page.on("pageerror", (error) => seen.told.push(String(error)));
  page.on("request", (request) => {
    const { hostname } = new URL(request.url());
    if (hostname !== "localhost") seen.told.push(`a request to ${request.url()}`);
  });
  context.setDefaultTimeout(60_000);
  return seen;
}

// What axe finds wrong, in light and dark: nothing. Nor does one thing lie over another.
export async function accessible(page, where) {
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    // Through the debugger, which the page's policy does not bind.
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => window.axe.run());
    const said = violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map((node) => node.html).join(" ").slice(0, 400)}`);
    assert.deepEqual(said, [], `${where}, ${colorScheme}`);
    const isWithin = () => [...document.querySelectorAll("td .behind")].every((it) => it.getBoundingClientRect().right <= it.closest("td").getBoundingClientRect().right);
    assert.ok(await page.evaluate(isWithin), `${where}: what is behind a port lies over nothing else`);
    if (!SCREENSHOTS) continue;
    // From the end of the page, where what stays at the lower edge of the window is where it belongs.
    const before = await page.evaluate(() => { const { scrollY } = window; scrollTo(0, document.body.scrollHeight); return scrollY; });
    await page.screenshot({ path: `${SCREENSHOTS}/${where}-${colorScheme}.png`, fullPage: true });
    await page.evaluate((before) => scrollTo(0, before), before);
  }
  await page.emulateMedia({ colorScheme: "light" });
}

export async function noneWider(page) {
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "nothing is wider than the window");
}

// The colour of the map's cell at this place, at a point of it, as style sheets have it.
export const pixel = (page, index, [x, y] = [10, 10], size = 22) => page.locator("#map").evaluate((map, [index, x, y, size]) => {
  const columns = Math.floor(map.clientWidth / size);
  const scale = map.width / map.clientWidth;
  const at = [(index % columns) * size + x, Math.floor(index / columns) * size + y].map((it) => it * scale);
  const [red, green, blue] = map.getContext("2d").getImageData(...at, 1, 1).data;
  return `rgb(${red}, ${green}, ${blue})`;
}, [index, x, y, size]);

// The colour that a swatch has now.
export const swatch = (locator) => locator.first().evaluate((it) => getComputedStyle(it).backgroundColor);

// Waits until what is asked for is so.
export async function becomes(what, read, wanted) {
  let last = await read();
  for (const since = Date.now(); last !== wanted; last = await read()) {
    assert.ok(Date.now() - since < 60_000, `${what}: ${last} and not ${wanted}`);
    await pause(50);
  }
}

// Whatever is chosen on the map, with cells of this size and `count` of them, is seen with what is told of it: by keyboard, and by tapping on one high
// up or pointing at it.
export async function mapIsRead(page, count, size, where) {
  const map = page.locator("#map");
  await map.focus();
  const columns = Math.floor(await map.evaluate((it) => it.clientWidth) / size);
  for (const [key, index] of [["End", count - 1], ["ArrowUp", count - 1 - columns], ["Home", 0], ["ArrowDown", columns], ["End", count - 1]]) {
    await page.keyboard.press(key);
    await cellIsSeen(page, index, size, `${where}: ${key}`);
  }
  await map.evaluate((it) => { it.blur(); scrollBy(0, it.getBoundingClientRect().top - 40); });
  const { x, y } = await map.boundingBox();
  const told = await page.locator("#port-told").textContent();
  await page.touchscreen.tap(x + 5 * size + 2, y + 2 * size + 2);
  await page.waitForFunction((told) => document.getElementById("port-told").textContent !== told, told);
  await cellIsSeen(page, 2 * columns + 5, size, `${where}: tapped on`);
  await page.mouse.move(x + 3 * size + 2, y + size + 2);
  await cellIsSeen(page, columns + 3, size, `${where}: pointed at`);
  for (const colorScheme of SCREENSHOTS ? ["dark", "light"] : []) {
    await page.emulateMedia({ colorScheme });
    await page.screenshot({ path: `${SCREENSHOTS}/${where}-map-${colorScheme}.png` });
  }
}

// The map's cell at this place, and what is told of it, are both in the window, and neither hides the other.
async function cellIsSeen(page, index, size, where) {
  const seen = await page.evaluate(([index, size]) => {
    const [map, told] = ["map", "port-told"].map((id) => document.getElementById(id));
    const { left, top } = map.getBoundingClientRect();
    const columns = Math.floor(map.clientWidth / size);
    const [x, y] = [left + (index % columns) * size, top + Math.floor(index / columns) * size];
    const text = told.getBoundingClientRect();
    const isThere = (element, x, y) => document.elementFromPoint(x, y) === element;
    return {
      cell: isThere(map, x + 1, y + 1) && isThere(map, x + size - 2, y + size - 2),
      text: text.top >= 0 && text.bottom <= innerHeight && [text.top + 1, text.bottom - 1].every((y) => isThere(told, text.left + 20, y)),
    };
  }, [index, size]);
  assert.deepEqual(seen, { cell: true, text: true }, where);
}
