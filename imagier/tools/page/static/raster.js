// What is painted: one whole number per pixel, a class or a gray value, and the operations of the tools.

/** Width x height numbers from 0 to 65535, row by row. */
export class Raster {
  constructor(width, height, fill = 0) {
    this.width = width;
    this.height = height;
    this.data = new Uint16Array(width * height).fill(fill);
  }

  copy() {
    const other = new Raster(this.width, this.height);
    other.data.set(this.data);
    return other;
  }

  equals(other) {
    return this.width === other.width && this.height === other.height && this.data.every((v, i) => v === other.data[i]);
  }
}

/**
 * Sets every pixel whose center is within diameter / 2 of the segment between two points to a value.
 * Points are {x, y} in pixels; they are moved to the centers of their pixels, so that a line of 1 pixel has no gap.
 */
export function drawStroke(raster, from, to, diameter, value) {
  const [a, b] = [from, to].map(({ x, y }) => ({ x: Math.floor(x) + 0.5, y: Math.floor(y) + 0.5 }));
  forEachNear(raster, a, b, diameter / 2, (index, distance) => {
    if (distance <= diameter / 2) raster.data[index] = value;
  });
}

/**
 * The same with smooth edges, for lines in black or white (value: 0 or 255). Each pixel goes towards it by how much of
 * it the stroke covers, and never back. So a stroke over itself changes nothing.
 */
export function drawSoftStroke(raster, from, to, diameter, value) {
  const opposite = 255 - value;
  const nearer = value > opposite ? Math.max : Math.min;
  forEachNear(raster, from, to, diameter / 2 + 0.5, (index, distance) => {
    const covered = Math.min(1, Math.max(0, diameter / 2 + 0.5 - distance));
    const target = Math.round(opposite + (value - opposite) * covered);
    raster.data[index] = nearer(raster.data[index], target);
  });
}

/** Sets the pixels of one value that hang together with (x, y), by their edges, to another value. */
export function floodFill(raster, x, y, value) {
  const { width, height, data } = raster;
  const before = data[y * width + x];
  if (before === value) return;
  const open = [y * width + x];
  while (open.length > 0) {
    const index = open.pop();
    if (data[index] !== before) continue;
    data[index] = value;
    const column = index % width;
    if (column > 0) open.push(index - 1);
    if (column < width - 1) open.push(index + 1);
    if (index >= width) open.push(index - width);
    if (index < width * (height - 1)) open.push(index + width);
  }
}

/** The value that most pixels have. */
export function mostCommon(raster) {
  const counts = new Map();
  for (const value of raster.data) counts.set(value, (counts.get(value) ?? 0) + 1);
  return [...counts].reduce((best, each) => (each[1] > best[1] ? each : best))[0];
}

/** The middle of a raster at another size: scaled to cover it, each pixel taken from one pixel. */
export function coverNearest(raster, width, height) {
  const scale = Math.min(raster.width / width, raster.height / height);
  const left = (raster.width - width * scale) / 2;
  const top = (raster.height - height * scale) / 2;
  const result = new Raster(width, height);
  for (let y = 0; y < height; y++) {
    const row = Math.floor(top + (y + 0.5) * scale) * raster.width;
    for (let x = 0; x < width; x++) {
      result.data[y * width + x] = raster.data[row + Math.floor(left + (x + 0.5) * scale)];
    }
  }
  return result;
}

function forEachNear(raster, a, b, reach, visit) {
  const [dx, dy] = [b.x - a.x, b.y - a.y];
  const squared = dx * dx + dy * dy;
  const first = (low) => Math.max(0, Math.floor(low - reach - 0.5));
  const last = (high, size) => Math.min(size - 1, Math.ceil(high + reach));
  for (let y = first(Math.min(a.y, b.y)); y <= last(Math.max(a.y, b.y), raster.height); y++) {
    for (let x = first(Math.min(a.x, b.x)); x <= last(Math.max(a.x, b.x), raster.width); x++) {
      const [px, py] = [x + 0.5 - a.x, y + 0.5 - a.y];
      const along = squared === 0 ? 0 : Math.min(1, Math.max(0, (px * dx + py * dy) / squared));
      visit(y * raster.width + x, Math.hypot(px - along * dx, py - along * dy));
    }
  }
}
