import { randomInt } from "node:crypto";
import { expect, it } from "vitest";
import { Random } from "../../simulator/random.js";
import { atDepth } from "../../support/depth.js";
import { callersInput, splitAtRandom, strangersInput } from "./hostile-inputs.js";
import { ServerProcess } from "./server-process.js";
import { SocketClient } from "./socket-client.js";

const mib = 1024 * 1024;
const inputs = Number(process.env["HAWSER_FUZZ_SOCKET_INPUTS"] ?? atDepth(2_000));
const seed = Number(process.env["HAWSER_FUZZ_SEED"] ?? randomInt(2 ** 31));
const atOnce = 20;

async function oneInput(port: number, index: number): Promise<void> {
  const random = new Random(seed + index);
  const isFamiliar = random.chance(0.5);
  using client = isFamiliar ? await SocketClient.loggedIn(port) : await SocketClient.connect(port);
  // What comes back is looked at in the fuzzing of the session; here an answer to a request for TLS may stand first.
  client.socket.removeAllListeners("data").resume();
  const input = isFamiliar ? callersInput(random) : strangersInput(random);
  const pieces = random.chance(0.5) ? [input] : splitAtRandom(random, input).slice(0, 50);
  for (const piece of pieces) client.socket.write(piece);
  if (random.chance(0.7)) client.socket.end();
  else if (random.chance(0.5)) client.socket.resetAndDestroy();
  else
    await new Promise((resolve) => client.socket.write(Buffer.alloc(0), resolve)).then(() => client.socket.destroy());
  await client.closed;
}

it(
  `a server survives ${inputs} hostile connections, seed ${seed}`,
  async () => {
    console.log(`socket fuzz: HAWSER_FUZZ_SOCKET_INPUTS=${inputs} HAWSER_FUZZ_SEED=${seed}`);
    using server = await ServerProcess.start({ maxRequestBytes: 2000 });
    using witness = await SocketClient.loggedIn(server.port);
    let next = 0;
    const worker = async (end: number): Promise<void> => {
      while (next < end) await oneInput(server.port, next++);
    };
    const upTo = async (end: number): Promise<void> => {
      await Promise.all(Array.from({ length: atOnce }, () => worker(end)));
    };
    await upTo(Math.floor(inputs / 4));
    const before = await server.report();
    for (let part = 2; part <= 10; part++) {
      await upTo(Math.floor((inputs * part) / 10));
      expect(await witness.ask("x")).toBe("TDCZ");
    }
    using late = await SocketClient.loggedIn(server.port);
    expect(await late.ask("bytes 10")).toBe("TDCZ");
    witness[Symbol.dispose]();
    late[Symbol.dispose]();
    const after = await server.idle();
    console.log(
      `socket fuzz: ${after.sessionsEnded} sessions; ${((after.bytes - before.bytes) / mib).toFixed(1)} MiB in use, ` +
        `${((after.residentBytes - before.residentBytes) / mib).toFixed(1)} MiB resident grown after the first quarter; ` +
        `left: ${after.resources.join(", ")}`,
    );
    expect(after).toMatchObject({ sessions: 0, errorsLogged: [] });
    expect(after.bytes - before.bytes).toBeLessThan(8 * mib);
    expect(after.residentBytes - before.residentBytes).toBeLessThan(100 * mib);
  },
  process.env["HAWSER_FUZZ_SOCKET_INPUTS"] === undefined ? undefined : 24 * 3600 * 1000,
);
