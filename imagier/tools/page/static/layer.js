// One part of a label map as it is painted: classes, gray lines, or an image that can only be chosen.

import { classesOf, sampleFile } from "./bundle.js";
import { History } from "./history.js";
import { coverPixels, decodeClassMap, decodeImage, encodeDrawing, fetchBlob, toGray } from "./images.js";
import { coverNearest, drawSoftStroke, drawStroke, floodFill, mostCommon, Raster } from "./raster.js";
import { writeGray, writeOneHot, writeRgb } from "./tensors.js";

/** The layer for a part of a label. Throws an Error if the page has none for it. */
export function makeLayer(part, size) {
  if (part.kind === "classes") return new ClassLayer(part, size);
  if (part.kind === "image" && part.channels === 1) return new LineLayer(part, size);
  if (part.kind === "image" && part.channels === 3) return new ImageLayer(part, size);
  throw new Error(`this page has no way to paint “${part.type}” (${part.kind}, ${part.channels} channels)`);
}

/** What layers with one number per pixel share. `paper` is the value of an empty one. */
class NumberLayer {
  isPainted = true;

  constructor(part, { width, height }, paper) {
    this.part = part;
    this.paper = paper;
    this.raster = new Raster(width, height, paper);
    this.history = new History(this.raster.copy());
  }

  get size() {
    return { width: this.raster.width, height: this.raster.height };
  }

  /** Replaces the drawing by a file, scaled to cover a size. */
  async load(blob, size) {
    this.setRaster(await this.decode(blob, size));
  }

  async loadSample(sample, size) {
    const raster = await this.decode(await fetchBlob(sampleFile(sample, this.part)), size);
    this.paper = mostCommon(raster);
    if (!this.history.canUndo) this.history = new History(raster.copy()); // the first example is where undoing ends
    this.setRaster(raster);
  }

  setRaster(raster) {
    this.raster = raster;
    this.commit();
  }

  clear() {
    this.setRaster(new Raster(this.raster.width, this.raster.height, this.paper));
  }

  /** Makes the drawing a state to which undo returns. */
  commit() {
    if (!this.raster.equals(this.history.present)) this.history.push(this.raster.copy());
  }

  undo() {
    this.raster = this.history.undo().copy();
  }

  redo() {
    this.raster = this.history.redo().copy();
  }

  encode() {
    return encodeDrawing(this.raster, this.part);
  }

  toRgba() {
    const { data } = this.raster;
    const rgba = new Uint8ClampedArray(4 * data.length);
    const pixels = new Uint32Array(rgba.buffer); // a whole pixel at once, since a stroke asks for all of them
    const known = new Map();
    for (let pixel = 0; pixel < data.length; pixel++) {
      const value = data[pixel];
      if (!known.has(value)) known.set(value, new Uint32Array(Uint8Array.of(...this.colorOf(value), 255).buffer)[0]);
      pixels[pixel] = known.get(value);
    }
    return rgba;
  }
}

/** Classes, painted with hard edges. */
export class ClassLayer extends NumberLayer {
  tools = ["brush", "fill", "eraser"];

  constructor(part, size) {
    super(part, size, 0);
    this.classes = classesOf(part);
    this.value = Math.min(1, this.classes.length - 1); // the class that is painted
  }

  async decode(blob, { width, height }) {
    return coverNearest(await decodeClassMap(blob, this.part), width, height);
  }

  stroke(from, to, diameter, isErasing) {
    drawStroke(this.raster, from, to, diameter, isErasing ? this.paper : this.value);
  }

  fill({ x, y }) {
    floodFill(this.raster, Math.floor(x), Math.floor(y), this.value);
  }

  colorOf(channel) {
    return this.classes[channel]?.color ?? [48, 48, 52]; // nothing, as `imagier data preview` shows it
  }

  write(out, offset) {
    writeOneHot(this.raster, this.part.channels, out, offset);
  }
}

/** Gray values: lines with smooth edges, or maps of depths and the like. */
class LineLayer extends NumberLayer {
  tools = ["brush", "eraser"];

  constructor(part, size) {
    super(part, size, 255);
  }

  async decode(blob, { width, height }) {
    return toGray(coverPixels(await decodeImage(blob), width, height), width, height);
  }

  async loadSample(sample, size) {
    await super.loadSample(sample, size);
    this.value ??= this.paper > 127 ? 0 : 255; // black on white, or white on black
  }

  stroke(from, to, diameter, isErasing) {
    const value = isErasing ? this.paper : (this.value ?? 0);
    const draw = value === 0 || value === 255 ? drawSoftStroke : drawStroke;
    draw(this.raster, from, to, diameter, value);
  }

  colorOf(value) {
    return [value, value, value];
  }

  write(out, offset) {
    writeGray(this.raster, this.part.range, out, offset);
  }
}

/** An image that is chosen, for a part of a label or a whole input. */
export class ImageLayer {
  isPainted = false;

  constructor(part, size) {
    this.part = part;
    this.size = size;
    this.rgba = new Uint8ClampedArray(4 * size.width * size.height).fill(255);
    this.hasImage = false;
  }

  async load(blob, size) {
    const image = await decodeImage(blob);
    this.rgba = coverPixels(image, size.width, size.height);
    this.size = size;
    this.hasImage = true;
  }

  async loadSample(sample, size) {
    await this.load(await fetchBlob(sampleFile(sample, this.part)), size);
  }

  toRgba() {
    return this.rgba;
  }

  write(out, offset) {
    writeRgb(this.rgba, this.part.range, out, offset);
  }
}
