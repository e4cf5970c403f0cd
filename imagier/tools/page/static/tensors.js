// Pixels -> the float32 tensors of the network, and back, as bundle.json says.

/** The numbers of a shape such as ["batch", 3, "height", "width"]; the batch is 1. */
export function resolveShape(shape, size) {
  const named = { batch: 1, ...size };
  return shape.map((each) => {
    const length = typeof each === "number" ? each : named[each];
    if (length === undefined) throw new Error(`bundle.json: unknown length “${each}” in a shape`);
    return length;
  });
}

/** One channel per class, K x H x W, into out from offset on. A value that is no channel gets none. */
export function writeOneHot(raster, channels, out, offset = 0) {
  const pixels = raster.data.length;
  raster.data.forEach((channel, pixel) => {
    if (channel < channels) out[offset + channel * pixels + pixel] = 1;
  });
}

/** Gray values of 0 to 255 -> 1 x H x W in a range. */
export function writeGray(raster, [low, high], out, offset = 0) {
  raster.data.forEach((value, pixel) => {
    out[offset + pixel] = low + (value / 255) * (high - low);
  });
}

/** RGBA bytes -> 3 x H x W in a range. */
export function writeRgb(rgba, [low, high], out, offset = 0) {
  const pixels = rgba.length / 4;
  for (let pixel = 0; pixel < pixels; pixel++) {
    for (let channel = 0; channel < 3; channel++) {
      out[offset + channel * pixels + pixel] = low + (rgba[4 * pixel + channel] / 255) * (high - low);
    }
  }
}

/** 1 x C x H x W in a range, C = 1 or 3 -> RGBA bytes, rounded and clipped. */
export function toRgba(data, [, channels, height, width], [low, high]) {
  const pixels = height * width;
  const rgba = new Uint8ClampedArray(4 * pixels); // which rounds and clips
  for (let pixel = 0; pixel < pixels; pixel++) {
    for (let channel = 0; channel < 3; channel++) {
      const value = data[Math.min(channel, channels - 1) * pixels + pixel];
      rgba[4 * pixel + channel] = ((value - low) / (high - low)) * 255;
    }
    rgba[4 * pixel + 3] = 255;
  }
  return rgba;
}

/**
 * The size at which an image of width x height goes through the network: that of the bundle, or one of the image's
 * shape (at most 2 : 1, or as long as the bundle's) with the bundle's shorter side, if the network takes any size.
 */
export function fitSize(width, height, bundle) {
  const [defaultHeight, defaultWidth] = bundle.image_size;
  if (!bundle.has_dynamic_size) return { height: defaultHeight, width: defaultWidth };
  const step = bundle.size_multiple || 1;
  const shorter = Math.min(defaultHeight, defaultWidth);
  const limit = Math.max(2 * shorter, defaultHeight, defaultWidth);
  const scale = shorter / Math.min(width, height);
  const fit = (length) => {
    return Math.max(step, Math.round(Math.min(length * scale, limit) / step) * step);
  };
  return { height: fit(height), width: fit(width) };
}
