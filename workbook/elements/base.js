// What the explorers of this course share. An explorer is a custom element, such as <tw-softmax>,
// around its data, a script of type "application/json", and a figure, which stands in for it
// wherever no script runs, and in print. (No end of a script may be written here, not even in a
// comment: in Jupyter all this stands inside of one.)
//
// A subclass has a static `heading`; `start()` makes the controls, and `draw()` shows what they
// say and returns it in words. Whatever changes, draw() runs again; also when there is more or less
// room: a picture that is drawn `this.room` wide has its text in full size on a phone.

export const BLUE = "#2f7fd0";
export const ORANGE = "#cc6a1c";
export const GREEN = "#2f8f57";
export const PURPLE = "#9467c9";
export const RED = "#d14d4d";

const STYLE = `
:host { display: block; margin: 1rem 0; }
* { box-sizing: border-box; }
section { border: 1px solid color-mix(in srgb, currentColor 25%, transparent);
  border-radius: 0.5rem; padding: 0.75rem 1rem; }
h3 { font-size: 1em; font-weight: 600; margin: 0 0 0.5rem; }
form { display: flex; flex-wrap: wrap; gap: 0.5rem 1.25rem; margin: 0 0 0.75rem; }
form > label, form > fieldset { align-items: center; display: flex; flex-wrap: wrap;
  gap: 0.25rem 0.5rem; font-size: 0.9em; min-width: 0; }
fieldset { border: 0; margin: 0; padding: 0; }
fieldset label { align-items: center; display: inline-flex; gap: 0.25rem; }
legend { float: left; padding: 0; margin-right: 0.5rem; }
input, select, button { accent-color: ${BLUE}; color: inherit; font: inherit; }
input[type="range"] { width: 9rem; min-height: 24px; }
input[type="checkbox"], input[type="radio"] { width: 1.1rem; height: 1.1rem; margin: 0.2rem; }
input[type="number"] { width: 7rem; }
input[aria-invalid="true"] { outline: 2px solid ${RED}; }
input[type="number"], select, button { background: transparent; min-height: 1.9rem;
  border: 1px solid color-mix(in srgb, currentColor 55%, transparent);
  border-radius: 0.3rem; padding: 0.15rem 0.5rem; max-width: 100%; }
/* A list that the system draws is light or dark as the system is, whatever the page. */
option { background: Canvas; color: CanvasText; }
button { cursor: pointer; }
button:disabled { cursor: default; opacity: 0.5; }
:focus-visible { outline: 2px solid ${BLUE}; outline-offset: 2px; }
output { font-variant-numeric: tabular-nums; min-width: 3.2em; }
.view { min-width: 0; overflow-x: auto; }
svg { display: block; max-width: 100%; height: auto; }
svg text { fill: currentColor; font-size: 13px; }
p.told { font-size: 0.9em; margin: 0.6rem 0 0; }
section + slot { display: none; }
@media print { section { display: none; } section + slot { display: block; } }
`;

/** An HTML element: attributes, listeners ("onclick"), then children, also in nested lists. */
export function h(tag, attributes = {}, ...children) {
  return build(document.createElement(tag), attributes, children);
}

/** An SVG element. */
export function s(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  return build(node, attributes, children);
}

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child != null));
  return node;
}

/** An element with the name of its class; a page may hold several copies of this code. */
export function define(name, explorer) {
  if (!customElements.get(name)) customElements.define(name, explorer);
}

export class Explorer extends HTMLElement {
  connectedCallback() {
    if (this.shadowRoot) return;
    this.data = JSON.parse(this.querySelector('script[type="application/json"]').textContent);
    this.#frame();
    try {
      this.start();
      this.redraw();
    } catch (error) {
      // The figure is better than half an explorer.
      this.shadowRoot.querySelector("section").remove();
      throw error;
    }
    this.#follow();
  }

  #frame() {
    this.form = h("form", { onsubmit: (event) => event.preventDefault() });
    this.view = h("div", { class: "view" });
    // A change is read out once, when the reader has stopped moving a slider.
    this.told = h("p", { class: "told", "aria-live": "polite" });
    const heading = this.constructor.heading;
    this.attachShadow({ mode: "open" }).append(
      h("style", {}, STYLE + (this.constructor.style ?? "")),
      h("section", { "aria-label": heading },
        h("h3", {}, heading), this.form, this.view, this.told),
      h("slot"),
    );
  }

  /** How wide a picture can be, in pixels. */
  get room() {
    return this.view.clientWidth || 640;
  }

  /** Draw anew when the room changes, by more than a scroll bar: a drawing can cause that. */
  #follow() {
    let drawn = this.room;
    new ResizeObserver(() => {
      if (Math.abs(this.room - drawn) < 20) return;
      drawn = this.room;
      this.redraw();
    }).observe(this.view);
  }

  /** Show the state anew. What draw() returns is for those who do not see the picture. */
  redraw() {
    const words = this.draw();
    const tell = () => {
      this.pending = 0;
      if (this.told.textContent !== words) this.told.textContent = words;
    };
    clearTimeout(this.pending);
    this.pending = setTimeout(tell, this.told.textContent ? 250 : 0);
  }

  /**
   * A slider with its value beside it; `read()` gives the number, `set(x)` changes it. With `power`
   * the slider moves an exponent of 10: min, max, step and value are exponents then.
   */
  slider(label, { min, max, step, value, power = false, format = String }) {
    const scale = power ? (x) => Math.pow(10, x) : (x) => x;
    const input = h("input", { type: "range", min, max, step, value });
    // Hidden from screen readers, which get the same by aria-valuetext, and would get it twice.
    const shown = h("output", { "aria-hidden": "true" });
    const read = () => scale(Number(input.value));
    const show = () => {
      shown.textContent = format(read());
      input.setAttribute("aria-valuetext", format(read()));
    };
    input.addEventListener("input", () => { show(); this.redraw(); });
    show();
    this.form.append(h("label", {}, label, input, shown));
    return { read, input, set: (x) => { input.value = power ? Math.log10(x) : x; show(); } };
  }

  /** A number to type; `read()` gives the last one that was within bounds. */
  number(label, { min, max, step = 1, value }) {
    const input = h("input", { type: "number", inputmode: "decimal", min, max, step, value });
    let last = Number(value);
    input.addEventListener("input", () => {
      input.setAttribute("aria-invalid", String(!input.value || !input.validity.valid));
      if (input.value && input.validity.valid) last = Number(input.value);
      this.redraw();
    });
    const set = (x) => { input.value = last = x; input.setAttribute("aria-invalid", "false"); };
    this.form.append(h("label", {}, label, input));
    return { read: () => last, input, set };
  }

  /** A list to choose from; `read()` gives the position of what is chosen. */
  choice(label, options, value = 0) {
    const input = h("select", { onchange: () => this.redraw() },
      options.map((text, i) => h("option", { value: i, selected: i === value }, text)));
    this.form.append(h("label", {}, label, input));
    return { read: () => Number(input.value), input, set: (i) => { input.value = i; } };
  }

  /** Check boxes under one legend; `read()` gives a boolean for each. */
  boxes(legend, labels, checked = () => true) {
    const inputs = labels.map((_, i) =>
      h("input", { type: "checkbox", checked: checked(i), onchange: () => this.redraw() }));
    this.form.append(h("fieldset", {}, h("legend", {}, legend),
      labels.map((text, i) => h("label", {}, inputs[i], text))));
    return { read: () => inputs.map((input) => input.checked), inputs };
  }

  /** A button that does something and shows the state anew. */
  button(label, action) {
    const onclick = () => { action(); this.redraw(); };
    const input = h("button", { type: "button", onclick }, label);
    this.form.append(input);
    return input;
  }

  /** Put one picture into the view, `width` by `height` units, with its text alternative. */
  picture(width, height, alt, ...children) {
    this.view.replaceChildren(s("svg", {
      role: "img", "aria-label": alt, viewBox: `0 0 ${width} ${height}`, width, height,
    }, ...children));
  }
}

/** Softmax of numbers; those at -Infinity get 0. */
export function softmax(scores) {
  const largest = Math.max(...scores);
  if (largest === -Infinity) return scores.map(() => 0);
  const powers = scores.map((score) => Math.exp(score - largest));
  const total = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / total);
}
