/**
 * A web server of a test's own, in the place of Patroni.
 */
import { once } from "node:events";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { onTestFinished } from "vitest";

/** Starts one, closed when the test has ended. @returns `http://127.0.0.1:<port>` */
export async function httpServer(answer: RequestListener): Promise<string> {
  const server = createServer(answer).listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(async () => {
    server.close();
    server.closeAllConnections();
    await once(server, "close");
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** The answer that Patroni gives, shortened. */
export function patroniAnswer(name: unknown = "pg-1"): string {
  return JSON.stringify({ state: "running", role: "replica", patroni: { version: "4.0.4", scope: "main", name } });
}
