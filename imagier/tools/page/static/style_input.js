// The style of the result: a code of random numbers, or an image to take it from.

import { byId, acceptFiles, make } from "./dom.js";
import { decodeImage, fetchBlob } from "./images.js";
import { ImageLayer } from "./layer.js";
import { drawCode, mixCodes } from "./style_code.js";
import { fitSize, resolveShape } from "./tensors.js";

/** An input of role "noise": a new code at a button, and a slider back to the one before it. */
export class CodeStyle {
  constructor(input, { onChange }) {
    this.input = input;
    this.before = this.draw();
    this.after = this.draw();
    this.slider = byId("style-mix");
    byId("style-code").hidden = false;
    this.slider.addEventListener("input", () => onChange(false));
    this.slider.addEventListener("change", () => onChange(true));
    byId("new-style").addEventListener("click", () => {
      this.before = this.code;
      this.after = this.draw();
      this.slider.value = this.slider.max;
      onChange(true);
    });
  }

  /** The code of an example, if it is known. */
  loadSample({ noise }) {
    if (!noise) return;
    this.before = this.after = Float32Array.from(noise);
    this.slider.value = this.slider.max;
  }

  get code() {
    return mixCodes(this.before, this.after, this.slider.value / this.slider.max);
  }

  draw() {
    return drawCode(resolveShape(this.input.shape, {}).reduce((product, length) => product * length));
  }

  feed() {
    return { name: this.input.name, data: this.code, dims: resolveShape(this.input.shape, {}) };
  }
}

/** An input of role "style_image": one of the bundle's, or a file. */
export class ImageStyle {
  constructor(input, bundle, { onChange, onError }) {
    this.input = input;
    this.bundle = bundle;
    this.onChange = onChange;
    this.onError = onError;
    this.blob = null;
    byId("style-images").hidden = false;
    this.list = byId("style-thumbs");
    for (const url of new Set(bundle.samples.map(({ style }) => style).filter(Boolean))) this.addSample(url);
    acceptFiles({
      button: byId("upload-style"),
      dropZone: byId("style-images"),
      onFile: (file) => this.take(file).catch(onError),
    });
  }

  /** The style of an example, or the first one there is. */
  async loadSample({ style }) {
    const radio = [...this.list.querySelectorAll("input")].find(({ value }) => !style || value === style);
    if (radio) {
      radio.checked = true;
      this.blob = await fetchBlob(radio.value);
    }
  }

  async feed(size) {
    const own = await this.ownSize(size);
    const layer = new ImageLayer(this.input, own);
    if (this.blob) await layer.load(this.blob, own);
    const dims = resolveShape(this.input.shape, { ...own, style_height: own.height, style_width: own.width });
    const data = new Float32Array(dims.reduce((product, length) => product * length));
    layer.write(data, 0);
    return { name: this.input.name, data, dims };
  }

  /** The size of the style image: that of the content, unless the network takes it at a size of its own. */
  async ownSize(size) {
    if (!this.blob || !this.input.shape.includes("style_height")) return size;
    const { width, height } = await decodeImage(this.blob);
    return fitSize(width, height, this.bundle);
  }

  /** The address of the image that is chosen. */
  get chosen() {
    return this.list.querySelector(":checked")?.value;
  }

  addSample(url) {
    const number = this.list.children.length + 1;
    this.addThumb(url, `style ${number}`, async () => {
      const blob = await fetchBlob(url);
      if (this.chosen !== url) return; // another one meanwhile
      this.blob = blob;
      this.onChange(true);
    });
  }

  async take(file) {
    await decodeImage(file); // which fails for what is no image
    const choose = async () => {
      this.blob = file;
      this.onChange(true);
    };
    this.addThumb(URL.createObjectURL(file), file.name, choose).checked = true;
    await choose();
  }

  addThumb(url, name, choose) {
    const onchange = () => choose().catch(this.onError);
    const radio = make("input", { type: "radio", name: "style", value: url, "aria-label": name, onchange });
    this.list.append(make("label", { title: name }, radio, make("img", { src: url, alt: "" })));
    return radio;
  }
}
