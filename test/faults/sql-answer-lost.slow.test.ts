/**
 * NATS carries out what it was sent, and its answer gets lost on the way.
 */
import { once } from "node:events";
import { type AddressInfo, createServer, connect as dial, type Socket } from "node:net";
import { expect, it } from "vitest";
import { testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { testGateway } from "../support/gateway.js";
import { patienceMs } from "./support/kills.js";

/** Time limit of a call; also bounds the answers that must not be lost. */
const callTimeoutMs = 4_000;

it("leaves a file whole whose last answer is lost: the caller is told that it may be there, and it is", {
  timeout: patienceMs,
}, async () => {
  await using way = await lossyWay("PUB $O.answer-lost.M.");
  await using gateway = await testGateway({ natsUrl: way.url, callTimeoutMs });
  const read = () => gateway.value<string>("SELECT convert_from(nats_get_file('answer-lost', 'f'), 'UTF8')");
  await gateway.value("SELECT nats_put_file('answer-lost', 'f', 'the first version')");
  expect(await read()).toBe("the first version");

  way.lose();
  const error = await gateway.errorOf("SELECT nats_put_file('answer-lost', 'f', 'the second version')");
  expect(error.code).toBe("NA001");
  // The gateway may still work on the rest of the file after the call has ended.
  const lostUntil = way.passed + 1;
  way.heal();
  await gateway.value("SELECT nats_flush()");
  await eventually("more has passed", () => way.passed > lostUntil);
  expect(await read()).toBe("the second version");
});

/** A way to the NATS server of the run. */
interface LossyWay extends AsyncDisposable {
  readonly url: string;
  /** Chunks of answers that came through. */
  readonly passed: number;
  /** Chunks of answers that were lost. */
  readonly lost: number;
  /** Loses all answers from the moment on at which the words are sent. */
  lose(): void;
  heal(): void;
}

async function lossyWay(words: string): Promise<LossyWay> {
  const { hostname, port } = new URL(testNatsUrl());
  const sockets: Socket[] = [];
  let isArmed = false;
  let isLosing = false;
  let passed = 0;
  let lost = 0;
  const server = createServer((near) => {
    const far = dial(Number(port), hostname);
    sockets.push(near, far);
    near.on("data", (chunk: Buffer) => {
      if (isArmed && chunk.includes(words)) isLosing = true;
      far.write(chunk);
    });
    far.on("data", (chunk: Buffer) => {
      if (isLosing) {
        lost++;
        return;
      }
      passed++;
      near.write(chunk);
    });
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      one.on("error", () => undefined);
      one.on("close", () => other.destroy());
    }
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `nats://127.0.0.1:${(server.address() as AddressInfo).port}`,
    get passed() {
      return passed;
    },
    get lost() {
      return lost;
    },
    lose() {
      isArmed = true;
    },
    heal() {
      isArmed = false;
      isLosing = false;
    },
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
}
