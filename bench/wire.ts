/**
 * How fast the bare wire is between two processes: framing, codecs and sockets, without channels, handlers or Postgres.
 * Each run of ours is followed by one of its baseline (the same bytes through plain sockets), in the same two processes.
 *
 *     node --import tsx bench/wire.ts
 */
import { type ChildProcess, fork } from "node:child_process";
import { connect, type Socket } from "node:net";
import { dial, listen, type SenderConnection } from "../src/transport/index.js";
import { type Batch, Delivery } from "../src/wire/index.js";
import { type FarSide, keys, lastTopicKey, mesh } from "./wire-far-side.js";

const runs = 7;
const bytesPerRun = 400_000_000;
const shapes = [
  { payloads: 100, payloadBytes: 100 },
  { payloads: 10, payloadBytes: 1024 },
  { payloads: 1, payloadBytes: 100 },
  { payloads: 1, payloadBytes: 65_536 },
  { payloads: 1, payloadBytes: 1_048_576 },
];

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

/** Something that happens later and is awaited by one. */
class Signal {
  #resolve: () => void = () => {};
  fire(): void {
    this.#resolve();
  }
  wait(): Promise<void> {
    return new Promise((resolve) => {
      this.#resolve = resolve;
    });
  }
}

/** A sender that writes as fast as the connection takes it, until the far side has acknowledged everything. */
class Throughput {
  readonly #drained = new Signal();
  readonly #acked = new Signal();
  #number = 0;
  #awaited = 0;
  #connection!: SenderConnection;

  static async to(address: string): Promise<Throughput> {
    const self = new Throughput();
    const { connection } = await dial({
      address,
      identity: { senderName: mesh.near, sourceTopic: "t", listenerName: mesh.far, connectionKey: keys.sink, epoch: 1 },
      secret: mesh.secret,
      handlers: {
        onAck: ({ number }) => {
          if (number === self.#awaited) self.#acked.fire();
        },
        onDrain: () => self.#drained.fire(),
        onGoodbye() {},
        onClosed: (error) => console.error("closed", error),
      },
    });
    self.#connection = connection;
    return self;
  }

  /** @returns seconds */
  async run(payloads: Uint8Array[], batches: number): Promise<number> {
    const begin = performance.now();
    this.#awaited = this.#number + batches * payloads.length;
    const acked = this.#acked.wait();
    for (let i = 0; i < batches; i++) {
      if (!this.#connection.canWrite) await this.#drained.wait();
      const batch: Batch = {
        epoch: 1,
        delivery: Delivery.AT_LEAST_ONCE,
        firstNumber: this.#number + 1,
        topicKey: i === batches - 1 ? lastTopicKey : 1,
        payloads,
        compressions: [],
        headers: [],
      };
      this.#connection.writeBatch(batch);
      this.#number += payloads.length;
    }
    await acked;
    return (performance.now() - begin) / 1000;
  }
}

/** The same bytes through a plain socket, in writes of 64 KiB. @returns seconds */
async function rawThroughput(socket: Socket, bytes: number): Promise<number> {
  const chunk = Buffer.alloc(65_536, 1);
  const begin = performance.now();
  const head = Buffer.alloc(8);
  head.writeBigUInt64BE(BigInt(bytes));
  socket.write(head);
  const answered = new Promise((resolve) => socket.once("data", resolve));
  for (let left = bytes; left > 0; left -= chunk.length) {
    const piece = left < chunk.length ? chunk.subarray(0, left) : chunk;
    if (!socket.write(piece) && socket.writableLength > 1 << 20) {
      await new Promise((resolve) => socket.once("drain", resolve));
    }
  }
  await answered;
  return (performance.now() - begin) / 1000;
}

/** One message at a time there and back. @returns microseconds, each */
async function pingPong(far: string, count: number): Promise<number[]> {
  const came = new Signal();
  const connected = new Signal();
  const isConnected = connected.wait();
  const near = await listen({
    address: "127.0.0.1:0",
    listenerName: mesh.near,
    secrets: () => [mesh.secret],
    maxMessageBytes: 1 << 20,
    authorize: async () => ({ accept: true, welcome: { cursorEpoch: 0, cursor: 0, backlog: 0, credit: 1 << 30 } }),
    onHandshakeRefused: (refusal) => console.error(refusal),
    onConnection: () => {
      connected.fire();
      return { onBatch: () => came.fire(), onGoLive() {}, onGoodbye() {}, onClosed() {} };
    },
  });
  const { connection } = await dial({
    address: far,
    identity: {
      senderName: mesh.near,
      sourceTopic: near.boundAddress.replace(":", "/"),
      listenerName: mesh.far,
      connectionKey: keys.echo,
      epoch: 1,
    },
    secret: mesh.secret,
    handlers: { onAck() {}, onGoodbye() {}, onDrain() {}, onClosed() {} },
  });
  await isConnected;
  await new Promise((resolve) => setTimeout(resolve, 50));
  const batch: Batch = {
    epoch: 1,
    delivery: Delivery.AT_MOST_ONCE,
    firstNumber: 0,
    topicKey: 1,
    payloads: [new Uint8Array(100)],
    compressions: [],
    headers: [],
  };
  const times: number[] = [];
  for (let i = 0; i < count; i++) {
    const begin = performance.now();
    const answer = came.wait();
    connection.writeBatch(batch);
    await answer;
    times.push((performance.now() - begin) * 1000);
  }
  connection.destroy();
  await near.close({ connections: true });
  return times;
}

async function rawPingPong(port: number, count: number): Promise<number[]> {
  const socket = connect({ port, host: "127.0.0.1", noDelay: true });
  await new Promise((resolve) => socket.once("connect", resolve));
  const message = Buffer.alloc(100);
  const came = new Signal();
  let bytes = 0;
  socket.on("data", (chunk) => {
    bytes += chunk.length;
    if (bytes % message.length === 0) came.fire();
  });
  const times: number[] = [];
  for (let i = 0; i < count; i++) {
    const begin = performance.now();
    const answer = came.wait();
    socket.write(message);
    await answer;
    times.push((performance.now() - begin) * 1000);
  }
  socket.destroy();
  return times;
}

async function start(): Promise<{ child: ChildProcess; far: FarSide }> {
  const child = fork(new URL("./wire-far-side.ts", import.meta.url), { execArgv: [...process.execArgv] });
  const far = await new Promise<FarSide>((resolve) => child.once("message", (told) => resolve(told as FarSide)));
  return { child, far };
}

const { child, far } = await start();
const sender = await Throughput.to(far.hawser);
const raw = connect({ port: far.rawSink, host: "127.0.0.1", noDelay: true });
await new Promise((resolve) => raw.once("connect", resolve));

for (const { payloads: count, payloadBytes } of shapes) {
  const payloads = Array.from({ length: count }, () => new Uint8Array(payloadBytes).fill(5));
  const perBatch = count * (payloadBytes + 2) + 30;
  const batches = Math.round(Math.min(bytesPerRun / perBatch, 1_000_000));
  const ours: number[] = [];
  const theirs: number[] = [];
  for (let run = 0; run <= runs; run++) {
    const mine = (batches * count) / (await sender.run(payloads, batches));
    const baseline = (batches * count) / (await rawThroughput(raw, batches * perBatch));
    if (run === 0) continue;
    ours.push(mine);
    theirs.push(baseline);
  }
  console.log(
    `${count} × ${payloadBytes} B: ${Math.round(median(ours)).toLocaleString()} messages/s ` +
      `(${Math.round(Math.min(...ours)).toLocaleString()} – ${Math.round(Math.max(...ours)).toLocaleString()}), ` +
      `raw TCP ${Math.round(median(theirs)).toLocaleString()}, ratio ${(median(ours) / median(theirs)).toFixed(2)}`,
  );
}
const ours: number[] = [];
const theirs: number[] = [];
for (let run = 0; run <= runs; run++) {
  const mine = median(await pingPong(far.hawser, 10_000));
  const baseline = median(await rawPingPong(far.rawEcho, 10_000));
  if (run === 0) continue;
  ours.push(mine);
  theirs.push(baseline);
}
console.log(
  `ping-pong p50: ${median(ours).toFixed(1)} µs, raw TCP echo ${median(theirs).toFixed(1)} µs, ` +
    `ratio ${(median(ours) / median(theirs)).toFixed(2)}`,
);
child.disconnect();
process.exit(0);
