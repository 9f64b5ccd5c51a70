// The pool as a map: one cell a port, drawn on a canvas so that 65,535 of them are no burden.

const SAID = { free: "free", leased: "leased", remembered: "remembered", cooling: "cooling down", blocked: "blocked" };

// The colour of an agent, the same wherever it is shown.
export function hue(agent) {
  let hash = 2166136261;
  for (const character of agent) hash = Math.imul(hash ^ character.codePointAt(0), 16777619) >>> 0;
  return (hash * 137.508) % 360;
}

export class PortMap {
  constructor(canvas, told) {
    this.canvas = canvas;
    this.told = told;
    this.numbers = [];
    this.states = new Map();
    this.selected = -1;
    canvas.addEventListener("pointermove", (event) => this.select(this.at(event)));
    canvas.addEventListener("click", (event) => this.select(this.at(event)));
    canvas.addEventListener("focus", () => this.selected < 0 && this.select(0));
    canvas.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(canvas.parentElement);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  show(pool) {
    const [first, last] = bounds(pool.range);
    const excluded = pool.excluded.map(bounds);
    this.numbers = [];
    for (let port = first; port <= last; port++) {
      if (!excluded.some(([low, high]) => low <= port && port <= high)) this.numbers.push(port);
    }
    this.states = new Map(pool.ports.map((port) => [port.port, port]));
    const { free, leased, remembered, cooling, blocked } = pool.counts;
    this.canvas.setAttribute("aria-label", `Map of the ports ${pool.range}: ${leased} leased, ${remembered} remembered, ${cooling} cooling down, ${blocked} blocked, ${free} free`);
    this.draw();
    if (this.selected >= 0) this.tell();
  }

  layout() {
    const width = Math.max(this.canvas.clientWidth, 1);
    const count = Math.max(this.numbers.length, 1);
    const size = count <= 400 ? 22 : count <= 1500 ? 16 : count <= 5000 ? 10 : count <= 20000 ? 6 : 4;
    const columns = Math.max(1, Math.floor(width / size));
    return { size, columns, height: Math.ceil(count / columns) * size, width };
  }

  draw() {
    const { size, columns, height, width } = this.layout();
    const scale = devicePixelRatio || 1;
    this.canvas.style.height = `${height}px`;
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(height * scale);
    const context = this.canvas.getContext("2d");
    context.scale(scale, scale);
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const [free, cooling, blocked, ink] = ["--free", "--cooling", "--blocked", "--ink"].map(colour);
    const light = colour("--light");
    const gap = size >= 10 ? 2 : 1;
    this.numbers.forEach((number, index) => {
      const [x, y, side] = [(index % columns) * size, Math.floor(index / columns) * size, size - gap];
      const port = this.states.get(number);
      context.fillStyle = free;
      if (port?.state === "leased") context.fillStyle = `hsl(${hue(port.agent)} 62% ${light})`;
      if (port?.state === "cooling") context.fillStyle = cooling;
      if (port?.state === "blocked") context.fillStyle = blocked;
      context.fillRect(x, y, side, side);
      if (port?.state === "remembered") {
        context.strokeStyle = `hsl(${hue(port.agent)} 62% ${light})`;
        context.lineWidth = size >= 10 ? 2 : 1;
        context.strokeRect(x + 1, y + 1, side - 2, side - 2);
      }
      // Not by colour alone.
      if (port?.state === "blocked" && size >= 10) {
        context.strokeStyle = free;
        context.lineWidth = 1.5;
        context.beginPath();
        context.moveTo(x + 3, y + side - 3);
        context.lineTo(x + side - 3, y + 3);
        context.stroke();
      }
      if (index === this.selected) {
        context.strokeStyle = ink;
        context.lineWidth = 2;
        context.strokeRect(x, y, side, side);
      }
    });
  }

  at(event) {
    const { size, columns } = this.layout();
    const column = Math.floor(event.offsetX / size);
    const index = Math.floor(event.offsetY / size) * columns + column;
    return column < columns && index < this.numbers.length ? index : this.selected;
  }

  select(index) {
    if (index === this.selected || index < 0 || index >= this.numbers.length) return;
    this.selected = index;
    this.draw();
    this.tell();
  }

  tell() {
    const number = this.numbers[this.selected];
    if (number === undefined) return;
    const port = this.states.get(number);
    const owner = port?.agent ? ` ${port.state === "remembered" ? "for" : "to"} ${port.agent}${port.label ? `, port ${port.label}` : ""}` : "";
    const detail = port?.detail ? ` by ${port.detail}`.replace("by until", "until") : "";
    this.told.textContent = `${number}: ${SAID[port?.state ?? "free"]}${owner}${detail}`;
  }

  key(event) {
    const { columns } = this.layout();
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
    const end = { Home: 0, End: this.numbers.length - 1 }[event.key];
    if (step === undefined && end === undefined) return;
    event.preventDefault();
    this.select(end ?? this.selected + step);
  }
}

function bounds(range) {
  const [first, last = first] = range.split("-").map(Number);
  return [first, last];
}
