/**
 * Whether the results are what they should be.
 */
import { median } from "./statistics.js";
import type { Measured, Target } from "./suite.js";
import { formatValue, rowLabel } from "./tables.js";

/** What became of a target. */
export interface Verdict {
  /** Such as `at-most-once, 100 B: at least 3× nats-core`. */
  readonly target: string;
  /** What was measured instead, such as `4.54×`. */
  readonly measured: string;
  readonly met: boolean;
}

/** Looks at each target whose result is there. */
export function verdictsOf(targets: readonly Target[], results: readonly Measured[]): Verdict[] {
  return targets.flatMap((target) => {
    const result = results.find(
      ({ name, payloadBytes, variant }) =>
        name === target.name && payloadBytes === target.payloadBytes && variant === target.variant,
    );
    const baseline = result?.baselines.find(({ name }) => name === target.baseline);
    if (result === undefined || (target.baseline !== undefined && baseline === undefined)) return [];
    return [verdictOf(target, result, baseline?.samples)];
  });
}

function verdictOf(target: Target, result: Measured, theirs: readonly number[] | undefined): Verdict {
  const ours = median(result.samples);
  const actual = theirs === undefined ? ours : ours / median(theirs);
  const { atLeast = Number.NEGATIVE_INFINITY, atMost = Number.POSITIVE_INFINITY } = target;
  const words = theirs === undefined ? valueWords(target, result.unit) : multipleWords(target);
  return {
    target: `${result.name}, ${rowLabel(result)}: ${words.target}`,
    measured: words.measured(actual),
    met: actual >= atLeast && actual <= atMost,
  };
}

interface Words {
  readonly target: string;
  readonly measured: (actual: number) => string;
}

function valueWords({ atLeast, atMost }: Target, unit: string): Words {
  const target = atLeast === undefined ? `at most ${formatValue(atMost!)}` : `at least ${formatValue(atLeast)}`;
  return { target: `${target} ${unit}`, measured: (actual) => `${formatValue(actual)} ${unit}` };
}

/** A fifth of the time is said as five times as fast. */
function multipleWords({ atLeast, atMost, baseline }: Target): Words {
  const measured = (actual: number): string => `${actual.toFixed(2)}×`;
  if (atLeast !== undefined) return { target: `at least ${formatValue(atLeast)}× ${baseline}`, measured };
  if (atMost! >= 1) return { target: `at most ${formatValue(atMost!)}× ${baseline}`, measured };
  return {
    target: `at least ${formatValue(1 / atMost!)}× as fast as ${baseline}`,
    measured: (actual) => measured(1 / actual),
  };
}
