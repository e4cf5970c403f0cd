// The input that a person paints or chooses: its layers, the board, the tools and the palette.

import { Board } from "./board.js";
import { acceptFiles, acceptPaste, byId, isTyping, make } from "./dom.js";
import { decodeImage, fetchBlob, saveAs } from "./images.js";
import { partsOf, sampleFile } from "./bundle.js";
import { makeLayer } from "./layer.js";
import { Palette } from "./palette.js";
import { fitSize, resolveShape } from "./tensors.js";

export class Painter {
  /** input: of role "label" or "image". onChange(isFinal): after each change; not final while a stroke goes on. */
  constructor(input, bundle, { onChange, onError }) {
    this.input = input;
    this.bundle = bundle;
    this.onChange = onChange;
    this.onError = onError;
    const [height, width] = bundle.image_size;
    this.layers = partsOf(input).map((part) => makeLayer(part, { height, width }));
    this.layer = this.layers[0];
    this.tool = "brush";
    this.palette = new Palette(byId("palette"), (value) => this.chooseClass(value));
    this.board = new Board(byId("board"), byId("ring"), {
      onStart: (point) => this.start(point),
      onStroke: (from, to) => this.stroke(from, to),
      onEnd: () => this.finish(),
      getDiameter: () => (this.tool === "fill" ? 0 : this.diameter),
    });
    this.addControls();
    this.addLayerTabs();
    this.choose(this.layer);
  }

  get size() {
    return this.layer.size;
  }

  get diameter() {
    return Number(byId("brush-size").value);
  }

  /** The tensor of the input. */
  feed() {
    const dims = resolveShape(this.input.shape, this.size);
    const data = new Float32Array(dims.reduce((product, length) => product * length));
    let offset = 0;
    for (const layer of this.layers) {
      layer.write(data, offset);
      offset += layer.part.channels * dims[2] * dims[3];
    }
    return { name: this.input.name, data, dims };
  }

  async loadSample(sample) {
    const first = await decodeImage(await fetchBlob(sampleFile(sample, this.layers[0].part)));
    const size = fitSize(first.width, first.height, this.bundle);
    for (const layer of this.layers) await layer.loadSample(sample, size);
    this.showShade();
    this.refresh();
  }

  /** Puts a file of the user's into the layer that is shown; one layer alone may change its size. */
  async loadFile(file) {
    try {
      const image = await decodeImage(file);
      const size = this.layers.length === 1 ? fitSize(image.width, image.height, this.bundle) : this.size;
      await this.layer.load(file, size);
      this.refresh();
    } catch (error) {
      this.onError(error);
    }
  }

  start(point) {
    if (this.tool === "fill") this.layer.fill(point);
    else this.layer.stroke(point, point, this.diameter, this.tool === "eraser");
    this.refresh(false);
  }

  stroke(from, to) {
    if (this.tool === "fill") return;
    this.layer.stroke(from, to, this.diameter, this.tool === "eraser");
    this.refresh(false);
  }

  finish() {
    this.layer.commit();
    this.refresh();
  }

  /** undo, redo or clear. */
  edit(action) {
    if (this.board.isDrawing || !this.layer.isPainted) return;
    this.layer[action]();
    this.refresh();
  }

  refresh(isFinal = true) {
    this.board.show(this.layer.toRgba(), this.size.width, this.size.height);
    byId("drop-hint").hidden = this.layer.isPainted || this.layer.hasImage;
    byId("undo").disabled = !this.layer.history?.canUndo;
    byId("redo").disabled = !this.layer.history?.canRedo;
    this.onChange(isFinal);
  }

  choose(layer) {
    this.layer = layer;
    const tools = layer.tools ?? [];
    for (const radio of document.getElementsByName("tool")) {
      radio.closest("label").hidden = !tools.includes(radio.value);
    }
    if (!tools.includes(this.tool)) this.chooseTool("brush");
    for (const element of document.querySelectorAll(".for-painting")) element.hidden = !layer.isPainted;
    this.board.setPainted(layer.isPainted);
    this.palette.show(layer.classes ?? [], layer.value);
    const { width, height } = this.size;
    const slider = byId("brush-size");
    slider.max = Math.max(4, Math.round(Math.min(width, height) / 4));
    slider.value = Math.max(1, Math.round(Math.min(width, height) / (layer.classes ? 12 : 32)));
    this.showBrushSize();
    this.showShade();
    this.refresh();
  }

  chooseTool(name) {
    this.tool = name;
    const radio = document.querySelector(`input[name=tool][value=${name}]`);
    if (radio) radio.checked = true;
  }

  chooseClass(value) {
    this.layer.value = value;
    if (this.tool === "eraser") this.chooseTool("brush");
  }

  showBrushSize() {
    byId("brush-size-text").textContent = `${this.diameter} px`;
  }

  /** The slider of gray values, for layers that have them. */
  showShade() {
    byId("shade-label").hidden = Boolean(this.layer.classes);
    byId("shade").value = this.layer.value ?? 0;
  }

  addControls() {
    byId("shade").addEventListener("input", () => (this.layer.value = Number(byId("shade").value)));
    for (const radio of document.getElementsByName("tool")) {
      radio.addEventListener("change", () => this.chooseTool(radio.value));
    }
    for (const action of ["undo", "redo", "clear"]) byId(action).addEventListener("click", () => this.edit(action));
    byId("brush-size").addEventListener("input", () => this.showBrushSize());
    byId("save-drawing").addEventListener("click", () => this.save());
    const onFile = (file) => this.loadFile(file);
    acceptFiles({ button: byId("upload"), dropZone: byId("drop-zone"), onFile });
    acceptPaste(onFile);
    document.addEventListener("keydown", (event) => this.press(event));
  }

  /** Keys for tools; docs/demo.md and the page list them. */
  press(event) {
    if (isTyping(event) || event.altKey || !this.layer.isPainted) return;
    const key = event.key.toLowerCase();
    if (event.ctrlKey || event.metaKey) {
      if (key !== "z" && key !== "y") return;
      event.preventDefault();
      this.edit(key === "y" || event.shiftKey ? "redo" : "undo");
    } else if (this.layer.tools.includes({ b: "brush", f: "fill", e: "eraser" }[key])) {
      this.chooseTool({ b: "brush", f: "fill", e: "eraser" }[key]);
    } else if (key === "[" || key === "]") {
      byId("brush-size").value = this.diameter + (key === "]" ? 1 : -1);
      this.showBrushSize();
    } else if (/^[1-9]$/.test(key) && this.layer.classes?.[key - 1]) {
      this.palette.choose(key - 1);
    }
  }

  async save() {
    const { type } = this.layer.part;
    saveAs(await this.layer.encode(), `${type}.png`);
  }

  addLayerTabs() {
    if (this.layers.length < 2) return;
    const group = byId("layers");
    group.hidden = false;
    for (const layer of this.layers) {
      const onchange = () => this.choose(layer);
      const radio = make("input", { type: "radio", name: "layer", checked: layer === this.layer, onchange });
      group.append(make("label", {}, radio, make("span", { textContent: layer.part.type.replaceAll("_", " ") })));
    }
  }
}
