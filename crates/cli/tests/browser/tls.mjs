// The page and a preview of a broker that speaks TLS with a certificate of its own. `node tls.mjs`, with BERTHOLD, BERTHOLD_HOME (of a broker
// that runs) and PROJECT.

import assert from "node:assert/strict";
import { berthold, openPage, pause, signInUrl } from "./common.mjs";

const { BERTHOLD, PROJECT } = process.env;
const { context, page, told } = await openPage({ ignoreHTTPSErrors: true });
const overHttp2 = async (page) => {
  const { nextHopProtocol } = await page.evaluate(() => performance.getEntriesByType("navigation")[0].toJSON());
  assert.equal(nextHopProtocol, "h2");
};
const url = new URL(signInUrl());
assert.equal(url.protocol, "https:");
await page.goto(url.href);
await page.locator("#live.on").waitFor();
await overHttp2(page);
const [session, ...others] = await context.cookies(url.origin);
assert.ok(session.secure && session.httpOnly && session.sameSite === "Strict", JSON.stringify(session));
assert.deepEqual(others, []);

// What is started is seen without a reload, and its preview is secure too; the session stays with the page.
const echo = `require("node:http").createServer((request, answer) => answer.setHeader("Content-Type", "text/html")
  .end("<h1>" + JSON.stringify(request.headers) + "</h1>")).listen(process.env.AVAILABLE_LOCALHOST_PORT_A, "127.0.0.1")`;
berthold("start", "echo", "--wait", "--runtime", "process", "--", "node", "-e", echo);
const row = page.locator(`#agents tr[data-key="${PROJECT}/echo"]`);
const [preview] = await Promise.all([context.waitForEvent("page"), row.getByRole("link", { name: "Preview of" }).first().click()]);
await preview.locator("h1").waitFor();
assert.equal(new URL(preview.url()).origin, `https://a.echo.${PROJECT}.localhost:${url.port}`);
await overHttp2(preview);
const headers = JSON.parse(await preview.locator("h1").textContent());
assert.equal(headers["x-forwarded-proto"], "https");
assert.equal(headers.cookie, undefined);

// The same address without TLS shows nothing of it.
const plain = await fetch(`http://localhost:${url.port}/`).then((answer) => answer.status, () => "refused");
assert.ok(plain === "refused" || plain >= 300, `without TLS: ${plain}`);

await row.getByRole("button", { name: /^Stop/ }).click();
await row.locator(".state", { hasText: /^stopped/ }).waitFor();
await pause(500);
assert.deepEqual(told, [], "nothing was complained of");
process.exit();
