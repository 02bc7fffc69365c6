/** Hawser's tables with their schemas. */
import { tables as natsTables } from "../../generated/ts/rows/nats.js";
import { tables as outboxTables } from "../../generated/ts/rows/outbox.js";
import { tables as peerTables } from "../../generated/ts/rows/peer.js";
import { tables as queueTables } from "../../generated/ts/rows/queue.js";

/** Names of all tables with their schemas, without those of partitions. */
export const allTables: readonly string[] = [peerTables, outboxTables, queueTables, natsTables].flatMap((each) =>
  Object.values(each),
);

/** Name with its schema of a table or of a part of one, such as `hawser_data.outbox_0`. */
export function tableNamed(name: string): string {
  const table = allTables.find((each) => each.endsWith(`.${name.replace(/_\d+$/, "")}`));
  if (table === undefined) throw new Error(`Hawser has no table ${name}`);
  return `${table.split(".")[0]}.${name}`;
}
