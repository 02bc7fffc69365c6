/** `hawser send`: sends a message to a topic. */
import { HawserError } from "../../foundation/errors/index.js";
import { Peer, type Receipt, type SendOptions } from "../../jobs-and-peers/peer/index.js";
import { listPeers, withCommandDatabase } from "../operate/index.js";
import { type Arguments, defineCommand, flag, type Given, option, required } from "./command-line.js";
import { type StopRequest, untilStopped } from "./long-running.js";
import { bytesOf, headersOf } from "./message-input.js";
import { hostPart, peerOptions, settingsOf, type Watched, watch } from "./options.js";
import { jsonText, Output, print, printable } from "./output.js";

const args = {
  topic: required("Topic to send to"),
  payload: required("The message"),
  name: option(
    "NAME",
    "Name of the sender, which one process holds at a time. Default: the first free one of send-HOST-1, send-HOST-2, …. " +
      "Replies to a given name wait for a peer of that name; replies to the default are dropped",
  ),
  from: option("TOPIC", "Topic to send under. Default: the sender's name"),
  base64: flag("The message is given in base64"),
  header: option("NAME=VALUE", "A header; may be given several times", { multiple: true }),
  all: flag("Send to every listener of the topic instead of one in turn"),
  "at-most-once": flag("Never store the message: send it now, or drop it"),
  ...peerOptions,
  quiet: flag("Print only errors, no receipts"),
  json: flag("Print each receipt as one line of JSON"),
} as const satisfies Arguments;

export const command = defineCommand({
  details:
    "It ends when the message is handled by a listener (delivered) or committed in Postgres (stored), and prints " +
    "the result",
  args,
  run: (given) => untilStopped((request) => run(given, headersOf(given.header), request)),
  examples: [
    ["hawser send orders '20 m of rope'", "One message"],
    ["hawser send orders '{\"id\": 17}' --header trace=1", "One with a header"],
    ["hawser send news 'stock-taking at noon' --all", "To every listener of the topic"],
  ],
});

async function run(given: Given<typeof args>, headers: [string, string][], request: StopRequest): Promise<void> {
  const { topic, payload, base64 = false, all = false, quiet = false, json = false } = given;
  if (payload === "-") {
    throw new HawserError(
      "invalid_argument",
      '"-": `hawser send` reads no standard input; give the message as an argument',
    );
  }
  const message = bytesOf(payload, base64);
  const delivery = given["at-most-once"] ? "at-most-once" : "at-least-once";
  const options: SendOptions = { delivery, ...(headers.length > 0 && { headers }) };
  const droppedReplies = await withSendingPeer(given, async (peer) => {
    // Stopping stores an unconfirmed message, and settles its promise.
    const stop = (): void => void peer.stop();
    request.signal.addEventListener("abort", stop);
    if (request.signal.aborted) stop();
    const outcomes: readonly Outcome[] = all
      ? await peer.sendAll(topic, message, options)
      : [await peer.send(topic, message, options)];
    if (!quiet) await new Output().write(outcomes.map((outcome) => lineOf(outcome, json)).join(""));
    throwFirstError(outcomes);
  });
  if (droppedReplies > 0 && !quiet) tellDropped(droppedReplies);
}

/** Outcome of a send to one listener. */
type Outcome =
  | Receipt<"delivered" | "stored" | "sent" | "dropped">
  | { readonly peer: string; readonly error: HawserError };

const prepositions = { delivered: "to", stored: "for", sent: "to", dropped: "for" } as const;

/** Outcome as a line, with its line end. */
function lineOf(outcome: Outcome, json: boolean): string {
  const { peer } = outcome;
  if (json) {
    const result =
      "error" in outcome
        ? { outcome: "failed", peer, error: { code: outcome.error.code, message: outcome.error.message } }
        : { outcome: outcome.outcome, peer };
    return `${jsonText(result)}\n`;
  }
  if ("error" in outcome) return `failed for ${printable(peer)}: ${printable(outcome.error.message)}\n`;
  // In the queue.
  const to = peer === "" ? "any listener" : printable(peer);
  return `${outcome.outcome} ${prepositions[outcome.outcome]} ${to}\n`;
}

function tellDropped(count: number): void {
  const replies = count === 1 ? "1 reply came and was" : `${count} replies came and were`;
  print(process.stderr, `${replies} dropped; with --name, replies wait for a peer of that name`);
}

function throwFirstError(outcomes: readonly Outcome[]): void {
  for (const outcome of outcomes) if ("error" in outcome) throw outcome.error;
}

/*
 * Peer of `hawser send`. Without `--name` it takes the first free name of `send-<host>-1`, `send-<host>-2`, …, so that
 * the next call reuses a sender's state in the database (its name, its channels with their cursors, its known
 * listeners) instead of adding to it. A second call therefore stores messages for a listener that the first one has
 * met, and consecutive calls are in order. Replies to such a name are received and dropped, because nobody waits for
 * them.
 */

/** Number of attempts to take a free name, because several senders may start at the same moment. */
const maxTries = 50;

/** Time to wait for a given name, in milliseconds: its previous process may be ending. */
const givenNameWaitMs = 2_000;

interface SendingPeer {
  readonly peer: Peer;
  readonly watched: Watched;
  /** Number of replies that were dropped. */
  readonly droppedReplies: () => number;
}

type SendingOptions = Given<typeof peerOptions> & Partial<Record<"name" | "from", string | undefined>>;

/**
 * Runs work with a sending peer, and stops the peer.
 *
 * @returns the number of replies that were dropped
 * @throws HawserError as {@link Peer.start}, `name_lost` if the peer lost its name, and errors of the work
 */
export async function withSendingPeer(given: SendingOptions, work: (peer: Peer) => Promise<void>): Promise<number> {
  const { peer, watched, droppedReplies } = await startSendingPeer(given);
  try {
    await work(peer);
  } catch (error) {
    throw watched.lostName() ?? error;
  } finally {
    await peer.stop();
    watched.end();
  }
  return droppedReplies();
}

/** Starts the peer. It is not in the directory: messages to the topic `from` go to the listeners that serve it. */
async function startSendingPeer({ name: given, from, ...args }: SendingOptions): Promise<SendingPeer> {
  const settings = settingsOf(args);
  const begin = async (name: string, nameWaitMs: number, handler?: () => void) => {
    const peer = new Peer({ ...settings, name, topic: from, nameWaitMs });
    const watched = watch(peer);
    if (handler !== undefined) await peer.handle(name, handler);
    await peer.start();
    return { peer, watched };
  };
  if (given !== undefined) return { ...(await begin(given, givenNameWaitMs)), droppedReplies: () => 0 };
  let dropped = 0;
  const drop = (): void => {
    dropped += 1;
  };
  let place = 1;
  for (let tries = 1; ; tries++) {
    try {
      return { ...(await begin(`${namePrefix()}${place}`, 0, drop)), droppedReplies: () => dropped };
    } catch (error) {
      if (!(error instanceof HawserError) || error.code !== "name_in_use" || tries === maxTries) throw error;
      place = freePlace(await takenNames(settings.databaseUrl), 2 ** Math.min(tries - 1, 10));
    }
  }
}

function namePrefix(): string {
  return `send-${hostPart()}-`;
}

async function takenNames(databaseUrl: string | undefined): Promise<Set<string>> {
  const peers = await withCommandDatabase(databaseUrl, listPeers);
  return new Set(peers.filter(({ running }) => running).map(({ name }) => name));
}

/**
 * Number of a default name that is free, at random among the first `choices` free numbers, so that simultaneous
 * searches choose different ones.
 */
function freePlace(taken: ReadonlySet<string>, choices: number): number {
  let skip = Math.floor(Math.random() * choices);
  for (let place = 1; ; place++) {
    if (taken.has(`${namePrefix()}${place}`)) continue;
    if (skip === 0) return place;
    skip -= 1;
  }
}
