// The pool as a map: one cell a port, drawn on a canvas so that 65,535 of them are no burden.

// How far a cell that is scrolled to is from the edge, in pixels.
const MARGIN = 8;
const SAID = { free: "free", leased: "leased", remembered: "remembered", cooling: "cooling down", blocked: "blocked" };

// The turn after which one colour is followed by the next, so that none is like those before it.
const TURN = 137.508;
const turns = new Map();

// The colour of an agent, the same wherever it is shown.
export function colour(agent, light) {
  if (!turns.has(agent)) turns.set(agent, turns.size);
  return `hsl(${(210 + turns.get(agent) * TURN) % 360} 62% ${light})`;
}

export class PortMap {
  constructor(canvas, told) {
    this.canvas = canvas;
    this.told = told;
    this.numbers = [];
    this.states = new Map();
    this.selected = -1;
    // The ports without the one that is selected, drawn when something has changed.
    this.ports = document.createElement("canvas");
    this.isDrawn = false;
    this.frame = null;
    canvas.addEventListener("pointermove", (event) => this.select(this.at(event)));
    canvas.addEventListener("click", (event) => { this.select(this.at(event)); this.reveal(); });
    // Whoever points or taps has the focus a moment before it is known at what.
    canvas.addEventListener("focus", () => {
      if (!canvas.matches(":focus-visible")) return;
      if (this.selected < 0) this.select(0);
      this.reveal();
    });
    canvas.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.change()).observe(canvas.parentElement);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.change());
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
    this.change();
    if (this.selected >= 0) this.tell();
    else if (document.activeElement === this.canvas) this.select(0);
  }

  layout() {
    const width = Math.max(this.canvas.clientWidth, 1);
    const count = Math.max(this.numbers.length, 1);
    const size = count <= 400 ? 22 : count <= 1500 ? 16 : count <= 5000 ? 10 : count <= 20000 ? 6 : 4;
    const columns = Math.max(1, Math.floor(width / size));
    return { size, columns, height: Math.ceil(count / columns) * size, width };
  }

  change() {
    this.isDrawn = false;
    this.draw();
  }

  // Draws with the next picture that the browser shows, however often that is asked for.
  draw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      if (!this.isDrawn) this.drawPorts();
      this.isDrawn = true;
      const context = this.canvas.getContext("2d");
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.clearRect(0, 0, this.canvas.width, this.canvas.height);
      context.drawImage(this.ports, 0, 0);
      if (this.selected < 0) return;
      const { size, columns } = this.layout();
      const scale = devicePixelRatio || 1;
      const side = size - (size >= 10 ? 2 : 1);
      context.scale(scale, scale);
      context.strokeStyle = style("--ink");
      context.lineWidth = 2;
      context.strokeRect((this.selected % columns) * size, Math.floor(this.selected / columns) * size, side, side);
    });
  }

  drawPorts() {
    const { size, columns, height, width } = this.layout();
    const scale = devicePixelRatio || 1;
    this.canvas.style.height = `${height}px`;
    for (const canvas of [this.canvas, this.ports]) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
    }
    const context = this.ports.getContext("2d");
    context.scale(scale, scale);
    const [free, cooling, blocked, light] = ["--free", "--cooling", "--blocked", "--light"].map(style);
    const gap = size >= 10 ? 2 : 1;
    this.numbers.forEach((number, index) => {
      const [x, y, side] = [(index % columns) * size, Math.floor(index / columns) * size, size - gap];
      const port = this.states.get(number);
      context.fillStyle = free;
      if (port?.state === "leased") context.fillStyle = colour(port.agent, light);
      if (port?.state === "cooling") context.fillStyle = cooling;
      if (port?.state === "blocked") context.fillStyle = blocked;
      context.fillRect(x, y, side, side);
      if (port?.state === "remembered") {
        context.strokeStyle = colour(port.agent, light);
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
    const owner = port?.agent ? ` ${port.state === "leased" ? "to" : "for"} ${port.agent}${port.label ? `, port ${port.label}` : ""}` : "";
    const detail = port?.detail ? ` by ${port.detail}`.replace("by until", "until") : "";
    this.told.textContent = `${number}: ${SAID[port?.state ?? "free"]}${owner}${detail}`;
  }

  // Scrolls so far that the selected cell is between the top of the window and the text, which stays at the bottom of it. At once and not
  // smoothly: held keys would outrun that, and not everyone bears it.
  reveal() {
    if (this.selected < 0) return;
    const { size, columns } = this.layout();
    const top = this.canvas.getBoundingClientRect().top + Math.floor(this.selected / columns) * size;
    const lowest = innerHeight - this.told.offsetHeight - MARGIN - size;
    if (top < MARGIN) scrollBy({ top: top - MARGIN, behavior: "instant" });
    else if (top > lowest) scrollBy({ top: top - lowest, behavior: "instant" });
  }

  key(event) {
    const { columns } = this.layout();
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
    const end = { Home: 0, End: this.numbers.length - 1 }[event.key];
    if (step === undefined && end === undefined) return;
    event.preventDefault();
    this.select(end ?? this.selected + step);
    this.reveal();
  }
}

// A value of the style sheet.
function style(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function bounds(range) {
  const [first, last = first] = range.split("-").map(Number);
  return [first, last];
}
