// Speaks to the broker: calls, and the stream of what changes.

// An answer that is an error, in the broker's own words.
export class Refusal extends Error {
  constructor(status, problem) {
    super([problem.detail ?? `the broker answered ${status}`, problem.hint].filter(Boolean).join(": "));
    this.status = status;
  }
}

export async function call(method, path, body) {
  const options = { method, headers: {} };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  const response = await fetch(path, options);
  if (!response.ok) throw new Refusal(response.status, await response.json().catch(() => ({})));
  return response.status === 204 ? null : response.json();
}

export function agentPath(agent, rest = "") {
  return `/v1/agents/${encodeURIComponent(agent.project)}/${encodeURIComponent(agent.name)}${rest}`;
}

// Follows the events. `onConnect` is called whenever the stream begins anew: what happened before was missed.
export function follow({ onConnect, onEvent, onLost, onSignedOut }) {
  let source;
  let pause = 500;
  const connect = () => {
    source = new EventSource("/v1/events");
    source.onopen = () => { pause = 500; onConnect(); };
    for (const name of ["agent", "agent_deleted", "pool", "missed"]) {
      source.addEventListener(name, (message) => onEvent(JSON.parse(message.data)));
    }
    source.onerror = () => {
      onLost();
      // The browser's own attempts end with the first answer that is no stream.
      source.close();
      setTimeout(again, pause);
      pause = Math.min(pause * 2, 5000);
    };
  };
  const again = async () => {
    const answer = await fetch("/v1/agents").catch(() => null);
    if (answer?.status === 401) return onSignedOut();
    if (answer?.ok) return connect();
    setTimeout(again, pause);
    pause = Math.min(pause * 2, 5000);
  };
  connect();
}
