// Compare the images of several runs prompt by prompt. Every text reaches the page through textContent or setAttribute.

const VIEWS = ["side by side", "split", "blink"];
const MOST_FOUND = 60;
const MOST_CHANGES = 3; // a second: WCAG 2.3.1 allows no more flashes

/** An element with properties, or attributes where the name has a dash or is `role`; strings become text nodes. */
function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "role" || name.includes("-")) node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children);
  return node;
}

function render({ model, el }) {
  const prompts = model.get("prompts");
  const runs = model.get("runs");
  const id = `t2i-${Math.random().toString(36).slice(2)}`;
  const calm = window.matchMedia("(prefers-reduced-motion: reduce)");
  const local = { cut: 50, on: 0, timer: 0, rate: 1 }; // divider in %, image on top, changes a second

  const change = (values) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  };
  const clamped = (index) => Math.min(prompts.length - 1, Math.max(0, index));
  const go = (index) => change({ index: clamped(index) });
  const index = () => clamped(model.get("index"));
  const image = (run) => make("img", {
    src: model.get("images")[runs.indexOf(run)][index()], alt: `${run}: ${prompts[index()]}`, draggable: false,
  });
  const caption = (run) => {
    const score = model.get("scores")[runs.indexOf(run)]?.[index()];
    return make("span", {}, run, ...(score ? [make("span", { className: "t2i-score" }, score)] : []));
  };

  // --- which prompt ---
  const previous = make("button", { type: "button", "aria-label": "Previous prompt" }, "‹");
  const next = make("button", { type: "button", "aria-label": "Next prompt" }, "›");
  const slider = make("input", { type: "range", min: 1, max: prompts.length, step: 1, "aria-label": "Prompt number" });
  const count = make("span", { className: "t2i-count" });
  previous.onclick = () => go(index() - 1);
  next.onclick = () => go(index() + 1);
  slider.oninput = () => go(Number(slider.value) - 1);
  const prompt = make("div", { className: "t2i-prompt", "aria-live": "polite", dir: "auto" });
  const picker = make("div", { className: "t2i-pick" }, previous, slider, next, count);

  const search = make("input", {
    type: "search", placeholder: "Find a prompt", autocomplete: "off", role: "combobox", "aria-label": "Find a prompt",
    "aria-expanded": "false", "aria-controls": `${id}-found`, "aria-autocomplete": "list",
  });
  const found = make("ul", { className: "t2i-found", id: `${id}-found`, role: "listbox", "aria-label": "Prompts", hidden: true });
  let matches = [];
  let at = -1;
  const close = () => {
    found.hidden = true;
    search.setAttribute("aria-expanded", "false");
    search.removeAttribute("aria-activedescendant");
  };
  const mark = (position) => {
    at = position;
    [...found.children].forEach((item, i) => item.setAttribute("aria-selected", String(i === at)));
    if (at < 0) return;
    search.setAttribute("aria-activedescendant", found.children[at].id);
    found.children[at].scrollIntoView({ block: "nearest" });
  };
  const take = (position) => {
    if (position < 0) return;
    go(matches[position]);
    search.value = "";
    close();
  };
  search.oninput = () => {
    const words = search.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    if (!words.length) return close();
    matches = prompts.map((_, i) => i).filter((i) => {
      const text = `${i + 1} ${prompts[i].toLowerCase()}`;
      return words.every((word) => text.includes(word));
    }).slice(0, MOST_FOUND);
    found.replaceChildren(...matches.map((i, position) => {
      const item = make("li", { role: "option", id: `${id}-${position}` }, `${i + 1}  ${prompts[i]}`);
      item.onpointerdown = (event) => { event.preventDefault(); take(position); };
      return item;
    }));
    if (!matches.length) found.replaceChildren(make("li", { className: "t2i-none" }, "No prompt has these words."));
    found.hidden = false;
    search.setAttribute("aria-expanded", "true");
    mark(matches.length ? 0 : -1);
  };
  search.onkeydown = (event) => {
    if (event.key === "ArrowDown" && matches.length) mark((at + 1) % matches.length);
    else if (event.key === "ArrowUp" && matches.length) mark((at - 1 + matches.length) % matches.length);
    else if (event.key === "Enter" && !found.hidden) take(at);
    else if (event.key === "Escape") close();
    else return;
    event.preventDefault();
  };
  search.onblur = close;
  const finder = make("div", { className: "t2i-find" }, search, found);

  // --- how ---
  const radios = VIEWS.map((view) => {
    const radio = make("input", { type: "radio", name: `${id}-view`, value: view, disabled: view !== VIEWS[0] && runs.length < 2 });
    radio.onchange = () => change({ view });
    return radio;
  });
  const views = make("div", { className: "t2i-views", role: "radiogroup", "aria-label": "View" },
    ...radios.map((radio) => make("label", {}, radio, radio.value)));
  const pixelated = make("input", { type: "checkbox" });
  pixelated.onchange = () => change({ pixelated: pixelated.checked });
  const size = make("input", { type: "range", min: 64, max: 512, step: 32, "aria-label": "Image size" });
  size.oninput = () => change({ size: Number(size.value) });
  const options = make("div", { className: "t2i-row" }, views,
    make("label", { className: "t2i-option" }, pixelated, "Pixelated"), make("label", { className: "t2i-option" }, "Size", size));

  // --- which runs ---
  const boxes = runs.map((run) => {
    const box = make("input", { type: "checkbox" });
    box.onchange = () => {
      const shown = runs.filter((_, i) => boxes[i].checked);
      if (shown.length) change({ shown });
      else box.checked = true; // one run at least
    };
    return box;
  });
  const chooser = make("fieldset", { className: "t2i-runs", "aria-label": "Runs shown" },
    ...runs.map((run, i) => make("label", {}, boxes[i], run)));
  const selects = ["Left", "Right"].map((side, i) => {
    const select = make("select", { "aria-label": `${side} run` }, ...runs.map((run) => make("option", { value: run }, run)));
    select.onchange = () => change({ pair: model.get("pair").map((run, k) => (k === i ? select.value : run)) });
    return select;
  });
  const swap = make("button", { type: "button", "aria-label": "Swap the two runs" }, "⇄");
  swap.onclick = () => change({ pair: [...model.get("pair")].reverse() });
  const pair = make("div", { className: "t2i-row t2i-pair" }, selects[0], swap, selects[1]);

  // --- split and blink ---
  const layers = make("div", { className: "t2i-layers" });
  const divider = make("div", { className: "t2i-divider" });
  const cut = make("input", { type: "range", min: 0, max: 100, step: 1 });
  const captions = make("figcaption");
  const moveTo = (percent) => {
    local.cut = Math.min(100, Math.max(0, percent));
    layers.style.setProperty("--cut", `${local.cut}%`);
    cut.value = local.cut;
  };
  cut.oninput = () => moveTo(Number(cut.value));
  const drag = (event) => {
    const box = layers.getBoundingClientRect();
    moveTo(100 * (event.clientX - box.left) / box.width);
  };
  layers.onpointerdown = (event) => {
    if (model.get("view") !== "split") return flip();
    layers.setPointerCapture(event.pointerId);
    drag(event);
  };
  layers.onpointermove = (event) => { if (layers.hasPointerCapture(event.pointerId)) drag(event); };

  const flipper = make("button", { type: "button" }, "Switch (B)");
  const play = make("button", { type: "button", "aria-pressed": "false" }, "Blink");
  const rate = make("input", { type: "range", min: 0.5, max: MOST_CHANGES, step: 0.5, value: local.rate, "aria-label": "Changes a second" });
  const rateText = make("span", { className: "t2i-why" });
  const show = (on) => {
    local.on = on;
    [...layers.children].forEach((node, i) => node.classList.toggle("t2i-on", i === on));
    [...captions.children].forEach((node, i) => node.classList.toggle("t2i-on", i === on));
  };
  const flip = () => show(1 - local.on);
  const stop = () => {
    clearInterval(local.timer);
    local.timer = 0;
    play.setAttribute("aria-pressed", "false");
  };
  const start = () => {
    stop();
    if (calm.matches) return;
    local.timer = setInterval(flip, 1000 / local.rate);
    play.setAttribute("aria-pressed", "true");
  };
  const settle = () => {
    play.disabled = rate.disabled = calm.matches;
    rateText.textContent = calm.matches ? "off: this system asks for less motion" : `${local.rate} a second`;
    if (calm.matches) stop();
  };
  flipper.onclick = flip;
  play.onclick = () => (local.timer ? stop() : start());
  rate.oninput = () => {
    local.rate = Number(rate.value);
    settle();
    if (local.timer) start();
  };
  calm.addEventListener("change", settle);
  const blinker = make("div", { className: "t2i-row" }, flipper, play, make("label", { className: "t2i-option" }, "Speed", rate), rateText);
  const stack = make("figure", { className: "t2i-stack" }, layers, cut, captions);
  const grid = make("div", { className: "t2i-grid" });

  const root = make("div", { className: "t2i-compare", role: "group", tabIndex: 0,
    "aria-label": `Images of ${runs.length} runs for ${prompts.length} prompts. Left and right arrows change the prompt.` },
  make("div", { className: "t2i-row" }, picker, finder), prompt, options, chooser, pair, blinker, grid, stack);
  root.dataset.lmSuppressShortcuts = "true"; // JupyterLab: keys typed here are not commands of the notebook
  root.onkeydown = (event) => {
    const typing = event.target.closest("input, select, [role='listbox']");
    const step = { ArrowLeft: index() - 1, ArrowRight: index() + 1, Home: 0, End: prompts.length - 1 }[event.key];
    if (!typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      if (step !== undefined) go(step);
      else if (event.key.toLowerCase() === "b" && model.get("view") === "blink") flip();
      if (step !== undefined) event.preventDefault();
    }
    event.stopPropagation();
  };

  function draw() {
    const view = model.get("view");
    const [a, b] = model.get("pair");
    previous.disabled = index() === 0;
    next.disabled = index() === prompts.length - 1;
    slider.value = index() + 1;
    slider.setAttribute("aria-valuetext", `${index() + 1}: ${prompts[index()]}`);
    count.textContent = `${index() + 1} of ${prompts.length}`;
    if (prompt.textContent !== prompts[index()]) prompt.textContent = prompts[index()];
    radios.forEach((radio) => { radio.checked = radio.value === view; });
    boxes.forEach((box, i) => { box.checked = model.get("shown").includes(runs[i]); });
    selects.forEach((select, i) => { select.value = [a, b][i]; });
    pixelated.checked = model.get("pixelated");
    size.value = model.get("size");
    root.style.setProperty("--size", `${model.get("size")}px`);
    root.classList.toggle("t2i-pixelated", model.get("pixelated"));

    const together = view === "side by side";
    picker.hidden = finder.hidden = prompts.length === 1;
    chooser.hidden = !together || runs.length === 1;
    views.hidden = runs.length === 1;
    pair.hidden = stack.hidden = together;
    grid.hidden = !together;
    blinker.hidden = view !== "blink";
    cut.hidden = view !== "split";
    stack.className = `t2i-stack t2i-${view}`;
    if (view !== "blink") stop();
    if (together) {
      layers.replaceChildren();
      grid.replaceChildren(...runs.filter((run) => model.get("shown").includes(run))
        .map((run) => make("figure", {}, image(run), make("figcaption", {}, caption(run)))));
      return;
    }
    grid.replaceChildren();
    cut.setAttribute("aria-label", `Divider between ${a} and ${b}`);
    layers.replaceChildren(image(a), image(b), ...(view === "split" ? [divider] : []));
    captions.replaceChildren(caption(a), caption(b));
    moveTo(local.cut);
    if (view === "blink") show(local.on);
  }

  const watched = "change:index change:shown change:pair change:view change:pixelated change:size";
  settle();
  draw();
  for (const event of watched.split(" ")) model.on(event, draw);
  el.append(root);
  return () => {
    stop();
    calm.removeEventListener("change", settle);
    for (const event of watched.split(" ")) model.off(event, draw);
    root.remove();
  };
}

export default { render };
