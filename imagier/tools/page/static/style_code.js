// Codes of styles: vectors of normally distributed numbers, and ways between two of them.

/** `length` numbers of the standard normal distribution (Box & Muller 1958). random: gives numbers in [0, 1). */
export function drawCode(length, random = Math.random) {
  return Float32Array.from({ length }, () => {
    const radius = Math.sqrt(-2 * Math.log(1 - random()));
    return radius * Math.cos(2 * Math.PI * random());
  });
}

/**
 * A code between two: a at 0, b at 1, along the arc between them (Shoemake 1985). A straight line would lead through
 * codes near zero, which training never draws.
 */
export function mixCodes(a, b, share) {
  const norm = (code) => Math.hypot(...code);
  const dot = a.reduce((sum, value, index) => sum + value * b[index], 0);
  const angle = Math.acos(Math.min(1, Math.max(-1, dot / (norm(a) * norm(b) || 1))));
  const sine = Math.sin(angle);
  const [wa, wb] =
    sine < 1e-4 ? [1 - share, share] : [Math.sin((1 - share) * angle) / sine, Math.sin(share * angle) / sine];
  return a.map((value, index) => wa * value + wb * b[index]);
}
