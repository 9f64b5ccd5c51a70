// Speaks to the broker: calls, and the stream of what changes.

import { inSight, whileInSight } from "./sight.js";

// How long an answer that takes the broker no work may take.
const ANSWER = 30_000;
// How long a stream of events may be silent: something, if a comment alone, comes each 15 s.
const SILENCE = 40_000;
// How many streams the pages of a browser have: it has few connections to one server (Chromium six), of which some are left for all else.
const PLACES = 4;
// How often a page without a place asks again.
export const AGAIN = 3000;

// An answer that is an error, in the broker's own words.
export class Refusal extends Error {
  constructor(status, problem) {
    super([problem.detail ?? `the broker answered ${status}`, problem.hint].filter(Boolean).join(": "));
    this.status = status;
  }
}

// The page's half of the session: the browser sends the cookie to every server on this host, this goes to the broker alone.
const HALF = "berthold-page";
let half = null;

export function keepHalf(page) {
  half = page;
  try { localStorage.setItem(HALF, page); } catch { /* Kept as long as the page. */ }
}

// Calls `work` when another page of this browser has signed in.
export function onSignedIn(work) {
  addEventListener("storage", (event) => event.key === HALF && work());
}

// A request to the broker; the answer, whatever it is.
export function ask(path, options = {}) {
  try { half = localStorage.getItem(HALF) ?? half; } catch { /* As it was. */ }
  return fetch(path, { ...options, headers: { ...options.headers, ...(half && { [HALF]: half }) } });
}

export async function call(method, path, body) {
  const options = { method, headers: {} };
  if (method === "GET") options.signal = AbortSignal.timeout(ANSWER);
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  const response = await ask(path, options);
  if (!response.ok) throw new Refusal(response.status, await response.json().catch(() => ({})));
  return response.status === 204 ? null : response.json();
}

export function agentPath(agent, rest = "") {
  return `/v1/agents/${encodeURIComponent(agent.project)}/${encodeURIComponent(agent.name)}${rest}`;
}

export const wait = (time) => new Promise((resolve) => { setTimeout(resolve, time); });

// The events of a stream (https://html.spec.whatwg.org/multipage/server-sent-events.html), as far as the broker writes them.
// `heard` is called for whatever comes, be it a comment.
async function* events(response, heard) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    heard();
    const parts = (text + value).split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const data = part.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart());
      if (data.length) yield JSON.parse(data.join("\n"));
    }
  }
}

// Does `work`, which streams, where one of the places for that is free among all pages of this browser; whether there was one.
export async function inPlace(work) {
  // Only pages of a secure origin can agree on that.
  if (!navigator.locks) return work().then(() => true);
  for (let place = 1; place <= PLACES; place++) {
    const options = { ifAvailable: true };
    if (await navigator.locks.request(`stream ${place}`, options, (lock) => lock && work().then(() => true))) return true;
  }
  return false;
}

// Follows the events for as long as the page is in sight; without a place for that everything is asked for now and then. `onConnect` is
// called whenever the broker answers again, and `onMissed` whenever what happened before was missed: then, and when the broker says so.
export async function follow({ onConnect, onMissed, onEvent, onLost, onPaused, onSignedOut }) {
  let pause = 250;
  let isAsking = false;

  // A connection that is silently dead, or on which what was missed cannot be had, is given up for another.
  async function listen(sight) {
    const connection = new AbortController();
    const giveUp = () => connection.abort();
    let silence = setTimeout(giveUp, ANSWER);
    const heard = () => { clearTimeout(silence); silence = setTimeout(giveUp, SILENCE); };
    try {
      const response = await ask("/v1/events", { signal: AbortSignal.any([sight, connection.signal]) });
      if (!response.ok) throw new Refusal(response.status, {});
      pause = 250;
      heard();
      onConnect();
      onMissed().catch(giveUp);
      for await (const event of events(response, heard)) {
        if (event.event === "missed") onMissed().catch(giveUp);
        else onEvent(event);
      }
    } finally { clearTimeout(silence); }
  }

  for (;;) {
    const sight = whileInSight();
    if (sight.aborted) {
      onPaused();
      await inSight();
      isAsking = false;
      pause = 250;
      continue;
    }
    try {
      if (!(await inPlace(() => listen(sight)))) {
        await onMissed();
        if (!isAsking) onConnect();
        isAsking = true;
        await wait(AGAIN);
        continue;
      }
    } catch (error) {
      if (error.status === 401) return onSignedOut();
    }
    isAsking = false;
    if (sight.aborted) continue;
    onLost();
    await wait(pause);
    pause = Math.min(pause * 2, 5000);
  }
}
