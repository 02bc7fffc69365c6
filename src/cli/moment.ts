import { CliError } from "../errors/index.js";

const unitMs = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/**
 * The moment that an option names: a date, or how long ago it was (`30m`, `12h`, `7d`).
 *
 * @throws CliError `invalid_argument`, naming the option and the value
 */
export function momentOf(option: string, value: string | undefined, now: Date = new Date()): Date | undefined {
  if (value === undefined) return undefined;
  const ago = /^(\d{1,6})([smhd])$/.exec(value);
  // A year first: everything else that Date takes means different things to different people.
  const isDate = /^\d{4}-\d{2}-\d{2}/.test(value);
  const time = ago === null ? (isDate ? Date.parse(value) : Number.NaN) : now.getTime() - lengthOf(ago);
  if (time >= 0) return new Date(time);
  if (time < 0) throw new CliError("invalid_argument", `--${option} "${value}" is before 1970; give a later moment`);
  throw new CliError(
    "invalid_argument",
    `--${option} "${value}" is no moment: give a date such as 2030-01-31T12:00:00Z, or how long ago it was, such as 7d, 12h or 30m`,
  );
}

function lengthOf([, count, unit]: readonly string[]): number {
  return Number(count) * unitMs[unit as keyof typeof unitMs];
}
