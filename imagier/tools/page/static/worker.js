// Runs the network beside the page, so that the page always answers: ONNX Runtime, WebAssembly, one thread.

import * as ort from "./runtime/ort.wasm.bundle.min.mjs";

ort.env.wasm.wasmPaths = { wasm: new URL("./runtime/ort-wasm-simd-threaded.wasm", import.meta.url).href };
ort.env.wasm.numThreads = 1; // more would need headers (COOP, COEP) that most static hosts do not send
ort.env.logLevel = "error";

let session = null;

const handlers = {
  async load({ url }) {
    const bytes = await download(url);
    session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
    return {};
  },

  async run({ feeds, output }) {
    const tensors = Object.fromEntries(
      feeds.map(({ name, data, dims }) => [name, new ort.Tensor("float32", data, dims)]),
    );
    const start = performance.now();
    const results = await session.run(tensors, [output]);
    const ms = performance.now() - start;
    const { data, dims } = results[output];
    return { data: new Float32Array(data), dims, ms };
  },
};

self.onmessage = async ({ data: { id, task, ...args } }) => {
  try {
    const result = await handlers[task](args);
    self.postMessage({ id, result }, result.data ? [result.data.buffer] : []);
  } catch (error) {
    self.postMessage({ id, error: String(error?.message ?? error) });
  }
};

/** The bytes of a file; posts how many have come. */
async function download(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url} is not there (HTTP ${response.status})`);
  const total = Number(response.headers.get("Content-Length")) || 0;
  const parts = [];
  let loaded = 0;
  const reader = response.body.getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    parts.push(part.value);
    loaded += part.value.length;
    self.postMessage({ progress: { loaded, total } });
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}
