/** Numbers as a reader takes them in at a glance: separators, units, and few digits. */

const separated = new Intl.NumberFormat("en-US");

/** Whole number with separators, and `+` if there are more: `12,345+`. */
export function countText(count: number | bigint, hasMore = false): string {
  return `${separated.format(count)}${hasMore ? "+" : ""}`;
}

const byteUnits = ["B", "KiB", "MiB", "GiB", "TiB"] as const;

/** Bytes with a unit and at most three digits: `1.4 MiB`. */
export function bytesText(bytes: number): string {
  let [value, nth] = [bytes, 0];
  while (value >= 1_000 && nth < byteUnits.length - 1) {
    value /= 1_024;
    nth += 1;
  }
  return `${threeDigits(value)} ${byteUnits[nth]}`;
}

/** Rate in events a second, or a minute or an hour if there are few: `3.2` of `/s`. */
export function rateText(perSecond: number): { readonly value: string; readonly unit: string } {
  if (perSecond === 0 || perSecond >= 1) return { value: threeDigits(perSecond), unit: "/s" };
  if (perSecond * 60 >= 1) return { value: threeDigits(perSecond * 60), unit: "/min" };
  return { value: threeDigits(perSecond * 3_600), unit: "/h" };
}

/** Number with at most three digits, or all of a whole part that has more: `1,234`, `12.3`, `0`. */
function threeDigits(value: number): string {
  const digits = value >= 100 || Number.isInteger(value) ? 0 : value >= 10 ? 1 : 2;
  return separated.format(Number(value.toFixed(digits)));
}
