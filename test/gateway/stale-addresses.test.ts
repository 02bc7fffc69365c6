/**
 * Which addresses of gateways have nobody.
 */
import { getEventListeners, once } from "node:events";
import { createServer } from "node:net";
import { expect, it, onTestFinished } from "vitest";
import { refusingOf } from "../../src/nats/gateway/addresses.js";

const never = new AbortController().signal;
const here = { host: "127.0.0.1", port: 5433 };
const at = (port: number, host = "127.0.0.1") => ({ host, port });
/** Nobody listens on port 1, and nobody is given it by chance. */
const gone = at(1);

it("addresses that refuse are stale, and not those that answer", async () => {
  const server = createServer((socket) => socket.destroy()).listen(0, "127.0.0.1");
  onTestFinished(() => void server.close());
  await once(server, "listening");
  const alive = at((server.address() as { port: number }).port);
  expect(await refusingOf(here, [alive, gone], never)).toEqual([gone]);
});

it("addresses on Postgres's machine are tried from there only, and no others", async () => {
  expect(await refusingOf({ host: "0.0.0.0", port: 5433 }, [gone], never)).toEqual([]);
  expect(await refusingOf(here, [at(gone.port, "0.0.0.0")], never)).toEqual([]);
});

it("no address is stale after the abort", async () => {
  expect(await refusingOf(here, [gone], AbortSignal.abort())).toEqual([]);
});

it("nothing of the tries stays with the signal", async () => {
  const { signal } = new AbortController();
  for (let tries = 0; tries < 30; tries++) await refusingOf(here, [gone], signal);
  expect(getEventListeners(signal, "abort")).toEqual([]);
});
