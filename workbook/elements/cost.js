import { BLUE, define, Explorer, h, ORANGE, s } from "./base.js";

// What one forward pass of a Transformer costs. Data: presets, accelerators, and which preset comes
// first. The feed-forward layers are 4 d wide, as in all of the presets.

const KINDS = [
  { name: "decoder", label: "decoder only" },
  { name: "encoder", label: "encoder only" },
  { name: "both", label: "encoder and decoder" },
];
const NUMBERS = [{ name: "float32", bytes: 4 }, { name: "bfloat16", bytes: 2 }];
const [SHORTEST, LONGEST] = [4, 17]; // powers of two

/**
 * The formulas. `n` tokens in each of `batch` sequences, width `d`; with "both" there are `layers`
 * in the encoder and as many in the decoder, and source and target have n tokens each.
 */
function cost({ kind, n, d, layers, heads, vocabulary, batch, bytes, peak, bandwidth }) {
  const blocks = kind === "both" ? 2 * layers : layers;
  const attentions = kind === "both" ? 3 * layers : layers; // a decoder also reads the encoder
  const cached = { decoder: layers, encoder: 0, both: 2 * layers }[kind];
  const tokens = n * batch;
  const predicts = kind === "encoder" ? 0 : 1; // an encoder ends with its vectors

  const projections = attentions * 8 * tokens * d ** 2;
  const feedForward = blocks * 16 * tokens * d ** 2;
  const output = predicts * 2 * tokens * d * vocabulary;
  const lookups = attentions * 4 * tokens * n * d;
  const flops = projections + feedForward + output + lookups;

  const norms = 2 * d * (attentions + blocks);
  const inLayers = attentions * (4 * d ** 2 + 4 * d) + blocks * (8 * d ** 2 + 5 * d) + norms;
  const embeddings = vocabulary * d; // shared with the output layer
  const parameters = inLayers + embeddings;
  const computing = flops / peak;
  const reading = ((inLayers + predicts * embeddings) * bytes) / bandwidth;
  return {
    projections, feedForward, output, lookups, flops, parameters,
    crossover: (n * (flops - lookups)) / lookups,
    weights: parameters * bytes,
    maps: attentions * heads * n * tokens * bytes,
    cache: cached * 2 * tokens * d * bytes,
    computing, reading, seconds: Math.max(computing, reading),
  };
}

class CostExplorer extends Explorer {
  static heading = "What does a forward pass cost?";

  static style = `
    input[type="number"] { width: 5.6rem; }
    .part { fill: none; stroke-width: 2.5; }
    .grid { stroke: currentColor; stroke-opacity: 0.18; }
    .here { stroke: currentColor; stroke-opacity: 0.55; }
    .meet { stroke: currentColor; stroke-opacity: 0.8; stroke-dasharray: 4 3; }
    .x { text-anchor: middle; }
    .y { text-anchor: end; }
    svg .small { font-size: 12px; }
    table { border-collapse: collapse; font-size: 0.9em; margin-top: 0.6rem; width: 100%; }
    th, td { border: 0; padding: 0.15rem 0.75rem 0.15rem 0; text-align: left;
      vertical-align: top; }
    th { font-weight: 400; }
    tbody th[colspan] { font-weight: 600; padding-top: 0.5rem; }
    td:nth-child(2) { font-variant-numeric: tabular-nums; white-space: nowrap; }
    tr.sum th, tr.sum td:nth-child(2) { font-weight: 600; }
    .note { font-size: 0.85em; margin: 0.6rem 0 0; }
    a { color: inherit; }
  `;

  start() {
    const { presets, accelerators, first } = this.data;
    const whole = (label, max) => this.number(label, { min: 1, max, value: 1 });
    this.preset = this.choice("model", [...presets.map(({ name }) => name), "your own"], first);
    this.kind = this.choice("kind", KINDS.map(({ label }) => label));
    this.layers = whole("layers", 1000);
    this.width = whole("width d", 100000);
    this.heads = whole("heads", 1000);
    this.vocabulary = this.number("vocabulary", { min: 0, max: 10000000, value: 0 });
    this.length = this.slider("tokens n", {
      min: SHORTEST, max: LONGEST, step: 0.25, value: SHORTEST, format: (x) => count(2 ** x),
    });
    this.batch = whole("sequences", 100000);
    this.bits = this.choice("numbers", NUMBERS.map(({ name }) => name), 1);
    this.device = this.choice("on", accelerators.map(({ name }) => name), 1);
    this.fill();
  }

  /** Set the controls to the preset that was chosen; its last entry keeps what is there. */
  fill() {
    this.shown = this.preset.read();
    const preset = this.data.presets[this.shown];
    if (!preset) return;
    this.kind.set(KINDS.findIndex(({ name }) => name === preset.kind));
    for (const name of ["layers", "width", "heads", "vocabulary"]) this[name].set(preset[name]);
    this.length.set(Math.log2(preset.length));
  }

  /** What the controls say, as `cost` wants it. */
  model() {
    const device = this.data.accelerators[this.device.read()];
    const { name, bytes } = NUMBERS[this.bits.read()];
    return {
      kind: KINDS[this.kind.read()].name, n: Math.round(2 ** this.length.read()),
      d: this.width.read(), layers: this.layers.read(), heads: this.heads.read(),
      vocabulary: this.vocabulary.read(), batch: this.batch.read(), bytes,
      peak: device[name], bandwidth: device.bandwidth,
    };
  }

  /** All that is computed, unrounded. */
  numbers() {
    return cost(this.model());
  }

  draw() {
    if (this.preset.read() !== this.shown) this.fill();
    const { presets, accelerators } = this.data;
    const model = this.model();
    const same = (preset) => preset.kind === model.kind && preset.width === model.d
      && ["layers", "heads", "vocabulary"].every((name) => preset[name] === model[name]);
    const found = presets.findIndex(same);
    this.shown = found < 0 ? presets.length : found;
    this.preset.set(this.shown);

    const device = accelerators[this.device.read()];
    const result = this.numbers();
    const words = this.tell(model, result, presets[this.shown], device);
    this.plot(model, result);
    const { name } = NUMBERS[this.bits.read()];
    this.view.append(table(model, result, device, name), note(device, presets[this.shown]));
    return words;
  }

  tell(model, result, preset, device) {
    const n = count(model.n);
    const parts = [
      `${preset?.name ?? "This model"} at n = ${n}: ${si(result.flops, "FLOP")}, `
      + `${percent(result.lookups / result.flops)} of them for the lookups, the part that grows `
      + `with n². It overtakes all else at n = ${count(result.crossover)}.`,
      `On one ${device.name} at least ${duration(result.seconds)}: `
      + (result.computing > result.reading
        ? "computing takes longer than reading the weights."
        : "reading the weights takes longer than computing."),
    ];
    if (result.weights > device.memory) {
      parts.push(`But the weights do not fit into its ${si(device.memory, "B")}.`);
    }
    if (model.d % model.heads) {
      parts.push(`No such model can be built: ${model.heads} heads do not divide d.`);
    }
    return parts.join(" ");
  }

  /** Operations against n, both axes logarithmic: lookups, and all that grows with n alone. */
  plot(model, result) {
    const width = Math.min(this.room, 640);
    const narrow = width < 480;
    // Above the plot: the key, in one line or two, and where the lines meet.
    const [left, right, top, bottom] = [84, 10, narrow ? 62 : 42, 44];
    const height = top + bottom + 205;
    const lookups = (n) => Math.log10(result.lookups * (n / model.n) ** 2);
    const others = (n) => Math.log10((result.flops - result.lookups) * (n / model.n));
    const ends = [2 ** SHORTEST, 2 ** LONGEST];
    const values = ends.flatMap((n) => [lookups(n), others(n)]);
    const [low, high] = [Math.floor(Math.min(...values)), Math.ceil(Math.max(...values))];
    const x = (n) => left
      + ((Math.log2(n) - SHORTEST) / (LONGEST - SHORTEST)) * (width - left - right);
    const y = (power) => height - bottom
      - ((power - low) / (high - low)) * (height - top - bottom);
    const line = (part, color) => s("line", {
      class: "part", stroke: color,
      x1: x(ends[0]), y1: y(part(ends[0])), x2: x(ends[1]), y2: y(part(ends[1])),
    });
    const upright = (n, name) => s("line", {
      class: name, x1: x(n), x2: x(n), y1: top, y2: height - bottom,
    });
    const powers = range(low, high + 1).filter((power) => power % 3 === 0);
    const ticks = range(SHORTEST, LONGEST + 1, narrow ? 4 : 2).map((power) => 2 ** power);
    const inside = result.crossover <= ends[1];
    const meeting = Math.min(Math.max(result.crossover, ends[0]), ends[1]);
    const key = (i, color, text) => {
      const [at, down] = narrow ? [left, 12 + 20 * i] : [left + 220 * i, 12];
      return [
        s("line", { class: "part", stroke: color, x1: at, x2: at + 24, y1: down, y2: down }),
        s("text", { class: "small", x: at + 32, y: down + 4 }, text),
      ];
    };
    this.picture(width, height, this.described(model, result),
      powers.map((power) => [
        s("line", { class: "grid", x1: left, x2: width - right, y1: y(power), y2: y(power) }),
        s("text", { class: "y small", x: left - 8, y: y(power) + 4 }, si(10 ** power, "FLOP")),
      ]),
      ticks.map((n) => [
        s("line", { class: "grid", x1: x(n), x2: x(n), y1: top, y2: height - bottom }),
        s("text", { class: "x small", x: x(n), y: height - bottom + 17 }, count(n)),
      ]),
      s("text", { class: "x small", x: (left + width - right) / 2, y: height - 6 }, "tokens n"),
      inside ? upright(meeting, "meet") : null,
      s("text", {
        class: "x small", y: top - 7, x: Math.min(Math.max(x(meeting), left + 70), width - 80),
      }, `${inside ? "equal at" : "equal only at"} n = ${count(result.crossover)}`),
      upright(model.n, "here"),
      line(others, BLUE), line(lookups, ORANGE),
      s("circle", { cx: x(model.n), cy: y(others(model.n)), r: 5, fill: BLUE }),
      s("circle", { cx: x(model.n), cy: y(lookups(model.n)), r: 5, fill: ORANGE }),
      key(0, ORANGE, "lookups, grow with n²"), key(1, BLUE, "all else, grows with n"),
    );
  }

  described(model, result) {
    return "Operations of a forward pass against the number of tokens, both axes logarithmic. "
      + `At n = ${count(model.n)} the lookups take ${si(result.lookups, "FLOP")}, all else takes `
      + `${si(result.flops - result.lookups, "FLOP")}. The lines cross at `
      + `n = ${count(result.crossover)}.`;
  }
}

function table(model, result, device, numbers) {
  const part = (x) => `${si(x, "FLOP")} (${percent(x / result.flops)})`;
  const row = (name, value, how, kind) =>
    h("tr", { class: kind }, h("th", { scope: "row" }, name), h("td", {}, value), h("td", {}, how));
  const group = (name, ...rows) =>
    h("tbody", {}, h("tr", {}, h("th", { scope: "rowgroup", colspan: 3 }, name)), rows);
  const bytes = `${model.bytes} bytes`;
  return h("table", {},
    group("Operations",
      row("projections", part(result.projections), "8 n d² for each attention"),
      row("feed-forward", part(result.feedForward), "16 n d² for each layer"),
      row("output layer", part(result.output), "2 n d × vocabulary"),
      row("lookups", part(result.lookups), "4 n² d for each attention"),
      row("together", si(result.flops, "FLOP"), "", "sum")),
    group("Memory",
      row("weights", si(result.weights, "B"), `${many(result.parameters)} parameters × ${bytes}`),
      row("attention maps", si(result.maps, "B"), "heads × n² for each attention, if kept"),
      row("keys and values", si(result.cache, "B"), model.kind === "encoder"
        ? "an encoder reads all at once and needs no cache"
        : "2 n d for each attention of the decoder")),
    group(`Time on one ${device.name}`,
      row("computing", duration(result.computing), `operations ÷ ${si(model.peak, "FLOP/s")}`),
      row("reading", duration(result.reading),
        `weights${model.kind === "encoder" ? " of the layers" : ""} `
        + `÷ ${si(model.bandwidth, "B/s")}`),
      row("at least", duration(result.seconds), `the longer of the two, in ${numbers}`, "sum")));
}

function note(device, preset) {
  return h("p", { class: "note" },
    "The time is a lower bound: every unit busy at its peak, without pause. Real programs take "
    + "longer. Peaks, for dense matrices: ",
    h("a", { href: device.url }, device.source), ".",
    device.remark ? ` ${device.remark}` : null,
    preset ? ` ${preset.name}: ${preset.remark}` : null);
}

function range(from, to, step = 1) {
  return Array.from({ length: Math.ceil((to - from) / step) }, (_, i) => from + i * step);
}

function count(x) {
  return Math.round(x).toLocaleString("en-US");
}

function percent(share) {
  return share > 0 && share < 0.005 ? "< 1 %" : `${Math.round(100 * share)} %`;
}

/** Three digits and which power of 1000 they count: 2.91e9 is [2.91, 3]. */
function scaled(x) {
  const power = x ? Math.floor(Math.log10(Number(x.toPrecision(3))) / 3) : 0;
  return [Number((x / 1000 ** power).toPrecision(3)), power];
}

function si(x, unit) {
  const [digits, power] = scaled(x);
  return `${digits} ${["", "k", "M", "G", "T", "P", "E", "Z", "Y", "R", "Q"][power]}${unit}`;
}

function many(x) {
  const [digits, power] = scaled(x);
  return power < 2 ? count(x) : `${digits} ${["million", "billion", "trillion"][power - 2] ?? ""}`;
}

function duration(seconds) {
  const [scale, unit] = [[1, "s"], [1e3, "ms"], [1e6, "µs"], [1e9, "ns"]]
    .find(([scale]) => seconds * scale >= 1) ?? [1e9, "ns"];
  const shown = Number((seconds * scale).toPrecision(3));
  return `${shown >= 1000 ? count(shown) : shown} ${unit}`;
}

define("tw-cost", CostExplorer);
