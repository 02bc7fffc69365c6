/**
 * Addresses of gateways on Postgres's machine that are gone: whoever was killed could not take its own away.
 */
import { connect } from "node:net";
import { gatewayConstants } from "../../generated/ts/settings/nats.js";
import { isLoopback } from "../wire/index.js";

interface Place {
  readonly host: string;
  readonly port: number;
}

/**
 * Which of the addresses refuse a connection. Only loopback addresses are tried, by who listens at one himself: they mean
 * Postgres's machine, and that he is there. What is refused elsewhere says nothing about Postgres's way.
 *
 * @param listen where we listen ourselves
 */
export async function refusingAmong<T extends Place>(
  listen: Place,
  others: readonly T[],
  signal: AbortSignal,
): Promise<T[]> {
  if (!isLoopback(listen.host)) return [];
  const tried = others.filter(({ host }) => isLoopback(host));
  const refused = await Promise.all(tried.map((place) => refuses(place, signal)));
  return signal.aborted ? [] : tried.filter((_, position) => refused[position]);
}

function refuses({ host, port }: Place, signal: AbortSignal): Promise<boolean> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve(false);
    const socket = connect({ host, port, timeout: gatewayConstants.staleProbeMs });
    const end = (isRefused: boolean): void => {
      signal.removeEventListener("abort", giveUp);
      socket.destroy();
      resolve(isRefused);
    };
    const giveUp = (): void => end(false);
    // A listener of our own: that of an option `signal` would stay for as long as the signal does.
    signal.addEventListener("abort", giveUp);
    socket.on("connect", () => end(false));
    socket.on("timeout", () => end(false));
    socket.on("error", ({ code }: NodeJS.ErrnoException) => end(code === "ECONNREFUSED"));
  });
}
