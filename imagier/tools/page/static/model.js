// The network, as the page sees it: promises of what the worker computes.

export class Model {
  /** onProgress: called with {loaded, total} bytes while the network comes; total is 0 if the host does not say it. */
  constructor(onProgress) {
    this.onProgress = onProgress;
    this.waiting = new Map();
    this.count = 0;
    this.worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    this.worker.onmessage = ({ data }) => this.receive(data);
    this.worker.onerror = (event) => {
      event.preventDefault();
      this.fail(new Error(event.message || "the worker that computes images could not be started"));
    };
  }

  load(url) {
    return this.ask({ task: "load", url: new URL(url, location.href).href });
  }

  /** feeds: [{name, data, dims}]; output: its name. -> {data, dims, ms}, the milliseconds that the network took. */
  run(feeds, output) {
    const buffers = feeds.map(({ data }) => data.buffer);
    return this.ask({ task: "run", feeds, output }, buffers);
  }

  ask(message, transfer = []) {
    const id = ++this.count;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.worker.postMessage({ id, ...message }, transfer);
    });
  }

  receive({ id, result, error, progress }) {
    if (progress) {
      this.onProgress(progress);
      return;
    }
    const { resolve, reject } = this.waiting.get(id);
    this.waiting.delete(id);
    if (error === undefined) resolve(result);
    else reject(new Error(error));
  }

  fail(error) {
    for (const { reject } of this.waiting.values()) reject(error);
    this.waiting.clear();
  }
}
