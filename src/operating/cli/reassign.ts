/** `hawser peers reassign`: hands the channels of a peer that does not come back to another one. */
import { HawserError, plural } from "../../foundation/errors/index.js";
import {
  reassign as channelsOf,
  type HandedOverChannel,
  type ListenerState,
  type OwnedChannel,
  withCommandDatabase,
} from "../operate/index.js";
import { print, printable, printRows } from "./output.js";

/** Requested hand-over. */
interface Reassignment {
  readonly from: string;
  readonly to: string;
  /** Hand over all channels of `from`, even when handing back. */
  readonly all: boolean;
  readonly force: boolean;
  readonly json: boolean;
}

/**
 * Hands the channels of a listener over to another one, and prints them.
 *
 * @throws HawserError `invalid_argument` for an unknown name, `unsubscribed` if the new owner does not serve a stored
 * topic
 */
export async function reassign(
  databaseUrl: string | undefined,
  { from, to, all, force, json }: Reassignment,
): Promise<void> {
  await withCommandDatabase(databaseUrl, async (database) => {
    const channels = channelsOf(database);
    const [owned, topics, state, target] = await Promise.all([
      channels.ownedChannels(from),
      channels.enqueuedTopics(from),
      channels.listenerState(from),
      channels.listenerState(to),
    ]);
    if (owned.length === 0 && topics.length === 0 && !state.seen && state.topics.length === 0) throw unknown(from);
    const back = owned.filter(({ madeFor }) => madeFor === to);
    const isBack = back.length > 0 && !all;
    const chosen = isBack ? back : owned;
    checkTopics(chosen, isBack ? [] : topics, to, target, force);
    const channelIds = isBack ? back.map(({ channelId }) => channelId) : undefined;
    const handed = await channels.reassign({ from, to, force, channelIds });
    const enqueued = isBack ? 0 : await channels.reassignEnqueued(from, to);
    await printRows(handed, {
      json,
      none: `"${printable(from)}" has no channels${enqueued > 0 ? "." : "; nothing was handed over."}`,
      columns: [
        { head: "KEY", cell: ({ channelId }) => channelId },
        { head: "CHANNEL", cell: ({ channelName }) => channelName },
        { head: "STORED", cell: ({ stored }) => stored },
      ],
    });
    if (!json && (handed.length > 0 || enqueued > 0)) {
      print(process.stdout, `\n${summaryOf(handed, enqueued, from, to)}`);
    }
    const left = owned.length - chosen.length;
    for (const note of notes({ from, to, handed, target, wasRunning: state.running, left }))
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

/**
 * Warns about, or refuses, messages for topics that the new owner does not serve: stored ones would be dead-lettered,
 * enqueued ones would wait.
 */
function checkTopics(
  channels: readonly OwnedChannel[],
  enqueued: readonly string[],
  to: string,
  target: ListenerState,
  force: boolean,
): void {
  const why = target.running ? "" : target.seen ? " (it is not running)" : " (no peer of this name was ever started)";
  for (const [topics, are, would, will] of [
    [channels.flatMap((channel) => channel.topics), "stored", "be dead-lettered", "are dead-lettered"],
    [enqueued, "enqueued", "wait", "wait"],
  ] as const) {
    const unserved = new Set(topics.filter((topic) => !target.topics.includes(topic)));
    if (unserved.size === 0) continue;
    const named = [...unserved].map((topic) => `"${topic}"`).join(", ");
    const what = `"${to}" does not serve ${named}${why}, and messages for that are ${are}`;
    if (!force) {
      const remedy = "start or subscribe it first, or continue with --force";
      throw new HawserError("unsubscribed", `${what}: they would ${would}; ${remedy}`);
    }
    print(process.stderr, `Warning: ${printable(what)}; unless it serves them by then, they ${will}.`);
  }
}

function summaryOf(handed: readonly HandedOverChannel[], enqueued: number, from: string, to: string): string {
  const stored = handed.reduce((sum, channel) => sum + channel.stored, 0);
  const parts = [
    ...(handed.length > 0 ? [`${plural(handed.length, "channel")} with ${plural(stored, "stored message")}`] : []),
    ...(enqueued > 0 ? [plural(enqueued, "enqueued message")] : []),
  ];
  return `Handed ${parts.join(", and ")} over from "${printable(from)}" to "${printable(to)}".`;
}

function notes(done: {
  readonly from: string;
  readonly to: string;
  readonly handed: readonly HandedOverChannel[];
  readonly target: ListenerState;
  readonly wasRunning: boolean;
  /** Number of channels that the old owner keeps, because only the channels of the new one were handed back. */
  readonly left: number;
}): string[] {
  const [from, to] = [printable(done.from), printable(done.to)];
  const { handed, target, wasRunning, left } = done;
  return [
    ...(handed.length > 0 && !target.seen
      ? [`Warning: no peer "${to}" was ever started; the channels wait for it.`]
      : []),
    ...(wasRunning ? [`"${from}" was running; it ends with name_lost.`] : []),
    ...(left > 0 ? [`"${from}" keeps ${plural(left, "channel")} of its own; --all hands over everything.`] : []),
  ];
}
