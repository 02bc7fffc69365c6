/**
 * Collects results by size: the cost of a message as the number or size of something grows.
 */
import { formatValue } from "./report.js";
import type { Measured } from "./suite.js";

/** Samples of each measurement, grouped by size. */
export class BySize {
  readonly #variantOf: (size: number) => string;
  readonly #samples = new Map<string, { readonly unit: string; readonly of: Map<number, number[]> }>();

  constructor(variantOf: (size: number) => string) {
    this.#variantOf = variantOf;
  }

  /** @param name the name of the result, such as `time by topics`; @param samples in this unit; less is better */
  add(name: string, unit: string, size: number, ...samples: readonly number[]): void {
    let result = this.#samples.get(name);
    if (result === undefined) this.#samples.set(name, (result = { unit, of: new Map() }));
    result.of.set(size, [...(result.of.get(size) ?? []), ...samples]);
  }

  /**
   * In the order of their names' first samples, each by size, with the smallest size as the baseline.
   *
   * @param payloadBytesOf the payload of a size, or of all of them
   */
  results(payloadBytesOf: number | ((size: number) => number)): Measured[] {
    return [...this.#samples].flatMap(([name, { unit, of }]) => {
      const sizes = [...of.keys()].sort((one, other) => one - other);
      const [smallest] = sizes as [number];
      return sizes.map(
        (size): Measured => ({
          name,
          payloadBytes: typeof payloadBytesOf === "number" ? payloadBytesOf : payloadBytesOf(size),
          variant: this.#variantOf(size),
          unit,
          better: "lower",
          samples: of.get(size)!,
          baselines: size === smallest ? [] : [{ name: this.#variantOf(smallest), samples: of.get(smallest)! }],
        }),
      );
    });
  }
}

/** Returns a function that labels sizes, such as `1,000 topics`. */
export function counted(noun: string): (size: number) => string {
  return (size) => `${formatValue(size)} ${noun}${size === 1 ? "" : "s"}`;
}
