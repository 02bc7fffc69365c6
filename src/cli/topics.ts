/** `hawser topics`: lists the directory of listeners, and pauses topics. */

import { topicsTable } from "../console/index.js";
import { listTopics, pauseTopic, resumeTopic, withCommandDatabase } from "../operate/index.js";
import { actionOf, defineCommand, flag, optional, refusal } from "./command-line.js";
import { databaseOption, databaseUrlOf } from "./options.js";
import { printable, printOutcomes, printRows } from "./output.js";
import { overviewRows } from "./overview-rows.js";

const actions = ["list", "pause", "resume"] as const;

export const command = defineCommand({
  details:
    "A listener that is not running is in the list because it is durable, because an operator added it, or " +
    "because it crashed. `pause TOPIC` lets no other message of a topic begin, in any process, until `resume TOPIC`",
  args: {
    action: optional("Default: list", { valueHint: actions.join("|") }),
    topic: optional("The topic to pause or resume", { valueHint: "TOPIC" }),
    ...databaseOption,
    json: flag("Print each line as JSON"),
  },
  run: async (args) => {
    const { topic, json = false } = args;
    const action = actionOf("topics", args.action ?? "list", actions);
    const url = databaseUrlOf(args);
    if (action !== "list" && topic === undefined) throw refusal("topics", action, "name the topic");
    if (action === "pause") await pause(url, topic!, json);
    else if (action === "resume") await resume(url, topic!, json);
    else if (topic === undefined) {
      const rows = await withCommandDatabase(url, (database) => listTopics(database), { anyLogin: true });
      await printRows(rows, overviewRows(topicsTable, json));
    } else throw refusal("topics", action, `it lists all topics, and takes none: "${topic}"`);
  },
  examples: [
    ["hawser topics", "Who listens, and where"],
    [`hawser topics --json | jq -r 'select(.running | not) | .name'`, "Names of listeners that are not running"],
    ["hawser topics pause mail", "Let messages of a topic wait, in all processes"],
    ["hawser topics resume mail", "Go on with them"],
  ],
});

async function pause(url: string | undefined, topic: string, json: boolean): Promise<void> {
  const { changed, ...pause } = await withCommandDatabase(url, (database) => pauseTopic(database, topic));
  const outcome = changed ? "paused" : "unchanged";
  await printOutcomes([{ topic, outcome, ...pause }], json, () =>
    changed
      ? `Paused the topic "${printable(topic)}": messages that are being handled end, and no other one begins.`
      : `The topic "${printable(topic)}" is paused since ${pause.pausedAt.toISOString()}, by ${printable(pause.pausedBy)}.`,
  );
}

async function resume(url: string | undefined, topic: string, json: boolean): Promise<void> {
  const resumed = await withCommandDatabase(url, (database) => resumeTopic(database, topic));
  await printOutcomes([{ topic, outcome: resumed ? "resumed" : "unchanged" }], json, () =>
    resumed ? `Resumed the topic "${printable(topic)}".` : `The topic "${printable(topic)}" is not paused.`,
  );
}
