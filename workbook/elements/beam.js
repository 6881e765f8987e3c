// Beam search, step by step, as it was recorded. Each step is a list of extensions, best first:
// [parent, token, log-probability, sum, fate], where the parent is a place in the step before.
import { BLUE, GREEN, Explorer, define, h, s } from "./base.js";

const [DROPPED, LIVES, FINISHED] = [0, 1, 2];
const FATES = ["dropped", "kept", "finished"];
const minus = (x, digits = 2) => x.toFixed(digits).replace("-", "−");

class Beam extends Explorer {
  static heading = "Beam search, step by step";
  static style = `
    /* The table first, so that a tree that grows below it on a phone does not move it. */
    .sides { align-items: flex-start; display: flex; flex-flow: row-reverse wrap;
      gap: 0.5rem 1.5rem; justify-content: flex-end; margin-top: 0.8rem; }
    .sides > div { flex: 1 1 18rem; min-width: 0; }
    .sides > svg { flex: none; }
    button[aria-disabled="true"] { opacity: 0.5; cursor: default; }
    table { border-collapse: collapse; font-size: 0.85rem; margin: 0 0 0.8rem; width: 100%; }
    caption { font-weight: 600; padding-bottom: 0.2rem; text-align: left; }
    th, td { border-top: 1px solid color-mix(in srgb, currentColor 20%, transparent);
      font-weight: 400; padding: 0.15rem 0.5rem 0.15rem 0; text-align: right; }
    th:first-child { overflow-wrap: anywhere; text-align: left; }
    thead :is(th, td) { border: 0; font-size: 0.8rem; }
    td { font-variant-numeric: tabular-nums; white-space: nowrap; }
    b { font-weight: 700; }
    .mark { border-radius: 0.25rem; border: 2px solid transparent; display: inline-block;
      min-width: 4.4rem; padding: 0 0.3rem; text-align: center; }
    .mark.kept { border-color: ${BLUE}; }
    .mark.finished { border-color: ${GREEN}; }
    .mark.dropped { border: 1px dashed color-mix(in srgb, currentColor 50%, transparent); }
    tr.best th, tr.best td { font-weight: 700; }
    dl { display: grid; font-size: 0.9rem; gap: 0.2rem 0.8rem; grid-template-columns: auto 1fr;
      margin: 0; }
    dd { margin: 0; overflow-wrap: anywhere; }
    svg text { font-size: 12px; }
    .node { fill: none; stroke: ${BLUE}; stroke-width: 1.5; }
    .node.finished { stroke: ${GREEN}; }
    .edge { fill: none; stroke: currentColor; stroke-opacity: 0.5; }
    .best .node, .best .edge { stroke: ${GREEN}; stroke-opacity: 1; stroke-width: 3.5; }
    .lost > :not(text) { opacity: 0.5; }
    .lost .node { stroke-dasharray: 3 3; }
  `;

  start() {
    const { searches } = this.data;
    this.size = this.choice("beam size", searches.map((search) => search.size), 1);
    this.step = 1;
    const move = (to) => () => { this.step = Math.max(0, Math.min(this.steps.length, to())); };
    // Not disabled at the ends: a button that disables itself throws the keyboard out.
    this.back = this.button("Step back", move(() => this.step - 1));
    this.forward = this.button("Step forward", move(() => this.step + 1));
    this.toEnd = this.button("To the end", move(() => this.steps.length));
  }

  get search() {
    return this.data.searches[this.size.read()];
  }

  get steps() {
    return this.search.steps;
  }

  /** The tokens of an extension, from the first. */
  path(step, place) {
    const [parent, token] = this.steps[step][place];
    return step === 0 ? [token] : [...this.path(step - 1, parent), token];
  }

  /** Wu et al. (2016): the sum, divided by the length penalty. */
  score(sum, length) {
    return sum / Math.pow((5 + length) / 6, this.data.penalty);
  }

  /** All that are finished after some steps, with the highest score first. */
  finished(steps) {
    const found = [];
    this.steps.slice(0, steps).forEach((extensions, step) => {
      extensions.forEach(([, , , sum, fate], place) => {
        if (fate !== FINISHED) return;
        found.push({ step, place, sum, length: step + 1, score: this.score(sum, step + 1) });
      });
    });
    return found.sort((a, b) => b.score - a.score);
  }

  draw() {
    const last = this.steps.length;
    this.step = Math.min(this.step, last);
    this.back.setAttribute("aria-disabled", this.step === 0);
    for (const button of [this.forward, this.toEnd]) {
      button.setAttribute("aria-disabled", this.step === last);
    }
    const finished = this.finished(this.step);
    const over = this.step === last;
    this.picture(...this.tree(finished, over));
    const results = h("dl", {}, this.results(over ? finished[0] : null));
    const tables = h("div", {}, this.step ? this.extensions() : null,
      finished.length ? this.ended(finished, over) : null);
    this.view.replaceChildren(results, h("div", { class: "sides" }, tables, this.view.firstChild));
    return this.words(finished, over);
  }

  /** Width, height, text alternative and parts of the tree of what was kept, a row per step. */
  tree(finished, over) {
    const { size } = this.search;
    const beside = this.room > 700;
    const wide = Math.min(beside ? 96 : 110, this.room / size);
    const [width, tall] = [wide * size, 38];
    const x = (place) => (place + 0.5) * wide;
    const y = (step) => 16 + (step + 1) * tall;
    const best = over ? this.line(finished[0]) : new Set();
    const used = new Set();
    if (this.step) {
      const now = this.steps[this.step - 1];
      now.forEach(([, , , , fate], place) => {
        if (fate === LIVES) this.line({ step: this.step - 1, place }).forEach((at) => used.add(at));
      });
    }
    finished.forEach((each) => this.line(each).forEach((at) => used.add(at)));
    const nodes = this.steps.slice(0, this.step).flatMap((extensions, step) =>
      extensions.map(([parent, token, , , fate], place) => {
        if (fate === DROPPED) return null;
        const from = step ? x(parent) : width / 2;
        const at = `${step} ${place}`;
        const state = best.has(at) ? "best" : used.has(at) ? "" : "lost";
        const [top, left] = [y(step) - 12, x(place)];
        return s("g", { class: state },
          s("path", { class: "edge", d: `M${from} ${y(step - 1) + 12}L${left} ${top}` }),
          s("rect", { class: `node ${FATES[fate]}`, x: left - wide / 2 + 3, y: top, rx: 5,
            width: wide - 6, height: 24 }),
          s("text", { x: left, y: y(step) + 4, "text-anchor": "middle" }, this.short(token, wide)));
      }));
    const start = s("text", { x: width / 2, y: 20, "text-anchor": "middle" }, "<bos>");
    const kept = this.step ? this.steps[this.step - 1].filter(([, , , , fate]) => fate).length : 1;
    const alt = `Tree of the hypotheses that were kept in ${this.step} of ${this.steps.length} ` +
      `steps; ${kept} in the last of them.`;
    return [width, y(beside ? this.steps.length : this.step) - 20, alt, start, nodes];
  }

  /** Where an extension comes from: "step place" of itself and of all before it. */
  line({ step, place }) {
    const places = new Set();
    for (let [i, at] = [step, place]; i >= 0; at = this.steps[i][at][0], i -= 1) {
      places.add(`${i} ${at}`);
    }
    return places;
  }

  short(token, wide) {
    const text = token.trim() || "␣";
    const most = Math.floor((wide - 10) / 6.6);
    return text.length > most ? `${text.slice(0, most - 1)}…` : text;
  }

  extensions() {
    const step = this.step - 1;
    const rows = this.steps[step].map(([, token, log, sum, fate], place) =>
      h("tr", {}, h("th", { scope: "row" }, this.path(step, place).slice(0, -1).join(""),
        h("b", {}, token)), h("td", {}, minus(log)), h("td", {}, minus(sum)),
        h("td", {}, h("span", { class: `mark ${FATES[fate]}` }, FATES[fate]))));
    const all = this.search.extensions[step].toLocaleString("en-US");
    return this.table(`Step ${this.step}: the best ${rows.length} of ${all} extensions`,
      ["hypothesis", "log P", "sum", ""], rows);
  }

  ended(finished, over) {
    const rows = finished.slice(0, 6).map(({ step, place, sum, length, score }, i) =>
      h("tr", { class: i === 0 && over && "best" },
        h("th", { scope: "row" }, this.path(step, place).join("")),
        [length, minus(sum), minus(score, 3)].map((text) => h("td", {}, text))));
    const which = rows.length < finished.length ? `, the best ${rows.length} of them` : "";
    return this.table(`Finished so far: ${finished.length}${which}`,
      ["hypothesis", "L", "sum", "score"], rows);
  }

  table(caption, names, rows) {
    const heads = names.map((name) =>
      name ? h("th", { scope: "col" }, name) : h("td", {}));
    return h("table", {}, h("caption", {}, caption), h("thead", {}, h("tr", {}, heads)),
      h("tbody", {}, rows));
  }

  results(best) {
    const { source, wanted, greedy } = this.data;
    const found = best
      ? `${this.path(best.step, best.place).join("")} (${minus(best.score, 3)})` : "not yet";
    const lines = {
      source, wanted, "greedy writes": `${greedy.text} (${minus(greedy.score, 3)})`,
      "the beam writes": found,
    };
    return Object.entries(lines).filter(([, text]) => text)
      .flatMap(([name, text]) => [h("dt", {}, name), h("dd", {}, text)]);
  }

  words(finished, over) {
    const { size } = this.search;
    if (!this.step) return `A beam of ${size}. Step forward to extend the empty hypothesis.`;
    const counts = [DROPPED, LIVES, FINISHED].map((which) =>
      this.steps[this.step - 1].filter(([, , , , fate]) => fate === which).length);
    const told = `Step ${this.step} of ${this.steps.length}: ${counts[LIVES]} live on, ` +
      `${counts[FINISHED]} finished, ${finished.length} finished in all.`;
    if (!over) return told;
    const result = this.path(finished[0].step, finished[0].place).join("");
    const same = result === this.data.greedy.text ? "the same as greedy" : "not what greedy writes";
    return `${told} The best score is ${minus(finished[0].score, 3)}: ${result}, ${same}.`;
  }
}

define("tw-beam", Beam);
