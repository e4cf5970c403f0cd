// What the page says about a bundle, and its examples as small images.

import { findInput, partsOf, sampleFile } from "./bundle.js";
import { byId, make, showPixels } from "./dom.js";
import { coverPixels, decodeClassMap, decodeImage, fetchBlob } from "./images.js";
import { ClassLayer } from "./layer.js";

/** Fills in title, headings and facts. */
export function describeBundle(bundle) {
  document.title = `${bundle.name} · Imagier`;
  byId("title").textContent = bundle.name;
  const parts = partsOf(findInput(bundle, "label", "image"));
  const hasClasses = parts.some(({ kind }) => kind === "classes");
  const canPaint = hasClasses || parts.some(({ channels }) => channels === 1);
  byId("input-title").textContent = canPaint ? (hasClasses ? "Paint" : "Draw") : "Image";
  byId("subtitle").textContent = canPaint
    ? `${hasClasses ? "Paint a map" : "Draw lines"}, and the network makes an image of it.`
    : "Choose an image, and the network makes another one of it.";
  byId("facts").append(...listFacts(bundle).flatMap(([name, text]) => [
    make("dt", { textContent: name }),
    make("dd", { textContent: text }),
  ]));
}

function listFacts(bundle) {
  const [height, width] = bundle.image_size;
  const { license = {} } = bundle;
  const data = [license.data, license.data_source].filter(Boolean).join(", ");
  return [
    ["Method", bundle.method],
    ["Trained for", `${bundle.iteration.toLocaleString("en")} iterations`],
    ["Image size", `${width} × ${height}`],
    ["Network", `${(bundle.files.onnx.bytes / 1e6).toFixed(1)} MB`],
    ["License of the weights", license.weights ?? "unknown"],
    ["License of the data", data || "unknown"],
    ["Made with", `Imagier ${bundle.imagier_version}`],
  ];
}

/** Puts input and output of an example into a button. */
export async function showSample(button, sample, part) {
  const input = make("canvas", { className: "pixels" });
  button.append(input, make("img", { src: sample.output, alt: "", className: "pixels" }));
  const blob = await fetchBlob(sampleFile(sample, part));
  let rgba, width, height;
  if (part.kind === "classes") {
    const layer = new ClassLayer(part, { width: 1, height: 1 });
    layer.raster = await decodeClassMap(blob, part);
    [rgba, width, height] = [layer.toRgba(), layer.raster.width, layer.raster.height];
  } else {
    const image = await decodeImage(blob);
    ({ width, height } = image);
    rgba = coverPixels(image, width, height);
  }
  showPixels(input, rgba, width, height);
}
