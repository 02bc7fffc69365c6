/**
 * The peer behind `hawser send`.
 *
 * Without `--name` it takes the first free name of `send-<host>-1`, `send-<host>-2`, …: what a sender leaves behind in
 * the database (its name, its channels with their cursors, the listeners that it has met) is found again by the next one
 * instead of growing with every call. So a second call stores for a listener that the first one met, and calls one after
 * another are in order. Nobody waits for replies to such a name: they are taken and dropped.
 */
import { HawserError } from "../errors/index.js";
import { Peer, type PeerOptions } from "../peer/index.js";
import { listPeers, withCommandDatabase } from "../store/index.js";
import { hostPart } from "./peer-options.js";

/** Several may begin at the same moment and look for a free name at the same moment. */
const maxTries = 50;

/** How long a given name is waited for, in milliseconds: a predecessor may be ending. */
const givenNameWaitMs = 2_000;

/** A running peer that sends. */
export interface SendingPeer {
  readonly peer: Peer;
  /** How many replies came and were dropped. */
  readonly droppedReplies: () => number;
}

/**
 * Starts it. It is not in the phone book: what others send to the topic `from` goes to those who serve it.
 *
 * @throws HawserError as {@link Peer.run}
 */
export async function startSendingPeer(
  options: Omit<PeerOptions, "name" | "topic"> & {
    readonly name: string | undefined;
    readonly from: string | undefined;
  },
  watch: (peer: Peer) => void,
): Promise<SendingPeer> {
  const { name: given, from, ...rest } = options;
  const begin = async (name: string, nameWaitMs: number, handler?: () => void): Promise<Peer> => {
    const peer = new Peer({ ...rest, name, topic: from ?? name, serveSourceTopic: false, nameWaitMs });
    watch(peer);
    await peer.run(handler);
    return peer;
  };
  if (given !== undefined) return { peer: await begin(given, givenNameWaitMs), droppedReplies: () => 0 };
  let dropped = 0;
  const drop = (): void => {
    dropped += 1;
  };
  let place = 1;
  for (let tries = 1; ; tries++) {
    try {
      return { peer: await begin(`${namePrefix()}${place}`, 0, drop), droppedReplies: () => dropped };
    } catch (error) {
      if (!HawserError.is(error) || error.code !== "name_in_use" || tries === maxTries) throw error;
      place = freePlace(await takenNames(options.databaseUrl), 2 ** Math.min(tries - 1, 10));
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

/** One of the first `choices` places that nobody has, at random, so that those who look together part. */
function freePlace(taken: ReadonlySet<string>, choices: number): number {
  let skip = Math.floor(Math.random() * choices);
  for (let place = 1; ; place++) {
    if (taken.has(`${namePrefix()}${place}`)) continue;
    if (skip === 0) return place;
    skip -= 1;
  }
}
