/**
 * A peer in a process of its own. It does what the test asks over IPC, tells of messages and statuses, and ends by itself
 * when the test lets go of it and the peer has stopped. Its options come from the test.
 */
import { setTimeout as delay, setImmediate as turn } from "node:timers/promises";
import { type Message, Peer, type Subscription } from "../../../src/jobs-and-peers/peer/index.js";
import { received } from "../../peer/support/world.js";
import type { Ledger } from "../support/ledger.js";
import { openLedger } from "../support/ledger.js";
import type { Calls, PeerProgramOptions, Report, StreamOptions } from "../support/protocol.js";
import { failureOf, optionsOf, serveCalls, tell as tellTest, type WorkOf } from "../support/remote-protocol.js";

const options = optionsOf<PeerProgramOptions>();
const peer = new Peer(options.peer);
let ledger: Ledger | undefined;

/** Number of messages whose handler has begun. */
let begun = 0;

const tell = (report: Report): void => tellTest(report);

async function handle(message: Message): Promise<void> {
  begun += 1;
  const isHeld = options.handler === "hold" || (options.handler === "holdFirst" && begun === 1);
  if (options.handler === "ledger") await ledger?.begin(Buffer.from(message.payload).toString());
  const at = Number(process.hrtime.bigint() / 1_000n);
  tell({ kind: "message", message: received(message), id: message.id, at });
  if (options.handlerMs !== undefined) await delay(options.handlerMs);
  if (options.handler === "reply") await message.reply(`re ${Buffer.from(message.payload).toString()}`);
  if (isHeld) await new Promise(() => undefined);
}

peer.on("status", (status) => tell({ kind: "status", status: JSON.parse(JSON.stringify(status)) }));

let ending = false;
let hurry = 0;
/** Ends a pause between two messages. */
let wake = (): void => undefined;
let streaming: Promise<number> | undefined;
const subscriptions = new Map<string, Subscription>();

/** Sends one message after another, at most `window` of them unconfirmed, until it is ended. */
async function stream({ topic, prefix, window, perSecond }: StreamOptions): Promise<number> {
  const unconfirmed = new Set<Promise<void>>();
  let number = 0;
  while (!ending) {
    if (hurry > 0) hurry -= 1;
    else await pause(1_000 / perSecond);
    if (unconfirmed.size >= window) await Promise.race(unconfirmed);
    number += 1;
    const mine = number;
    const sent: Promise<void> = peer
      .send(topic, `${prefix} ${mine}`)
      .then(
        ({ outcome }) => tell({ kind: "confirmed", number: mine, outcome }),
        (error) => tell({ kind: "unconfirmed", number: mine, failure: failureOf(error) }),
      )
      .finally(() => unconfirmed.delete(sent));
    unconfirmed.add(sent);
    if (number % 16 === 0) await turn();
  }
  await Promise.all(unconfirmed);
  return number;
}

async function pause(ms: number): Promise<void> {
  const woken = new AbortController();
  wake = () => woken.abort();
  await delay(ms, undefined, { signal: woken.signal }).catch(() => undefined);
}

const work: WorkOf<Calls> = {
  async run() {
    if (options.handler === "ledger") ledger = await openLedger(options.ledgerUrl as string);
    await peer.handle(peer.topic, handle);
    await peer.start();
    return peer.localAddress;
  },
  async stop() {
    await peer.stop();
    await ledger?.close();
  },
  sendTo: (topic, text, sending) => peer.send(topic, text, sending),
  async handle(topic) {
    subscriptions.set(topic, await peer.handle(topic, handle));
  },
  async stopHandling(topic) {
    await subscriptions.get(topic)?.stop();
  },
  listenersOf: (topic, refresh) => peer.listenersOf(topic, { refresh }),
  async beginStream(streamOptions) {
    ending = false;
    streaming = stream(streamOptions);
  },
  async hurryStream(count) {
    hurry += count;
    wake();
  },
  async endStream() {
    ending = true;
    wake();
    return (await streaming) as number;
  },
};

serveCalls(work);
