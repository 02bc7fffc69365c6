import { once } from "node:events";
import { createServer } from "node:net";
import { HawserError } from "../errors/index.js";

/**
 * Where ports are looked for: below those that systems give out by themselves, so that no program is given the port by chance
 * before it is used, or while its server is being started again.
 */
const range = { first: 10_000, last: 32_000 };

/** Which port of 127.0.0.1 a server is to have. */
export interface PortWish {
  readonly port: number;
  /** Another one will do where this one is taken. */
  readonly orAnother: boolean;
}

/** What {@link portFor} chose. */
export interface ChosenPort {
  readonly port: number;
  /** The wanted one was taken. */
  readonly isAnother: boolean;
}

/**
 * The port to start a server with. The caller must be ready to find it taken.
 *
 * @param flag of `hawser dev`, which names another one
 * @throws HawserError `bind_failed` if no other one will do, and it is taken
 */
export async function portFor(flag: string, wish: PortWish | undefined): Promise<ChosenPort> {
  if (wish === undefined) return { port: await freePort(), isAnother: false };
  if (await isFree(wish.port)) return { port: wish.port, isAnother: false };
  if (wish.orAnother) return { port: await freePort(), isAnother: true };
  throw new HawserError(
    "bind_failed",
    `the port ${wish.port} of 127.0.0.1 is taken by another program; give ${flag} another number, or 0 for a free one`,
  );
}

/** A TCP port of 127.0.0.1 that was free a moment ago. The caller must be ready to find it taken. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = range.first + Math.floor(Math.random() * (range.last - range.first));
    if (await isFree(port)) return port;
  }
}

async function isFree(port: number): Promise<boolean> {
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
