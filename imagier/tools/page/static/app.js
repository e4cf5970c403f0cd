// The page: reads bundle.json, shows its inputs, and generates an image after every change.

import { findInput, loadBundle } from "./bundle.js";
import { addIcons, byId, make, showPixels } from "./dom.js";
import { saveAs } from "./images.js";
import { latestOnly } from "./latest.js";
import { Model } from "./model.js";
import { Painter } from "./painter.js";
import { CodeStyle, ImageStyle } from "./style_input.js";
import { toRgba } from "./tensors.js";
import { describeBundle, showSample } from "./texts.js";

const FAST_MS = 150; // a network that takes less generates while a stroke goes on

if (!window.imagierCannotRun) start().catch(showError);

async function start() {
  addIcons();
  // An image that misses its place must not take the place of the page.
  for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());
  const bundle = await loadBundle();
  describeBundle(bundle);
  const page = new Page(bundle);
  byId("bench").hidden = false;
  const first = bundle.samples[0];
  if (first) await page.open(first);
  await page.loadModel();
}

class Page {
  constructor(bundle) {
    this.bundle = bundle;
    this.output = bundle.outputs[0];
    this.lastMs = Infinity;
    this.isReady = false;
    const onChange = (isFinal) => this.change(isFinal);
    const callbacks = { onChange, onError: showError };
    this.painter = new Painter(findInput(bundle, "label", "image"), bundle, callbacks);
    const [noise, image] = [findInput(bundle, "noise"), findInput(bundle, "style_image")];
    this.styles = [noise && new CodeStyle(noise, callbacks), image && new ImageStyle(image, bundle, callbacks)];
    this.styles = this.styles.filter(Boolean);
    this.request = latestOnly(() => this.generate());
    this.requestSample = latestOnly(() => this.loadSample());
    byId("save-result").addEventListener("click", () => {
      byId("result").toBlob((blob) => saveAs(blob, `${bundle.name}.png`));
    });
    this.addExamples();
  }

  async loadModel() {
    const progress = byId("progress");
    progress.hidden = false;
    byId("status").textContent = "Loading the network …";
    this.model = new Model(({ loaded, total }) => {
      if (total > 0) Object.assign(progress, { max: total, value: Math.min(loaded, total) });
      byId("status").textContent = `Loading the network, ${(loaded / 1e6).toFixed(1)} MB`;
    });
    try {
      await this.model.load(this.bundle.files.onnx.path);
    } finally {
      progress.hidden = true;
      byId("status").textContent = "";
    }
    this.isReady = true;
    await this.request();
  }

  /** Puts an example into all inputs; of several that are asked for quickly, the last one. */
  open(sample) {
    this.wanted = sample;
    return this.requestSample();
  }

  async loadSample() {
    try {
      for (const style of this.styles) await style.loadSample(this.wanted);
      await this.painter.loadSample(this.wanted);
    } catch (error) {
      showError(error);
    }
  }

  change(isFinal) {
    if (this.isReady && (isFinal || this.lastMs < FAST_MS)) this.request();
  }

  async generate() {
    const panel = byId("output-panel");
    const busy = setTimeout(() => panel.classList.add("busy"), 200);
    try {
      const { size } = this.painter;
      const feeds = [this.painter.feed(), ...(await Promise.all(this.styles.map((style) => style.feed(size))))];
      const { data, dims, ms } = await this.model.run(feeds, this.output.name);
      this.show(toRgba(data, dims, this.output.range), dims[3], dims[2], ms);
      byId("error").hidden = true;
    } catch (error) {
      showError(error);
    } finally {
      clearTimeout(busy);
      panel.classList.remove("busy");
    }
  }

  show(rgba, width, height, ms) {
    const canvas = byId("result");
    showPixels(canvas, rgba, width, height);
    canvas.classList.toggle("pixels", Math.max(width, height) <= 128);
    this.lastMs = ms;
    byId("save-result").disabled = false;
    byId("status").textContent = ms < 1000 ? `in ${Math.max(1, Math.round(ms))} ms` : `in ${(ms / 1000).toFixed(1)} s`;
  }

  addExamples() {
    const { samples } = this.bundle;
    byId("examples").hidden = samples.length === 0;
    const part = this.painter.layers[0].part;
    samples.forEach((sample, index) => {
      const onclick = () => this.open(sample);
      const button = make("button", { type: "button", onclick, "aria-label": `example ${index + 1}` });
      byId("example-list").append(button);
      showSample(button, sample, part).catch(showError);
    });
  }
}

function showError(error) {
  const box = byId("error");
  box.textContent = `This did not work: ${error.message}`;
  box.hidden = false;
}
