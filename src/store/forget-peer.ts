/**
 * Forgets the name of a peer that does not come back, such as that of a pod: what the database has of it is deleted. Where
 * something would be lost with it, the name is refused.
 */
import { storeFunctions } from "../../generated/ts/rows/peer.js";
import { HawserError } from "../errors/index.js";
import type { Database } from "./database.js";
import { unlessRunning } from "./leases.js";

/** What was deleted of a name. */
export interface ForgottenPeer {
  readonly name: string;
  /** How many channels it was the sender or the listener of, and that are gone. */
  readonly channels: number;
  /** Senders that run, or did not stop cleanly, and know a channel to it: these channels stay. */
  readonly kept: readonly string[];
}

/**
 * Deletes the rows of a name: its epoch, its entries of the directory, the routes to it, and its channels.
 *
 * @throws HawserError, with nothing deleted: `name_in_use` if a process has the name, or if messages, dead letters or channels
 * of others depend on it; `invalid_argument` for a name that there is not; `store_failed`
 */
export async function forgetPeer(database: Database, name: string): Promise<ForgottenPeer> {
  const caller = database.caller(`forget the peer "${name}"`);
  const { refusal, names, count, channels, kept } = await unlessRunning(name, () =>
    storeFunctions(caller).forgetPeer({ name }),
  );
  if (refusal === null) return { name, channels, kept };
  if (refusal === "unknown") {
    const text = `there was never a peer "${name}", or it is forgotten; check the name against \`hawser peers\``;
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
        ? `${count} stored messages in its channels wait, of which some wait for it; hand them over with \`hawser peers reassign\``
        : `${count} of its stored messages wait for ${others}; let these take them`;
    case "dead_letters":
      return `${count} dead letters are of its channels; retry or discard them with \`hawser dead\``;
    case "handed_over":
      return `it has ${count} channels that it took over from ${others}; hand them over with \`hawser peers reassign\``;
    default:
      return "its epoch is ahead of the clock of Postgres; try again later";
  }
}
