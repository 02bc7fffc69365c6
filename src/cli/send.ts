/** `hawser send`: sends a message, or a stream of messages, to a topic. */
import { fstatSync, type Stats } from "node:fs";
import { protocolConstants } from "../../generated/ts/settings/peer.js";
import { HawserError } from "../errors/index.js";
import { listPeers, withCommandDatabase } from "../operate/index.js";
import { Peer, type SendOptions } from "../peer/index.js";
import { type Arguments, defineCommand, flag, type Given, option, optional, required } from "./command-line.js";
import { type StopRequest, untilStopped } from "./long-running.js";
import { hostPart, peerOptions, settingsOf, type Watched, watch } from "./options.js";
import { Output, print } from "./output.js";
import { allBytes, decodeBase64, lineOf, type Outcome, sendLines, sendOne } from "./send-lines.js";

const args = {
  topic: required("Topic to send to"),
  payload: optional("The message. Without it, or with -, standard input is the message, up to its end"),
  name: option(
    "NAME",
    "Name of the sender, which one process holds at a time. Default: the first free one of send-HOST-1, send-HOST-2, …. " +
      "Replies to a given name wait for a peer of that name; replies to the default are dropped",
  ),
  from: option("TOPIC", "Topic to send under. Default: the sender's name"),
  lines: flag("Send each line of standard input as a message of its own"),
  base64: flag("The message, or each line, is given in base64"),
  header: option("NAME=VALUE", "A header; may be given several times", { multiple: true }),
  all: flag("Send to every listener of the topic instead of one in turn"),
  "at-most-once": flag("Never store the message: send it now, or drop it"),
  ...peerOptions,
  quiet: flag("Print only errors, no receipts and no progress"),
  json: flag("Print each receipt as one line of JSON"),
} as const satisfies Arguments;

export const command = defineCommand({
  details:
    "It ends when each message is handled by a listener (delivered) or committed in Postgres (stored), and prints " +
    "the result",
  args,
  run: (given) =>
    untilStopped((request) => run(given, headersOf(given.header), request)).finally(() => {
      // An input that is no longer read must not keep the process alive.
      if (!process.stdin.readableEnded) process.stdin.destroy();
    }),
  examples: [
    ["hawser send orders '20 m of rope'", "One message"],
    ["hawser send orders --header trace=1 < order.json", "A file as one message, with a header"],
    ["producer | hawser send orders --lines --json", "Each line of a stream as a message, at the pace of the receipts"],
    ["hawser send news 'stock-taking at noon' --all", "To every listener of the topic"],
  ],
});

async function run(given: Given<typeof args>, headers: [string, string][], request: StopRequest): Promise<void> {
  const { topic, payload, lines = false, base64 = false, quiet = false, json = false } = given;
  if (lines && payload !== undefined && payload !== "-") {
    throw new HawserError("invalid_argument", "--lines reads standard input; remove the message");
  }
  const delivery = given["at-most-once"] ? "at-most-once" : "at-least-once";
  const options: SendOptions = { delivery, ...(headers.length > 0 && { headers }) };
  // The input is read before anything is started, because a person may take long to type.
  const input = lines ? standardInput() : undefined;
  const message = input === undefined ? await messageOf(payload, base64) : undefined;
  const droppedReplies = await withSendingPeer(given, async (peer) => {
    // Stopping stores unconfirmed messages, and settles their promises.
    const stop = (): void => void peer.stop();
    request.signal.addEventListener("abort", stop);
    if (request.signal.aborted) stop();
    const sendTo = (bytes: Uint8Array) => sendOne(peer, topic, bytes, options, given.all ?? false);
    const output = new Output();
    const report = async (outcomes: readonly Outcome[], line?: number): Promise<void> => {
      if (quiet || (!json && line !== undefined)) return;
      await output.write(outcomes.map((outcome) => lineOf(outcome, { json, line })).join(""));
    };
    if (input !== undefined) await sendLines({ input, sendTo, report, base64, quiet, json, signal: request.signal });
    if (message !== undefined) {
      const outcomes = await sendTo(message);
      await report(outcomes);
      throwFirstError(outcomes);
    }
  });
  if (droppedReplies > 0 && !quiet) tellDropped(droppedReplies);
}

function tellDropped(count: number): void {
  const replies = count === 1 ? "1 reply came and was" : `${count} replies came and were`;
  print(process.stderr, `${replies} dropped; with --name, replies wait for a peer of that name`);
}

function throwFirstError(outcomes: readonly Outcome[]): void {
  for (const outcome of outcomes) if ("error" in outcome) throw outcome.error;
}

/**
 * Message from the command line or standard input. @throws HawserError `invalid_argument` for an empty standard input
 */
export async function messageOf(payload: string | undefined, base64: boolean): Promise<Uint8Array> {
  if (payload !== undefined && payload !== "-") return base64 ? decodeBase64(payload) : Buffer.from(payload);
  const input = standardInput();
  if (input.isTTY) print(process.stderr, "Type the message; end it with Ctrl-D on a line of its own.");
  const bytes = await allBytes(input, protocolConstants.maxStoredMessageBytes);
  if (bytes.length === 0) {
    throw new HawserError(
      "invalid_argument",
      "standard input was empty, and a message has at least one byte; give the message as an argument or by a pipe",
    );
  }
  if (!base64) return bytes;
  return decodeBase64(Buffer.from(bytes).toString("latin1"));
}

/** Headers given as NAME=VALUE. @throws HawserError `invalid_argument` */
export function headersOf(values: readonly string[] = []): [string, string][] {
  return values.map((value) => {
    const at = value.indexOf("=");
    if (at < 1) throw new HawserError("invalid_argument", `--header "${value}" is not of the form NAME=VALUE`);
    return [value.slice(0, at), value.slice(at + 1)];
  });
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

/**
 * Standard input for reading messages.
 *
 * @throws HawserError `invalid_argument` if standard input is closed or a directory. Node.js would read a directory as
 * an empty input. On systems with /dev/null, Node.js opens that file in place of a closed input, which then counts as
 * empty and not as closed
 */
function standardInput(): NodeJS.ReadStream {
  const stat = statOf(0);
  if (stat === undefined || stat.isDirectory()) {
    throw new HawserError(
      "invalid_argument",
      `standard input is ${stat === undefined ? "closed" : "a directory"}; give a file or a pipe with the message`,
    );
  }
  return process.stdin;
}

function statOf(descriptor: number): Stats | undefined {
  try {
    return fstatSync(descriptor);
  } catch {
    return undefined;
  }
}
