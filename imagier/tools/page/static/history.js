// Undo and redo: states of a drawing, one of them the present one.

/** Keeps the last `limit` states before the present one. States are values that nobody changes. */
export class History {
  constructor(state, limit = 60) {
    this.limit = limit;
    this.past = [];
    this.present = state;
    this.future = [];
  }

  /** Makes a state the present one; what was undone before is gone. */
  push(state) {
    this.past.push(this.present);
    if (this.past.length > this.limit) this.past.shift();
    this.present = state;
    this.future = [];
  }

  get canUndo() {
    return this.past.length > 0;
  }

  get canRedo() {
    return this.future.length > 0;
  }

  /** The state before the present one, which it makes present; the present one if there is none. */
  undo() {
    if (this.canUndo) {
      this.future.push(this.present);
      this.present = this.past.pop();
    }
    return this.present;
  }

  /** The state that was undone last. */
  redo() {
    if (this.canRedo) {
      this.past.push(this.present);
      this.present = this.future.pop();
    }
    return this.present;
  }
}
