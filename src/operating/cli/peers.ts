/** `hawser peers`: lists the current and former names of peers, reassigns channels, and forgets peers. */

import { plural } from "../../foundation/errors/index.js";
import { peersTable } from "../console/index.js";
import { forgetPeer, listPeers, withCommandDatabase } from "../operate/index.js";
import {
  type Arguments,
  actionOf,
  defineCommand,
  flag,
  type Given,
  optional,
  refusal,
  refuseForeignFlags,
} from "./command-line.js";
import { databaseOption, databaseUrlOf } from "./options.js";
import { print, printable, printRows } from "./output.js";
import { overviewRows } from "./overview-rows.js";
import { reassign } from "./reassign.js";

const actions = ["list", "reassign", "forget"] as const;
type Action = (typeof actions)[number];

const reassignOptions = {
  force: flag(
    "With reassign: even if FROM is running, which then ends with name_lost, and if TO does not serve the topics of the messages",
  ),
} as const satisfies Arguments;

/** Names that an action takes, as the help shows them. */
const namesOf = { list: [], reassign: ["FROM", "TO"], forget: ["NAME"] } as const satisfies Record<
  Action,
  readonly string[]
>;

export const command = defineCommand({
  details:
    "`list` shows every name that was ever taken, or that messages wait for, and whether a process holds it now. " +
    "`reassign FROM TO` gives the messages that wait for a listener to another one, through the queue, and the old one leaves the " +
    "directory. `forget NAME` deletes the data of a peer that does not come back",
  args: {
    action: optional("Default: list", { valueHint: actions.join("|") }),
    names: optional("Names for reassign and forget", { multiple: true, valueHint: "NAME…" }),
    ...databaseOption,
    ...reassignOptions,
    json: flag("Print each peer, or each channel whose messages were handed over, as one line of JSON"),
  },
  run: async (args) => {
    const { names, force = false, json = false } = args;
    const action = actionOf("peers", args.action ?? "list", actions);
    checkNames(action, names, args);
    const url = databaseUrlOf(args);
    const [first, second] = names as readonly [string, string];
    if (action === "list") await list(url, json);
    else if (action === "reassign") await reassign(url, { from: first, to: second, force, json });
    else await forget(url, first, json);
  },
  examples: [
    ["hawser peers", "Running peers, and peers with waiting messages"],
    ["hawser peers reassign billing-1 billing-2", "billing-1 does not come back: billing-2 replaces it"],
    ["hawser peers forget shop-7f9c", "A pod that does not come back"],
    ["hawser peers --json | jq 'select(.waiting > 1000)'", "Peers that lag behind"],
  ],
});

function checkNames(action: Action, names: readonly string[], args: Given<typeof reassignOptions>): void {
  const wanted: readonly string[] = namesOf[action];
  const missing = wanted[names.length];
  if (missing !== undefined)
    throw refusal("peers", action, `it needs ${missing}: \`hawser peers ${action} ${wanted.join(" ")}\``);
  const surplus = names[wanted.length];
  if (surplus !== undefined)
    throw refusal("peers", action, `it takes ${wanted.join(" and ") || "no name"}, and "${surplus}" is one more`);
  refuseForeignFlags("peers", action, { reassign: Object.keys(reassignOptions) }, args);
}

async function list(url: string | undefined, json: boolean): Promise<void> {
  const rows = await withCommandDatabase(url, (database) => listPeers(database), { anyLogin: true });
  await printRows(rows, overviewRows(peersTable, json));
}

async function forget(url: string | undefined, name: string, json: boolean): Promise<void> {
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
    `Channels of senders that may be running stay: ${senders}. Forget the name again when these have stopped.`,
  );
}
