// Whether the page is in sight. A browser has few connections to one server (Chromium six), which pages in the background would keep
// from the one that is looked at: so what streams ends with the sight of it.

// Longer than it takes to look at another page and come back.
const MOMENT = 3000;
const awaited = [];
let seen = new AbortController();
if (document.hidden) seen.abort();
let leaving = null;

// A signal that is aborted when the page has gone out of sight.
export const whileInSight = () => seen.signal;

// Done once the page is in sight.
export const inSight = () => seen.signal.aborted ? new Promise((resolve) => { awaited.push(resolve); }) : Promise.resolve();

document.addEventListener("visibilitychange", () => {
  clearTimeout(leaving);
  if (document.hidden) leaving = setTimeout(() => seen.abort(), MOMENT);
  else if (seen.signal.aborted) {
    seen = new AbortController();
    for (const resolve of awaited.splice(0)) resolve();
  }
});
