// PNG files of numbers: a browser's own decoder gives colors, which a map of classes with a palette must not become.

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const GRAY = 0;
const PALETTE = 3;

/**
 * The stored numbers of a gray PNG, or the indices of one with a palette (1 to 16 bits).
 * bytes: Uint8Array. -> {width, height, data}, or null for any other file: with colors, alpha, or interlaced.
 */
export async function decodeNumbers(bytes) {
  if (!SIGNATURE.every((byte, index) => bytes[index] === byte)) return null;
  const chunks = readChunks(bytes);
  const header = chunks.find(({ type }) => type === "IHDR")?.data;
  if (!header) return null;
  const view = new DataView(header.buffer, header.byteOffset, header.byteLength);
  const [width, height] = [view.getUint32(0), view.getUint32(4)];
  const [bits, colorType, isInterlaced] = [header[8], header[9], header[12]];
  if ((colorType !== GRAY && colorType !== PALETTE) || isInterlaced) return null;
  const packed = new Blob(chunks.filter(({ type }) => type === "IDAT").map(({ data }) => data));
  const raw = new Uint8Array(await through(packed, new DecompressionStream("deflate")));
  const stride = Math.ceil((width * bits) / 8);
  removeFilters(raw, height, stride, Math.max(1, bits >> 3));
  return { width, height, data: readNumbers(raw, width, height, bits, stride) };
}

/** A gray PNG of 8 bits, or of 16 if a number needs them. raster: {width, height, data}. -> Blob */
export async function encodeNumbers({ width, height, data }) {
  const size = data.some((value) => value > 255) ? 2 : 1;
  const raw = new Uint8Array(height * (1 + size * width)); // each row begins with its filter, 0: none
  data.forEach((value, pixel) => {
    const at = Math.floor(pixel / width) * (1 + size * width) + 1 + (pixel % width) * size;
    if (size === 2) raw[at] = value >> 8;
    raw[at + size - 1] = value & 255;
  });
  const header = new Uint8Array(13);
  new DataView(header.buffer).setUint32(0, width);
  new DataView(header.buffer).setUint32(4, height);
  header.set([8 * size, GRAY], 8);
  const packed = new Uint8Array(await through(new Blob([raw]), new CompressionStream("deflate")));
  const chunks = [makeChunk("IHDR", header), makeChunk("IDAT", packed), makeChunk("IEND", new Uint8Array())];
  return new Blob([new Uint8Array(SIGNATURE), ...chunks], { type: "image/png" });
}

function through(blob, stream) {
  return new Response(blob.stream().pipeThrough(stream)).arrayBuffer();
}

function readChunks(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const chunks = [];
  for (let at = 8; at + 12 <= bytes.length; ) {
    const length = view.getUint32(at);
    const type = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    chunks.push({ type, data: bytes.subarray(at + 8, at + 8 + length) });
    at += 12 + length;
  }
  return chunks;
}

/** Undoes the filters of the rows, in place (PNG specification, section 9). */
function removeFilters(raw, height, stride, step) {
  for (let row = 0; row < height; row++) {
    const start = row * (stride + 1) + 1;
    const filter = raw[start - 1];
    for (let x = 0; x < stride; x++) {
      const left = x >= step ? raw[start + x - step] : 0;
      const up = row > 0 ? raw[start + x - stride - 1] : 0;
      const corner = x >= step && row > 0 ? raw[start + x - stride - 1 - step] : 0;
      raw[start + x] += [0, left, up, (left + up) >> 1, predict(left, up, corner)][filter];
    }
  }
}

/** Paeth's predictor. */
function predict(left, up, corner) {
  const guess = left + up - corner;
  const [toLeft, toUp, toCorner] = [left, up, corner].map((value) => Math.abs(guess - value));
  if (toLeft <= toUp && toLeft <= toCorner) return left;
  return toUp <= toCorner ? up : corner;
}

function readNumbers(raw, width, height, bits, stride) {
  const data = new Uint16Array(width * height);
  for (let pixel = 0; pixel < data.length; pixel++) {
    const start = Math.floor(pixel / width) * (stride + 1) + 1;
    const bit = (pixel % width) * bits;
    const at = start + (bit >> 3);
    data[pixel] =
      bits === 16 ? raw[at] * 256 + raw[at + 1] : (raw[at] >> (8 - bits - (bit & 7))) & (2 ** bits - 1);
  }
  return data;
}

function makeChunk(type, data) {
  const chunk = new Uint8Array(12 + data.length);
  const view = new DataView(chunk.buffer);
  view.setUint32(0, data.length);
  chunk.set([...type].map((letter) => letter.charCodeAt(0)), 4);
  chunk.set(data, 8);
  view.setUint32(8 + data.length, checksum(chunk.subarray(4, 8 + data.length)));
  return chunk;
}

/** CRC-32, as PNG has it. */
function checksum(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  }
  return (crc ^ 0xffffffff) >>> 0;
}
