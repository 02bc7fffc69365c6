import { once } from "node:events";
import { createServer } from "node:net";

/**
 * Where ports are looked for: below those that systems give out by themselves, so that nobody is given the port by chance
 * before it is used, or while its server is being started again.
 */
const range = { first: 10_000, last: 32_000 };

/** A TCP port of 127.0.0.1 that was free a moment ago. Whoever uses it must be ready to find it taken. */
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
