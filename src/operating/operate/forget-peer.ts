/**
 * Deletes all rows of a peer name that will not be used again, such as that of a pod. A name is refused if messages
 * depend on it.
 */
import { storeFunctions } from "../../../generated/ts/rows/peer.js";
import { HawserError } from "../../foundation/errors/index.js";
import { type Database, unlessRunning } from "../../jobs-and-peers/store/index.js";

/** Result of {@link forgetPeer}. */
export interface ForgottenPeer {
  readonly name: string;
  /** Number of deleted channels in which the peer was the sender or the listener. */
  readonly channels: number;
  /** Senders that run, or did not stop cleanly, and have a channel to the peer. These channels were kept. */
  readonly kept: readonly string[];
}

/**
 * Deletes the rows of a name: its epoch, directory entries, routes to it, and channels.
 *
 * @throws HawserError, with nothing deleted: `name_in_use` if a process owns the name, or if messages or dead letters
 * depend on it; `invalid_argument` if the name is unknown; `store_failed`
 */
export async function forgetPeer(database: Database, name: string): Promise<ForgottenPeer> {
  const caller = database.caller(`forget the peer "${name}"`);
  const { refusal, names, count, channels, kept } = await unlessRunning(name, () =>
    storeFunctions(caller).forgetPeer({ name }),
  );
  if (refusal === null) return { name, channels, kept };
  if (refusal === "unknown") {
    const text = `there is no record of a peer "${name}"; check the name with \`hawser peers\``;
    throw new HawserError("invalid_argument", text);
  }
  throw new HawserError(
    "name_in_use",
    `"${name}" cannot be forgotten: ${reasonOf(refusal, name, Number(count), names)}`,
  );
}

function reasonOf(refusal: string, name: string, count: number, names: readonly string[]): string {
  const others = names.map((each) => `"${each}"`).join(", ");
  switch (refusal) {
    case "messages":
      return names.includes(name)
        ? `${count} stored messages wait in its channels, some of them for this peer; hand them over with \`hawser peers reassign\``
        : `${count} of its stored messages wait for ${others}; start these listeners until they have handled them`;
    case "dead_letters":
      return `${count} dead letters belong to its channels; retry or discard them with \`hawser dead\``;
    default:
      return "its epoch is ahead of the clock of Postgres; try again later";
  }
}
