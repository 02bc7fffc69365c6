/** Ages in words, and ends of certificates by their distance. */
import type { PeerOverview } from "../../store/index.js";

/** Time before the end of a running peer's TLS certificate from which it is shown as a warning: 14 days. */
const certificateWarningMs = 1_209_600_000;

/** Age in words, such as `5 min ago`; a negative one is in the future. */
export function age(ms: number): string {
  const seconds = Math.round(Math.abs(ms) / 1_000);
  const [count, unit] =
    seconds < 120
      ? [seconds, "s"]
      : seconds < 7_200
        ? [Math.round(seconds / 60), "min"]
        : seconds < 172_800
          ? [Math.round(seconds / 3_600), "h"]
          : [Math.round(seconds / 86_400), "days"];
  return ms < 0 ? `in ${count} ${unit}` : `${count} ${unit} ago`;
}

/** `error` if the TLS certificate of a running peer has ended, `warning` if it ends soon. */
export function certificateSeverity(
  { running, certificateEndsAt }: Pick<PeerOverview, "running" | "certificateEndsAt">,
  now: number,
): "error" | "warning" | undefined {
  if (!running || certificateEndsAt === null) return undefined;
  const leftMs = certificateEndsAt.getTime() - now;
  if (leftMs <= 0) return "error";
  return leftMs <= certificateWarningMs ? "warning" : undefined;
}
