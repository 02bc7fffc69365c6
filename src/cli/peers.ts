/**
 * `hawser peers`: the names that peers have, and had.
 */
import { defineCommand } from "citty";
import { listPeers, withCommandDatabase } from "../store/index.js";
import { withExamples } from "./command-line.js";
import { databaseOption, databaseUrlOf } from "./options.js";
import { printRows } from "./output.js";

export const peers = withExamples(
  defineCommand({
    meta: {
      name: "peers",
      description:
        "List the peers: every name that was ever taken, or that messages wait for, and whether a process holds it now",
    },
    args: {
      ...databaseOption,
      json: { type: "boolean", description: "Print each peer as one line of JSON" },
    },
    run: async ({ args }) => {
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
          { head: "SENDS ON", cell: ({ sendsOn }) => sendsOn },
          { head: "LISTENS ON", cell: ({ listensOn }) => listensOn },
          { head: "TOPICS", cell: ({ topics }) => topics.join(", ") },
        ],
      });
    },
  }),
  [
    ["hawser peers", "Who runs, and for whom messages wait"],
    ["hawser peers --json | jq 'select(.waiting > 1000)'", "Peers that fall behind"],
  ],
);

function stateOf({ running, clean }: { readonly running: boolean; readonly clean: boolean | null }): string {
  if (running) return "running";
  if (clean === null) return "never ran";
  return clean ? "stopped" : "ended uncleanly";
}
