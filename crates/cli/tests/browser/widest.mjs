// The page with the widest pool that there is. `node widest.mjs`, with BERTHOLD and BERTHOLD_HOME (of a broker that runs).

import assert from "node:assert/strict";
import { accessible, berthold, browser, mapIsRead, noneWider, openPage, signInUrl } from "./common.mjs";

const { page, told } = await openPage({ hasTouch: true });
await page.goto(signInUrl());
await page.locator("#live.on").waitFor();
const map = page.locator("#map");
const says = (text) => page.locator("#port-told", { hasText: text }).waitFor();
await map.focus();
await says("1: free");
await page.keyboard.press("End");
await says("65535: free");
await page.keyboard.press("ArrowLeft");
await says("65534: free");

// What is pointed at is told, however fast the pointer goes, and the map is not drawn anew for it (but when a port has changed).
await page.keyboard.press("Home");
await says("1: free");
await page.keyboard.press("ArrowRight");
await says("2: free");
const { x, y, width } = await map.boundingBox();
await page.mouse.move(x + 2, y + 2);
await says("1: free");
await page.evaluate(() => {
  window.drawn = 0;
  const { drawImage } = CanvasRenderingContext2D.prototype;
  CanvasRenderingContext2D.prototype.drawImage = function draw(...words) { window.drawn++; return drawImage.apply(this, words); };
  const { fillRect } = CanvasRenderingContext2D.prototype;
  window.cells = 0;
  CanvasRenderingContext2D.prototype.fillRect = function fill(...words) { window.cells++; return fillRect.apply(this, words); };
});
await page.mouse.move(x + width - 8, y + 40, { steps: 400 });
await page.waitForFunction(() => window.drawn > 0);
assert.ok(await page.evaluate(() => window.cells) <= 20 * 65535, "the cells stay as they are drawn");
assert.ok(await page.evaluate(() => window.drawn) <= 400);

// The table says how many ports it leaves out.
for (const owner of ["one", "two", "three"]) berthold("lease", owner, "-n", "702");
const summary = page.getByText("The ports that are not free, as a table");
await summary.click();
await page.locator("#ports tr:last-child", { hasText: /^and \d+ more/ }).waitFor();
assert.equal(await page.locator("#ports tbody tr").count(), 2001);
await summary.click();
// The broker's own port is none of the pool.
await mapIsRead(page, 65_534, 4, "widest");
await accessible(page, "widest");
await page.setViewportSize({ width: 390, height: 844 });
await mapIsRead(page, 65_534, 4, "widest-narrow");
await accessible(page, "widest-narrow");
await noneWider(page);
assert.deepEqual(told, [], "nothing was complained of");
await browser.close();
