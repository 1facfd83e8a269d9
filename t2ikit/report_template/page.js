// The only script of a report besides Vega: draws the charts, runs the widgets without a kernel, folds the code.
"use strict";

const payload = (node) => JSON.parse(node.querySelector(":scope > script[type='application/json']").textContent);

const failed = (node, what, error) => {
  const note = document.createElement("p");
  note.className = "note";
  note.textContent = `${what} could not be shown: ${error}`;
  node.append(note);
};

// --- charts ---------------------------------------------------------------------------------------------------------

/** A title in lines of about `room` pixels. */
function wrapped(title, room) {
  if (title && typeof title === "object" && !Array.isArray(title)) {
    return { ...title, text: wrapped(title.text, room), subtitle: wrapped(title.subtitle, room * 1.25) };
  }
  if (typeof title !== "string") return title;
  const most = Math.max(16, Math.floor(room / 9));
  return title.split(/\s+/).reduce((lines, word) => {
    const line = `${lines.at(-1)} ${word}`.trim();
    return line.length <= most ? [...lines.slice(0, -1), line] : [...lines, word];
  }, [""]);
}

/** The same chart for a narrow page: views side by side go one under the other, at most `most` wide, and titles wrap. */
function narrowed(spec, room, most) {
  const view = { ...spec };
  for (const list of ["hconcat", "vconcat", "concat", "layer"]) {
    if (view[list]) view[list] = view[list].map((child) => narrowed(child, room, most));
  }
  if (view.hconcat) {
    view.vconcat = view.hconcat;
    delete view.hconcat;
  }
  if (view.columns || view.concat) view.columns = 1;
  if (view.spec) view.spec = narrowed(view.spec, room, most);
  if (view.title) view.title = wrapped(view.title, room - 20);
  const { x } = view.encoding ?? {};
  if (typeof x?.title === "string") view.encoding = { ...view.encoding, x: { ...x, title: wrapped(x.title, 1.2 * most) } };
  if (typeof view.width === "number") view.width = Math.min(view.width, most);
  return view;
}

/** The same chart with every view's width times `factor`. */
function shrunk(spec, factor) {
  const view = { ...spec };
  for (const list of ["hconcat", "vconcat", "concat", "layer"]) {
    if (view[list]) view[list] = view[list].map((child) => shrunk(child, factor));
  }
  if (view.spec) view.spec = shrunk(view.spec, factor);
  if (typeof view.width === "number") view.width = Math.floor(view.width * factor);
  return view;
}

/** The pixels of a chart's widest row that are views, not axes or legends. */
function span(spec, width) {
  const across = (children, join) => children.map((child) => span(child, width)).reduce(join);
  if (spec.hconcat) return across(spec.hconcat, (a, b) => a + b);
  if (spec.vconcat ?? spec.layer) return across(spec.vconcat ?? spec.layer, (a, b) => Math.max(a, b));
  return typeof spec.width === "number" ? spec.width : width;
}

/** Draw as the author sized it; where that is too wide, legend below; still too wide: a little smaller; else narrowed. */
async function draw(node, spec) {
  const room = node.parentElement.clientWidth;
  const view = spec.config?.view ?? {};
  const width = view.continuousWidth ?? 300;
  const legend = { ...spec.config?.legend, orient: "bottom", columns: room < 480 ? 2 : 4 };
  let excess = 0; // how much wider than the page the last attempt was
  let scale = 1;
  let most = room - 70;
  const sized = (changed, continuousWidth) =>
    ({ ...changed, config: { ...spec.config, legend, view: { ...view, continuousWidth } } });
  const smaller = () => {
    scale -= (excess + 4) / span(spec, width);
    return scale > 0.7 && sized(shrunk(spec, scale), Math.floor(width * scale));
  };
  const narrow = () => {
    const fitting = Math.max(120, most);
    return sized(narrowed(spec, room, fitting), Math.min(width, fitting));
  };
  const narrower = () => {
    most -= excess + 4;
    return narrow();
  };
  for (const attempt of [() => spec, () => sized(spec, width), smaller, smaller, narrow, narrower]) {
    const candidate = attempt();
    if (!candidate) continue;
    node.drawn?.finalize();
    node.drawn = await vegaEmbed(node, candidate, {
      mode: "vega-lite", renderer: "svg", ast: true, downloadFileName: "chart", logLevel: 1, // errors only
      actions: room >= 480 && { export: true, source: false, compiled: false, editor: false },
    });
    excess = node.scrollWidth - room;
    if (excess <= 0) return;
  }
}

async function drawAll() {
  for (const node of document.querySelectorAll("[data-t2i-chart]")) {
    try {
      node.spec ??= payload(node);
      delete node.spec.usermeta; // embed options are this page's to give
      await draw(node, node.spec);
    } catch (error) {
      failed(node, "This chart", error);
    }
  }
}

// --- widgets ---------------------------------------------------------------------------------------------------------

/** What an anywidget module asks of its model, with no kernel behind it. Views of one model share it. */
class Model {
  constructor(state) {
    this.state = state;
    this.listeners = [];
    this.widget_manager = { get_model: () => Promise.reject(new Error("there is no kernel in a report")) };
  }
  get(key) {
    return this.state[key];
  }
  set(key, value) {
    const changes = typeof key === "object" ? key : { [key]: value };
    const changed = Object.keys(changes).filter((name) => this.state[name] !== changes[name]);
    Object.assign(this.state, changes);
    for (const name of changed) this.fire(`change:${name}`, this.state[name]);
    if (changed.length) this.fire("change");
  }
  fire(event, value) {
    for (const listener of [...this.listeners]) {
      if (listener.event === event) listener.callback.call(listener.context, this, value);
    }
  }
  on(events, callback, context) {
    for (const event of events.split(" ")) this.listeners.push({ event, callback, context });
  }
  off(events, callback) {
    const names = events?.split(" ");
    this.listeners = this.listeners.filter(
      (one) => (names && !names.includes(one.event)) || (callback && callback !== one.callback),
    );
  }
  save_changes() {}
  send() {}
}

function withBuffers({ state, buffers }) {
  for (const { path, data } of buffers) {
    const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
    const holder = path.slice(0, -1).reduce((value, key) => value[key], state);
    holder[path.at(-1)] = new DataView(bytes.buffer);
  }
  return state;
}

const modules = new Map(); // source text -> the module, imported once

function imported(source) {
  if (!modules.has(source)) {
    const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    modules.set(source, import(url).then((loaded) => {
      const widget = loaded.default ?? loaded;
      return typeof widget === "function" ? widget() : widget;
    }));
  }
  return modules.get(source);
}

async function runWidgets() {
  const invoke = () => Promise.reject(new Error("there is no kernel in a report"));
  const models = new Map();
  for (const node of document.querySelectorAll("[data-t2i-model]")) {
    const state = withBuffers(payload(node));
    const style = document.createElement("style");
    style.textContent = state._css ?? "";
    document.head.append(style);
    models.set(node.dataset.t2iModel, new Model(state));
  }
  for (const el of document.querySelectorAll("[data-t2i-widget]")) {
    const model = models.get(el.dataset.t2iWidget);
    try {
      const widget = await imported(model.get("_esm"));
      if (!model.initialized) await widget.initialize?.({ model, experimental: { invoke } });
      model.initialized = true;
      await widget.render?.({ model, el, experimental: { invoke } });
    } catch (error) {
      failed(el, "This widget", error);
    }
  }
}

// --- tables ----------------------------------------------------------------------------------------------------------

/** pandas aligns every column to the right: words read better from the left, and short cells on one line. */
function alignTables() {
  const number = /^\s*([-+−]?[\d.,]+(e[-+]?\d+)?\s*%?|nan|inf|-|–)?\s*$/i;
  for (const table of document.querySelectorAll("table.dataframe")) {
    const rows = [...table.tBodies].flatMap((body) => [...body.rows]);
    const width = rows[0]?.cells.length ?? 0;
    for (const cell of rows.flatMap((row) => [...row.cells])) {
      if (cell.textContent.length <= 30) cell.style.whiteSpace = "nowrap";
    }
    for (let column = 0; column < width; column += 1) {
      const cells = rows.map((row) => row.cells[column]).filter(Boolean);
      if (cells.every((cell) => number.test(cell.textContent))) continue;
      for (const row of table.rows) {
        if (row.cells.length === width) row.cells[column].style.textAlign = "left";
      }
    }
  }
}

// --- code ------------------------------------------------------------------------------------------------------------

const button = document.getElementById("t2i-code");
if (button) {
  const label = () => { button.textContent = document.body.classList.contains("code-open") ? "Hide code" : "Show code"; };
  button.addEventListener("click", () => {
    const open = document.body.classList.toggle("code-open");
    for (const details of document.querySelectorAll("details.code")) details.open = open;
    label();
  });
  label();
  button.hidden = false;
}

let lastWidth = window.innerWidth;
let pause;
window.addEventListener("resize", () => {
  clearTimeout(pause);
  pause = setTimeout(() => {
    if (window.innerWidth !== lastWidth) drawAll(); // a phone was turned; scrolling one changes only the height
    lastWidth = window.innerWidth;
  }, 200);
});

alignTables();
Promise.all([drawAll(), runWidgets()]).finally(() => { document.documentElement.dataset.t2iReady = "yes"; });
