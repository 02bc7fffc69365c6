/** Axes of charts: round values on them, and where a value lies. */

/** Axis from 0 to 1. */
export interface Scale {
  /** The share of the axis at which a value lies, kept within it. */
  at(value: number): number;
  readonly ticks: readonly number[];
}

/** From zero on, evenly, to a round value that is not below `max`. @param parts approximate number of intervals */
export function linearScale(max: number, parts = 5): Scale {
  return evenScale(max, roundStep(max / parts));
}

/** The same for durations in milliseconds: in steps of whole seconds, minutes, hours or days. */
export function durationScale(maxMs: number, parts = 5): Scale {
  const least = maxMs / parts;
  return evenScale(maxMs, durationSteps.find((step) => step >= least) ?? roundStep(least / day) * day);
}

const [second, minute, hour, day] = [1_000, 60_000, 3_600_000, 86_400_000];
const durationSteps: readonly number[] = [
  ...[1, 2, 5, 10, 15, 30].map((count) => count * second),
  ...[1, 2, 5, 10, 15, 30].map((count) => count * minute),
  ...[1, 2, 3, 6, 12].map((count) => count * hour),
  ...[1, 2].map((count) => count * day),
];

function evenScale(max: number, step: number): Scale {
  const steps = Math.max(1, Math.ceil(max / step - 1e-9));
  const end = steps * step;
  // Computed from whole numbers, so that no tick is 0.30000000000000004.
  const ticks = Array.from({ length: steps + 1 }, (_, index) => Number((index * step).toPrecision(12)));
  return { at: (value) => clamp(value / end), ticks };
}

/** 1, 2 or 5 times a power of ten, not below `step`. */
function roundStep(step: number): number {
  if (!(step > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(step));
  return power * ([1, 2, 5].find((factor) => factor * power >= step * (1 - 1e-9)) ?? 10);
}

export function clamp(share: number): number {
  return Math.min(1, Math.max(0, share));
}
