/**
 * A peer of a mesh under fault tests, in a process of its own: it keeps a journal of what its handler began and what was
 * confirmed to it. Its options come from the test.
 */
import { openSync, writeSync } from "node:fs";
import { setTimeout as delay, setImmediate as turn } from "node:timers/promises";
import { protocolConstants } from "../../../generated/ts/settings/peer.js";
import { Peer, type TransactionalMessage } from "../../../src/jobs-and-peers/peer/index.js";
import { failureOf, memory, optionsOf, serveCalls, type WorkOf } from "../../scenarios/support/remote-protocol.js";
import {
  type JournalLine,
  type MeshCalls,
  type MeshPeerOptions,
  microseconds,
  type StreamOptions,
} from "../support/mesh-protocol.js";

const options = optionsOf<MeshPeerOptions>();
Object.assign(protocolConstants, options.constants);
const peer = new Peer(options.peer);
const journal = openSync(options.journal, "a");

function note(line: JournalLine): void {
  writeSync(journal, `${JSON.stringify(line)}\n`);
}

let handlerMs = options.handlerMs ?? 0;

async function handle(message: TransactionalMessage): Promise<void> {
  const { payload, attempt } = message;
  const header = Buffer.from(payload.buffer, payload.byteOffset, Math.min(payload.length, 200)).toString();
  const [sender, run, number, sentAt, mark] = header.split(" ") as [string, string, string, string, string];
  note({
    kind: "begun",
    at: microseconds(),
    sender,
    run: Number(run),
    number: Number(number),
    sentAt: Number(sentAt),
    attempt,
  });
  if (options.handler === "poison" && mark === "poison") {
    if (handlerMs > 0) await delay(handlerMs / 2);
    process.kill(process.pid, "SIGKILL");
  }
  if (options.handler === "effect" || options.handler === "answer") {
    const values = [options.peer.name, sender, Number(run), Number(number)];
    await message.client.query("INSERT INTO effects (listener, sender, run, number) VALUES ($1, $2, $3, $4)", values);
  }
  if (options.handler === "answer") {
    const values = [handlerMs / 1_000, options.answerBytes ?? 0];
    await message.client.query("SELECT repeat('x', $2::integer) FROM pg_sleep($1)", values);
  } else if (handlerMs > 0) await delay(handlerMs);
}

peer.on("status", (status) => note({ kind: "status", at: microseconds(), status }));

/** A stream of numbered messages to one topic. */
class Stream {
  readonly #options: StreamOptions;
  readonly #unconfirmed = new Set<Promise<unknown>>();
  #number = 0;
  #hurried = 0;
  #ending = false;
  #wake = (): void => undefined;
  #ended: Promise<void> | undefined;

  constructor(streamOptions: StreamOptions) {
    this.#options = streamOptions;
  }

  /** Resolves when the first message was confirmed: from then on the topic is known, and each send has a number. */
  async begin(): Promise<void> {
    this.#number = 1;
    while (!(await this.#send(1)) && !this.#ending) await delay(50);
    this.#ended = this.#goOn();
  }

  hurry(count: number): void {
    this.#hurried += count;
    this.#wake();
  }

  async end(): Promise<[topic: string, last: number]> {
    this.#ending = true;
    this.#wake();
    await this.#ended;
    await Promise.all(this.#unconfirmed);
    return [this.#options.topic, this.#number];
  }

  async #goOn(): Promise<void> {
    const { perSecond, window } = this.#options;
    // By the clock, not by pauses: timers are coarse, and a busy machine makes them late.
    const begun = performance.now();
    let paced = 0;
    while (!this.#ending) {
      if (this.#hurried > 0) this.#hurried -= 1;
      else {
        const waitMs = begun + (++paced * 1_000) / perSecond - performance.now();
        // After a stall it does not catch up.
        if (waitMs < -1_000) paced += Math.floor((-waitMs * perSecond) / 1_000);
        if (waitMs >= 1) await this.#pause(waitMs);
      }
      if (this.#unconfirmed.size >= window) await Promise.race(this.#unconfirmed);
      if (this.#ending) break;
      const sent: Promise<unknown> = this.#send(++this.#number).finally(() => this.#unconfirmed.delete(sent));
      this.#unconfirmed.add(sent);
      if (this.#number % 16 === 0) await turn();
    }
  }

  async #send(number: number): Promise<boolean> {
    const { topic, payloadBytes = 0, poisonAt } = this.#options;
    const sentAt = microseconds();
    const mark = number === poisonAt ? "poison" : "fine";
    const header = `${options.peer.name} ${options.run} ${number} ${sentAt} ${mark} `;
    const line = { topic, number, sentAt };
    try {
      const { outcome } = await peer.send(topic, header.padEnd(payloadBytes, "."));
      note({ kind: "confirmed", at: microseconds(), ...line, outcome });
      return true;
    } catch (error) {
      const failure = failureOf(error);
      note({ kind: "rejected", at: microseconds(), ...line, failure });
      // A number was given, and it may arrive.
      return failure.outcome === "unknown";
    }
  }

  async #pause(ms: number): Promise<void> {
    const woken = new AbortController();
    this.#wake = () => woken.abort();
    await delay(ms, undefined, { signal: woken.signal }).catch(() => undefined);
  }
}

let streams: Stream[] = [];

const work: WorkOf<MeshCalls> = {
  async run() {
    const transactional = options.handler === "effect" || options.handler === "answer";
    await peer.handle(peer.topic, { transactional }, (message) => handle(message as TransactionalMessage));
    await peer.start();
    return peer.localAddress;
  },
  stop: () => peer.stop(),
  async beginStreams(all) {
    streams = all.map((each) => new Stream(each));
    await Promise.all(streams.map((stream) => stream.begin()));
  },
  async hurry(count) {
    for (const stream of streams) stream.hurry(count);
  },
  endStreams: async () => Object.fromEntries(await Promise.all(streams.map((stream) => stream.end()))),
  async slowDown(ms) {
    handlerMs = ms;
  },
  memory,
};

serveCalls(work);
