import { once } from "node:events";
import { createServer } from "node:net";
import { HawserError } from "../../foundation/errors/index.js";

/**
 * Range of candidate ports: below the ephemeral ports, so that the system does not assign the port to another program
 * before it is used, or while its server restarts.
 */
const range = { first: 10_000, last: 32_000 };

/** Requested port of 127.0.0.1. */
export interface PortWish {
  readonly port: number;
  /** True if another port may replace a port in use. */
  readonly orAnother: boolean;
}

/** Port chosen by {@link portFor}. */
export interface ChosenPort {
  readonly port: number;
  /** True if the requested port was in use. */
  readonly isAnother: boolean;
}

/**
 * Chooses the port to start a server with. The caller must handle a port that was taken in the meantime.
 *
 * @param flag option of `hawser dev` that sets the port, for the error
 * @throws HawserError `bind_failed` if the port is in use and no other may replace it
 */
export async function portFor(flag: string, wish: PortWish | undefined): Promise<ChosenPort> {
  if (wish === undefined) return { port: await freePort(), isAnother: false };
  if (await isFree(wish.port)) return { port: wish.port, isAnother: false };
  if (wish.orAnother) return { port: await freePort(), isAnother: true };
  throw new HawserError(
    "bind_failed",
    `the port ${wish.port} of 127.0.0.1 is in use by another program; set ${flag} to another port, or to 0 for a free one`,
  );
}

/** Finds a TCP port of 127.0.0.1 that is free now. The caller must handle a port that was taken in the meantime. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = range.first + Math.floor(Math.random() * (range.last - range.first));
    if (await isFree(port)) return port;
  }
}

/** True if nothing listens at a TCP port of 127.0.0.1. */
export async function isFree(port: number): Promise<boolean> {
  const server = createServer().listen(port, "127.0.0.1");
  try {
    await once(server, "listening");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "EADDRINUSE" || code === "EACCES") return false;
    throw error;
  }
  server.close();
  await once(server, "close");
  return true;
}
