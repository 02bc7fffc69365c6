/** `hawser listen`: prints the messages of a topic. */
import { checkHelloSenderName } from "../../../generated/ts/rules/peer/frames.js";
import { HawserError, plural } from "../../foundation/errors/index.js";
import { type Message, Peer } from "../../jobs-and-peers/peer/index.js";
import { Descriptors, payloadLine, type ShownForm, shownPayload } from "../../protobuf/typed/index.js";
import { otherTopicsOf, withCommandDatabase } from "../operate/index.js";
import { type Arguments, defineCommand, flag, type Given, option, required } from "./command-line.js";
import { type StopRequest, untilStopped } from "./long-running.js";
import { descriptorsOption, hostPart, peerOptions, settingsOf, watch } from "./options.js";
import { hasColors, jsonText, Output, print, printable, startProgress, styled } from "./output.js";
import { quantityOf, quantityText, wholeNumber } from "./quantities.js";

/** Time to wait for the name, in milliseconds: its previous process may be ending. */
const nameWaitMs = 3_000;

/** Longest `--timeout`: 24 days, the limit of Node's timers. */
const longestTimerMs = 24 * 86_400_000;

const args = {
  topic: required("The topic to serve"),
  name: option(
    "NAME",
    "The listener's name; one process holds it at a time, and messages stored for it wait for its next process. " +
      "Default: listen-HOST-TOPIC, always the same on this machine",
  ),
  subscribe: option("TOPIC", "Additional topic; may be given several times", { multiple: true }),
  durable: flag("Stay in the directory when stopped, so that new senders store messages for it too"),
  group: option("NAME", "Join the group NAME, such as default"),
  count: option("N", "End after N messages"),
  timeout: option("TIME", "End after that time, such as 10s; an error if --count was not reached"),
  base64: flag("Print every payload as base64"),
  text: flag("Print every payload as text, with invalid UTF-8 replaced"),
  ...descriptorsOption,
  ...peerOptions,
  quiet: flag("Print only errors on standard error"),
  json: flag("Print each message as one line of JSON"),
} as const satisfies Arguments;

export const command = defineCommand({
  details:
    "A message is handled when its line is written; messages that are not written when the command ends wait for " +
    "the next process with the name. The command is an ordinary listener: beside other listeners of the topic it " +
    "receives its share of the messages, not copies",
  args,
  run: (given) => untilStopped((request) => run(given, request)),
  examples: [
    ["hawser listen orders", "Watch a topic; Ctrl-C ends it"],
    [
      "hawser listen orders --name audit-1 --durable --json | jq .payload",
      "Store messages for this name while it is not running",
    ],
    ["hawser listen orders --descriptors image.binpb", "Typed messages as JSON, with an image of `buf build`"],
    ["hawser listen replies --count 1 --timeout 10s", "Wait for one message, ten seconds at most"],
  ],
});

async function run(given: Given<typeof args>, request: StopRequest): Promise<void> {
  const limit = wholeNumber("--count", given.count);
  const timeoutMs = quantityOf("duration", "--timeout", given.timeout, { min: 1, max: longestTimerMs });
  const form = formOf(given);
  const descriptors = given.descriptors === undefined ? undefined : Descriptors.read(given.descriptors);
  const settings = settingsOf(given);
  const name = given.name ?? defaultName(given.topic);
  const topics = [...new Set([given.topic, ...(given.subscribe ?? [])])];
  const peer = new Peer({
    ...settings,
    name,
    topic: given.topic,
    defaults: { durable: given.durable ?? false, group: given.group },
    nameWaitMs,
  });
  const watched = watch(peer);
  const messages = new MergedMessages(topics.map((topic) => peer.messages(topic)));
  const ending = new AbortController();
  const timer = timeoutMs && setTimeout(() => ending.abort(), timeoutMs);
  const stop = AbortSignal.any([request.signal, ending.signal]);
  const stopPeer = (): void => void peer.stop();
  stop.addEventListener("abort", stopPeer);
  const output = new Output();
  let printed = 0;
  try {
    await refuseOtherTopics(settings.sessionUrl ?? settings.databaseUrl, name, topics);
    // The catch block ignores this error, and the check at the end reports messages that are missing of --count.
    stop.throwIfAborted();
    await peer.start();
    if (!given.quiet) tellReady(peer, given.name !== undefined);
    printed = await printMessages(messages, peer, {
      json: given.json ?? false,
      form,
      descriptors,
      limit,
      output,
      stop,
      progress: !given.quiet && !process.stdout.isTTY,
    });
  } catch (error) {
    // A stop request during the start is not a failure.
    if (!stop.aborted) throw error;
  } finally {
    clearTimeout(timer);
    stop.removeEventListener("abort", stopPeer);
    await peer.stop();
    watched.end();
  }
  const lost = watched.lostName();
  if (lost !== undefined) throw lost;
  // A reader that neither reads nor closes the pipe would keep the process alive. Its messages stay unhandled.
  if (output.isBehind && !output.closed.aborted) process.exit(0);
  if (ending.signal.aborted && limit !== undefined && printed < limit) {
    throw new HawserError(
      "aborted",
      `${printed === 0 ? "no message" : `only ${plural(printed, "message")}`} of ${limit} came within ${quantityText("duration", timeoutMs!)}`,
    );
  }
}

function formOf({ base64, text, descriptors }: Given<typeof args>): ShownForm {
  if (descriptors !== undefined && (base64 || text)) {
    const other = base64 ? "--base64" : "--text";
    throw new HawserError("invalid_argument", `--descriptors and ${other} exclude each other; remove one`);
  }
  if (base64 && text) throw new HawserError("invalid_argument", "--base64 and --text exclude each other; remove one");
  if (base64) return "base64";
  return text ? "text" : "auto";
}

/** @throws HawserError `invalid_argument` if the topic is too long to be part of a name */
function defaultName(topic: string): string {
  const name = `listen-${hostPart()}-${topic}`;
  if (Buffer.byteLength(topic) > 0 && checkHelloSenderName(name)?.rule.includes("bytes")) {
    throw new HawserError("invalid_argument", `"${name}" is too long for a name; choose one with --name`);
  }
  return name;
}

/**
 * Refuses the name of a listener of other topics: their messages would reach this process, which has no handler for them, and
 * become dead letters.
 *
 * @throws HawserError `invalid_argument`
 */
async function refuseOtherTopics(
  databaseUrl: string | undefined,
  name: string,
  topics: readonly string[],
): Promise<void> {
  const others = await withCommandDatabase(databaseUrl, (database) => otherTopicsOf(database, name, topics)).catch(
    (error: unknown) => {
      // The start creates a schema that is missing, and reports one that it may not create.
      if (error instanceof HawserError && error.code === "schema_missing") return [];
      throw error;
    },
  );
  if (others.length === 0) return;
  const listed = others.map((topic) => `"${topic}"`).join(", ");
  throw new HawserError(
    "invalid_argument",
    `"${name}" also listens to ${listed}, whose messages would become dead letters here: ` +
      `choose another name with --name, or take them, too, with ${others.map((topic) => `--subscribe ${topic}`).join(" ")}`,
  );
}

function tellReady(peer: Peer, named: boolean): void {
  const hint = named ? "" : " (--name chooses another)";
  print(process.stderr, `Listening at ${peer.localAddress} as ${printable(peer.name)}${hint}. Ctrl-C ends it.`);
}

/** Merges the messages of several topics, one at a time. A call of `next` completes the previous message. */
class MergedMessages {
  readonly #loops: readonly AsyncIterableIterator<Message>[];
  /** Pending calls of `next` by loop; their messages were not returned yet. */
  readonly #asked = new Map<AsyncIterator<Message>, Promise<IteratorResult<Message>>>();

  constructor(loops: readonly AsyncIterableIterator<Message>[]) {
    this.#loops = loops;
  }

  async next(): Promise<IteratorResult<Message>> {
    for (const loop of this.#loops) if (!this.#asked.has(loop)) this.#asked.set(loop, loop.next());
    const first = await Promise.race([...this.#asked].map(async ([loop, asked]) => ({ loop, result: await asked })));
    this.#asked.delete(first.loop);
    return first.result;
  }

  /** Ends all loops. Messages that were not completed stay unhandled. */
  async return(): Promise<void> {
    await Promise.all(this.#loops.map((loop) => loop.return?.()));
  }
}

/** Time that a line may still take to be written after a stop request, in milliseconds. */
const lastLineMs = 1_000;

/** Format and limits of the output. */
interface PrintOptions extends LineOptions {
  readonly json: boolean;
  /** Number of messages after which printing ends. */
  readonly limit: number | undefined;
  readonly output: Output;
  /** Ends the printing. */
  readonly stop: AbortSignal;
  readonly progress: boolean;
}

/**
 * Prints messages until they end, the limit is reached, or the reader leaves. A message is completed when its line is
 * written; otherwise it stays unhandled.
 *
 * @returns the number of printed messages
 * @throws HawserError `output_failed`
 */
async function printMessages(
  messages: MergedMessages,
  peer: Peer,
  { json, limit, output, stop, progress, ...shown }: PrintOptions,
): Promise<number> {
  const line = json ? jsonLine : plainLine;
  const counter = startProgress("Waiting for messages", progress);
  let printed = 0;
  // Ends the wait for the reader; set while a line is being written.
  let giveUp: (() => void) | undefined;
  let timer: NodeJS.Timeout | undefined;
  const onStop = (): void => {
    timer = setTimeout(() => giveUp?.(), lastLineMs);
  };
  stop.addEventListener("abort", onStop);
  if (stop.aborted) onStop();
  try {
    for (;;) {
      // The call of next() completes the previous message.
      const { done, value } = await messages.next();
      if (done) return printed;
      const isWritten = await new Promise<boolean>((resolve, reject) => {
        giveUp = () => resolve(false);
        output.write(line(value, shown)).then(resolve, reject);
      });
      if (!isWritten) return printed;
      printed += 1;
      counter.update(plural(printed, "message"));
      if (printed === limit) {
        const stopped = peer.stop();
        await messages.next();
        await stopped;
        return printed;
      }
    }
  } finally {
    clearTimeout(timer);
    stop.removeEventListener("abort", onStop);
    await messages.return();
    counter.stop();
  }
}

const paint = hasColors(process.stdout) ? styled : (_: unknown, text: string) => text;

/** Format of a message. */
interface LineOptions {
  readonly form: ShownForm;
  readonly descriptors: Descriptors | undefined;
}

/** Message as a line of JSON, with its line end. */
function jsonLine(message: Message, { form, descriptors }: LineOptions): string {
  const { topic, sender, senderTopic, enqueuedBy, attempt, delivery } = message;
  const headers = [...message.headers];
  const shown = shownPayload(message.payload, headers, descriptors, form);
  return `${jsonText({ topic, sender, senderTopic, enqueuedBy, headers, ...shown, attempt, delivery })}\n`;
}

/** Message as a line for people, with its line end: topic, sender and payload, without control characters. */
function plainLine(
  { topic, sender, enqueuedBy, payload, headers }: Message,
  { form, descriptors }: LineOptions,
): string {
  const text = payloadLine(shownPayload(payload, [...headers], descriptors, form), form);
  return `${paint("dim", printable(topic))} ${paint("cyan", printable(sender ?? enqueuedBy ?? ""))} ${printable(text)}\n`;
}
