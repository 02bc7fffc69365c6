/** Quantities in flags: durations and sizes with a unit, integers, and points in time. */
import { HawserError } from "../../foundation/errors/index.js";

/** Kind of a quantity that has a unit. */
export type QuantityKind = "duration" | "size";

/** Unit: its size in the unit of the settings (ms or bytes), and its spellings. */
interface Unit {
  readonly name: string;
  readonly factor: number;
  readonly spellings: RegExp;
}

/** Units by kind, the smallest first. */
const units: Readonly<Record<QuantityKind, readonly Unit[]>> = {
  duration: [
    { name: "ms", factor: 1, spellings: /^(ms|msecs?|milliseconds?)$/i },
    { name: "s", factor: 1_000, spellings: /^(s|secs?|seconds?)$/i },
    { name: "m", factor: 60_000, spellings: /^(m|mins?|minutes?)$/i },
    { name: "h", factor: 3_600_000, spellings: /^(h|hrs?|hours?)$/i },
    { name: "d", factor: 86_400_000, spellings: /^(d|days?)$/i },
  ],
  size: [
    { name: "B", factor: 1, spellings: /^(b|bytes?)$/i },
    { name: "KiB", factor: 2 ** 10, spellings: /^(k|kb|ki|kib)$/i },
    { name: "MiB", factor: 2 ** 20, spellings: /^(m|mb|mi|mib)$/i },
    { name: "GiB", factor: 2 ** 30, spellings: /^(g|gb|gi|gib)$/i },
    { name: "TiB", factor: 2 ** 40, spellings: /^(t|tb|ti|tib)$/i },
  ],
};

const samples = { duration: "500ms, 10s or 15m", size: "64KiB, 128MiB or 1GiB" } as const;

/** Text of a quantity in the greatest unit that leaves an integer: `10s`, `128MiB`, `0`. */
export function quantityText(kind: QuantityKind, value: number): string {
  if (value === 0) return "0";
  const { name, factor } = units[kind].findLast((unit) => value % unit.factor === 0)!;
  return `${value / factor}${name}`;
}

/** Range of a flag's value, in ms or bytes, or as a count. */
export interface QuantityRange {
  readonly min: number;
  readonly max: number;
}

/**
 * Parses a duration or size, in milliseconds or bytes: digits and a unit, such as `10s` or `128MiB`. Zero needs no
 * unit.
 *
 * @param flag as users write it, such as `--stop-timeout`
 * @throws HawserError `invalid_argument` with the flag, the value, the range and the remedy
 */
export function quantityOf(
  kind: QuantityKind,
  flag: string,
  value: string | undefined,
  { min, max }: QuantityRange,
): number | undefined {
  if (value === undefined) return undefined;
  const read = readQuantity(kind, value);
  const fits = (number: number): boolean => number >= min && number <= max;
  if (read?.isExact === true && fits(read.value)) return read.value;
  const range = `from ${quantityText(kind, min)} to ${quantityText(kind, max)}`;
  const remedy = remedyFor(kind, value, read, fits);
  throw new HawserError("invalid_argument", `${flag} "${value}" is not a ${kind} ${range}; ${remedy}`);
}

/** Parsed quantity. */
interface ReadQuantity {
  readonly value: number;
  /** True if the unit has Hawser's spelling; otherwise the value is a guess. */
  readonly isExact: boolean;
}

function readQuantity(kind: QuantityKind, text: string): ReadQuantity | undefined {
  if (/^0+$/.test(text)) return { value: 0, isExact: true };
  const [, digits, letters] = /^(\d+)\s*([a-z]+)$/i.exec(text) ?? [];
  if (digits === undefined || letters === undefined) return undefined;
  const exact = units[kind].find(({ name }) => text === `${digits}${name}`);
  const unit = exact ?? units[kind].find(({ spellings }) => spellings.test(letters));
  if (unit === undefined) return undefined;
  return { value: Number(digits) * unit.factor, isExact: exact !== undefined };
}

function remedyFor(
  kind: QuantityKind,
  text: string,
  read: ReadQuantity | undefined,
  fits: (value: number) => boolean,
): string {
  if (read !== undefined && !read.isExact && fits(read.value)) return `write ${quantityText(kind, read.value)}`;
  if (!/^\d+$/.test(text)) return `write digits and a unit, such as ${samples[kind]}`;
  const inUnits = kind === "size" ? [Number(text)] : [Number(text), Number(text) * 1_000];
  const meant = inUnits.filter(fits).map((value) => quantityText(kind, value));
  return meant.length === 0
    ? `write a unit, such as ${samples[kind]}`
    : `write a unit: ${meant.map((each) => `${each}`).join(" or ")}`;
}

/**
 * Parses the value of a flag that is an integer.
 *
 * @param flag as users write it, such as `--limit`
 * @throws HawserError `invalid_argument` with the flag, the value and the range
 */
export function wholeNumber(
  flag: string,
  value: string | undefined,
  { min, max }: QuantityRange = { min: 1, max: Number.MAX_SAFE_INTEGER },
): number | undefined {
  if (value === undefined) return undefined;
  const number = Number(value);
  if (/^-?\d+$/.test(value) && number >= min && number <= max) return number;
  throw new HawserError("invalid_argument", `${flag} "${value}" is not a whole number from ${min} to ${max}`);
}

/**
 * Parses a point in time: a date, or the time since then (`30m`, `12h`, `7d`).
 *
 * @throws HawserError `invalid_argument` with the flag and the value
 */
export function momentOf(flag: string, value: string | undefined, now: Date = new Date()): Date | undefined {
  if (value === undefined) return undefined;
  const ago = readQuantity("duration", value);
  // The year comes first, because all other forms that Date accepts are ambiguous.
  const isDate = /^\d{4}-\d{2}-\d{2}/.test(value);
  const time = ago?.isExact === true ? now.getTime() - ago.value : isDate ? Date.parse(value) : Number.NaN;
  if (time >= 0) return new Date(time);
  if (time < 0) throw new HawserError("invalid_argument", `${flag} "${value}" is before 1970; give a later moment`);
  throw new HawserError(
    "invalid_argument",
    `${flag} "${value}" is not a moment: give a date such as 2030-01-31T12:00:00Z, or the time since then, such as 7d, 12h or 30m`,
  );
}
