import { gatewayConstants } from "../../generated/ts/settings/nats.js";

const { natsReconnectMinMs, natsReconnectMaxMs } = gatewayConstants;

/**
 * The pause before the next attempt to connect after `failures` failures in a row (1 or more): between half of it and
 * the whole of a time that doubles from twice `natsReconnectMinMs` up to `natsReconnectMaxMs`.
 *
 * @param random 0 to 1, so that the clients of a server that comes back do not come all at once
 */
export function pauseAfterFailureMs(failures: number, random: number): number {
  const longest = Math.min(natsReconnectMaxMs, natsReconnectMinMs * 2 ** failures);
  return longest * (0.5 + random / 2);
}

/** The pause before the first attempt after a connection that was good: up to `natsReconnectMinMs`. */
export function pauseAfterLossMs(random: number): number {
  return natsReconnectMinMs * random;
}

/** Resolves after the time, or when the signal is aborted. */
export function pause(pauseMs: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (pauseMs <= 0 || signal.aborted) return resolve();
    const end = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, pauseMs);
    signal.addEventListener("abort", end, { once: true });
  });
}
