import { onTestFinished } from "vitest";
import { testDatabase } from "../../support/database.js";
import { rowsOf } from "../../support/on-server.js";

/** The URL of a database that goes when the test has finished, after the processes that were started later. */
export async function ownDatabase(): Promise<string> {
  const database = await testDatabase();
  onTestFinished(() => database.drop());
  return database.url;
}

/** Number of stored messages. */
export async function storedMessages(databaseUrl: string): Promise<number> {
  const [row] = await rowsOf(
    databaseUrl,
    "SELECT coalesce(sum(messages), 0)::int AS count FROM hawser_peer_data.stored_messages",
  );
  return row?.["count"] as number;
}

/** The texts that a peer has received. */
export const textsOf = (peer: {
  readonly messages: { readonly all: readonly { readonly text: string }[] };
}): string[] => peer.messages.all.map(({ text }) => text);
