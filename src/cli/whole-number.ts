/**
 * Options that are whole numbers, written in digits alone.
 */
import { CliError } from "../errors/index.js";

/** Units as they are shown, with their size in that of the option. Where a spelling fits several, the first counts. */
const units = {
  bytes: { KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30 },
  ms: { s: 1_000, min: 60_000, h: 3_600_000, ms: 1 },
} as const;

/**
 * The value of an option that is a whole number.
 *
 * @throws CliError `invalid_argument`, naming the option, the value and the range; for a value with a unit also the number
 */
export function wholeNumber(option: string, value: string | undefined, min: number, max: number): number | undefined {
  if (value === undefined) return undefined;
  const number = Number(value);
  if (/^\d+$/.test(value) && number >= min && number <= max) return number;
  const meant = withUnit(option, value);
  const remedy =
    meant !== undefined && meant.number >= min && meant.number <= max
      ? `; write digits alone: ${meant.number} for ${meant.shown}`
      : "";
  throw new CliError("invalid_argument", `--${option} "${value}" is not a whole number from ${min} to ${max}${remedy}`);
}

/** What was meant by a number with a unit, such as `64MB` or `30s`. People mean powers of 1,024 with bytes. */
function withUnit(option: string, value: string): { readonly number: number; readonly shown: string } | undefined {
  const [, digits, letters] = /^(\d+)\s*([a-z]+)$/i.exec(value) ?? [];
  if (digits === undefined || letters === undefined) return undefined;
  const [, size] = /-(bytes|ms)$/.exec(option) ?? [];
  if (size === undefined) return undefined;
  const known = Object.entries(units[size as keyof typeof units]);
  const [unit, factor] = known.find(([name]) => isSpelling(letters.toLowerCase(), name.toLowerCase())) ?? [];
  return factor === undefined ? undefined : { number: Number(digits) * factor, shown: `${digits} ${unit}` };
}

/** The unit, a part of it (`m`), or its decimal namesake (`mb`). */
function isSpelling(letters: string, unit: string): boolean {
  return unit.startsWith(letters) || letters === unit.replace("i", "");
}
