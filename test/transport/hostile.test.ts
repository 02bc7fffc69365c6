import { type ChildProcess, fork } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { describe, expect, it } from "vitest";
import { protocolConstants } from "../../generated/ts/settings/peer.js";
import { Delivery } from "../../src/jobs-and-peers/wire/index.js";
import { nodeProgram } from "../support/built-programs.js";
import { atDepth } from "../support/depth.js";
import { eventually } from "../support/eventually.js";
import { slowDescribe } from "../support/slow-it.js";
import type { HostileCommand, HostileReport } from "./hostile-listener.js";
import { dialTest, identity, type TestSender } from "./pair.js";
import { helloTo, RawClient } from "./raw-client.js";
import { settle } from "./settle.js";

const mib = 1024 * 1024;
const { handshakeTimeoutMs, preamble } = protocolConstants;

/** The listener's process. */
class HostileListener implements Disposable {
  readonly #child: ChildProcess;
  readonly port: number;
  readonly address: string;

  private constructor(child: ChildProcess, port: number, address: string) {
    this.#child = child;
    this.port = port;
    this.address = address;
  }

  static async start(): Promise<HostileListener> {
    const { execArgv, file } = nodeProgram("test/transport/hostile-listener.ts");
    const child = fork(file, { execArgv: ["--expose-gc", ...execArgv] });
    const [{ address }] = (await once(child, "message")) as [HostileReport];
    return new HostileListener(child, Number(address.split(":").at(-1)), address);
  }

  #command(command: HostileCommand): void {
    this.#child.send(command);
  }

  advance(ms: number): void {
    this.#command({ kind: "advance", ms });
  }

  async report(): Promise<HostileReport> {
    this.#command({ kind: "report" });
    const [report] = (await once(this.#child, "message")) as [HostileReport];
    return report;
  }

  [Symbol.dispose](): void {
    this.#child.disconnect();
  }
}

/** An honest sender that goes on sending, one message after another, for as long as it is let. */
class HonestSender {
  #number = 0;

  readonly #sender: TestSender;

  private constructor(sender: TestSender) {
    this.#sender = sender;
  }

  static async dial(address: string): Promise<HonestSender> {
    return new HonestSender(await dialTest(address));
  }

  /** Sends messages one by one, each acknowledged before the next. */
  async send(count: number): Promise<void> {
    for (let i = 0; i < count; i++) {
      const firstNumber = ++this.#number;
      this.#sender.connection.writeBatch({
        epoch: identity.epoch,
        delivery: Delivery.AT_LEAST_ONCE,
        firstNumber,
        topicId: 1,
        payloads: [new Uint8Array(100)],
        compressions: [],
        headers: [],
      });
      expect(await this.#sender.events.next()).toMatchObject({ kind: "ack", ack: { number: firstNumber } });
    }
  }

  close(): void {
    this.#sender.connection.destroy();
  }
}

async function withoutSecret(client: RawClient): Promise<void> {
  client.send(helloTo(await client.begin(), { secret: randomBytes(32) }));
}

async function randomly(client: RawClient): Promise<void> {
  const noise = randomBytes(100_000);
  // Not by chance what a TLS handshake begins with, which is refused under another name.
  if (noise[0] === 0x16) noise[0] = 0;
  client.socket.write(noise);
}

async function declaringFourGib(client: RawClient): Promise<void> {
  client.socket.write(preamble);
  client.socket.write(new Uint8Array([0xff, 0xff, 0xff, 0xff]));
  client.socket.write(randomBytes(100_000));
}

describe("50 hostile connections at once", () => {
  it("end in one named report each, cost next to no memory, and do not disturb an honest sender", async () => {
    using listener = await HostileListener.start();
    const honest = await HonestSender.dial(listener.address);
    await honest.send(200);
    const before = await listener.report();

    const hostile = await Promise.all(Array.from({ length: 50 }, () => RawClient.connect(listener.port)));
    const behaviours = [withoutSecret, randomly, declaringFourGib];
    const loud = hostile.slice(0, 30);
    const [silent, slow] = [hostile.slice(30, 40), hostile.slice(40)];
    await Promise.all([
      honest.send(200),
      ...loud.map((client, index) => behaviours[index % behaviours.length]?.(client)),
    ]);
    await Promise.all(loud.map(({ closed }) => closed));

    for (let second = 1; second < handshakeTimeoutMs / 1000; second++) {
      for (const { socket } of slow) socket.write(preamble[second - 1] ?? "x");
      await settle();
      listener.advance(1000);
      await honest.send(50);
    }
    const during = await listener.report();
    expect(during.refusals).toHaveLength(30);
    expect(during.bytes - before.bytes).toBeLessThan(16 * mib);
    // A newcomer is served while they hang on.
    const late = await HonestSender.dial(listener.address);
    await late.send(50);

    listener.advance(1000);
    await Promise.all([...silent, ...slow].map(({ closed }) => closed));
    await honest.send(50);
    const after = await listener.report();
    const codes = after.refusals.map(({ code }) => code).sort();
    expect(codes).toEqual([
      ...Array.from({ length: 20 }, () => "handshake_timeout"),
      ...Array.from({ length: 20 }, () => "protocol_violation"),
      ...Array.from({ length: 10 }, () => "unauthenticated"),
    ]);
    expect(after.bytes - before.bytes).toBeLessThan(16 * mib);
    for (const client of hostile) client[Symbol.dispose]();
    honest.close();
    late.close();
  });
});

slowDescribe("thousands of hostile connections in turn", () => {
  it("leave nothing behind", async () => {
    using listener = await HostileListener.start();
    const round = async (): Promise<void> => {
      const clients = await Promise.all(Array.from({ length: 100 }, () => RawClient.connect(listener.port)));
      await Promise.all(clients.map((client, index) => (index % 2 === 0 ? withoutSecret(client) : randomly(client))));
      await Promise.all(clients.map(({ closed }) => closed));
    };
    for (let warmUp = 0; warmUp < 5; warmUp++) await round();
    const before = await listener.report();
    const rounds = atDepth(20);
    for (let i = 0; i < rounds; i++) await round();
    const after = await listener.report();
    expect(after.refusals).toHaveLength((5 + rounds) * 100);
    await eventually("what they took is free again", async () => {
      return (await listener.report()).bytes - before.bytes < 4 * mib;
    });
  });
});
