/**
 * An axis: where a value lies between the ends of a chart, and which values are written below it.
 */

/** A scale from 0 to 1. */
export interface Scale {
  /** The share of the axis at which a value lies, kept within it. */
  at(value: number): number;
  readonly ticks: readonly number[];
}

/** How many parts an even axis has, about. */
const parts = 5;

/** From zero on, evenly, to a round value that is not below `max`. */
export function linearScale(max: number): Scale {
  const step = roundStep(max / parts);
  const steps = Math.max(1, Math.ceil(max / step - 1e-9));
  const end = steps * step;
  // Computed from whole numbers, so that no tick is 0.30000000000000004.
  const ticks = Array.from({ length: steps + 1 }, (_, index) => Number((index * step).toPrecision(12)));
  return { at: (value) => clamp(value / end), ticks };
}

/** In powers of ten, from one that is below `min` to one that is not below `max`. Both must be above zero. */
export function logarithmicScale(min: number, max: number): Scale {
  // A bar that begins at its own value would have no length.
  const first = Math.ceil(Math.log10(min)) - 1;
  const last = Math.max(first + 1, Math.ceil(Math.log10(max)));
  const ticks = Array.from({ length: last - first + 1 }, (_, index) => Number(`1e${first + index}`));
  return { at: (value) => clamp((Math.log10(value) - first) / (last - first)), ticks };
}

/** 1, 2 or 5 times a power of ten, not below `step`. */
function roundStep(step: number): number {
  if (!(step > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(step));
  return power * ([1, 2, 5].find((factor) => factor * power >= step * (1 - 1e-9)) ?? 10);
}

function clamp(share: number): number {
  return Math.min(1, Math.max(0, share));
}
