import { BLUE, ORANGE, Explorer, define, h, s } from "./base.js";

const HATCH = 3; // how many lines cross the edge of a hidden patch
const DIGITS = 3; // of an error

/** What travels as base64: the pixels of an image, by row, column and channel. */
function bytes(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

class Masking extends Explorer {
  static heading = "Hide patches, and see what is painted";

  static style = `
  .pictures { display: flex; gap: 1rem; margin-bottom: 0.9rem; }
  figure { flex: 1 1 0; margin: 0; max-width: 12rem; min-width: 0; }
  figure svg { border: 1px solid color-mix(in srgb, currentColor 45%, transparent); width: 100%; }
  figcaption { font-size: 0.85em; line-height: 1.3; margin-top: 0.35rem; }
  table { border-collapse: collapse; font-size: 0.9em; max-width: 38rem; width: 100%; }
  caption { font-size: 1em; padding-bottom: 0.25rem; text-align: left; }
  th, td { font-weight: normal; padding: 0.15rem 0.6rem 0.15rem 0; text-align: left; }
  tbody th { white-space: nowrap; }
  td.number { font-variant-numeric: tabular-nums; text-align: right; white-space: nowrap; }
  th.number { text-align: right; }
  td.bar { width: 50%; }
  .bar div { background: currentColor; height: 0.7rem; min-width: 1px; opacity: 0.55; }
  tr:first-child .bar div { background: ${ORANGE}; opacity: 1; }
  @media (forced-colors: active) { .bar div { forced-color-adjust: none; } }
  `;

  start() {
    const { size, grid, images, shown } = this.data;
    this.pixels = size[0] * size[1];
    this.patches = grid[0] * grid[1];
    this.drawn = 0;
    this.image = this.choice("image", images.map((image) => image.name));
    this.ratio = this.slider("hidden", {
      min: 0, max: shown[0].length - 1, step: 1, value: Math.floor((shown[0].length - 1) / 2),
      format: (i) => `${this.count(i)} of ${this.patches} patches`,
    });
    this.another = this.button("draw another mask", () => {
      this.drawn = (this.drawn + 1) % shown[0][0].length;
    });
    this.another.disabled = shown[0][0].length < 2;
    [this.pasted] = this.boxes("reconstruction", ["paste the visible patches in"], () => false)
      .inputs;
  }

  /** How many patches are hidden at that place of the slider. */
  count(ratio) {
    return this.places(this.data.shown[0][ratio][0].mask, "1").length;
  }

  draw() {
    const { names, images, shown } = this.data;
    const { name, pixels } = images[this.image.read()];
    const ratio = this.ratio.read();
    const now = shown[this.image.read()][ratio][this.drawn];
    const [original, painted] = [bytes(pixels), bytes(now.painted)];
    const pasted = this.pasted.checked;
    const hides = (pixel) => now.mask[this.patchOf(pixel)] === "1";
    const [error] = now.errors;
    const off = `mean squared error ${error.toFixed(DIGITS)} on the hidden pixels, typically ` +
      `off by ${Math.sqrt(error).toFixed(2)} where black is 0 and white is 1`;
    this.view.replaceChildren(
      h("div", { class: "pictures" },
        this.figure("original", `The original: ${name}.`,
          this.squares((pixel) => color(original, pixel, this.pixels))),
        this.figure("what the encoder gets", this.visible(now.mask),
          this.squares((pixel) => (hides(pixel) ? null : color(original, pixel, this.pixels))),
          this.hatching(now.mask), this.outlines(now.mask)),
        this.figure(
          pasted ? "what the model paints, and what was visible" : "what the model paints",
          `The reconstruction${pasted ? ", with the visible patches pasted in" : ""}: ${off}.`,
          this.squares((pixel) =>
            color(pasted && !hides(pixel) ? original : painted, pixel, this.pixels)),
          this.outlines(now.mask))),
      this.table(now.errors, ratio),
    );
    return `Of this image (${name}) ${this.count(ratio)} of ${this.patches} patches are hidden, ` +
      `mask ${this.drawn + 1} of ${shown[0][0].length}. Mean squared error of what is hidden: ` +
      names.map((who, i) => `${who} ${now.errors[i].toFixed(DIGITS)}`).join(", ") + ".";
  }

  /** The number of the patch that a pixel lies in, both in reading order. */
  patchOf(pixel) {
    const { size: [height, width], grid: [rows, columns] } = this.data;
    const row = Math.floor((Math.floor(pixel / width) * rows) / height);
    return row * columns + Math.floor(((pixel % width) * columns) / width);
  }

  figure(caption, alt, ...drawn) {
    const [height, width] = this.data.size;
    return h("figure", {},
      s("svg", { role: "img", "aria-label": alt, viewBox: `0 0 ${width} ${height}` }, ...drawn),
      h("figcaption", { "aria-hidden": "true" }, caption));
  }

  /** A square for each pixel to which `fill(pixel)` gives a color. */
  squares(fill) {
    const [height, width] = this.data.size;
    return Array.from({ length: height * width }, (_, pixel) => {
      const color = fill(pixel);
      return color && s("rect", {
        x: pixel % width, y: Math.floor(pixel / width), width: 1, height: 1, fill: color,
        "shape-rendering": "crispEdges",
      });
    });
  }

  /** Slanted lines over the hidden patches, which go on from one patch to the next. */
  hatching(mask) {
    const lines = this.places(mask, "1").flatMap(({ x, y, wide, tall }) =>
      Array.from({ length: 2 * HATCH - 1 }, (_, i) => {
        const from = (i + 1) / HATCH; // along the left edge, then along the bottom, in patches
        const [over, under] = [Math.max(0, from - 1), Math.min(1, from)];
        return `M${x + over * wide} ${y + under * tall}L${x + under * wide} ${y + over * tall}`;
      }));
    return s("path", {
      d: lines.join(""), fill: "none", stroke: "currentColor", "stroke-opacity": 0.6,
      "stroke-width": this.data.size[1] / 140,
    });
  }

  /** A frame inside each visible patch: white ones would be lost on a white page. */
  outlines(mask) {
    const line = this.data.size[1] / 90;
    return this.places(mask, "0").map(({ x, y, wide, tall }) => s("rect", {
      x: x + line / 2, y: y + line / 2, width: wide - line, height: tall - line,
      fill: "none", stroke: BLUE, "stroke-width": line,
    }));
  }

  /** Where the patches are that the mask marks so, in pixels and as row and column. */
  places(mask, mark) {
    const { size: [height, width], grid: [rows, columns] } = this.data;
    const [tall, wide] = [height / rows, width / columns];
    return [...mask].flatMap((found, patch) => {
      const [row, column] = [Math.floor(patch / columns), patch % columns];
      return found === mark ? [{ row, column, x: column * wide, y: row * tall, wide, tall }] : [];
    });
  }

  /** Which patches are left to see, in words. */
  visible(mask) {
    const places = this.places(mask, "0")
      .map(({ row, column }) => `row ${row + 1} column ${column + 1}`);
    return `What the encoder gets: ${places.length} of ${this.patches} patches, ` +
      `${places.join(", ")}. All others are hidden.`;
  }

  /** The errors of this mask as bars, and beside them their means over all recorded masks. */
  table(errors, ratio) {
    const { names, shown } = this.data;
    const all = shown.flatMap((image) => image[ratio]);
    const largest = Math.max(...shown[this.image.read()].flat().flatMap((d) => d.errors));
    return h("table", {},
      h("caption", {}, "Mean squared error of the hidden pixels"),
      h("thead", {}, h("tr", {},
        h("th", { scope: "col" }, "painted by"),
        h("th", { scope: "col", colspan: 2 }, "this image and mask"),
        h("th", { scope: "col", class: "number" }, `mean of ${all.length}`))),
      h("tbody", {}, names.map((name, i) => h("tr", {},
        h("th", { scope: "row" }, name),
        h("td", { class: "bar", "aria-hidden": "true" },
          h("div", { style: `width: ${(100 * errors[i]) / largest}%` })),
        h("td", { class: "number" }, errors[i].toFixed(DIGITS)),
        h("td", { class: "number" },
          (all.reduce((sum, d) => sum + d.errors[i], 0) / all.length).toFixed(DIGITS))))));
  }
}

/** The color of a pixel, gray where there is one channel. */
function color(image, pixel, pixels) {
  const channels = image.length / pixels;
  const at = (channel) => image[pixel * channels + (channel % channels)];
  return `rgb(${at(0)}, ${at(1)}, ${at(2)})`;
}

define("tw-masking", Masking);
