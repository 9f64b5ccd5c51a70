// A page of Vite's dev server at URL, which is started once there is a file GO: an edit of FILE is shown without the page being loaded again.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { browser } from "./common.mjs";

const { URL: url, FILE, GO, PROTOCOL } = process.env;
const page = await browser.newPage({ ignoreHTTPSErrors: true });
page.setDefaultTimeout(60_000);
// Vite's client goes past the preview if its WebSocket is refused there, which is not to be.
const sockets = [];
const updates = [];
page.on("websocket", (socket) => {
  sockets.push(socket.url());
  socket.on("framereceived", ({ payload }) => { if (String(payload).includes('"update"')) updates.push(socket.url()); });
});
const connected = page.waitForEvent("console", { predicate: (message) => message.text().includes("[vite] connected") });
// The notice of the broker loads itself again until the server is up, which it is not before it was seen.
await page.goto(url);
await page.getByText(/nothing (answers|listens)/i).first().waitFor();
writeFileSync(GO, "");
await page.locator("#said", { hasText: "before" }).waitFor();
// An edit before that would reach nobody.
await connected;
const { nextHopProtocol } = await page.evaluate(() => performance.getEntriesByType("navigation")[0].toJSON());
assert.equal(nextHopProtocol, PROTOCOL);
await page.evaluate(() => { window.wasNotReloaded = true; });
writeFileSync(FILE, "export const said = 'after';\n");
await page.locator("#said", { hasText: "after" }).waitFor();
assert.ok(await page.evaluate(() => window.wasNotReloaded), "the edit came by hot reload");
const isOfPreview = (socket) => socket.startsWith(url.replace("http", "ws"));
assert.ok(updates.length > 0 && [...sockets, ...updates].every(isOfPreview), `the WebSocket is the preview's: ${sockets}, ${updates}`);
await browser.close();
