/**
 * Addresses of gateways that are gone: whoever was killed could not take its own away.
 */
import { connect } from "node:net";
import { isLoopback } from "../wire/index.js";

/** How long a machine may take to refuse a connection. */
const patienceMs = 1_000;

interface Place {
  readonly host: string;
  readonly port: number;
}

/**
 * Which of the addresses certainly have nobody: those that refuse a connection. A loopback address means Postgres's
 * machine, so it is only tried from there.
 *
 * @param own the address at which Postgres dials us
 */
export async function staleAddresses(own: Place, others: readonly Place[]): Promise<Place[]> {
  const tried = others.filter(({ host }) => isLoopback(own.host) || !isLoopback(host));
  const refused = await Promise.all(tried.map(refuses));
  return tried.filter((_, position) => refused[position]);
}

function refuses({ host, port }: Place): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port, timeout: patienceMs });
    const end = (isRefused: boolean): void => {
      socket.destroy();
      resolve(isRefused);
    };
    socket.on("connect", () => end(false));
    socket.on("timeout", () => end(false));
    socket.on("error", (error: NodeJS.ErrnoException) => end(error.code === "ECONNREFUSED"));
  });
}
