/**
 * Which addresses of gateways have nobody.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { connect, createServer } from "node:net";
import { expect, it, onTestFinished } from "vitest";
import { freePort } from "../../src/dev/free-port.js";
import { StaleAddresses } from "../../src/gateway/stale-addresses.js";

const never = new AbortController().signal;
const here = { host: "127.0.0.1", port: 5433 };
const at = (port: number, startedAt = "today") => ({ host: "127.0.0.1", port, startedAt });

/** A port of this machine that neither accepts nor refuses: its process is halted, and its queue is full. */
async function silentPort(): Promise<number> {
  const script =
    "const s = require('net').createServer().listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => console.log(s.address().port))";
  const child = spawn(process.execPath, ["-e", script], { stdio: ["ignore", "pipe", "inherit"] });
  onTestFinished(() => void child.kill("SIGKILL"));
  const [line] = await once(child.stdout, "data");
  const port = Number(String(line));
  child.kill("SIGSTOP");
  for (;;) {
    const socket = connect({ port, host: "127.0.0.1", timeout: 500 });
    onTestFinished(() => void socket.destroy());
    socket.on("error", () => undefined);
    const accepted = await Promise.race([
      once(socket, "connect").then(() => true),
      once(socket, "timeout").then(() => false),
    ]);
    if (!accepted) return port;
  }
}

it("those that refuse do at once, and those that answer do not", async () => {
  const server = createServer((socket) => socket.destroy()).listen(0, "127.0.0.1");
  onTestFinished(() => void server.close());
  await once(server, "listening");
  const alive = at((server.address() as { port: number }).port);
  const gone = at(await freePort());
  expect(await new StaleAddresses(here).among([alive, gone], never)).toEqual([gone]);
});

it("those on Postgres's machine are tried from there only", async () => {
  const gone = at(await freePort());
  expect(await new StaleAddresses({ host: "0.0.0.0", port: 5433 }).among([gone], never)).toEqual([]);
});

it.runIf(process.platform === "linux")("those that are silent three times in a row do", async () => {
  const silent = at(await silentPort());
  const addresses = new StaleAddresses(here);
  const look = (entry = silent) => addresses.among([entry], never);
  expect([await look(), await look()]).toEqual([[], []]);
  // Its gateway was started anew meanwhile: it counts from the beginning.
  const anew = { ...silent, startedAt: "tomorrow" };
  expect([await look(anew), await look(anew), await look(anew)]).toEqual([[], [], [anew]]);
});

it("none do where the looking has ended", async () => {
  const gone = at(await freePort());
  expect(await new StaleAddresses(here).among([gone], AbortSignal.abort())).toEqual([]);
});
