// Image files -> pixels.

import { channelsToIds, classesOf, idsToChannels } from "./bundle.js";
import { decodeNumbers, encodeNumbers } from "./png.js";
import { Raster } from "./raster.js";

/** The bytes of a file of the site. */
export async function fetchBlob(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url} is not there (HTTP ${response.status})`);
  return response.blob();
}

/** An image that any canvas can draw, with its values as they are stored and turned as its EXIF tag says. */
export async function decodeImage(blob) {
  try {
    return await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    throw new Error(`${blob.name ?? "the file"} is no image that this browser can read`);
  }
}

/** RGBA bytes of the middle of an image, scaled to cover width x height, on white. */
export function coverPixels(image, width, height) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  const scale = Math.max(width / image.width, height / image.height);
  const [w, h] = [image.width * scale, image.height * scale];
  context.imageSmoothingEnabled = scale !== 1;
  context.imageSmoothingQuality = "high";
  context.drawImage(image, (width - w) / 2, (height - h) / 2, w, h);
  return context.getImageData(0, 0, width, height).data;
}

/** RGBA bytes -> gray values, weighted as in ITU-R BT.601. */
export function toGray(rgba, width, height) {
  const raster = new Raster(width, height);
  raster.data.forEach((_, pixel) => {
    const [red, green, blue] = rgba.subarray(4 * pixel, 4 * pixel + 3);
    raster.data[pixel] = Math.round(0.299 * red + 0.587 * green + 0.114 * blue);
  });
  return raster;
}

/** A file of class ids -> the channel of every pixel; of a color image the class of the nearest color. */
export async function decodeClassMap(blob, part) {
  const numbers = await decodeNumbers(new Uint8Array(await blob.arrayBuffer()));
  if (numbers) {
    const raster = new Raster(numbers.width, numbers.height);
    raster.data.set(idsToChannels(numbers.data, part));
    return raster;
  }
  const image = await decodeImage(blob);
  return nearestClasses(coverPixels(image, image.width, image.height), image.width, image.height, part);
}

/** A drawing as a file of the kind that the data set has: class ids, or gray values. */
export function encodeDrawing(raster, part) {
  const data = part.kind === "classes" ? channelsToIds(raster.data, part) : raster.data;
  return encodeNumbers({ width: raster.width, height: raster.height, data });
}

/** The channel of the class whose color is nearest, for RGBA bytes. */
export function nearestClasses(rgba, width, height, part) {
  const classes = classesOf(part);
  const known = new Map();
  const raster = new Raster(width, height);
  raster.data.forEach((_, pixel) => {
    const [red, green, blue] = rgba.subarray(4 * pixel, 4 * pixel + 3);
    const key = (red << 16) | (green << 8) | blue;
    if (!known.has(key)) {
      const distance = ({ color: [r, g, b] }) => (r - red) ** 2 + (g - green) ** 2 + (b - blue) ** 2;
      known.set(key, classes.reduce((best, each) => (distance(each) < distance(best) ? each : best)).channel);
    }
    raster.data[pixel] = known.get(key);
  });
  return raster;
}

/** Lets the browser save a blob under a name. */
export function saveAs(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
