/**
 * `hawser peers`: the names that peers have, and had; and forgetting one.
 */
import { defineCommand } from "citty";
import { HawserError } from "../errors/index.js";
import { forgetPeer, listPeers, withCommandDatabase } from "../store/index.js";
import { actionOf, withExamples } from "./command-line.js";
import { databaseOption, databaseUrlOf } from "./options.js";
import { plural, print, printable, printRows } from "./output.js";

export const peers = withExamples(
  defineCommand({
    meta: {
      name: "peers",
      description:
        "List the peers: every name that was ever taken, or that messages wait for, and whether a process holds it now. " +
        "`forget NAME` deletes what the database has of a peer that does not come back",
    },
    args: {
      action: { type: "positional", required: false, description: "forget, or nothing to list" },
      name: { type: "positional", required: false, valueHint: "NAME", description: "The peer to forget" },
      ...databaseOption,
      json: { type: "boolean", description: "Print each peer as one line of JSON" },
    },
    run: async ({ args }) => {
      if (args.action !== undefined) {
        actionOf("peers", args.action, ["forget"]);
        await forget(databaseUrlOf(args), args.name, args.json ?? false);
        return;
      }
      const rows = await withCommandDatabase(databaseUrlOf(args), listPeers);
      await printRows(rows, {
        json: args.json ?? false,
        none: "No peer was ever started with this database.",
        columns: [
          { head: "PEER", cell: ({ name }) => name },
          { head: "STATE", cell: stateOf },
          { head: "STARTED", cell: ({ startedAt }) => startedAt?.toISOString() ?? "never" },
          { head: "EPOCH", cell: ({ epoch }) => epoch ?? "" },
          { head: "WAITING", cell: ({ waiting }) => waiting },
          { head: "PARKED", cell: ({ parked }) => parked },
          { head: "SENDS ON", cell: ({ sendsOn }) => sendsOn },
          { head: "LISTENS ON", cell: ({ listensOn }) => listensOn },
          { head: "TOPICS", cell: ({ topics }) => topics.join(", ") },
        ],
      });
    },
  }),
  [
    ["hawser peers", "Who runs, and for whom messages wait"],
    ["hawser peers forget shop-7f9c", "A pod that does not come back"],
    ["hawser peers --json | jq 'select(.waiting > 1000)'", "Peers that fall behind"],
  ],
);

async function forget(url: string | undefined, name: string | undefined, json: boolean): Promise<void> {
  if (name === undefined) {
    throw new HawserError("invalid_argument", "name the peer: `hawser peers forget NAME`");
  }
  const forgotten = await withCommandDatabase(url, (database) => forgetPeer(database, name));
  if (json) {
    print(process.stdout, JSON.stringify(forgotten));
    return;
  }
  const { channels, kept } = forgotten;
  print(process.stdout, `Forgot "${printable(name)}", with ${plural(channels, "channel")}.`);
  if (kept.length === 0) return;
  const senders = kept.map((each) => `"${printable(each)}"`).join(", ");
  print(
    process.stderr,
    `Channels of senders that may be running stay: ${senders}. Forget the name once more when these have stopped.`,
  );
}

function stateOf({ running, clean }: { readonly running: boolean; readonly clean: boolean | null }): string {
  if (running) return "running";
  if (clean === null) return "never ran";
  return clean ? "stopped" : "ended uncleanly";
}
