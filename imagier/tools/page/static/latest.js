// Runs a slow task again and again, one at a time, always for the latest state.

/**
 * A function that asks for a run of the task: at once if none is running, or else one more behind it, however often it
 * is called meanwhile. task: an async function, which handles its errors.
 */
export function latestOnly(task) {
  let isRunning = false;
  let isWanted = false;
  return async function request() {
    isWanted = true;
    if (isRunning) return;
    isRunning = true;
    try {
      while (isWanted) {
        isWanted = false;
        await task();
      }
    } finally {
      isRunning = false;
    }
  };
}
