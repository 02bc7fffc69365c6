/** `hawser peers reassign`: gives what waits for a peer that does not come back to another one. */
import { HawserError, plural } from "../../foundation/errors/index.js";
import {
  type ListenedChannel,
  type ListenerState,
  type ReleasedChannel,
  reassign as reassigning,
  withCommandDatabase,
} from "../operate/index.js";
import { print, printable, printRows } from "./output.js";

/** Requested hand-over. */
interface Reassignment {
  readonly from: string;
  readonly to: string;
  readonly force: boolean;
  readonly json: boolean;
}

/**
 * Gives what is stored or enqueued for a listener to another one, and prints the channels.
 *
 * @throws HawserError `invalid_argument` for an unknown name, `unsubscribed` if the new listener does not serve a topic of it
 */
export async function reassign(
  databaseUrl: string | undefined,
  { from, to, force, json }: Reassignment,
): Promise<void> {
  await withCommandDatabase(databaseUrl, async (database) => {
    const messages = reassigning(database);
    const [channels, topics, state, target] = await Promise.all([
      messages.channelsOf(from),
      messages.enqueuedTopics(from),
      messages.listenerState(from),
      messages.listenerState(to),
    ]);
    if (channels.length === 0 && topics.length === 0 && !state.seen && state.topics.length === 0) throw unknown(from);
    checkTopics(channels, topics, to, target, force);
    const handed = await messages.reassign({ from, to, force });
    const enqueued = await messages.reassignEnqueued(from, to);
    await printRows(handed, {
      json,
      none: `Nothing is stored for "${printable(from)}"${enqueued > 0 ? "." : "; nothing was handed over."}`,
      columns: [
        { head: "KEY", cell: ({ channelId }) => channelId },
        { head: "CHANNEL", cell: ({ channelName }) => channelName },
        { head: "STORED", cell: ({ stored }) => stored },
      ],
    });
    if (!json && (handed.length > 0 || enqueued > 0)) {
      print(process.stdout, `\n${summaryOf(handed, enqueued, from, to)}`);
    }
    for (const note of notes({
      from,
      to,
      hasMessages: handed.length + enqueued > 0,
      target,
      wasRunning: state.running,
    }))
      print(process.stderr, note);
  });
}

function unknown(from: string): HawserError {
  const remedy = "check the name against `hawser peers`";
  return new HawserError(
    "invalid_argument",
    `there is no record of a peer "${from}", and nobody has sent to it; ${remedy}`,
  );
}

/** Warns about, or refuses, messages for topics that the new listener does not serve: they would wait. */
function checkTopics(
  channels: readonly ListenedChannel[],
  enqueued: readonly string[],
  to: string,
  target: ListenerState,
  force: boolean,
): void {
  const topics = [...channels.flatMap((channel) => channel.topics), ...enqueued];
  const unserved = new Set(topics.filter((topic) => !target.topics.includes(topic)));
  if (unserved.size === 0) return;
  const why = target.running ? "" : target.seen ? " (it is not running)" : " (no peer of this name was ever started)";
  const named = [...unserved].map((topic) => `"${topic}"`).join(", ");
  const what = `"${to}" does not serve ${named}${why}`;
  if (!force) {
    const remedy = "start or subscribe it first, or continue with --force";
    throw new HawserError("unsubscribed", `${what}: messages for that would wait; ${remedy}`);
  }
  print(process.stderr, `Warning: ${printable(what)}: messages for that wait until it does.`);
}

function summaryOf(handed: readonly ReleasedChannel[], enqueued: number, from: string, to: string): string {
  const stored = handed.reduce((sum, channel) => sum + channel.stored, 0);
  const parts = [
    ...(handed.length > 0 ? [`${plural(stored, "stored message")} of ${plural(handed.length, "channel")}`] : []),
    ...(enqueued > 0 ? [plural(enqueued, "enqueued message")] : []),
  ];
  return `Handed ${parts.join(", and ")} over from "${printable(from)}" to "${printable(to)}".`;
}

function notes(done: {
  readonly from: string;
  readonly to: string;
  readonly hasMessages: boolean;
  readonly target: ListenerState;
  readonly wasRunning: boolean;
}): string[] {
  const [from, to] = [printable(done.from), printable(done.to)];
  const { hasMessages, target, wasRunning } = done;
  return [
    ...(hasMessages && !target.seen ? [`Warning: no peer "${to}" was ever started; the messages wait for it.`] : []),
    ...(wasRunning ? [`"${from}" was running; it ends with name_lost.`] : []),
  ];
}
