// The canvas that is painted on: strokes of mouse, pen, finger and keyboard, in pixels of the drawing.

import { showPixels } from "./dom.js";

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Board {
  /**
   * handlers: onStart(point), onStroke(from, to), onEnd(), and getDiameter() for the ring around the pointer.
   * Points are {x, y} in pixels of the drawing; the first pixel is between 0 and 1.
   */
  constructor(canvas, ring, handlers) {
    this.canvas = canvas;
    this.ring = ring;
    this.handlers = handlers;
    this.pointer = null; // where the stroke in progress is
    this.pointerId = null; // and whose it is: of several fingers, the first one draws
    this.cursor = null; // where the keyboard paints
    canvas.addEventListener("pointerdown", (event) => this.start(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.end(event));
    canvas.addEventListener("pointercancel", (event) => this.end(event));
    canvas.addEventListener("pointerleave", () => (this.ring.hidden = true));
    canvas.addEventListener("keydown", (event) => this.press(event));
    canvas.addEventListener("blur", () => (this.ring.hidden = true));
  }

  /** Shows RGBA bytes. */
  show(rgba, width, height) {
    if (this.canvas.width !== width || this.canvas.height !== height) this.cursor = null;
    showPixels(this.canvas, rgba, width, height);
  }

  /** isPainted: whether it is painted on; otherwise it only shows an image. */
  setPainted(isPainted) {
    this.isPainted = isPainted;
    this.ring.hidden = true;
    this.canvas.classList.toggle("fixed", !isPainted);
    this.canvas.tabIndex = isPainted ? 0 : -1;
    this.canvas.setAttribute("role", isPainted ? "application" : "img");
    this.canvas.setAttribute("aria-label", isPainted ? "Drawing board" : "Input image");
    this.canvas.setAttribute("aria-describedby", isPainted ? "board-help" : "drop-hint");
  }

  /** Whether a stroke is being drawn. */
  get isDrawing() {
    return this.pointer !== null;
  }

  start(event) {
    if (event.button !== 0 || this.isDrawing || !this.isPainted) return;
    event.preventDefault();
    this.canvas.focus({ preventScroll: true });
    this.canvas.setPointerCapture(event.pointerId);
    this.pointerId = event.pointerId;
    this.pointer = this.locate(event);
    this.handlers.onStart(this.pointer);
    this.showRing(this.pointer);
  }

  move(event) {
    if (!this.isPainted || (this.isDrawing && event.pointerId !== this.pointerId)) return;
    this.showRing(this.locate(event));
    if (!this.isDrawing) return;
    const between = event.getCoalescedEvents?.() ?? [];
    for (const each of between.length > 0 ? between : [event]) {
      const point = this.locate(each);
      this.handlers.onStroke(this.pointer, point);
      this.pointer = point;
    }
  }

  end({ pointerId }) {
    if (!this.isDrawing || pointerId !== this.pointerId) return;
    this.pointer = null;
    this.handlers.onEnd();
  }

  /** Arrows move a cursor, and draw with Shift; Space and Enter paint where it is. */
  press(event) {
    if (!this.isPainted || event.altKey || event.ctrlKey || event.metaKey) return;
    const { width, height } = this.canvas;
    const here = this.cursor ?? { x: width / 2, y: height / 2 };
    if (event.key === " " || event.key === "Enter") {
      this.cursor = here;
      this.handlers.onStart(here);
      this.handlers.onEnd();
    } else if (event.key in ARROWS) {
      const [dx, dy] = ARROWS[event.key];
      const step = Math.max(1, Math.round(Math.min(width, height) / 32));
      const limit = (value, length) => Math.min(length - 0.5, Math.max(0.5, value));
      this.cursor = { x: limit(here.x + dx * step, width), y: limit(here.y + dy * step, height) };
      if (event.shiftKey) {
        this.handlers.onStart(here);
        this.handlers.onStroke(here, this.cursor);
        this.handlers.onEnd();
      }
    } else return;
    event.preventDefault();
    this.showRing(this.cursor);
  }

  locate({ clientX, clientY }) {
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    return { x: ((clientX - left) / width) * this.canvas.width, y: ((clientY - top) / height) * this.canvas.height };
  }

  showRing({ x, y }) {
    const scale = this.canvas.clientWidth / this.canvas.width;
    const size = Math.max(4, this.handlers.getDiameter() * scale);
    Object.assign(this.ring.style, {
      width: `${size}px`,
      height: `${size}px`,
      left: `${this.canvas.offsetLeft + x * scale}px`,
      top: `${this.canvas.offsetTop + y * scale}px`,
    });
    this.ring.hidden = false;
  }
}
