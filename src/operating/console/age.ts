/** Age in words, such as `5 min ago`; a negative one is in the future. */
export function age(ms: number): string {
  return ms < 0 ? `in ${duration(-ms)}` : `${duration(ms)} ago`;
}

/** Duration in words, such as `5 min`. */
export function duration(ms: number): string {
  const seconds = Math.round(ms / 1_000);
  const [count, unit] =
    seconds < 120
      ? [seconds, "s"]
      : seconds < 7_200
        ? [Math.round(seconds / 60), "min"]
        : seconds < 172_800
          ? [Math.round(seconds / 3_600), "h"]
          : [Math.round(seconds / 86_400), "days"];
  return `${count} ${unit}`;
}
